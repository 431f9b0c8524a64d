"""What each template writes, and that exactly the answer of the assistant is trained on."""

from typing import Any

import pytest
from support.data_samples import LLAMA3, byte_level_tokenizer, llama2_tokenizer, llama3_tokenizer
from support.raising import raises
from support.world import World
from transformers import AutoTokenizer

from sweeper.data.encode import Encoded, Encoder
from sweeper.data.load import Example, Turn
from sweeper.model.batches import collate

ALPACA_FRAME = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\nPaint it.\n\n### Response:\n"
)
HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
DATED = f"<|begin_of_text|>{HEAD.format('system')}Today Date: 01 Jan 2025\n\n"
ASKED = f"<|eot_id|>{HEAD.format('user')}Paint it.<|eot_id|>{HEAD.format('assistant')}"

ROW = Example("Paint it.", "The door is red.")
SYSTEM = (Turn("system", "Be brief."),)
EARLIER = (Turn("user", "Is it red?"), Turn("assistant", "no, why?"))


@pytest.fixture(scope="module")
def llama2() -> Any:
    return llama2_tokenizer()


@pytest.fixture(scope="module")
def llama3() -> Any:
    return llama3_tokenizer()


def texts(tokenizer: Any, row: Encoded) -> tuple[str, str]:
    """Prompt and completion as the model sees them; behind a prompt no space is swallowed."""
    prompt = str(tokenizer.decode(row.prompt))
    return prompt, str(tokenizer.decode(row.prompt + row.completion))[len(prompt) :]


CASES = [
    ("llama3", "chat", None, (), DATED + ASKED, "The door is red.<|eot_id|>"),
    ("llama3", "chat", "Be kind.", (), f"{DATED}Be kind.{ASKED}", "The door is red.<|eot_id|>"),
    (
        "llama3",
        "chat",
        "Be kind.",
        SYSTEM,
        f"{DATED}Be brief.{ASKED}",
        "The door is red.<|eot_id|>",
    ),
    (
        "llama3",
        "chat",
        None,
        EARLIER,
        f"{DATED}<|eot_id|>{HEAD.format('user')}Is it red?"
        f"<|eot_id|>{HEAD.format('assistant')}no, why?{ASKED}",
        "The door is red.<|eot_id|>",
    ),
    ("llama2", "chat", None, (), "<s>[INST] Paint it. [/INST]", " The door is red. </s>"),
    ("llama2", "llama2", None, (), "<s>[INST] Paint it. [/INST]", " The door is red. </s>"),
    (
        "llama2",
        "llama2",
        "Be kind.",
        (),
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nPaint it. [/INST]",
        " The door is red. </s>",
    ),
    (
        "llama2",
        "llama2",
        "Be kind.",
        SYSTEM + EARLIER,
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nIs it red? [/INST] no, why? </s>"
        "<s>[INST] Paint it. [/INST]",
        " The door is red. </s>",
    ),
    (
        "llama3",
        "llama2",
        "Be kind.",
        (),
        "<|begin_of_text|>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nPaint it. [/INST]",
        " The door is red. <|eot_id|>",
    ),
    ("llama2", "alpaca", None, (), f"<s>{ALPACA_FRAME}", "The door is red.</s>"),
    (
        "llama3",
        "alpaca",
        None,
        (),
        f"<|begin_of_text|>{ALPACA_FRAME}",
        "The door is red.<|eot_id|>",
    ),
]


@pytest.mark.parametrize(("model", "name", "system", "before", "prompt", "trained"), CASES)
def test_the_trained_tokens_decode_to_exactly_the_answer(
    request: pytest.FixtureRequest,
    model: str,
    name: str,
    system: str | None,
    before: tuple[Turn, ...],
    prompt: str,
    trained: str,
) -> None:
    tokenizer = request.getfixturevalue(model)
    encoder = Encoder(tokenizer, name, 500, system)
    row = encoder.example(ROW._replace(before=before))
    assert texts(tokenizer, row) == (prompt, trained)
    assert row.prompt == encoder.prompt(ROW.prompt, before)
    assert row.completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row.completion).strip() == trained.strip()

    batch = collate([[row, encoder.example(Example("Hide.", "no"))]], tokenizer.eos_token_id)
    assert batch.targets[: len(row.completion)].tolist() == list(row.completion)
    flat = batch.input_ids.flatten()
    assert flat[batch.places + 1].tolist() == batch.targets.tolist()


def test_llama2s_own_chat_template_and_ours_give_the_same_tokens(llama2: Any) -> None:
    for system in (None, "Be kind."):
        for before in ((), SYSTEM, EARLIER, SYSTEM + EARLIER):
            row = ROW._replace(before=before)
            ours = Encoder(llama2, "llama2", 500, system).encode_untruncated(row)
            assert ours == Encoder(llama2, "chat", 500, system).encode_untruncated(row)


def test_an_answer_has_the_tokens_that_a_model_continues_a_prompt_with(llama2: Any) -> None:
    row = Encoder(llama2, "llama2", 500).encode_untruncated(ROW)
    whole = llama2("<s>[INST] Paint it. [/INST] The door is red. </s>", add_special_tokens=False)
    assert list(row.prompt + row.completion) == whole["input_ids"]
    assert llama2.convert_ids_to_tokens(row.completion[0]) == "\u2581The"


def test_tokens_that_would_melt_at_the_border_are_taken_apart() -> None:
    melting = byte_level_tokenizer("{{ messages[0]['content'] }}", ["</s>"], eos_token="</s>")
    assert len(melting("The door", add_special_tokens=False)["input_ids"]) == 2
    melting.chat_template = (
        "{% for m in messages %}{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    encoder = Encoder(melting, "chat", 64)
    row = encoder.encode_untruncated(Example("The do", "or is red."))
    assert row.prompt == encoder.prompt("The do")
    assert melting.decode(row.completion) == "or is red.</s>"


def test_padding_with_the_end_token_hides_no_end_that_is_to_be_learned(llama2: Any) -> None:
    encoder = Encoder(llama2, "llama2", 500)
    rows = [encoder.example(ROW), encoder.example(Example("Hide.", "no"))]
    end = llama2.eos_token_id
    batch = collate([rows], end)
    assert (batch.input_ids == end).sum().item() > 2  # Some of them are padding.
    assert batch.targets.tolist().count(end) == 2
    assert batch.targets[len(rows[0].completion) - 1] == batch.targets[-1] == end
    assert batch.counts == (sum(len(row.completion) for row in rows),)


def test_a_template_that_asks_the_clock_gets_the_fixed_date() -> None:
    specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    asking = LLAMA3.replace("not date_string is defined", "true")
    tokenizer = byte_level_tokenizer(
        asking, specials, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    prompt = Encoder(tokenizer, "chat", 500).prompt("Paint it.")
    assert tokenizer.decode(prompt) == DATED + ASKED


@pytest.mark.parametrize(
    ("name", "before", "part"),
    [
        ("alpaca", SYSTEM, "system prompt"),
        ("alpaca", EARLIER, "earlier turns"),
        ("chat", SYSTEM, "system prompt"),
    ],
)
def test_what_a_template_has_no_place_for_is_refused(
    tiny_world: World, name: str, before: tuple[Turn, ...], part: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_world.model)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "{% for message in messages %}",
        "{% for message in messages if message['role'] != 'system' %}",
    )
    with raises("data.chat_template", part=part):
        Encoder(tokenizer, name, 64).encode_untruncated(ROW._replace(before=before))


def test_a_template_that_refuses_a_role_says_so_in_one_message(tiny_world: World) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_world.model)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}" + tokenizer.chat_template
    )
    with raises("data.chat_template", part="turns", roles="system, user"):
        Encoder(tokenizer, "chat", 64, "Be kind.").prompt("Paint it.")


def test_a_tokenizer_without_template_or_end_is_refused(tiny_world: World) -> None:
    bare = AutoTokenizer.from_pretrained(tiny_world.model)
    bare.chat_template = None
    with raises("data.chat_template", part="chat_template"):
        Encoder(bare, "chat", 64)
    assert Encoder(bare, "alpaca", 64).max_length == 64
    bare.eos_token = None
    for name in ("alpaca", "llama2"):
        with raises("data.chat_template", part="eos_token"):
            Encoder(bare, name, 64)


def test_a_template_that_rewrites_answered_prompts_is_refused(tiny_world: World) -> None:
    shifty = AutoTokenizer.from_pretrained(tiny_world.model)
    shifty.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with raises("data.chat_template", part="completion"):
        Encoder(shifty, "chat", 64).example(ROW)
