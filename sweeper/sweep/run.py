"""One sweep from spec to records: prepare the run folder, check everything, drive, project."""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sweeper.data.load import data_hash, pinned
from sweeper.data.sources import resolve
from sweeper.errors import DataError, ModelError, RunFolderError, SweeperError
from sweeper.estimate import DiskNeed
from sweeper.estimate.inputs import counted_characters, plan_disk, plan_estimate, this_machine
from sweeper.estimate.measured_rates import count_tokens
from sweeper.estimate.preflight import check_memory
from sweeper.model.load import model_hash, opened
from sweeper.planning import Plan, make_plan, make_tasks
from sweeper.scoring.inputs import preflight
from sweeper.search.adaptive import suggestions
from sweeper.search.refine import refined_plans
from sweeper.search.rounds import already_suggested
from sweeper.spec import SweepSpec, dump_spec, spec_hash
from sweeper.spec.document import read_yaml
from sweeper.store.folder import RUN_VERSION, RunFolder, write_atomic
from sweeper.store.lock import DriverLock
from sweeper.store.mirror import Mirror
from sweeper.store.provenance import source_hash
from sweeper.store.records import RecordsRead, read_records
from sweeper.sweep.disk import check_disk, within_quota
from sweeper.sweep.driver import Listener, TrialFunction, drive
from sweeper.sweep.retention import WeightRetention
from sweeper.task import TrajectoryTask
from sweeper.trackers import Loggers
from sweeper.trial.run import run_pack

Begin = Callable[[Plan, RecordsRead], None]


class SweepOutcome(NamedTuple):
    """What was planned in the end, and whether all of it was handed out: not after an interruption.

    `keys` are the (config_id, seed) pairs a finished run has records of, further seeds included.
    """

    plan: Plan
    keys: frozenset[tuple[str, int]]
    whole: bool


def run_sweep(
    spec: SweepSpec,
    out: Path,
    *,
    fresh: bool = False,
    only: Collection[str] | None = None,
    part_of: RunFolder | None = None,
    memory_check: bool = True,
    disk_check: bool = True,
    needed: Callable[[DiskNeed], None] = lambda need: None,
    counted: Callable[[Mapping[str, int]], None] = lambda counts: None,
    begin: Begin = lambda plan, found: None,
    record: Listener = lambda record: None,
    run: TrialFunction = run_pack,
) -> SweepOutcome:
    """Run a sweep, or what is left of it, into a folder.

    Args:
        spec: The validated sweep.
        out: The run folder. A run of the same spec in it is continued.
        fresh: Delete an earlier run in the folder first.
        only: The ids of the configurations to run; all of the sweep where not given. Of an adaptive
            search they are among the rounds that the folder holds, and none is asked for.
        part_of: A run that was begun with the same input files, or else this one is refused.
        memory_check: Refuse what does not fit this machine's GPUs; see `preflight.check_memory`.
        disk_check: Refuse what does not fit the disk or its quota; see `disk.check_disk`.
        needed: Observation how much disk the run needs, where that is known, when all checks have passed.
        counted: Observation how many rows are trained on, held out and left out.
        begin: Observation the plan and what records.jsonl holds already, when all checks have passed.
        record: Observation every new record, after it is on disk.
        run: What does one pack of trajectories.

    Raises:
        RunFolderError: unwritable, in use, or a run of another spec or of other input files.
        DiskFullError, UnreachableError: what was measured cannot be written; nothing recorded is lost.
        DataError, ModelError, DeviceError: found by the preflight, before anything is launched.
        DiskQuotaError: too little disk, or the quota was reached; the same command continues.
        MirrorError: `compute.mirror` does not answer, or holds another run.
        MissingExtraError: `compute.trackers` names one whose package is not installed.
        SweeperError: the grid is too large, or Ray cannot be used.
    """
    folder = RunFolder(out.resolve())
    loggers = Loggers(spec, folder)
    plan = make_plan(spec, None if only is None else already_suggested(folder) or None, only)
    folder.create()
    with DriverLock(folder) as lock:
        mirror = spec.compute.mirror if part_of is None else None
        mirrored = None if mirror is None else Mirror(folder, mirror)
        if mirrored is not None:
            mirrored.pull(spec_hash(spec), fresh)
        tasks = [pinned(task) for task in make_tasks(plan, spec, resolve)]
        counts = preflight(tasks[0])
        if memory_check and (machine := this_machine()).gpus:
            tokens = count_tokens(tasks[0])
            check_memory(plan, spec, str(opened(tasks[0].model)), tokens, machine)
        need = _disk_need(plan, spec, tasks[0])
        if need is not None and disk_check:
            check_disk(need, spec, folder)
        if part_of is not None:
            _check_inputs(part_of, tasks[0], "restore them, or run the whole sweep again")
        if (
            fresh
        ):  # Only now: a sweep that cannot start must not cost the records of an earlier one.
            _clear(folder)
        _check_same_run(folder, spec, tasks[0], only)
        _begin(folder, spec, plan, tasks[0], only)
        found = read_records(folder.records)
        counted(counts)
        if need is not None:
            needed(need)
        begin(plan, found)
        rounds = _Rounds(spec, folder, None if only is None else plan)
        with (
            loggers.telling(record) as logged,
            nullcontext(logged) if mirrored is None else mirrored.following(logged) as told,
            keeping(spec, folder, told, rounds) as kept,
        ):
            drive((), spec, folder, run, kept, rounds, guard=lock.check)
    return SweepOutcome(rounds.plan or plan, frozenset(rounds.keys), rounds.whole)


@contextmanager
def keeping(
    spec: SweepSpec, folder: RunFolder, listener: Listener, rounds: "_Rounds"
) -> Iterator[Listener]:
    """A listener that keeps the run folder to what the spec allows; see `kept` and `disk`."""
    weights = WeightRetention(spec, folder)
    with (
        weights.pruning(listener, lambda: rounds.whole) as pruned,
        within_quota(spec, folder, pruned) as told,
    ):
        yield told


def _disk_need(plan: Plan, spec: SweepSpec, task: TrajectoryTask) -> DiskNeed | None:
    """How much disk the run needs; None of models whose size is not known."""
    try:
        return plan_disk(plan, spec, counted_characters(task))
    except (ModelError, DataError):
        return None


class _Rounds:
    """The tasks of a sweep: all at once, or round by round where the search is adaptive or refined.

    Where a part of a sweep is planned already, its tasks are all there are.
    """

    def __init__(self, spec: SweepSpec, folder: RunFolder, part: Plan | None) -> None:
        self._spec = spec
        self._folder = folder
        self._part = part
        self.plan = part
        self.keys: set[tuple[str, int]] = set()
        self.whole = False

    def __iter__(self) -> Iterator[Sequence[TrajectoryTask]]:
        adaptive = self._part is None and self._spec.search.method == "optuna"
        drawn = None
        for drawn in suggestions(self._spec, self._folder) if adaptive else (None,):
            self.plan = self._part or make_plan(self._spec, drawn)
            if adaptive:
                _recount(self._folder, self.plan)
            yield self._tasks(self.plan)
        if self._part is None and self._spec.search.refine is not None:
            for plans in refined_plans(self._spec, self._folder, drawn):
                yield [task for plan in plans for task in self._tasks(plan)]
        self.whole = True

    def _tasks(self, plan: Plan) -> list[TrajectoryTask]:
        self.keys |= plan.keys()
        return [pinned(task) for task in make_tasks(plan, self._spec, resolve)]


def _recount(folder: RunFolder, plan: Plan) -> None:
    """Bring plan.json up to what has been asked for by now."""
    content = json.loads(folder.plan.read_text(encoding="utf-8"))
    content["accounting"] = plan.accounting._asdict()
    write_atomic(folder.plan, json.dumps(content, indent=1))


def _clear(folder: RunFolder) -> None:
    """Delete the files of an earlier run, and nothing else that lies in the folder.

    run.json goes last: interrupted in between, the folder still says which run its remains belong to.
    """
    for path in (folder.trajectories, folder.generations, folder.ray, folder.confirm):
        if path.is_dir():
            shutil.rmtree(path)
    for path in (
        folder.records,
        folder.rounds,
        folder.refinements,
        folder.study,
        folder.report,
        folder.plan,
        folder.spec,
        folder.info,
    ):
        path.unlink(missing_ok=True)


def _input_hashes(task: TrajectoryTask) -> dict[str, str | None]:
    sources = [
        task.data.train,
        task.data.heldout,
        *task.evaluation.harmful,
        *task.evaluation.harmless,
    ]
    found = {item.name: data_hash(item) for item in sources if item is not None}
    if task.evaluation.lm_eval is not None and task.evaluation.lm_eval.include_path is not None:
        found["evaluation.lm_eval"] = source_hash(task.evaluation.lm_eval.include_path)
    return {**found, task.model.name: model_hash(task.model)}


def _check_same_run(
    folder: RunFolder, spec: SweepSpec, task: TrajectoryTask, only: Collection[str] | None
) -> None:
    """Refuse to mix two sweeps in one folder.

    Raises:
        RunFolderError: the folder holds a run of another spec, configurations or input files.
    """
    info = folder.read_info()
    if info is None:
        return
    remedy = "choose another folder with --out, or start over with --overwrite"
    if info.get("spec_hash") != spec_hash(spec):
        changed = _changed_keys(folder, spec)
        raise RunFolderError(
            f"{folder.root} holds a run of another spec (differs in: {', '.join(changed)}); {remedy}"
        )
    if info.get("only") != _listed(only):
        raise RunFolderError(f"{folder.root} holds a run of other configurations; {remedy}")
    _check_inputs(folder, task, remedy)


def _check_inputs(folder: RunFolder, task: TrajectoryTask, remedy: str) -> None:
    """Refuse other contents of the input files than a run was begun with."""
    now = _input_hashes(task)
    begun = (folder.read_info() or {}).get("inputs", {})
    moved = [name for name, value in now.items() if begun.get(name) != value]
    if moved:
        raise RunFolderError(
            f"{folder.root} was begun with other contents of {', '.join(moved)}; {remedy}"
        )


def _listed(only: Collection[str] | None) -> list[str] | None:
    return None if only is None else sorted(only)


def _changed_keys(folder: RunFolder, spec: SweepSpec) -> list[str]:
    try:
        before = read_yaml(folder.spec.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ["its spec.yaml cannot be read"]
    after = yaml.safe_load(dump_spec(spec))
    flat_before, flat_after = dict(_flat(before)), dict(_flat(after))
    keys = [*flat_after, *(key for key in flat_before if key not in flat_after)]
    return [key for key in keys if flat_before.get(key) != flat_after.get(key)] or ["an old format"]


def _flat(raw: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Mapping leaves with dotted keys; lists are leaves."""
    if not isinstance(raw, Mapping):
        return [(prefix, raw)]
    rows: list[tuple[str, Any]] = []
    for key, value in raw.items():
        rows += _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return rows


def _estimated(spec: SweepSpec, plan: Plan, task: TrajectoryTask) -> dict[str, Any] | None:
    """The analytic estimate with counted tokens, or None where the cost model does not know enough."""
    try:
        return plan_estimate(plan, spec, tokens=count_tokens(task)).to_data()
    except SweeperError:
        return None


def _begin(
    folder: RunFolder,
    spec: SweepSpec,
    plan: Plan,
    task: TrajectoryTask,
    only: Collection[str] | None,
) -> None:
    """Write what describes the run, once; run.json last, because it says that a run has begun."""
    if folder.read_info() is not None:
        return
    write_atomic(folder.spec, dump_spec(spec))
    content = {
        "version": RUN_VERSION,
        "accounting": plan.accounting._asdict(),
        "estimate": _estimated(spec, plan, task),
    }
    write_atomic(folder.plan, json.dumps(content, indent=1))
    info = {
        "version": RUN_VERSION,
        "name": spec.name,
        "spec_hash": spec_hash(spec),
        "only": _listed(only),
        "inputs": _input_hashes(task),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomic(folder.info, json.dumps(info, indent=1))
