"""Out of memory: less at once, the same result, and a clear end where nothing helps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.world import World, spec_text

from sweeper.model.batches import Batch
from sweeper.model.gpu_memory import is_out_of_memory, memory_summary
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.score import Drafts, Scorer
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial import attempt as trial_attempt
from sweeper.trial.failure import Failure, Limits
from sweeper.trial.run import run_pack
from sweeper.trial.train import PathTrainer, step_together


def task_of(world: World, *overrides: str) -> TrajectoryTask:
    spec = parse_spec(spec_text(world), overrides=["space.learning_rate=0.004", *overrides])
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return next(task for task in tasks if task.readouts[0].role == "candidate")


def outcome(task: TrajectoryTask, root: Path) -> dict[str, TrialRecord]:
    parts = run_pack([task], lambda trajectory_id: TrialStorage(root, trajectory_id))
    records = [record for part in parts for record in part]
    assert len({record.config_id for record in records}) == len(records)
    return {record.config_id: record for record in records}


def exhausted_above(
    rows: int, seen: list[tuple[int, int]], from_step: int = 0
) -> Callable[..., object]:
    """The real step, on a device that holds so many rows."""

    def step(
        model: Any, walkers: list[PathTrainer], batches: list[Batch], *args: Any, **more: Any
    ) -> Any:
        seen.append((walkers[0].step, len(batches[0].input_ids)))
        if walkers[0].step >= from_step and len(batches[0].input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step_together(model, walkers, batches, *args, **more)

    return step


def test_the_micro_batch_is_halved_and_training_goes_on_from_the_last_checkpoint(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tiny_world, "space.batch_size=8")
    expected = outcome(task, tmp_path / "plenty")
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(trial_attempt, "step_together", exhausted_above(2, seen, from_step=3))
    records = outcome(task, tmp_path / "tight")
    # Steps 0 to 2 fit; step 3 does not with 8 rows, nor with 4; the checkpoint is that of step 2.
    assert seen == [(0, 8), (1, 8), (2, 8), (3, 8), (2, 4), (3, 4), (2, 2), (3, 2)]
    assert set(records) == set(expected)
    for config_id, record in records.items():
        assert record.status == "complete"
        for name, metric in record.metrics.items():
            assert metric.value == pytest.approx(expected[config_id].metrics[name].value, rel=1e-5)
        late = record.readout["step"] == 4
        assert record.provenance["shared"]["halvings"] == (2 if late else 0)
        assert record.provenance["shared"]["micro_batch_rows"] == (2 if late else 8)


def test_what_does_not_fit_one_row_at_a_time_ends_failed_with_the_figures(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(trial_attempt, "step_together", exhausted_above(0, seen))
    records = outcome(task_of(tiny_world), tmp_path)
    assert [rows for _, rows in seen] == [4, 2, 1]
    assert {record.status for record in records.values()} == {"failed"}
    for record in records.values():
        assert record.reason is not None
        assert record.reason["class"] == "OutOfMemoryError"
        assert record.reason["stage"] == "train"
        assert "CPU: free" in record.reason["message"] and "GiB" in record.reason["message"]
        assert "with 1 row(s) per forward pass" in record.reason["message"]
        assert "compute.gradient_checkpointing" in record.reason["message"]


def test_fewer_readouts_are_scored_together_where_memory_ends(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tiny_world, "space.average={values: [raw, {kind: ema, decay: 0.9}]}")
    expected = outcome(task, tmp_path / "plenty")
    asked: list[int] = []
    score = Scorer.score_or_stop

    def tight(
        self: Scorer, model: Any, slots: Any, may_stop: Sequence[bool], drafts: Drafts
    ) -> Any:
        asked.append(len(may_stop))
        if len(may_stop) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return score(self, model, slots, may_stop, drafts)

    monkeypatch.setattr(Scorer, "score_or_stop", tight)
    records = outcome(task, tmp_path / "tight")
    assert asked[:2] == [3, 1] and set(asked[1:]) == {1}
    for config_id, record in records.items():
        assert record.metrics == expected[config_id].metrics
        assert record.provenance["shared"]["scored_together"] == 1


def test_other_errors_are_not_tried_again(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def broken(*args: Any, **more: Any) -> None:
        calls.append(1)
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(trial_attempt, "step_together", broken)
    records = outcome(task_of(tiny_world), tmp_path)
    assert calls == [1]
    reasons = [record.reason for record in records.values() if record.reason]
    assert {reason["message"] for reason in reasons} == {"shapes do not fit"}
    for record in records.values():
        assert record.provenance["data_counts"]["train_rows"] == 24


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: device-side assert"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_limits_shrink_to_one_and_then_end() -> None:
    def failure(stage: str, rows: int, readouts: int) -> Failure:
        return Failure({"stage": stage}, out_of_memory=True, micro_rows=rows, readouts=readouts)

    limits = Limits().after(failure("train", 5, 0))
    assert limits == Limits(micro_rows=2, halvings=1)
    assert limits is not None
    limits = limits.after(failure("evaluate", 2, 3))
    assert limits == Limits(micro_rows=2, readouts=1, halvings=2)
    assert limits is not None
    assert limits.after(failure("evaluate", 2, 1)) is None
    assert limits.after(failure("train", 1, 1)) is None
    assert limits.after(failure("load", 4, 4)) is None
    assert Limits().after(Failure({"stage": "train"}, micro_rows=8)) is None


def test_figures_are_sizes_of_this_machine() -> None:
    text = memory_summary(torch.device("cpu"))
    free, total = (float(word) for word in text.split() if word.replace(".", "").isdigit())
    assert 0 < free <= total


def test_a_limit_on_the_micro_batch_is_no_part_of_the_task(tiny_world: World) -> None:
    assert "micro_rows" not in json.loads(task_of(tiny_world).to_json())
