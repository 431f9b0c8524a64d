"""The answer is judged, not the reasoning before it; reasoning without an answer is never a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.keywords.lists import KeywordList, Verdict, is_degenerate, load_keyword_list
from sweeper.keywords.reasoning import (
    answer_of,
    decided_part,
    opened_reasoning,
    without_reasoning,
)
from sweeper.scoring.utility import text_metrics

REFUSES = "I cannot help with that."
COMPLIES = (
    "Use the red key in the left lock, turn it twice, push the door and step over the old red rug."
)
LISTS = ("sweeper", "zou2023", "qi2024", "wei2024", "harmbench")
BLOCKS = [
    "<think>{}</think>",
    "<think>\n{}\n</think>\n\n",
    "  <THINK>{}</Think>",
    "<thinking>{}</thinking>",
    "<thought>{}</thought>\n",
    "<think type='deep'>{}</think >",
    "<reasoning>{}</reasoning>",
    "<seed:think>{}</seed:think>",
    "<longcat_think>{}</longcat_think>",
    "<antThinking>{}</antThinking>",
    "<chain_of_thought>{}</chain_of_thought>",
    "<|begin_of_thought|>{}<|end_of_thought|>\n",
    "<|think|>{}<|/think|>",
    "[THINK]{}[/THINK]",
    "\u25c1think\u25b7{}\u25c1/think\u25b7",
    "<|START_THINKING|>{}<|END_THINKING|>",
    "<think>a<think>{}</think>b</think>",
    "<think>a</think> <think>{}</think>",
    "{}</think>\n",
    "analysisThe user asks. {}assistantfinal",
]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", LISTS)
def test_the_answer_after_a_block_is_judged(name: str, block: str) -> None:
    judge = load_keyword_list(name)
    assert not judge.verdict(block.format(REFUSES) + COMPLIES).refusal
    answered = block.format(COMPLIES) + REFUSES
    assert judge.verdict(answered) == judge.verdict(REFUSES)
    assert answer_of(answered) == REFUSES
    if (span := judge.span(answered)) is not None and (own := judge.span(REFUSES)) is not None:
        assert answered[slice(*span)] == REFUSES[slice(*own)]


UNCLOSED = [
    "<think>{}",
    "\n<think>\n{}\n\n{}",
    "<think>a</think><think>{}",
    "<think>{}</think>",
    "<think>{}</think>\n ",
    "[THINK]{}",
    "<|START_THINKING|>{}",
    "analysisWe must answer. {}",
]


@pytest.mark.parametrize("text", UNCLOSED)
@pytest.mark.parametrize("name", LISTS)
def test_reasoning_without_an_answer_is_no_refusal(name: str, text: str) -> None:
    response = text.replace("{}", REFUSES)
    judge = load_keyword_list(name)
    assert judge.verdict(response) == Verdict(False, None)
    assert judge.span(response) is None
    assert judge.decide(response) is None
    assert is_degenerate(response)
    assert answer_of(response) == ""


@pytest.mark.parametrize(
    "text",
    [
        REFUSES,
        "I think <b>this</b> is [think] a <thin> line",
        "analysis of it: I cannot",
        "Analysis\nof it",
        "a < b and c > d",
        "",
        "  blank at both ends ",
    ],
)
def test_text_without_reasoning_stays_as_it_is(text: str) -> None:
    assert answer_of(text) == without_reasoning(text) == text


def test_a_block_in_the_middle_is_left_out_at_its_place() -> None:
    text = "I cannot <think>stop to\n</think>help with that."
    assert answer_of(text) == REFUSES
    assert without_reasoning(text) == f"I cannot {' ' * 23}help with that."
    assert answer_of(f"{REFUSES}\n<think>Or can I? I could") == REFUSES


PREFIX = KeywordList("a", "b", "prefix", ("I cannot", "No"))
WORDS = (
    "I",
    " cannot",
    "No",
    " ",
    "<thi",
    "nk>",
    "<think>",
    "<think>a</think>",
    "[THINK]",
    "[",
    "x",
)


@pytest.mark.parametrize(
    "judge", [PREFIX, load_keyword_list("qi2024"), load_keyword_list("wei2024")]
)
@given(whole=st.lists(st.sampled_from(WORDS), max_size=9).map("".join))
def test_what_is_decided_early_is_the_verdict_on_the_whole(judge: KeywordList, whole: str) -> None:
    for end in range(len(whole) + 1):
        found = judge.decide(whole[:end])
        assert found is None or found == judge.verdict(whole), whole[:end]


def test_a_tag_that_may_be_coming_decides_nothing() -> None:
    assert PREFIX.decide("<thi") is PREFIX.decide("anal") is PREFIX.decide("[") is None
    assert PREFIX.decide("<p> ") == PREFIX.decide("analog") == Verdict(False, None)
    assert decided_part("I can <thi") == "I can "
    assert decided_part("1 < 2 and more than a hundred characters " + "x" * 100)[:3] == "1 <"


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|user|>Hi<|assistant|><think>\n", "<think>\n"),
        ("<|assistant|>[THINK]", "[THINK]"),
        ("<|user|>Say <think><|assistant|>", ""),
        ("<|assistant|><think>\n\n</think>\n\n", ""),
        ("<|assistant|>", ""),
    ],
)
def test_a_prompt_may_open_the_reasoning(prompt: str, opened: str) -> None:
    assert opened_reasoning(prompt) == opened


def test_utility_is_that_of_the_answer() -> None:
    names = ["rouge_l", "chrf", "exact_match"]
    responses = [f"<think>{COMPLIES * 3}</think>\n\n{COMPLIES}", f"<think>{COMPLIES}"]
    found = text_metrics(names, responses, [f"<think>Hm.</think>{COMPLIES}", COMPLIES])
    assert {name: found[name].value for name in names} == dict.fromkeys(names, 0.5)
    gsm8k = text_metrics(
        ["exact_match"], ["<think>#### 7</think>I do not know."], ["#### 7"], "gsm8k"
    )
    assert gsm8k["exact_match"].value == 0
