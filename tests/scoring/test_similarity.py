"""ROUGE-L and chrF see every script, and English scores as rouge-score's default tokenizer has them."""

import itertools
import random
import string

import pytest
from rouge_score import tokenize
from rouge_score.rouge_scorer import RougeScorer

from sweeper.scoring.similarity import AllScripts, chrf, rouge_l

TEXTS = {
    "chinese": "\u628a\u7bb1\u5b50\u5305\u597d\u3002",
    "japanese": "\u30d1\u30f3\u3092\u713c\u304f",
    "thai": "\u0e01\u0e34\u0e19\u0e02\u0e49\u0e32\u0e27",
    "khmer": "\u1780\u17b6\u179a\u1784\u17b6\u179a",
    "korean": "\uafc3\ubcd1\uc744 \ub2e6\ub294\ub2e4",
    "russian": "\u0412\u0430\u0437\u0430 \u0447\u0438\u0441\u0442\u0430",
    "greek": "\u0397 \u03c0\u03cc\u03c1\u03c4\u03b1",
    "arabic": "\u0645\u0631\u062d\u0628\u0627",
    "hebrew": "\u05e9\u05dc\u05d5\u05dd",
    "hindi": "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
    "tamil": "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    "amharic": "\u1230\u120b\u121d",
    "beyond the basic plane": "\U00020000\U00020001",
    "accents": "\u00e9t\u00e9 \u00e0 No\u00ebl",
    "code without letters": "{ } => ;",
    "emoji": "\U0001f600\U0001f44d\U0001f3fd",
    "one dash": "-",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_a_response_equal_to_its_reference_scores_one_and_another_one_zero(text: str) -> None:
    assert rouge_l([(text, text), ("Vase 7 +", text)]) == [1.0, 0.0]
    assert chrf([(text, text), ("Vase 7 +", text)]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Caf\u00e9-au-lait_2x", ["caf\u00e9", "au", "lait", "2x"]),
        ("Cafe\u0301", ["caf\u00e9"]),
        ("\uff26\uff55\uff4c\uff4c width", ["full", "width"]),
        ("\u7528 Python3 \u5199", ["\u7528", "python3", "\u5199"]),
        ("\u5199code\u5199", ["\u5199", "code", "\u5199"]),
        ("\u0e01\u0e34\u0e19", ["\u0e01\u0e34", "\u0e19"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940!", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("I \u2764\ufe0f it\u2019s", ["i", "it", "s"]),
        ("\u064a\u0648\u0645 \u0665", ["\u064a\u0648\u0645", "\u0665"]),
        ("\u3001\u3002", []),
        ("", []),
    ],
)
def test_tokens_are_runs_of_letters_marks_and_digits(text: str, tokens: list[str]) -> None:
    assert AllScripts().tokenize(text) == tokens


def ascii_texts() -> list[str]:
    draw = random.Random(5)
    alphabets = (
        string.printable,
        "ab _-'1.\n",
        string.ascii_letters + " ",
        bytes(range(128)).decode(),
    )
    return [
        "".join(draw.choices(some, k=draw.randrange(40))) for some in alphabets for _ in range(500)
    ]


def test_ascii_text_has_the_tokens_of_rouge_scores_default() -> None:
    for text in ascii_texts():
        assert AllScripts().tokenize(text) == tokenize.tokenize(text, None), repr(text)


def test_english_scores_are_those_of_rouge_scores_default() -> None:
    texts = ascii_texts()
    pairs = [pair for pair in itertools.pairwise(texts) if tokenize.tokenize(pair[1], None)]
    default = RougeScorer(["rougeL"])
    expected = [default.score(reference, text)["rougeL"].fmeasure for text, reference in pairs]
    assert rouge_l(pairs) == expected
    assert 0 < sum(score > 0 for score in expected) < len(pairs) > 1500


def test_half_a_chinese_sentence_scores_in_between() -> None:
    pair = ("\u628a\u7bb1\u5b50\u6253\u5f00", "\u628a\u7bb1\u5b50\u5305\u597d")
    assert rouge_l([pair]) == [pytest.approx(3 / 5)]
    assert 0.2 < chrf([pair])[0] < 0.7


def test_chrf_by_hand() -> None:
    # "abc" against "abd": 2 of 3 unigrams, 1 of 2 bigrams, 0 of 1 trigram; precision = recall = F2.
    assert chrf([("abc", "abd")]) == [pytest.approx((2 / 3 + 1 / 2 + 0) / 3)]
    assert chrf([("", "abc"), ("abc", "")]) == [0.0, 0.0]


def test_symbols_count_only_where_a_reference_has_nothing_else() -> None:
    assert rouge_l([("{ x }", "{ y }"), ("{ x }", "{ }"), ("x", "{ }")]) == [0.0, 0.8, 0.0]
