"""When a run is over, and what is left of one that only looks so by its number of records."""

import json
from pathlib import Path

import pytest
from support.decisions import Interrupted, drive_in_process, halved, planned_keys, swept
from support.factories import make_spec
from support.fake_trials import measured
from support.run_folders import append, write_run

from sweeper.planning import Plan, Point, make_plan, make_tasks
from sweeper.runs.counts import decision_counts, left_to_do
from sweeper.runs.listing import list_runs
from sweeper.runs.status import run_status
from sweeper.search.refine import refined_plans
from sweeper.search.rounds import append_round
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records


def records_of(plan: Plan, spec: SweepSpec) -> list[TrialRecord]:
    tasks = make_tasks(plan, spec, lambda path: path)
    return [measured(task, readout) for task in tasks for readout in task.readouts]


def left(folder: RunFolder, spec: SweepSpec) -> str:
    """The same everywhere."""
    found = left_to_do(folder, spec, read_records(folder.records).records)
    status = run_status(folder)
    (line, *_) = list_runs(folder.root)
    assert (status.left, status.state) == (found, "stopped" if found else "finished")
    assert line.state == status.state
    return found


def plan_file(folder: RunFolder, readouts: int) -> None:
    content = {"accounting": {"readouts": readouts}, "estimate": None}
    folder.plan.write_text(json.dumps(content), encoding="utf-8")


def test_a_grid_is_over_with_its_last_record(tmp_path: Path) -> None:
    spec = make_spec("decide=false")
    records = records_of(make_plan(spec), spec)
    folder = write_run(tmp_path / "run", records[:-1], spec, readouts=len(records))
    assert left(folder, spec) == "its search is not finished"
    append(folder, records[-1:])
    assert left(folder, spec) == ""


@pytest.mark.parametrize("listed", [False, True])
def test_a_search_is_over_when_it_has_no_more_to_suggest(tmp_path: Path, listed: bool) -> None:
    """`listed`: the space ends before the number of trials does."""
    rates = "{values: [1e-4, 2e-4, 3e-4]}" if listed else "{low: 1e-5, high: 1e-2, log: true}"
    spec = make_spec(
        f"space.learning_rate={rates}",
        "space.batch_size=8",
        f"search={{method: optuna, n_trials: {9 if listed else 3}}}",
        "decide=false",
    )
    folder = write_run(tmp_path / "run", spec=spec, readouts=0)
    points: list[Point] = []
    for rate in (1e-4, 2e-4, 3e-4):
        points.append({"learning_rate": rate, "batch_size": 8})
        append_round(folder, (points[-1],))
        assert left(folder, spec) == "its search is not finished"  # Before plan.json counts it.
        records = records_of(make_plan(spec, points), spec)
        plan_file(folder, len(records))
        known = {record.key for record in read_records(folder.records).records}
        append(folder, [record for record in records if record.key not in known])
        assert (left(folder, spec) == "") == (len(points) == 3)


def test_further_seeds_are_over_when_none_is_wanted_any_more(tmp_path: Path) -> None:
    spec = make_spec(
        "space.max_steps={values: [40, 160]}",
        "space.average=raw",
        "search.refine={budget: 2000, max_seeds: 3, batch_size: 2}",
        "decide=false",
    )
    plan = make_plan(spec)
    first = records_of(plan, spec)
    folder = write_run(tmp_path / "run", first, spec, readouts=len(first))
    unfinished, rounds = "its further seeds are not all measured", 0
    assert left(folder, spec) == unfinished
    for plans in refined_plans(spec, folder, None):
        rounds += 1
        assert left(folder, spec) == unfinished  # Laid out, not all measured.
        known = {record.key for record in read_records(folder.records).records}
        for one in plans:
            again = spec.model_copy(update={"seeds": (one.trajectories[0].seed,)})
            append(folder, [r for r in records_of(one, again) if r.key not in known])
    assert rounds > 1 and left(folder, spec) == ""


def test_a_run_is_not_over_before_its_decision_is(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, folder = halved(tiny_spec_text), RunFolder(tmp_path / "run")
    searched = len(planned_keys(spec))
    found = []
    for more in (
        searched,
        11,
        10,
        10,
    ):  # At the end of the search, and of each round of a decision.
        drive_in_process(monkeypatch, most=more, killed=True)
        with pytest.raises(Interrupted):
            swept(spec, folder.root)
        stage = decision_counts(folder)
        if stage is not None:  # As if killed before the next round was laid out.
            plan_file(RunFolder(folder.confirm / "safest-useful"), stage.records)
            assert stage.records == RunFolder(folder.confirm / "safest-useful").planned_records()
        found.append(left(folder, spec))
    assert found == ["its decision is not finished"] * 4
    drive_in_process(monkeypatch)
    assert swept(spec, folder.root).completed and left(folder, spec) == ""
    others = spec.model_copy(
        update={"decide": spec.decide and spec.decide.model_copy(update={"seeds": 3})}
    )
    records = read_records(folder.records).records
    assert left_to_do(folder, others, records) == ""  # What it was begun with counts.


def test_a_run_is_over_where_there_is_nothing_to_decide(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "nothing to decide: too few prompts"
    drive_in_process(monkeypatch)
    monkeypatch.setattr("sweeper.sweep.decide.too_few_prompts", lambda walk, inputs: few)
    spec, folder = halved(tiny_spec_text), RunFolder(tmp_path / "run")
    assert swept(spec, folder.root).decision == few
    assert left(folder, spec) == ""
    (folder.confirm / "safest-useful" / "undecidable.txt").unlink()
    assert left(folder, spec) == "its decision has not begun"
    free = spec.model_copy(update={"constraints": ()})
    assert left_to_do(folder, free, read_records(folder.records).records) == ""
