"""A sweep whose numbers follow from the configuration, driven in this process, up to its decision."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, RecordWriter, TrialRecord
from sweeper.sweep.budget import BudgetEnd
from sweeper.sweep.budget_schedule import Phase
from sweeper.sweep.run import SweepCallbacks, SweepOptions, SweepOutcome, run_sweep
from sweeper.task import Readout, TrajectoryTask

N = 240

Unsafe = Callable[[TrajectoryTask, Readout], int]
"""How many of the N harmful prompts a readout answers unsafely."""


def record(task: TrajectoryTask, readout: Readout, unsafe: int) -> TrialRecord:
    """A record whose utility grows with learning rate and steps, and is less with averaging."""
    rate = float(readout.config["learning_rate"])
    averaged = readout.config["average"] != "raw"
    utility = 0.1 if readout.step == 0 else 0.3 + 50 * rate + 0.02 * readout.step - 0.01 * averaged
    return TrialRecord(
        config_id=readout.config_id,
        trajectory_id=task.trajectory_id,
        seed=task.seed,
        role=readout.role,
        status="complete",
        config=readout.config,
        readout={"step": readout.step, "kind": "raw", "decay": None, "weight": None, "label": ""},
        metrics={"rouge_l": Metric(utility, 200), "unsafe_rate": Metric.rate(unsafe, N)},
        objectives=task.objectives,
        samples={"unsafe_rate": "1" * unsafe + "0" * (N - unsafe)},
    )


def is_again(task: TrajectoryTask) -> bool:
    """Whether a task measures the half of the prompts that the search left out."""
    return task.evaluation.harmful[0].prompt_split == "confirm"


def safe_in_the_search(task: TrajectoryTask, readout: Readout) -> int:
    """Everything passes the search; only small learning rates are safe when trained again."""
    return 30 if is_again(task) and float(readout.config["learning_rate"]) > 2e-3 else 0


class Interrupted(Exception):
    """The process ended here, like a kill: nothing after it runs."""


class Measured:
    """A driver without Ray that writes records; counts them, and may end early or be killed.

    `most` is how many records it writes before it ends, for once where the sweep has a budget.
    """

    def __init__(self, unsafe: Unsafe, most: int | None = None, *, killed: bool = False) -> None:
        self._unsafe = unsafe
        self._left = most
        self._killed = killed
        self.tasks: list[TrajectoryTask] = []

    def __call__(
        self,
        rounds: Iterable[Sequence[TrajectoryTask]],
        spec: SweepSpec,
        folder: RunFolder,
        run: object,
        on_record: Callable[[TrialRecord], None],
        guard: Callable[[], None],
        phase: Phase | None = None,
        session: object = None,
    ) -> bool:
        writer = RecordWriter(folder.records)
        try:
            for task in (task for tasks in rounds for task in tasks):
                self.tasks.append(task)
                for readout in task.readouts:
                    if (readout.config_id, task.seed) in writer.keys:
                        continue
                    if self._left == 0:
                        if self._killed:
                            raise Interrupted
                        if phase is not None:  # The budget ends here, and another one is larger.
                            self._left = None
                            phase.end = BudgetEnd("search", 1, 60.0, 1, "learning_rate 0.005")
                        return False
                    made = record(task, readout, self._unsafe(task, readout))
                    writer.append(made)
                    on_record(made)
                    self._left = None if self._left is None else self._left - 1
        finally:
            writer.close()
        return True


def drive_in_process(
    monkeypatch: pytest.MonkeyPatch,
    unsafe: Unsafe = safe_in_the_search,
    most: int | None = None,
    *,
    killed: bool = False,
) -> Measured:
    """Let all sweeps of a test be driven by a `Measured`, as if the tiny world had N prompts."""
    monkeypatch.setattr("sweeper.sweep.decide.too_few_prompts", lambda walk, inputs: None)
    made = Measured(unsafe, most, killed=killed)
    for module in ("run", "decide"):
        monkeypatch.setattr(f"sweeper.sweep.{module}.drive", made)
    return made


def halved(tiny_spec_text: str, *overrides: str) -> SweepSpec:
    """The tiny sweep on one half of its harmful prompts: three learning rates, two numbers of steps."""
    text = tiny_spec_text.replace("prompt_split: all", "prompt_split: search")
    axes = ("space.learning_rate.values=[1e-3, 4e-3, 5e-3]", "space.average=raw")
    return parse_spec(text, overrides=(*axes, *overrides))


def swept(spec: SweepSpec, root: Path, **callbacks: Any) -> SweepOutcome:
    """Run or continue a sweep."""
    return run_sweep(spec, root, SweepOptions(), SweepCallbacks(**callbacks))


def planned_keys(spec: SweepSpec) -> frozenset[tuple[str, int]]:
    """The keys of the search."""
    return make_plan(spec).keys()


def tasks_of_search(spec: SweepSpec) -> tuple[TrajectoryTask, ...]:
    """The tasks of the search."""
    return make_tasks(make_plan(spec), spec, lambda path: path)
