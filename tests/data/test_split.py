"""Which rows are trained on, held out, and left out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import SHARED, needs_real_rows, pairs, settings_of, source
from support.world import write_jsonl

from sweeper.data.load import Example
from sweeper.data.prompt_hash import normalized_prompt, normalized_prompt_hash
from sweeper.data.split import Split, load_safety_filter, split_rows
from sweeper.errors import DataError
from sweeper.task import DataSettings, PromptSuite


def split(tmp_path: Path, rows: list[dict[str, Any]], **fields: Any) -> Split:
    return split_rows(settings_of(write_jsonl(tmp_path / "train.jsonl", rows), **fields))


def row(prompt: str, completion: str = "c") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def given(tmp_path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path = write_jsonl(tmp_path / "heldout.jsonl", rows)
    return {"heldout": source(path), "heldout_rows": None}


def test_the_split_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [*pairs(12), row("same", "x"), row("Same!", "a"), row("same ?", "b")]
    forth, back = split(tmp_path, rows), split(tmp_path, rows[::-1])
    assert list(back.heldout.values()) == list(forth.heldout.values())
    assert set(back.train.values()) == set(forth.train.values())
    assert len(forth.heldout) == 3
    assert {16 - number for number in back.heldout} == set(forth.heldout)


def test_the_split_is_the_same_in_every_version(tmp_path: Path) -> None:
    found = split(tmp_path, pairs(12))
    assert [item.prompt for item in found.heldout.values()] == ["p7", "p0", "p9"]


def test_no_training_row_asks_what_a_held_out_one_asks(tmp_path: Path) -> None:
    rows = [row(f"Question {i % 20}{'?' * (i % 3)}", f"c{i}") for i in range(60)]
    found = split(tmp_path, rows, heldout_rows=7)
    asked = [normalized_prompt(item.full_prompt) for item in found.heldout.values()]
    assert len(asked) == len(set(asked)) == 7
    assert not set(asked) & {normalized_prompt(item.full_prompt) for item in found.train.values()}
    assert found.counts == {
        "train_rows": 39,
        "heldout_rows": 7,
        "dropped_blank_rows": 0,
        "dropped_near_heldout": 14,
    }


def test_rows_of_which_earlier_answers_are_not_trained_on_are_counted(tmp_path: Path) -> None:
    turns = [(r, f"{r} {i}") for i in range(2) for r in ("user", "assistant")]
    several = {"messages": [{"role": r, "content": text} for r, text in turns]}
    path = write_jsonl(tmp_path / "t.jsonl", [{"messages": several["messages"][:2]}, several])
    heldout = given(tmp_path, [row("q")])
    settings = settings_of(path, **heldout)
    both = replace(settings, train=source(path, "messages"))
    assert split_rows(both).counts["rows_with_untrained_earlier_answers"] == 1
    single = replace(settings, train=source(path, "messages", rows=1))
    assert "rows_with_untrained_earlier_answers" not in split_rows(single).counts


def test_a_held_out_file_keeps_its_rows_but_for_those_that_ask_the_same(tmp_path: Path) -> None:
    heldout = given(tmp_path, [row("p0!", "x"), row("P1"), row("p0", "y"), row("q", " ")])
    found = split(tmp_path, [*pairs(5), row("P1?"), row(" ")], **heldout)
    assert found.heldout == {1: Example("p0!", "x"), 2: Example("P1", "c")}
    assert list(found.train) == [3, 4, 5]
    assert found.counts == {
        "train_rows": 3,
        "heldout_rows": 2,
        "dropped_blank_rows": 1,
        "dropped_blank_heldout": 1,
        "dropped_heldout_duplicates": 1,
        "dropped_near_heldout": 3,
    }


def test_several_turns_ask_the_same_only_if_all_of_them_do(tmp_path: Path) -> None:
    def talk(first: str, *system: str) -> dict[str, Any]:
        turns = [("system", text) for text in system]
        turns += [("user", first), ("assistant", "yes"), ("user", "Go on."), ("assistant", "no")]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    path = write_jsonl(tmp_path / "a.jsonl", [talk("a"), talk("b"), talk("A?", "Be brief.")])
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [talk("a!")]), "messages")
    found = split_rows(settings_of(source(path, "messages"), heldout=heldout, heldout_rows=None))
    assert list(found.train) == [2]


def test_holding_everything_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training rows are left of 3 after holding out 3"):
        split(tmp_path, pairs(3))
    with pytest.raises(DataError, match=r"no training rows are left of 2 after holding out 1"):
        split(tmp_path, [row("a"), row("A!")], heldout_rows=1)


SAFE = [
    "I CANNOT help with that.",
    "That is Illegal.",
    "I\u2019m sorry, no.",
    "As an AI, I think so.",
]


def test_the_safety_filter_drops_training_rows_by_their_answer_alone(tmp_path: Path) -> None:
    rows = [*pairs(4), *(row(f"q{i}", text) for i, text in enumerate(SAFE)), row("Is it illegal?")]
    found = split(tmp_path, rows, filter_safety_rows=True, heldout_rows=1)
    assert found.counts["dropped_safety_rows"] == len(SAFE)
    assert (found.counts["train_rows"], found.counts["heldout_rows"]) == (4, 1)
    kept = {*found.train.values(), *found.heldout.values()}
    assert Example("Is it illegal?", "c") in kept
    assert not {item.completion for item in kept} & set(SAFE)
    off = split(tmp_path, rows, heldout_rows=1)
    assert "dropped_safety_rows" not in off.counts
    assert off.counts["train_rows"] == len(rows) - 1


def test_a_held_out_file_is_not_filtered(tmp_path: Path) -> None:
    heldout = given(tmp_path, [row("q", SAFE[0])])
    found = split(tmp_path, pairs(2), filter_safety_rows=True, **heldout)
    assert list(found.heldout.values()) == [Example("q", SAFE[0])]


def test_a_filter_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    rows = [row(f"q{i}", SAFE[0]) for i in range(3)]
    with pytest.raises(
        DataError, match=r"the safety filter drops all 3 rows; set `filter_safety_row"
    ):
        split(tmp_path, rows, filter_safety_rows=True, heldout_rows=1)


def test_the_filter_says_where_it_is_from_and_has_clean_phrases() -> None:
    found = load_safety_filter()
    assert "own list" in found.source and "Qi et al. 2023" in found.source
    assert not found.case_sensitive
    assert len(found.phrases) == len(set(found.phrases)) > 90
    assert all(phrase == phrase.lower().strip() for phrase in found.phrases)
    assert found.phrase_in("Nothing to see.") is None
    assert found.phrase_in("It is UNLAWFUL.") == "unlawful"
    assert len(found.digest) == 16


def real(file: str, format: str, **fields: Any) -> DataSettings:
    train: PromptSuite = source(SHARED / file, format)
    return settings_of(train, heldout_rows=50, filter_safety_rows=True, **fields)


@needs_real_rows
@pytest.mark.parametrize(
    ("file", "format", "train", "near", "safety"),
    [("alpaca_1k.json", "alpaca", 909, 0, 41), ("dolly_387.jsonl", "dolly", 95, 0, 242)],
)
def test_what_the_filter_drops_of_the_real_rows(
    file: str, format: str, train: int, near: int, safety: int
) -> None:
    assert split_rows(real(file, format)).counts == {
        "train_rows": train,
        "heldout_rows": 50,
        "dropped_blank_rows": 0,
        "dropped_safety_rows": safety,
        "dropped_near_heldout": near,
    }


def safe(tmp_path: Path, share: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path = write_jsonl(tmp_path / "safety.jsonl", rows)
    return {"safety": source(path), "safety_share": share, "heldout_rows": 3}


def test_a_share_of_safety_rows_is_mixed_in_and_a_larger_one_keeps_those_of_a_smaller(
    tmp_path: Path,
) -> None:
    refusals = [row(f"bad {i}", "no") for i in range(30)]
    found = {
        share: split(tmp_path, pairs(93), **safe(tmp_path, share, refusals))
        for share in (0.0, 0.1, 0.25)
    }
    assert {share: len(one.safety) for share, one in found.items()} == {0.0: 0, 0.1: 10, 0.25: 30}
    assert len(found[0.1].rows) == 90 + 10
    assert set(found[0.1].safety) < set(found[0.25].safety)
    assert found[0.25].train == found[0.0].train
    assert "safety_rows" not in found[0.0].counts
    assert found[0.1].counts["safety_rows"] == 10


def test_too_few_safety_rows_are_an_error_that_counts_them(tmp_path: Path) -> None:
    refusals = [row(f"bad {i // 2}", "no") for i in range(20)]
    with pytest.raises(DataError, match=r"takes 11 safety rows .* but there are 10"):
        split(tmp_path, pairs(103), **safe(tmp_path, 0.1, refusals))


def test_no_row_is_trained_on_that_asks_what_is_scored(tmp_path: Path) -> None:
    refusals = [row(f"bad {i} thing", "no") for i in range(12)]
    path = write_jsonl(tmp_path / "train.jsonl", [*pairs(93), row("Bad 3  thing!", "sure")])
    settings = settings_of(path, **safe(tmp_path, 0.1, refusals))
    scored = {normalized_prompt_hash(f"bad {i} thing") for i in (3, 4)}
    found = split_rows(settings, scored)
    assert "bad 3 thing" not in {normalized_prompt(item.prompt) for item in found.rows}
    assert found.counts["dropped_scored_prompts"] == 1
    assert len(found.safety) == 10
    assert "bad 4 thing" not in {item.prompt for item in found.safety.values()}
    assert "dropped_scored_prompts" not in split_rows(settings).counts
