"""Checkpoints that are damaged, missing or refused by the disk: the same records, later."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save
from support.small_disk import fill, small_disk
from support.trials import comparable, multi, run_all
from support.world import World

from sweeper.errors import DiskFullError, UnreachableError
from sweeper.model.checkpoint import (
    DTYPES,
    previous_checkpoint,
    read_checkpoint,
    read_checkpoints,
    state_hash,
    write_checkpoint,
)
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.store.retry import with_retry
from sweeper.task import TrajectoryTask, Tuning
from sweeper.trial.run import run_trajectory
from sweeper.trial.train import PathTrainer


def state(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(5, 3, generator=generator)
    kinds = {str(dtype): weights.to(dtype) for dtype in DTYPES}
    turned = weights.t()
    return {"step": torch.tensor(step), "parameter.0": weights, "turned": turned, **kinds}


def steps_found(path: Path) -> list[int | None]:
    return [
        None if found.state is None else int(found.state["step"])
        for found in read_checkpoints(path)
    ]


def test_a_checkpoint_reads_back_equal_and_the_one_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    assert steps_found(path) == []
    for step in (1, 2, 3):
        write_checkpoint(path, state(step))
    assert steps_found(path) == [3, 2]
    found = read_checkpoint(path).state
    assert found is not None
    assert found.keys() == state(3).keys()
    assert all(torch.equal(found[name], value) for name, value in state(3).items())
    assert all(found[name].dtype == value.dtype for name, value in state(3).items())
    assert load_file(path).keys() == found.keys()
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "checkpoint-before.safetensors",
        "checkpoint.safetensors",
    ]


def test_the_hash_sees_names_dtypes_shapes_and_bytes() -> None:
    plain = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.ones(2, dtype=torch.int32)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1.0000001])},
    ]
    assert state_hash(plain) == state_hash(dict(reversed(plain.items())))
    assert state_hash(plain) not in {state_hash(other) for other in others}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-7],
    "header only": lambda data: data[:60],
    "empty": lambda data: b"",
    "last bit": lambda data: flipped(data, -1 + len(data)),
    "first weight": lambda data: flipped(data, 8 + int.from_bytes(data[:8], "little")),
    "zeros": lambda data: bytes(len(data)),
    "without a hash": lambda data: save(load(data)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, state(1))
    write_checkpoint(path, state(2))
    path.write_bytes(damage(path.read_bytes()))
    assert read_checkpoint(path).fault.startswith("checkpoint.safetensors: ")
    assert steps_found(path) == [None, 1]
    assert not path.exists()
    write_checkpoint(path, state(2))
    assert steps_found(path) == [2, 1], "the damaged file took the place of a whole one"


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_crash_while_writing_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, state(1))
    write_checkpoint(path, state(2))

    class CrashError(BaseException):
        pass

    def crash(*args: object, **more: object) -> None:
        raise CrashError

    if call == "fsync":
        monkeypatch.setattr("sweeper.model.checkpoint.os.fsync", crash)
    else:
        monkeypatch.setattr(Path, call, crash)
    with pytest.raises(CrashError):
        write_checkpoint(path, state(3))
    monkeypatch.undo()
    assert steps_found(path) == [2, 1]
    write_checkpoint(path, state(3))
    assert steps_found(path) == [3, 2]


def test_a_crash_between_the_two_renames_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, state(1))
    rename = Path.replace
    done: list[Path] = []

    class CrashError(BaseException):
        pass

    def once(self: Path, target: Path) -> Path:
        if done:
            raise CrashError
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(CrashError):
        write_checkpoint(path, state(2))
    monkeypatch.undo()
    assert done == [previous_checkpoint(path)]
    assert steps_found(path) == [1]


@pytest.fixture(scope="module")
def whole(
    tiny_world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrajectoryTask, dict[str, TrialRecord]]:
    task = multi(tiny_world)
    return task, comparable(run_all(task, tmp_path_factory.mktemp("whole")))


def interrupted(task: TrajectoryTask, root: Path, records: int) -> TrialStorage:
    storage = TrialStorage(root, task.trajectory_id)
    attempt = run_trajectory(task, storage)
    known = [next(attempt).config_id for _ in range(records)]
    attempt.close()  # type: ignore[attr-defined]
    for path in storage.outbox.glob("*.json"):  # Those measured beside the last one.
        if path.stem not in known:
            path.unlink()
    return storage


@pytest.mark.parametrize("damage", ["truncated", "last bit", "both"])
def test_a_trial_goes_on_from_the_checkpoint_before_a_damaged_one(
    whole: tuple[TrajectoryTask, dict[str, TrialRecord]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    task, expected = whole
    storage = interrupted(task, tmp_path, 4)
    assert steps_found(storage.checkpoint) == [3, 2]
    hurt = [storage.checkpoint, previous_checkpoint(storage.checkpoint)][
        : 2 if damage == "both" else 1
    ]
    for path in hurt:
        path.write_bytes(DAMAGE.get(damage, DAMAGE["truncated"])(path.read_bytes()))
    restored = []
    restore = PathTrainer.restore

    def noted(self: PathTrainer, found: dict[str, torch.Tensor]) -> None:
        restored.append(int(found["step"]))
        restore(self, found)

    monkeypatch.setattr(PathTrainer, "restore", noted)
    records = run_all(task, tmp_path)
    assert comparable(records) == expected
    notes = [record.provenance["shared"].get("checkpoints_refused") for record in records.values()]
    assert [note and len(note) for note in notes] == [None] * 4 + [len(hurt)] * 2
    # From nothing, the first to be restored is the trunk after the tail that branches off at step 3.
    assert restored[0] == (3 if damage == "both" else 2)
    assert len(restored) == (1 if damage == "both" else 2)


def test_two_good_checkpoints_are_no_news_in_a_record(
    whole: tuple[TrajectoryTask, dict[str, TrialRecord]], tmp_path: Path
) -> None:
    task, _ = whole
    interrupted(task, tmp_path, 4)
    for record in run_all(task, tmp_path).values():
        assert not {"checkpoints_refused", "checkpoints_skipped"} & set(record.provenance["shared"])


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_left_out_and_the_trial_goes_on(
    tiny_world: World, tmp_path: Path
) -> None:
    task = replace(multi(tiny_world), tuning=Tuning("full"))
    expected = comparable(run_all(task, tmp_path / "whole"))
    with small_disk(tmp_path / "disk", 512) as disk:
        storage = TrialStorage(disk, task.trajectory_id)
        storage.create()
        fill(disk, but=200 * 1024)  # Responses and records fit, a checkpoint does not.
        records = run_all(task, disk)
        assert comparable(records) == expected
        assert not list(storage.trajectory.glob("checkpoint*"))
    for record in records.values():
        skipped = record.provenance["shared"]["checkpoints_skipped"]
        assert "no space left to write" in skipped[0] and "checkpoint.safetensors" in skipped[0]


@pytest.mark.parametrize("room", [0, 4096, 5 * 4096], ids="{} bytes".format)
def test_responses_that_do_not_fit_end_the_trial_without_a_failed_record_and_it_goes_on_later(
    whole: tuple[TrajectoryTask, dict[str, TrialRecord]], tmp_path: Path, room: int
) -> None:
    task, expected = whole
    with small_disk(tmp_path / "disk", 2048) as disk:
        storage = TrialStorage(disk, task.trajectory_id)
        storage.create()
        ballast = fill(disk, but=room)
        kept = []
        with pytest.raises(DiskFullError, match=r"no space left to write .* \([\d,]+ bytes\)"):
            for record in run_trajectory(task, storage):
                kept.append(record)
        assert len(kept) < len(expected)
        assert {record.status for record in kept} <= {"complete"}
        ballast.unlink()
        assert comparable(run_all(task, disk)) == expected


@pytest.mark.parametrize("target", ["generations", "outbox", "checkpoint"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT], ids=errno.errorcode.get)
def test_a_storage_that_is_away_for_a_while_changes_no_record(
    whole: tuple[TrajectoryTask, dict[str, TrialRecord]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    code: int,
) -> None:
    task, expected = whole
    pauses: list[float] = []
    monkeypatch.setattr(with_retry, "__kwdefaults__", {"policy": None, "sleep": pauses.append})
    opened, failures = Path.open, [4]

    def flaky(self: Path, mode: str = "r", *args: object, **more: object) -> object:
        here = target in str(self.relative_to(tmp_path)) if tmp_path in self.parents else False
        if "w" in mode and here and failures[0]:
            failures[0] -= 1
            raise OSError(code, os.strerror(code), str(self))
        return opened(self, mode, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", flaky)
    assert comparable(run_all(task, tmp_path)) == expected
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_a_storage_that_stays_away_ends_the_trial_without_a_failed_record(
    whole: tuple[TrajectoryTask, dict[str, TrialRecord]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, expected = whole
    monkeypatch.setattr(with_retry, "__kwdefaults__", {"policy": None, "sleep": lambda s: None})
    opened = Path.open

    def gone(self: Path, mode: str = "r", *args: object, **more: object) -> object:
        if "w" in mode and "generations" in str(self):
            raise OSError(errno.EHOSTDOWN, os.strerror(errno.EHOSTDOWN), str(self))
        return opened(self, mode, *args, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", gone)
        with pytest.raises(UnreachableError, match="retried for 300 s"):
            list(run_trajectory(task, TrialStorage(tmp_path, task.trajectory_id)))
    assert comparable(run_all(task, tmp_path)) == expected


def test_input_files_that_cannot_be_read_now_are_no_failure_of_a_configuration(
    whole: tuple[TrajectoryTask, dict[str, TrialRecord]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, _ = whole

    def unreadable(task: TrajectoryTask) -> None:
        raise OSError(errno.EIO, "Input/output error", "train.jsonl")

    monkeypatch.setattr("sweeper.trial.resources.load_inputs", unreadable)
    again = replace(task, seed=task.seed)
    with pytest.raises(UnreachableError, match=r"train\.jsonl is temporarily unavailable"):
        list(run_trajectory(again, TrialStorage(tmp_path, task.trajectory_id)))
