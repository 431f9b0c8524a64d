"""The driver on a real local Ray, with fake trial functions."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ray._private.utils import read_ray_address
from support.fake_trials import Records, Storages, asking, expected, measured, prepared, sound

from sweeper.errors import SweeperError
from sweeper.planning import make_packs, make_plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.store.records import RecordWriter, TrialRecord, lost_records, read_records
from sweeper.sweep.driver import Keys, PackFunction, drive
from sweeper.sweep.placement import machines, trial_resources, worker_count
from sweeper.task import TrajectoryTask
from sweeper.trial.pending import PendingReadouts
from sweeper.trial.run import run_pack

pytestmark = pytest.mark.usefixtures("workers_import_tests")


def dies_once(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """The worker process is gone after the first record, the first time."""
    storage = storage_of(tasks[0].trajectory_id)
    storage.create()
    marker = storage.trajectory / "died"
    for task in tasks:
        for readout in task.readouts:
            yield [measured(task, readout)]
            if not marker.exists():
                marker.touch()
                os._exit(9)


def always_dies(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """The worker process is gone after the first record, every time, on the packs of several."""
    for task in tasks:
        for readout in task.readouts:
            yield [measured(task, readout)]
            if len(tasks) > 1:
                os._exit(9)


@pytest.mark.slow
def test_every_record_is_written_once_and_a_second_run_has_nothing_to_do(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    heard: list[TrialRecord] = []
    drive([tasks], tiny_spec, folder, sound, heard.append)
    records = read_records(folder.records).records
    assert {record.key: record for record in records} == expected(tasks)
    assert heard == list(records)
    before = folder.records.read_bytes()
    drive([tasks], tiny_spec, folder, sound, heard.append)
    assert folder.records.read_bytes() == before
    calls = [len(list(folder.trial(t.trajectory_id).trajectory.glob("call-*"))) for t in tasks]
    assert calls == [1] * len(tasks)


@pytest.mark.slow
def test_only_trajectories_with_missing_records_run_again_and_a_torn_line_is_measured_anew(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    kept = [measured(tasks[0], readout) for readout in tasks[0].readouts]
    kept.append(measured(tasks[1], tasks[1].readouts[0]))
    lines = [record.to_json() for record in kept]
    folder.records.write_text("\n".join(lines) + "\n" + lines[0][:40], encoding="utf-8")
    drive([tasks], tiny_spec, folder, sound)
    found = read_records(folder.records)
    assert found.torn == b""
    assert {record.key: record for record in found.records} == expected(tasks)
    assert not list(folder.trial(tasks[0].trajectory_id).trajectory.glob("call-*"))
    again = folder.trial(tasks[1].trajectory_id).trajectory
    assert not (again / tasks[1].readouts[0].config_id).exists()
    assert (again / tasks[1].readouts[1].config_id).exists()


@pytest.mark.slow
def test_a_dead_worker_is_started_again_and_nothing_is_lost_or_doubled(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    drive([tasks], asking(tiny_spec, max_concurrent_trials=1), folder, dies_once)
    records = read_records(folder.records).records
    assert len(records) == len(expected(tasks))
    assert {record.key: record for record in records} == expected(tasks)
    died = [(folder.trial(t.trajectory_id).trajectory / "died").exists() for t in tasks]
    packs = make_packs(tasks, tiny_spec.compute.adapters_per_trial, 1)
    assert sum(died) == len(packs) < len(tasks)


@pytest.mark.slow
def test_a_worker_that_keeps_dying_leaves_failed_records_and_spares_the_others(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    drive([tasks], asking(tiny_spec, adapters_per_trial=2), folder, always_dies)
    records = read_records(folder.records).records
    assert {record.key for record in records} == set(expected(tasks))
    packs = [pack for pack in make_packs(tasks, 2, 1) if len(pack) > 1]
    big = {task.trajectory_id for pack in packs for task in pack}
    assert len(big) == 2
    for record in records:
        if record.trajectory_id not in big:
            assert record.status == "complete"
    lost = [record for record in records if record.status == "failed"]
    owed = sum(len(task.readouts) for pack in packs for task in pack) - len(packs)
    assert len(lost) == owed
    assert {(r.reason or {})["stage"] for r in lost} == {"worker"}
    assert all(not record.metrics for record in lost)


@pytest.mark.slow
def test_a_note_that_a_dead_cluster_left_is_not_followed(
    tiny_spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray start` writes its address down; a killed cluster never takes the note back."""
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    with TemporaryDirectory(dir="/tmp") as scratch:  # The path of a socket has at most 107 bytes.
        monkeypatch.setenv("RAY_TMPDIR", scratch)
        note = Path(scratch) / "ray" / "ray_current_cluster"
        note.parent.mkdir()
        note.write_text("127.0.0.1:9", encoding="utf-8")
        assert read_ray_address() == "127.0.0.1:9"
        drive([tasks[:1]], tiny_spec, folder, sound)
    records = read_records(folder.records).records
    assert {record.key: record for record in records} == expected(tasks[:1])


@pytest.mark.slow
def test_a_round_is_asked_for_when_every_record_of_the_ones_before_is_on_disk(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    seen: list[int] = []

    def rounds() -> Iterator[Sequence[TrajectoryTask]]:
        yield tasks[:1]
        for stop in range(2, len(tasks) + 1):
            seen.append(len(read_records(folder.records).records))
            yield tasks[:stop]  # What is finished may come again.
        seen.append(len(read_records(folder.records).records))
        raise SweeperError("the search has no more to ask")

    with pytest.raises(SweeperError, match="no more to ask"):
        drive(rounds(), tiny_spec, folder, sound)
    sizes = [len(task.readouts) for task in tasks]
    assert seen == [sum(sizes[:stop]) for stop in range(1, len(tasks) + 1)]
    records = read_records(folder.records).records
    assert {record.key: record for record in records} == expected(tasks)


def test_lost_records_name_what_happened(tiny_spec: SweepSpec) -> None:
    task = make_tasks(make_plan(tiny_spec), tiny_spec, lambda path: path)[0]
    records = list(lost_records(task, "gone"))
    assert [record.config_id for record in records] == [r.config_id for r in task.readouts]
    assert {(r.status, (r.reason or {})["message"]) for r in records} == {("failed", "gone")}


def test_auto_takes_one_gpu_where_the_cluster_has_any(tiny_spec: SweepSpec) -> None:
    cluster = [{"CPU": 4.0}, {"CPU": 4.0, "GPU": 8.0}]
    assert trial_resources(tiny_spec, cluster[:1]) == {"CPU": 1.0, "GPU": 0.0}
    assert trial_resources(tiny_spec, cluster) == {"CPU": 1.0, "GPU": 1.0}
    assert trial_resources(asking(tiny_spec, gpus_per_trial=0.5), cluster)["GPU"] == 0.5


@pytest.mark.parametrize(("key", "kind"), [("gpus_per_trial", "GPU"), ("cpus_per_trial", "CPU")])
def test_more_than_any_machine_has_is_refused_instead_of_waited_for(
    tiny_spec: SweepSpec, key: str, kind: str
) -> None:
    """Two machines with 2 of each: 2 fit, and 3 do not, although the cluster has 4."""
    cluster = [{"CPU": 2.0, "GPU": 2.0}] * 2
    assert trial_resources(asking(tiny_spec, **{key: 2}), cluster)[kind] == 2
    words = rf"needs 3 {kind}, but the largest machine of the cluster has 2; lower compute.{key}"
    with pytest.raises(SweeperError, match=words):
        trial_resources(asking(tiny_spec, **{key: 3}), cluster)
    with pytest.raises(SweeperError, match="has 0"):
        trial_resources(asking(tiny_spec, **{key: 3}), [])


def test_a_trial_finds_all_it_needs_on_one_machine(tiny_spec: SweepSpec) -> None:
    spec = asking(tiny_spec, cpus_per_trial=4, gpus_per_trial=1)
    apart = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 4.0}]
    with pytest.raises(
        SweeperError, match="4 CPU and 1 GPU, but no machine of the cluster has both"
    ):
        trial_resources(spec, apart)
    assert trial_resources(spec, [*apart, {"CPU": 4.0, "GPU": 1.0}]) == {"CPU": 4.0, "GPU": 1.0}


def test_machines_that_have_left_do_not_count() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 8}}]
    assert machines(nodes) == [{"CPU": 2.0}]


def test_workers_are_counted_by_the_scarcest_resource_of_each_machine() -> None:
    cluster = [{"CPU": 16.0, "GPU": 4.0}]
    assert worker_count({"CPU": 2.0, "GPU": 1.0}, cluster, None) == 4
    assert worker_count({"CPU": 8.0, "GPU": 0.5}, cluster, None) == 2
    assert worker_count({"CPU": 1.0, "GPU": 0.0}, cluster, 3) == 3
    assert worker_count({"CPU": 2.0, "GPU": 0.0}, [{"CPU": 3.0}, {"CPU": 5.0}], None) == 3
    assert worker_count({"CPU": 2.0, "GPU": 0.0}, [{"CPU": 1.0}], None) == 1


def full_disk(self: RecordWriter, record: TrialRecord) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.slow
def test_a_full_disk_stops_the_driver_with_the_systems_own_words(
    tiny_spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    monkeypatch.setattr(RecordWriter, "append", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        drive([tasks], tiny_spec, folder, sound)


@pytest.mark.slow
def test_one_actor_starts_the_processes_of_a_spread_trial(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    from sweeper.trial.run import run_pack

    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    base = next(task for task in tasks if task.readouts[0].role == "base")
    spread = replace(base, compute=replace(base.compute, gpus_per_trial=2))
    drive([[spread]], tiny_spec, folder, run_pack)
    (record,) = read_records(folder.records).records
    assert (record.status, record.provenance["processes"]) == ("complete", 2)
    trial = folder.trial(base.trajectory_id)
    assert trial.rank_log(0).is_file() and trial.rank_log(1).is_file()
    assert not list(trial.trajectory.glob("checkpoint*"))


@pytest.mark.parametrize(
    ("asked", "processes"), [("auto", 1), (0, 1), (0.5, 1), (1, 1), (2, 2), (8, 8)]
)
def test_a_trial_has_a_process_for_each_of_its_gpus(
    tiny_spec: SweepSpec, asked: object, processes: int
) -> None:
    spec = asking(tiny_spec, gpus_per_trial=asked)
    tasks = make_tasks(make_plan(spec), spec, lambda path: path)
    assert {task.compute.processes for task in tasks} == {processes}
    assert TrajectoryTask.from_json(tasks[0].to_json()).compute.processes == processes


def stoppable(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """Looks for the mark before each readout, as a trial does."""
    for task in tasks:
        pending = PendingReadouts(task, storage_of(task.trajectory_id), done)
        for readout in task.readouts:
            if pending.is_stopped:
                yield pending.stop(prompts=8, step=readout.step, steps=0)
            if readout in pending.waiting:
                pending.waiting.remove(readout)
                yield [measured(task, readout)]


@pytest.mark.slow
@pytest.mark.parametrize("run", [stoppable, run_pack], ids=["fake", "real"])
def test_a_stopped_path_is_pruned_and_never_trained_again(
    tiny_spec: SweepSpec, tmp_path: Path, run: PackFunction
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    stopped = max(tasks, key=lambda task: len(task.readouts))
    storage = folder.trial(stopped.trajectory_id)
    storage.create()
    storage.stop_mark.touch()
    drive([tasks], tiny_spec, folder, run)
    records = read_records(folder.records).records
    pruned = {record.key for record in records if record.status == "pruned"}
    assert pruned == {(item.config_id, stopped.seed) for item in stopped.readouts}
    assert {record.key for record in records} == expected(tasks).keys()
    assert not storage.stop_mark.exists()  # Without its records it would be trained.
    before = folder.records.read_bytes()
    drive([tasks], tiny_spec, folder, run)
    assert folder.records.read_bytes() == before
