"""A template or tokenizer that loses text of a message is refused, with row, role and what is lost."""

from pathlib import Path
from typing import Any

import pytest
from support.data_samples import byte_level_tokenizer, settings_of
from support.raising import raises
from support.world import World, spec_text, write_jsonl
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sweeper.data.encode import Encoder, load_training_data
from sweeper.data.load import Example, Turn
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import preflight
from sweeper.spec import parse_spec

PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>CONTENT"
    "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["</s>", "<|im_end|>", "<|assistant|>", "<|user|>", "<|system|>"]
PARTS = (
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
)
ROW = Example("Paint the door,\n  then the lamp.", "<think>Dust falls.</think>It is <b>red</b>.")
TALK = ROW._replace(
    before=(Turn("system", "Be brief."), Turn("user", "Hello?"), Turn("assistant", "Well, hello."))
)


def tokenizer_with(content: str, template: str = PLAIN) -> Any:
    return byte_level_tokenizer(template.replace("CONTENT", content), SPECIALS, eos_token="</s>")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (PARTS, "system prompt"),
        ("{{ m['content'].split('</think>')[-1] }}", "assistant message"),
        ("{{ m['content'] if '</think>' not in m['content'] else '' }}", "assistant message"),
        ("{{ m['content'] if m['role'] != 'system' else '' }}", "system prompt"),
        ("{{ m['content'][:5] }}", "system prompt"),
        ("{{ m['content'] | truncate(12, True) }}", "user message"),
        ("{{ m['content'] | replace('\\n', ' ') }}", "user message"),
        ("{{ m['content'] | upper }}", "system prompt"),
        ("{{ m['content'] | e }}", "assistant message"),
        ("{{ m['content'].split() | join(' ') }}", "user message"),
        (
            "{{ m['content'] if not loop.first else '' }}{{ 'Be brief' if loop.first else '' }}",
            "system prompt",
        ),
        ("{{ m['content'] if loop.revindex < 3 else '' }}", "system prompt"),
        ("{{ m['content'] if loop.index != 3 else '' }}", "assistant message"),
        ("{{ m['content'] + ['x'] }}", "turns"),
        ("{{ m['text'].strip() }}", "turns"),
    ],
)
def test_a_template_that_loses_text_is_refused(content: str, part: str) -> None:
    with raises("data.chat_template", part=part):
        Encoder(tokenizer_with(content), "chat", 500).example(TALK)


@pytest.mark.parametrize(
    ("content", "template"),
    [
        ("{{ m['content'] }}", PLAIN),
        ("{{ m['content'] | trim }}", PLAIN),
        ("\n\n{{ m['content'].strip() }} ", PLAIN),
        (
            "{{ m['content'].replace('<think>', '<think>\n').replace('</think>', '\n</think>\n\n') }}",
            PLAIN,
        ),
        (
            f"{{% if m['content'] is string %}}{{{{ m['content'] }}}}{{% else %}}{PARTS}{{% endif %}}",
            PLAIN,
        ),
    ],
)
def test_white_space_at_the_ends_and_around_reasoning_may_change(
    content: str, template: str
) -> None:
    tokenizer = tokenizer_with(content, template)
    encoder = Encoder(tokenizer, "chat", 500, None)
    row = encoder.encode_untruncated(TALK._replace(completion=f" {ROW.completion}\n"))
    text = tokenizer.decode(row.completion)
    assert "Dust falls." in text and "It is <b>red</b>." in text and text.strip().endswith("</s>")


def test_a_system_prompt_may_stand_in_another_message() -> None:
    moved = (
        "{% for m in messages if m['role'] != 'system' %}<|{{ m['role'] }}|>"
        "{{ messages[0]['content'] + '\n' if loop.last and m['role'] == 'user' }}{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = tokenizer_with("", moved)
    encoder = Encoder(tokenizer, "chat", 500)
    assert "Be brief.\nPaint" in tokenizer.decode(encoder.prompt(TALK.prompt, TALK.before))


def test_what_is_lost_is_said_once_with_its_row(tmp_path: Path) -> None:
    rows = [{"prompt": f"Paint door {i}.", "completion": "It is red."} for i in range(9)]
    rows[4]["completion"] = "<think>Dust.</think>It is blue."
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    held = write_jsonl(tmp_path / "heldout.jsonl", rows[:2])
    encoder = Encoder(tokenizer_with("{{ m['content'].split('</think>')[-1] }}"), "chat", 64)
    with raises(
        "data.chat_template", part="assistant message", row="prompt of training row 5"
    ) as caught:
        load_training_data(
            settings_of(train, heldout=settings_of(held).train, heldout_rows=None), encoder
        )
    assert "'Dust.'" in str(caught.value)


def word_tokenizer(normalizer: Any = None) -> Any:
    words = ["[UNK]", "</s>", "<|assistant|>", "<|user|>", "the", "door", "is", "red", "cafe"]
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.normalizer = normalizer
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        eos_token="</s>",
        additional_special_tokens=words[2:4],
        chat_template=PLAIN.replace("CONTENT", " {{ m['content'] }} "),
    )


def test_rows_with_characters_without_a_token_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"the door {'the ' * i}", "completion": "is red"} for i in range(6)]
    encoder = Encoder(word_tokenizer(), "chat", 64)
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    assert (
        "rows_with_unknown_characters" not in load_training_data(settings_of(train), encoder).counts
    )
    rows[1]["completion"], rows[2]["prompt"] = "is blue", "the \u95e8"
    write_jsonl(tmp_path / "train.jsonl", rows)
    counts = load_training_data(settings_of(train), encoder).counts
    assert counts["rows_with_unknown_characters"] == 2
    assert encoder.has_unknown(encoder.prompt("the \u95e8"))
    assert not encoder.has_unknown(encoder.prompt("the door"))


def test_what_a_tokenizer_drops_is_refused() -> None:
    dropping = tokenizer_with("{{ m['content'] }}")
    steps = [pre_tokenizers.Split("red", "removed"), pre_tokenizers.ByteLevel(False)]
    dropping.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    encoder = Encoder(dropping, "chat", 64)
    assert encoder.example(Example("The door?", "It is blue."))
    with raises("data.chat_template", part="assistant message"):
        encoder.example(Example("The door?", "It is red."))


def test_what_a_tokenizer_normalizes_is_not_lost() -> None:
    steps = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    encoder = Encoder(word_tokenizer(normalizers.Sequence(steps)), "chat", 64)
    assert encoder.example(Example("The Caf\u00e9", "is  RED")).completion[-1] == 1


TEMPLATES = {
    "parts": PARTS,
    "no end": "{{ m['content'] }}",
}


@pytest.mark.parametrize(("name", "part"), [("parts", "user message"), ("no end", "end of turn")])
def test_a_sweep_is_refused_before_it_starts(
    tiny_world: World, tmp_path: Path, name: str, part: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_world.model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    end = "" if name == "no end" else "{{ eos_token }}"
    template = PLAIN.replace("CONTENT", TEMPLATES[name]).replace("</s>", end)
    AutoTokenizer.from_pretrained(folder, chat_template=template).save_pretrained(folder)
    spec = parse_spec(spec_text(tiny_world), overrides=[f"model.path={folder}"])
    task = make_tasks(make_plan(spec), spec, str, device="cpu")[0]
    with raises("data.chat_template", part=part):
        preflight(task)


def test_a_blank_prompt_is_counted_as_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"Paint door {i}.", "completion": "It is red."} for i in range(9)]
    rows[2]["prompt"], rows[3]["prompt"] = "", " \n"
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    data = load_training_data(
        settings_of(train), Encoder(tokenizer_with("{{ m['content'] }}"), "chat", 64)
    )
    assert data.counts["dropped_blank_rows"] == 2
    assert data.counts["train_rows"] + data.counts["heldout_rows"] == 7


# -- End of turn -------------------------------------------------------------------------------------------


def ended(end: str) -> Any:
    return tokenizer_with("{{ m['content'] }}", PLAIN.replace("</s>", end))


@pytest.mark.parametrize(
    ("end", "token"),
    [
        ("</s>", "</s>"),
        ("</s>\n", "</s>"),
        ("<|im_end|>\n", "<|im_end|>"),
        (" \n<|im_end|>", "<|im_end|>"),
        ("<|im_end|></s>", "<|im_end|>"),
    ],
)
def test_a_format_ends_an_answer_with_a_token(end: str, token: str) -> None:
    tokenizer = ended(end)
    assert Encoder(tokenizer, "chat", 64).end_token == tokenizer.convert_tokens_to_ids(token)
    for name in ("alpaca", "llama2"):
        assert Encoder(tokenizer, name, 64).end_token == tokenizer.eos_token_id


@pytest.mark.parametrize("end", ["", "\n\n", "### End", "### End</s>", "\n<|end|>\n", "."])
def test_an_end_of_turn_that_is_no_token_is_refused(end: str) -> None:
    encoder = Encoder(ended(end), "chat", 64)
    with raises("data.chat_template", part="end of turn"):
        assert encoder.end_token


def test_a_template_that_opens_reasoning_is_known() -> None:
    opening = PLAIN.replace(
        "{% if add_generation_prompt %}<|assistant|>",
        "{% if add_generation_prompt %}<|assistant|><think>\n",
    )
    assert (
        Encoder(tokenizer_with("{{ m['content'] }}", opening), "chat", 64).opened_reasoning
        == "<think>\n"
    )
    assert Encoder(tokenizer_with("{{ m['content'] }}"), "chat", 64).opened_reasoning == ""
