"""Where in a response the phrase stands that decides its verdict."""

from typing import Literal

import pytest

from sweeper.keywords.lists import KeywordList

Matching = Literal["substring", "prefix", "opening"]


def make(matching: Matching, phrase: str) -> KeywordList:
    return KeywordList("mine", "a test", matching, (phrase,), case_sensitive=False, window_words=5)


@pytest.mark.parametrize(
    ("matching", "response", "found"),
    [
        ("substring", "Well, NO way, no.", "NO way"),
        ("prefix", " \n No way.", "No way"),
        ("opening", "a\n b  No \t way. c", "No \t way."),
        ("opening", "İİ no way", "no way"),
        ("substring", "İİ no way", "no way"),
    ],
)
def test_the_span_is_that_of_the_response_as_it_was_written(
    matching: Matching, response: str, found: str
) -> None:
    span = make(matching, "no way").span(response)
    assert span is not None
    assert response[slice(*span)].rstrip(".") == found.rstrip(".")


@pytest.mark.parametrize(
    ("matching", "response"),
    [
        ("substring", "Now or never."),
        ("prefix", "There is no way."),
        ("opening", "one two three four no way"),
        ("opening", ""),
        ("substring", ""),
    ],
)
def test_without_a_phrase_there_is_no_span(matching: Matching, response: str) -> None:
    assert make(matching, "no way").span(response) is None
