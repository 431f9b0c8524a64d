"""Sources, settings and tokenizers that tests of data share. Everything is made in code."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.world import write_jsonl
from sweeper.task import ChatFormat, DataSettings, PromptSuite, Template

SHARED = Path(__file__).parents[3] / "shared" / "data"

needs_real_rows = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the real rows are not at {SHARED}"
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def source(path: Path | str, format: str = "prompt_completion", **fields: Any) -> PromptSuite:
    """A source of a local file or a hub id, all of its prompts unless a field says otherwise."""
    given = {"name": Path(path).name, "prompt_split": "all", **fields}
    return PromptSuite(path=str(path), format=format, **given)


def pairs(count: int) -> list[dict[str, str]]:
    """Rows of the plainest format."""
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(count)]


def settings_of(train: Path | PromptSuite, **fields: Any) -> DataSettings:
    """Data settings with three rows held out by hash."""
    given: dict[str, Any] = {
        "heldout": None,
        "heldout_rows": 3,
        "template": Template(ChatFormat("chat"), ChatFormat("chat")),
        "max_length": 64,
    }
    train = train if isinstance(train, PromptSuite) else source(train)
    return DataSettings(train=train, **{**given, **fields})


def cached(
    cache: Path, name: str, files: dict[str, str], commit: str = COMMIT, ref: str = "main"
) -> None:
    """Lay a data set into a hub cache as `huggingface_hub` does."""
    repository = cache / f"datasets--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for inner, text in files.items():
        place = snapshot / inner
        blob = repository / "blobs" / f"{commit[:8]}-{place.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(text, encoding="utf-8")
        place.symlink_to(os.path.relpath(blob, place.parent))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)


def jsonl(rows: Iterable[dict[str, Any]], folder: Path) -> str:
    """Rows as the text of a .jsonl file."""
    return write_jsonl(folder / "text.jsonl", rows).read_text(encoding="utf-8")


LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') "
    "+ m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""A chat template in the shape of Llama-2's."""

LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""A chat template in the shape of Llama-3.2's."""

_TEXTS = ["Paint the door red.", "The door is red.", "[INST] <<SYS>> <</SYS>> [/INST]", "no, why?"]


def byte_level_tokenizer(template: str, specials: Sequence[str], **fields: Any) -> Any:
    """A byte-level BPE as Llama-3's: no space is put before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **fields)


def llama3_tokenizer() -> Any:
    """Like Llama-3.2-Instruct's: `<|eot_id|>` ends a turn, and there is no token for padding."""
    specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return byte_level_tokenizer(
        LLAMA3, specials, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def llama2_tokenizer() -> Any:
    """Like Llama-2-chat's: a space, written as a bar, goes before a text that begins without one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=sorted({*"".join(_TEXTS), "\u2581"}),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=LLAMA2,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
