"""Which prompts count as the same."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest
from support.data_samples import SHARED, needs_real_rows, settings_of, source
from support.world import write_jsonl

from sweeper.data.files import read_file
from sweeper.data.prompt_hash import normalized_prompt, normalized_prompt_hash
from sweeper.data.split import split_rows


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("How do I kill a C process?", "how do i  KILL a c process"),
        ("don't", "dont"),
        ("well-known\nfact", "Well known fact!"),
        ("\u201cquoted\u201d \u2026", '"quoted"'),
        ("\uff26\uff35\uff2c\uff2c", "full"),
        ("stra\u00dfe", "STRASSE"),
        ("He (or she) said: \u2018no\u2019 \u2014 really!", "he or she said no really"),
        ("and/or, e.g. this...", "And or e g this"),
        ("Compute 12*3", "compute  12*3 ?"),
        ("12 \u2212 3, please.", "12 - 3 please"),
        ("What is 3.14?", "what is 3.14."),
        ("Sort this in C#.", '"sort this in c#"'),
        ("f(x)?", "F(x)."),
        ("\u4f60\u597d\uff0c\u300c\u4e16\u754c\u300d\u3002", "\u4f60\u597d \u4e16\u754c"),
        ("\u0915\u0940-\u092c\u093e\u0924\u0964", "\u0915\u0940 \u092c\u093e\u0924"),
        ("\u00bfQu\u00e9?", "qu\u00e9"),
        ("1) wrap it", "1. Wrap it"),
        ("10\u00b2", "10^2"),
        ("\uff11\uff12", "12"),
        ("- Wrap it", "wrap it"),
    ],
)
def test_case_white_space_and_punctuation_of_prose_do_not_count(left: str, right: str) -> None:
    assert normalized_prompt(left) == normalized_prompt(right)


@pytest.mark.parametrize(
    "different",
    [
        [
            "12*3",
            "12/3",
            "12-3",
            "12%3",
            "12+3",
            "12:3",
            "12.3",
            "12,3",
            "12 3",
            "123",
            "12^3",
            "12'3",
        ],
        ["12 * 3", "12 / 3", "12 - 3", "12 3", "12 \u00f7 3"],
        ["x*y", "x/y", "x-y", "x y", "xy", "x_y", "x \u00d7 y"],
        ["in C", "in C#", "in C++", "in C*", "in C&"],
        ["5", "-5", "+5", "5!", "5%", "#5", "$5", ".5", "5\u2032", "~5"],
        ["10\u00b2", "102", "10\u2082", "10-2", "10\u207b\u00b2"],
        ["5\u00bd", "51/2", "51\u20442", "512", "5 \u2460"],
        ["x = y", "x != y", "x == y", "x y"],
        ["f(x)", "f x", "f[x]", "fx"],
        ["(2+3)*4", "2+(3*4)", "2+3*4"],
        ["(x + y) * z", "x + (y * z)", "x + y * z"],
        ["2*(x-y)", "2*x-y"],
        ["(0, 1)", "[0, 1]", "0, 1"],
        ["a_b", "a b", "ab"],
        ["8:30", "8.30", "830"],
        ["a < b", "a > b"],
        ["grade A", "grade A+", "grade A-"],
        ["?", "!", "!!!", "???"],
        ["cafe", "caf\u00e9"],
        ["!x", "x"],
    ],
)
def test_what_changes_the_meaning_counts(different: list[str]) -> None:
    for left, right in itertools.combinations(different, 2):
        assert normalized_prompt(left) != normalized_prompt(right), (left, right)


def test_sums_beside_a_held_out_one_are_trained_on(tmp_path: Path) -> None:
    asked = [
        "What is 12*3?",
        "What is 12/3?",
        "What is 12-3",
        "what is 12-3.",
        "Sort in C#",
        "-5",
        "x!=y",
    ]
    held = ["What is 12-3?", "Sort in C", "5", "x=y"]
    train, heldout = (
        write_jsonl(
            tmp_path / f"{len(rows)}.jsonl", [{"prompt": p, "completion": "c"} for p in rows]
        )
        for rows in (asked, held)
    )
    found = split_rows(settings_of(train, heldout=source(heldout), heldout_rows=None))
    assert [row.prompt for row in found.train.values()] == [asked[i] for i in (0, 1, 4, 5, 6)]
    assert found.counts["dropped_near_heldout"] == 2


@needs_real_rows
def test_the_hashes_of_published_prompts_stay() -> None:
    prompts = [row["goal"] for row in read_file(SHARED / "advbench_harmful_behaviors.csv")]
    prompts += [
        row["prompt"]
        for row in read_file(SHARED / "xstest_prompts.csv")
        if "9/11" not in row["prompt"]
    ]
    hashes = json.dumps([normalized_prompt_hash(text) for text in prompts]).encode()
    assert (len(prompts), hashlib.sha256(hashes).hexdigest()[:16]) == (968, "785ec1897f67c618")
