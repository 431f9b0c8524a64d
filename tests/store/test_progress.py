"""Progress of running trials: what they leave on disk, and that reading it trusts nothing."""

import json
from pathlib import Path

import pytest

from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, TrialStorage, write_atomic
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask

ONE = TrajectoryProgress("abc123", "train", 3, 8, (2.5, 2.25, 2.0), 7, 1_790_000_000.5)


def written(folder: RunFolder, name: str, content: str | bytes) -> Path:
    path = folder.trial(name).progress
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first = read_trajectory(written(folder, "abc123", ONE.to_json()))
    assert first == ONE and first.running
    second = read_trajectory(written(folder, "zzz", ONE.to_json()))
    assert second is not None
    assert second.trajectory_id == "zzz"  # The folder says which one it is, not the content.
    assert read_trajectory(folder.trial("none").progress) is None


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(ONE.to_json()), **fields})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe garbage",
        ONE.to_json()[:40],
        "[" * 100_000,
        "null",
        "[]",
        '{"losses": [1.0]}',
        changed(version=2),
        changed(losses=[1.0, float("nan")]),
        changed(losses=[float("inf")]),
        changed(losses=[True]),
        changed(losses=["<script>"]),
        changed(losses={"0": 1.0}),
        changed(losses=[10**400]),
        changed(losses=[1.0]).replace("[1.0]", "[1e999]"),
        changed(step=-1),
        changed(step=2.5),
        changed(step=True),
        changed(step=1).replace('"step": 1', '"step": ' + "9" * 5000),
        changed(steps=None),
        changed(beat="7"),
        changed(stage="<img src=x onerror=alert(1)>"),
        changed(stage=["train"]),
        changed(written_at=float("nan")),
        changed(written_at=None),
    ],
)
def test_a_damaged_file_says_nothing(tmp_path: Path, content: str | bytes) -> None:
    assert read_trajectory(written(RunFolder(tmp_path), "bad", content)) is None


def test_links_strange_names_and_folders_in_its_place_say_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    elsewhere = written(RunFolder(tmp_path / "other"), "abc", ONE.to_json())
    assert read_trajectory(written(folder, "a b<script>", ONE.to_json())) is None
    (folder.trajectories / "file").mkdir()
    (folder.trajectories / "file" / "progress.json").symlink_to(elsewhere)
    (folder.trajectories / "folder" / "progress.json").mkdir(parents=True)
    for name in ("file", "folder"):
        assert read_trajectory(folder.trial(name).progress) is None
    assert read_trajectory(elsewhere) is not None


def tiny_task(spec: SweepSpec) -> TrajectoryTask:
    """The trajectory of the tiny sweep with the most readouts: two averages at steps 2 and 4."""
    tasks = make_tasks(make_plan(spec), spec, lambda path: path, device="cpu")
    return max(tasks, key=lambda task: len(task.readouts))


def watched(
    task: TrajectoryTask, storage: TrialStorage
) -> list[tuple[TrialRecord, TrajectoryProgress | None]]:
    from sweeper.trial.run import run_trajectory

    return [(item, read_trajectory(storage.progress)) for item in run_trajectory(task, storage)]


def test_a_trial_says_how_far_it_is_and_its_beat_survives_a_restart(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    from sweeper.trial.run import run_trajectory

    task = tiny_task(tiny_spec)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    running = run_trajectory(task, storage)
    first = next(running)
    early = read_trajectory(storage.progress)
    assert early is not None
    assert (early.stage, early.step, early.steps) == ("evaluate", first.readout["step"], 4)
    assert len(early.losses) == early.step == 2
    del running  # What an interrupted driver does: the generator is closed.
    stopped = read_trajectory(storage.progress)
    assert stopped is not None and not stopped.running

    seen = watched(task, storage)
    last = read_trajectory(storage.progress)
    assert last is not None
    assert (last.stage, last.step, last.steps) == ("end", 4, 4)
    assert len(last.losses) == 4 and last.losses[:2] == early.losses
    beats = [early.beat, stopped.beat, *(item.beat for _, item in seen[1:] if item), last.beat]
    assert beats == sorted(beats) and beats[0] < beats[1] < beats[-1]


def test_a_disk_that_refuses_progress_changes_no_record(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    task = tiny_task(tiny_spec)
    storage = TrialStorage(tmp_path / "refusing", task.trajectory_id)
    (storage.progress / "in the way").mkdir(parents=True)  # A folder there cannot be replaced.
    refused = watched(task, storage)
    assert all(item is None for _, item in refused)
    usual = watched(task, TrialStorage(tmp_path / "usual", task.trajectory_id))
    assert [r.status for r, _ in refused] == ["complete"] * len(task.readouts)
    assert [r.comparable() for r, _ in refused] == [r.comparable() for r, _ in usual]


def test_within_a_stage_it_is_written_once_a_second_and_a_slow_disk_less(
    tiny_spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.trial import heartbeat as beats
    from sweeper.trial.pending import PendingReadouts

    task = tiny_task(tiny_spec)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    now, cost = [0.0], [0.0]

    def slow(path: Path, content: str, durable: bool) -> None:
        now[0] += cost[0]
        write_atomic(path, content, durable)

    monkeypatch.setattr(beats, "write_atomic", slow)
    signs = beats.Heartbeat([PendingReadouts(task, storage, frozenset())], lambda: now[0])

    def beats_until(second: int) -> int:
        while now[0] < second:
            signs.tick()
            now[0] += 0.25
        found = read_trajectory(storage.progress)
        assert found is not None
        return found.beat

    assert beats_until(10) == 10
    cost[0] = 0.25  # Then at most one write every 25 seconds.
    assert beats_until(110) == 10 + 4
