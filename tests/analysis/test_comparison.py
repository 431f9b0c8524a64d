"""Configurations side by side: what differs, which caveats hold, and what counts as compared by rows."""

from collections.abc import Sequence

import pytest
from support.factories import base_record, make_record, make_spec, with_samples

from sweeper.analysis import Candidate, compare_configurations, find_front, rate_text
from sweeper.errors import SweeperError
from sweeper.store.records import TrialRecord

ONE_SEED = (
    "one seed: differences are between these weights, "
    "and do not include the variation between training runs"
)
OTHER_SEEDS = "not all were trained under the same seeds"


def candidates(records: Sequence[TrialRecord], *overrides: str) -> tuple[Candidate, ...]:
    return find_front(records, make_spec(*overrides)).candidates


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        (((0,), (0,)), [ONE_SEED]),
        (((0, 1), (0, 1)), []),
        (((0, 1), (0,)), [OTHER_SEEDS, ONE_SEED]),
        (((0, 1), (0, 2)), [OTHER_SEEDS]),
    ],
)
def test_notes_say_what_the_seeds_allow(
    seeds: tuple[tuple[int, ...], ...], expected: list[str]
) -> None:
    records = [
        make_record(identity=name, seed=seed)
        for name, own in zip("ab", seeds, strict=True)
        for seed in own
    ]
    found = compare_configurations(candidates(records, "seeds=[0]"), make_spec())
    assert list(found.notes[1:]) == expected
    assert found.notes[0].startswith("intervals and p-values are not corrected")


def test_what_is_not_complete_is_said_but_of_the_base_model() -> None:
    records = [base_record(), make_record(identity="a"), make_record(identity="b", status="pruned")]
    found = compare_configurations(candidates(records), make_spec())
    assert [note for note in found.notes if "complete" in note] == [
        "b is not complete: pruned under seed 0: rule limit; evidence 40 of 100 prompts are unsafe"
    ]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_two_to_four_are_compared(count: int) -> None:
    items = candidates([make_record(identity=f"c{i}") for i in range(5)])
    with pytest.raises(SweeperError, match="2 to 4 different configurations"):
        compare_configurations(items[:count], make_spec())
    with pytest.raises(SweeperError, match="c0, c0"):
        compare_configurations([items[0], items[0]], make_spec())
    assert len(compare_configurations(items[:4], make_spec()).items) == 4


def test_settings_differ_where_trained_ones_do() -> None:
    records = [base_record(), make_record(identity="a", batch_size=8), make_record(identity="b")]
    differ = {
        s.name: s.differs for s in compare_configurations(candidates(records), make_spec()).settings
    }
    assert not differ["learning_rate"] and not differ["batch_size"]
    records.append(make_record(identity="c", batch_size=16))
    differ = {
        s.name: s.differs for s in compare_configurations(candidates(records), make_spec()).settings
    }
    assert differ["batch_size"] and not differ["max_steps"]


@pytest.mark.parametrize(("rows", "paired"), [(1, False), (2, True), (3, True)])
def test_two_rows_are_the_fewest_that_are_compared_one_by_one(rows: int, paired: bool) -> None:
    records = [
        with_samples({"rouge_l": tuple(value + 0.1 * i for i in range(rows))}, identity=name)
        for name, value in (("a", 0.2), ("b", 0.5))
    ]
    found = compare_configurations(candidates(records), make_spec())
    (difference,) = next(item for item in found.metrics if item.metric == "rouge_l").differences
    assert difference is not None
    assert (difference.paired, difference.n) == (paired, rows)
    assert difference.difference == pytest.approx(0.3)


def test_a_rate_without_every_seed_is_not_measured() -> None:
    bare = make_record(identity="a", seed=1)
    metrics = {name: value for name, value in bare.metrics.items() if name != "over_refusal_rate"}
    object.__setattr__(bare, "metrics", metrics)
    (found,) = candidates([make_record(identity="a"), bare], "seeds=[0, 1]")
    assert rate_text(found, "over_refusal_rate") == "over_refusal_rate not measured"
    assert rate_text(found, "no_such_rate") == "no_such_rate not measured"
    assert rate_text(found, "unsafe_rate") == (
        "unsafe_rate 0.8 % (2/256, 2/256, 95 % interval 0.2 to 2.8 %)"
    )


def test_a_candidate_is_printed_in_one_line() -> None:
    (found,) = candidates([make_record(identity="a")])
    assert repr(found).startswith("<Candidate a: candidate, complete")
    assert "\n" not in repr(found) and len(repr(found)) < 300
