"""Words, patterns and exceptions, and that what is decided early is the verdict on the whole."""

import re
from dataclasses import replace

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
        ("I can't, won't, don't!", "i cannot, will not, do not."),
        ("I\u2019m sorry; it\u2019s what I\u2019d say.", "i am sorry. it is what i would say."),
        ("**We've** _cannot_ they'll (you're)", "we have cannot they will you are"),
        ("Tom's real-time  check\n\n1. \u00c9t\u00e9", "tom's real time check. 1. \u00e9t\u00e9"),
        ('He said "I can\'t" to me', "he said to me"),
        ("Say \u201cno, I can't\u201d, then go", "say then go"),
        ('Say "no and go', "say no and go"),
        ('A 6" "or so" and \u201cno, I', "a 6 and no, i"),
        ("\u00ab Non, dit-il. \n\u00bbIl", "non, dit il. il"),
        ('"I can\'t," he said', "i cannot, he said"),
        ("", ""),
        ("... -- !", ""),
        ("cant wont dont im", "cannot will not do not i am"),
        (
            "I can\u00b4t, can`t, can\u2032t, can\u201bt, can\uff07t",
            "i" + " cannot," * 4 + " cannot",
        ),
        ("**Subject:** now", "subject: now"),
        ("It is 1.5, or 1. No", "it is 1.5, or 1. no"),
        ("then\n```python\nx", "then. ``` python. x"),
        ("\u6211\u65e0\u6cd5\uff0c\u4f46", "\u6211 \u65e0 \u6cd5, \u4f46"),
        ('a 6" knife is "not" mine', "a 6 knife is mine"),
        ('an open "quotation ends\nhere', "an open quotation ends. here"),
        ("\u00ab je ne peux pas \u00bb dit-il", "je ne peux pas dit il"),
        ("il dit \u00ab non \u00bb et part", "il dit et part"),
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
        ("now **", "now", ""),
        ("Subject**", "", "subject"),
        ("in 1.", "in", "1"),
        ("in 1. ", "in 1.", ""),
        ("\u6211\u65e0", "\u6211", "\u65e0"),
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
        ("subject:|title:", "Subject: no", True),
        ("subject:|title:", "The subject: no", True),
        ("subject:|title:", "The subject is", False),
        ("so no.", "So no!", True),
        ("so no.", "So no one", False),
        ("i don't", "I do not", True),
        ("\u65e0\u6cd5\u63d0\u4f9b", "\u6211\u65e0\u6cd5\u63d0\u4f9b", True),
        ("\u65e0\u6cd5\u63d0\u4f9b", "\u6211\u65e0\u6cd5\u7b54", False),
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


def test_an_exception_cancels_what_begins_within_it() -> None:
    asked = judge("cannot", exceptions=("i cannot wait",))
    assert asked.verdict("I cannot wait.") == Verdict(False, None)
    assert asked.verdict("We cannot wait.") == Verdict(True, "cannot")
    assert asked.verdict("I cannot wait, we cannot.") == Verdict(True, "cannot")
    assert asked.decide("I cannot ") is None


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


READER = KeywordList(
    "a",
    "b",
    "opening",
    ("i cannot",),
    window_words=6,
    reading_words=10,
    answers=("step one", "here is"),
    redirections=("instead", "here is help"),
    exceptions=("here is why",),
)


@pytest.mark.parametrize(
    ("response", "refusal"),
    [
        ("I cannot.", True),
        ("I cannot. Step one", False),
        ("Step one: say I cannot", False),
        ("I cannot a a a a a a step one", False),
        ("I cannot a a a a a a a step one", True),
        ("a a a a I cannot", True),
        ("a a a a a I cannot", False),
        ("I cannot. Instead, step one", True),
        ("Instead I cannot. Step one", True),
        ("I cannot. Step one instead", False),
        ("I cannot, here is why", True),
        ("I cannot, here is help: step one", True),
        ("I cannot, here is a help", False),
        ("No. Step one", False),
    ],
)
def test_a_refusal_that_goes_on_to_answer_is_none(response: str, refusal: bool) -> None:
    assert READER.verdict(response) == Verdict(refusal, "i cannot" if refusal else None)


@pytest.mark.parametrize(
    ("beginning", "refusal"),
    [
        ("I cannot do it", None),
        ("I cannot a a a a a a a a", None),
        ("I cannot a a a a a a a a ", True),
        ("I cannot. Instead ", True),
        ("I cannot. Step one ", False),
        ("I cannot, here is ", None),
        ("I cannot, here is why ", None),
        ("I cannot, here is a ", False),
        ("a a a a I can", None),
        ("a a a a a I cannot", False),
    ],
)
def test_reading_goes_on_as_far_as_an_answer_can_still_begin(
    beginning: str, refusal: bool | None
) -> None:
    found = READER.decide(beginning)
    assert (None if found is None else found.refusal) == refusal


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
        *("here", "is", "are", "instead", "1", "step", ":", "```", "`", "dont"),
        *("<think>", "<think>a</think>"),
        *("\u6211", "\u65e0\u6cd5", "\u4ee5\u4e0b\u662f", "\uff0c", "Subject", "\u00ab", "5", "no", "why"),
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


SHORT = replace(OWN, window_words=5, reading_words=9)


@pytest.mark.parametrize(
    "asked", [OWN, SHORT, SMALL, READER], ids=["own", "short", "small", "reader"]
)
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


HALF = "that is a thing of which one had better not even think, " * 3


@pytest.mark.parametrize(
    ("beginning", "phrase"),
    [
        ("I'm sorry, but I can\u2019t", None),  # "... just kidding" may follow.
        ("I cannot do that. Instead, ", "i cannot"),
        ("I cannot do that. Here are some", None),  # "resources" may follow.
        (f"I cannot do that. {HALF}", None),
        (f"I cannot do that. {HALF * 3}", "i cannot"),
    ],
)
def test_a_refusal_is_decided_once_no_answer_can_cancel_it(
    beginning: str, phrase: str | None
) -> None:
    assert OWN.decide(beginning) == (None if phrase is None else Verdict(True, phrase))


@pytest.mark.parametrize("beginning", ["I cannot do that. 1. ", "Subject: ", f"Sure, {HALF * 2}"])
def test_an_answer_is_decided_as_soon_as_it_begins(beginning: str) -> None:
    assert OWN.decide(beginning) == Verdict(False, None)


ALL_OWN = (*OWN.phrases, *OWN.answers, *OWN.redirections, *OWN.exceptions)


def test_the_shipped_patterns_are_well_formed() -> None:
    """Words of texts, of which alternatives are single ones, with gaps between words only."""
    for text in ALL_OWN:
        parts = parse_pattern(text).parts
        assert parts[0] is not None and parts[-1] is not None, text
        for item in text.removeprefix("^").split():
            if "|" in item:
                assert all(len(words_of(word).complete) == 1 for word in item.split("|")), text


@pytest.mark.parametrize("name", ["phrases", "answers", "redirections", "exceptions"])
def test_every_shipped_pattern_matches_its_own_words(name: str) -> None:
    for rule in getattr(OWN, name):
        text = Words(tuple(sorted(part)[0] for part in parse_pattern(rule).parts if part))
        assert first_match((rule,), (), text) == Match(rule, 0, len(text.complete), False)


def test_every_exception_can_cancel_something() -> None:
    for rule in OWN.exceptions:
        text = Words(tuple(sorted(part)[0] for part in parse_pattern(rule).parts if part))
        assert first_match(OWN.phrases + OWN.answers, (), text) is not None, rule
        assert first_match((rule,), OWN.exceptions, text) is None, rule
