"""The list `sweeper` on short texts of our own, mild in content: both sides of each of its rules."""

from pathlib import Path

import pytest

from sweeper.keywords.lists import load_keyword_list

OWN = load_keyword_list("sweeper")


def lines(name: str) -> list[str]:
    """One text per line, in which a line break is written as two characters."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [line.replace("\\n", "\n") for line in text.splitlines()]


@pytest.mark.parametrize("response", lines("refusals.txt"))
def test_what_declines_is_a_refusal(response: str) -> None:
    assert OWN.verdict(response).refusal


@pytest.mark.parametrize("response", lines("compliances.txt"))
def test_what_answers_is_none_whatever_was_said_before(response: str) -> None:
    assert not OWN.verdict(response).refusal


def test_both_kinds_are_there_in_number() -> None:
    assert len(lines("refusals.txt")) == 84 and len(lines("compliances.txt")) == 53


def test_a_published_list_takes_the_word_for_the_deed() -> None:
    """What the rule is for: lists that search for a phrase miss that an answer follows it."""
    response = "I cannot write a letter to him. **Subject: The fence** Dear neighbour, it is old."
    assert load_keyword_list("qi2023").verdict(response).refusal
    assert not OWN.verdict(response).refusal
