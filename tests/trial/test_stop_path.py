"""A path that is stopped by hand: what was measured stays, nothing else is trained, now or later."""

from pathlib import Path

import pytest
from support.trials import comparable, multi, run_all, run_together, spec_with, tasks_of
from support.world import World

from sweeper.analysis import find_front, recommend
from sweeper.estimate import saved
from sweeper.store.folder import TrialStorage
from sweeper.trial.run import run_pack, run_trajectory


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_is_left_of_a_stopped_path_is_pruned(
    tiny_world: World, tmp_path: Path, after: int
) -> None:
    task = multi(tiny_world)
    whole = comparable(run_all(task, tmp_path / "whole"))
    storage = TrialStorage(tmp_path / "cut", task.trajectory_id)
    storage.create()
    records, going = [], run_trajectory(task, storage)
    for _ in range(after):
        records.append(next(going))
    storage.stop_mark.touch()
    records += going
    ended = {record.config_id: record for record in records}
    assert list(ended.keys() ^ whole.keys()) == []
    pruned = [record for record in records if record.status == "pruned"]
    for record in records:
        if record.status == "complete":
            assert record.comparable() == whole[record.config_id]
        else:
            assert record.reason is not None and record.reason["rule"] == "by hand"
            assert not record.metrics and record.provenance["weights_sha256"] is None
    assert len(pruned) >= 1 and len(records) - len(pruned) >= after
    first = min(r.readout["step"] for r in pruned)
    assert all(r.readout["step"] <= first for r in records if r.status == "complete")
    last = max(r.readout["step"] for r in pruned)
    less = saved(records)
    assert less is not None and dict(less.rules) == {"by hand": len(pruned)}
    assert less.steps == last if after == 0 else less.steps < last
    done = frozenset(record.key for record in records)
    assert list(run_trajectory(task, storage, done)) == []  # Resuming has nothing to train.


def test_the_rest_of_a_pack_goes_on(tiny_world: World, tmp_path: Path) -> None:
    spec = spec_with(tiny_world, learning_rate={"values": [1e-3, 4e-3]}, max_steps=4)
    tasks = [task for task in tasks_of(spec) if task.readouts[0].role == "candidate"]
    whole = run_together(tasks, tmp_path / "whole")
    TrialStorage(tmp_path / "cut", tasks[0].trajectory_id).create()
    TrialStorage(tmp_path / "cut", tasks[0].trajectory_id).stop_mark.touch()
    cut = run_together(tasks, tmp_path / "cut")
    assert len(tasks) > 1 and cut.keys() == whole.keys()
    for record in cut.values():
        stopped = record.trajectory_id == tasks[0].trajectory_id
        assert record.status == ("pruned" if stopped else "complete")
    found = find_front(list(cut.values()), spec)
    by_hand = [item for item in found.candidates if item.status == "pruned"]
    assert by_hand and not {item.config_id for item in by_hand} & {
        item.config_id for item in (*found.competing, *recommend(found, spec).ranked)
    }


def test_an_interruption_forgets_no_mark(tiny_world: World, tmp_path: Path) -> None:
    task = multi(tiny_world)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    storage.create()
    storage.stop_mark.touch()
    going = run_pack([task], lambda trajectory_id: storage)
    (*_, last) = next(going)
    del going  # As if killed before the driver has written anything.
    again = list(run_trajectory(task, storage))
    assert {record.config_id for record in again} == {item.config_id for item in task.readouts}
    assert last.config_id in {record.config_id for record in again}
    assert {record.status for record in again} == {"pruned"}
