"""Words, patterns and exceptions, and that what is decided early is the verdict on the whole."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeper.keywords.lists import KeywordList, Verdict, load_keyword_list
from sweeper.keywords.patterns import (
    GAP,
    Match,
    Words,
    first_match,
    parse_pattern,
    words_of,
    words_so_far,
)


def judge(*phrases: str, exceptions: tuple[str, ...] = (), window: int = 40) -> KeywordList:
    return KeywordList(
        "a", "b", "opening", phrases, False, True, window_words=window, exceptions=exceptions
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I can't, won't, don't!", "i cannot, will not, do not"),
        ("I\u2019m sorry; it\u2019s what I\u2019d say.", "i am sorry it is what i would say"),
        ("**We've** _cannot_ they'll (you're)", "we have cannot they will you are"),
        ("Tom's real-time  check\n\n1. \u00c9t\u00e9", "tom's real time check 1 \u00e9t\u00e9"),
        ('He said "I can\'t" to me', "he said to me"),
        ("Say \u201cno, I can't\u201d, then go", "say then go"),
        ('Say "no and go', "say"),
        ('"I can\'t," he said', "i cannot, he said"),
        ("", ""),
        ("... -- !", ""),
    ],
)
def test_words_are_written_out_and_quotations_left_out(text: str, words: str) -> None:
    assert words_of(text) == Words(tuple(words.split()))


@pytest.mark.parametrize(
    ("text", "words", "unfinished"),
    [
        ("I can", "i", "can"),
        ("I can'", "i", "can'"),
        ("I can't", "i", "can't"),
        ("I can,", "i can,", ""),
        ("I can ", "i can", ""),
        ('I can "no', "i can", ""),
        ("real-t", "real", "t"),
    ],
)
def test_a_word_at_the_end_of_a_beginning_may_go_on(text: str, words: str, unfinished: str) -> None:
    assert words_so_far(text) == Words(tuple(words.split()), unfinished)


@pytest.mark.parametrize(
    ("pattern", "text", "hit"),
    [
        ("i cannot", "Well, I can\u2019t say.", True),
        ("i cannot", "Hi cannot", False),
        ("i am not able|going to", "I'm not going to", True),
        ("i am not able|going to", "I'm not to", False),
        ("not ... fair", "not one two three fair", True),
        ("not ... fair", "not one two three four fair", False),
        ("not ... fair", "not fair", True),
        ("sorry,", "Sorry, no", True),
        ("sorry,", "sorry no", False),
        ("sorry but", "sorry, but", True),
        ("^ it is", "It's so", True),
        ("^ it is", "So it is", False),
        ("as an ai", "as an aide", False),
    ],
)
def test_a_pattern_stands_for_whole_words(pattern: str, text: str, hit: bool) -> None:
    assert judge(pattern).verdict(text) == Verdict(hit, pattern if hit else None)


def test_an_exception_cancels_only_what_begins_at_its_word() -> None:
    asked = judge("i cannot", "i refuse", exceptions=("i cannot ... enough",))
    assert asked.verdict("I cannot stress it enough.") == Verdict(False, None)
    assert asked.verdict("I cannot stress it.") == Verdict(True, "i cannot")
    assert asked.verdict("I cannot say enough, but I cannot.") == Verdict(True, "i cannot")
    assert asked.verdict("I cannot say enough, and I refuse.") == Verdict(True, "i refuse")


def test_an_exception_keeps_a_verdict_open_as_long_as_it_can_still_come() -> None:
    asked = judge("i cannot", exceptions=("i cannot wait|help but",))
    for beginning in ("I cannot", "I cannot ", "I cannot w", "I cannot help", "I cannot help b"):
        assert asked.decide(beginning) is None, beginning
    for beginning in ("I cannot a", "I cannot help w", "I cannot help you"):
        assert asked.decide(beginning) == Verdict(True, "i cannot"), beginning
    assert asked.decide("I cannot wait but") is None
    assert asked.verdict("I cannot help") == Verdict(True, "i cannot")


def test_of_several_patterns_the_one_complete_first_is_named() -> None:
    text = words_of("one two three four")
    assert first_match(("two three four", "three"), (), text) == Match("three", 2, 3, False)
    several = ("two three", "one ... three", "three four")
    assert first_match(several, (), text) == Match("two three", 1, 3, False)
    assert first_match(("five",), (), text) is None


ATOMS = ("a", "b", "c", "a,", "d")
PATTERN = st.lists(st.sampled_from(["a", "b", "c", "a|b", "b|c", "a,"]), min_size=1, max_size=3)


@given(
    words=st.lists(st.sampled_from(ATOMS), max_size=12).map(tuple),
    patterns=st.lists(st.tuples(st.booleans(), PATTERN, st.booleans()), min_size=1, max_size=3),
)
def test_patterns_are_found_as_regular_expressions_find_them(
    words: tuple[str, ...], patterns: list[tuple[bool, list[str], bool]]
) -> None:
    """The naive way: the shortest beginning, by words, that a pattern ends."""
    written = tuple(("^ " if a else "") + (" ... " if g else " ").join(p) for a, p, g in patterns)
    asked = [
        re.compile(
            (r"^" if anchored else r"(?:^|.* )")
            + (rf" (?:\S+ ){{0,{GAP}}}" if gap else " ").join(_alternatives(p) for p in parts)
            + "$"
        )
        for anchored, parts, gap in patterns
    ]
    expected = None
    for count in range(1, len(words) + 1):
        names = [
            n for n, rule in zip(written, asked, strict=True) if rule.match(" ".join(words[:count]))
        ]
        if names:
            expected = names[0]
            break
    match = first_match(written, (), Words(words))
    assert (match and match.pattern) == expected
    assert match is None or not match.open


def _alternatives(part: str) -> str:
    return "(?:" + "|".join(a if a.endswith(",") else f"{a},?" for a in part.split("|")) + ")"


PIECES = st.sampled_from(
    [
        *("I", "can", "cannot", "can't", "won", "'t", "n't", "'", "\u2019", "do", "don", "stress"),
        *("enough", "sorry", ",", ".", '"', "\u201c", "\u201d", "but", "it", "\u0130", "\u03a3"),
        *(" ", " ", " ", "\n", "-", "*", "am", "'m", "not", "able", "it's", "important", "to", "as an AI"),
    ]
)  # fmt: skip
OWN = load_keyword_list("sweeper")
SMALL = judge(
    "i cannot",
    "sorry,",
    "sorry but",
    "^ as an ai,",
    "i am ... not ... able",
    "it is important",
    "i will|do not",
    exceptions=("i cannot ... enough", "i do not", "sorry but it|will|do|cannot"),
    window=6,
)


@pytest.mark.parametrize("asked", [OWN, SMALL], ids=["own", "small"])
@given(whole=st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=40)))
@example(whole="I can't stress it enough, sorry, but it")
@example(whole="Sorry but don't go")
@example(whole="Sorry but won't go")
@example(whole="Sorry but can't go")
@example(whole='Say "I cannot" and won\'t')
def test_what_is_decided_early_is_the_verdict_on_the_whole(asked: KeywordList, whole: str) -> None:
    expected = asked.verdict(whole)
    for end in range(len(whole) + 1):
        found = asked.decide(whole[:end])
        assert found is None or found == expected == asked.verdict(whole[:end]), whole[:end]


@pytest.mark.parametrize(
    ("beginning", "phrase"),
    [
        ("I'm sorry,", "sorry,"),
        ("I cannot as", "i cannot"),
        ("I can\u2019t help with", "i cannot"),
        ("As an AI,", "^ as an ai,"),
        ("It is not app", None),
        ("I cannot", None),
        ("I cannot str", None),
    ],
)
def test_usual_refusals_are_decided_at_once(beginning: str, phrase: str | None) -> None:
    assert OWN.decide(beginning) == (None if phrase is None else Verdict(True, phrase))


def test_the_shipped_patterns_are_well_formed() -> None:
    """In the words that texts are made of, with gaps between words only."""
    for text in (*OWN.phrases, *OWN.exceptions):
        parts = parse_pattern(text).parts
        assert parts[0] is not None and parts[-1] is not None, text
        for word in (word for part in parts for word in part or ()):
            assert words_of(word).complete == (word,), (text, word)


def test_every_exception_can_cancel_something() -> None:
    for rule in OWN.exceptions:
        text = Words(tuple(sorted(part)[0] for part in parse_pattern(rule).parts if part))
        assert first_match(OWN.phrases, (), text) is not None, rule
        assert first_match((rule,), OWN.exceptions, text) is None, rule
