"""The time left of a run, on the recorded sequence of a real one."""

import json
from pathlib import Path

import pytest

from sweeper.estimate import Rates, Tokens
from sweeper.estimate.remaining import PlannedWork, Remaining, planned_work
from sweeper.planning import make_plan
from sweeper.spec import load_spec

RECORDED = json.loads((Path(__file__).parent / "recorded_run.json").read_text(encoding="utf-8"))
"""The shipped miniature on two cores: seconds since its start at which records came, by configuration."""

ENDED: float = RECORDED["ended"]
TENTH = ENDED / 10
WITHIN = 0.3
LAST = 0.05
"""Near the end, this share of the whole run is allowed instead."""


def work() -> PlannedWork:
    spec = load_spec("miniature")
    rates, tokens = Rates(**RECORDED["rates"]), Tokens(**RECORDED["tokens"])
    return planned_work(make_plan(spec), spec, rates, tokens, workers=2)


def is_right(left: float | None, now: float) -> bool:
    """Within 30 % of what was really left."""
    true = ENDED - now
    return left is not None and abs(left - true) <= max(WITHIN * true, LAST * ENDED)


def searched(planned: PlannedWork) -> tuple[Remaining, list[tuple[float, float | None]]]:
    """The time left after each record, with the time of the record."""
    remaining = Remaining(planned, 0.0, sum(planned.seconds.values()))
    seen = []
    for now, config_id in RECORDED["records"]:
        remaining.finished((config_id, 0), now)
        seen.append((now, remaining.seconds_left(now)))
    return remaining, seen


def test_every_record_of_the_plan_has_work() -> None:
    planned = work()
    assert {(config_id, 0) for _, config_id in RECORDED["records"]} == planned.seconds.keys()
    assert min(planned.seconds.values()) > 0 and planned.decision_seconds > 0


def test_after_the_first_tenth_the_time_left_is_right_within_30_percent() -> None:
    planned = work()
    remaining, seen = searched(planned)
    known = [(now, left) for now, left in seen if left is not None]
    assert TENTH < known[0][0] < 1.3 * TENTH  # The first readouts say nothing yet.
    assert len(known) == 162
    assert [now for now, left in known if not is_right(left, now)] == []
    decision = Remaining(
        PlannedWork({}, 2), RECORDED["begun"], RECORDED["planned"], remaining.later
    )
    for now in RECORDED["decision"]:
        decision.finished(("any", 0), now)
        assert is_right(decision.seconds_left(now), now)


def test_without_the_decision_it_would_be_wrong_at_the_end_of_the_search() -> None:
    alone = work()._replace(decision_seconds=0.0)
    remaining, seen = searched(alone)
    now = seen[-1][0] + 2
    left = remaining.seconds_left(now)
    assert left == 0 and not is_right(left, now)


def test_between_two_records_it_counts_down_and_never_below_zero() -> None:
    remaining, seen = searched(work())
    now = seen[-1][0] + 2
    left = remaining.seconds_left(now)
    assert left is not None
    assert remaining.seconds_left(now + 10) == pytest.approx(left - 10)
    assert remaining.seconds_left(now + 10 * left) == 0


@pytest.mark.parametrize("gap", [0.2, 5.0])
def test_equal_records_in_a_row(gap: float) -> None:
    remaining = Remaining(PlannedWork({}), 0.0, 100.0)
    assert remaining.seconds_left(0.0) is None
    for number in range(1, 51):
        remaining.finished((f"{number}", 0), 3 + gap * number)
    assert remaining.seconds_left(3 + gap * 50) == pytest.approx(50 * gap, rel=0.1)


def test_a_guess_counts_less_the_more_is_done() -> None:
    remaining = Remaining(PlannedWork({}), 0.0, 10.0, guess=1000.0)
    assert remaining.seconds_left(100.0) == 900
    wrong = []
    for number in range(1, 11):
        remaining.finished((f"{number}", 0), 20.0 * number)
        left = remaining.seconds_left(20.0 * number + 5)
        assert left is not None
        wrong.append(abs(left - (195 - 20 * number)))
    assert wrong[0] == 800 and wrong[-1] <= 5
    assert wrong == sorted(wrong, reverse=True)
