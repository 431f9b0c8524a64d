"""Prepares the run folder before the first trial: checks spec and inputs, and writes its description."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from sweeper.data.load import data_hash
from sweeper.errors import DataError, ModelError, RunFolderError, SweeperError
from sweeper.estimate import DiskNeed
from sweeper.estimate.inputs import counted_characters, plan_disk, plan_estimate
from sweeper.estimate.measured_rates import count_tokens
from sweeper.keywords.lists import load_keyword_list
from sweeper.model.load import model_hash
from sweeper.model.quantized import check_bitsandbytes
from sweeper.planning import Plan
from sweeper.spec import SweepSpec, dump_spec, spec_hash
from sweeper.spec.document import read_yaml
from sweeper.store.folder import RUN_VERSION, RunFolder, write_atomic
from sweeper.store.provenance import source_hash
from sweeper.task import TrajectoryTask


def disk_need(plan: Plan, spec: SweepSpec, task: TrajectoryTask) -> DiskNeed | None:
    """The disk space that the run needs; None for models of unknown size."""
    try:
        return plan_disk(plan, spec, counted_characters(task))
    except (ModelError, DataError):
        return None


def check_packages(spec: SweepSpec) -> None:
    """Check that the packages are there that some trial of a sweep needs.

    Raises:
        MissingExtraError: one is not installed.
    """
    check_bitsandbytes(spec.tuning, spec.optimizers)


def clear(folder: RunFolder) -> None:
    """Delete the files of an earlier run, and nothing else in the folder.

    run.json is deleted last: after an interruption the folder still says which run the files belong to.
    """
    for path in (folder.trajectories, folder.generations, folder.ray, folder.confirm):
        if path.is_dir():
            shutil.rmtree(path)
    for path in (
        folder.records,
        folder.rounds,
        folder.refinements,
        folder.budget,
        folder.study,
        folder.report,
        folder.plan,
        folder.spec,
        folder.info,
    ):
        path.unlink(missing_ok=True)


def input_hashes(task: TrajectoryTask) -> dict[str, str | None]:
    """Hashes or commits of all inputs of a run (data, lm-eval tasks, model), by name."""
    sources = [
        task.data.train,
        task.data.heldout,
        task.data.safety,
        *task.evaluation.harmful,
        *task.evaluation.harmless,
    ]
    hashes = {source.name: data_hash(source) for source in sources if source is not None}
    if task.evaluation.lm_eval is not None and task.evaluation.lm_eval.include_path is not None:
        hashes["evaluation.lm_eval"] = source_hash(task.evaluation.lm_eval.include_path)
    lists = map(load_keyword_list, task.evaluation.keyword_lists)
    # Published lists never change, and older runs do not hold their hashes.
    own = {f"keyword list {x.name}": x.digest for x in lists if x.matching == "opening"}
    return {**hashes, **own, task.model.name: model_hash(task.model)}


def check_same_run(folder: RunFolder, spec: SweepSpec, task: TrajectoryTask) -> None:
    """Reject a folder that contains a different run.

    Raises:
        RunFolderError: the folder contains a run of another spec, or with other input files.
    """
    info = folder.read_info()
    if info is None:
        return
    remedy = "choose another folder with --out, or start over with --overwrite"
    if info.get("spec_hash") != spec_hash(spec):
        changed = _changed_keys(folder, spec)
        raise RunFolderError(
            f"{folder.root} contains a run of another spec (differs in: {', '.join(changed)}); {remedy}",
            code="run.other_spec",
            path=folder.root,
            changed=changed,
        )
    check_inputs(folder, task, remedy)


def check_inputs(folder: RunFolder, task: TrajectoryTask, remedy: str) -> None:
    """Reject input files whose contents have changed since the run was started."""
    now = input_hashes(task)
    begun = (folder.read_info() or {}).get("inputs", {})
    changed = [name for name, value in now.items() if begun.get(name) != value]
    if changed:
        raise RunFolderError(
            f"{folder.root} was started with other contents of {', '.join(changed)}; {remedy}",
            code="run.other_contents",
            path=folder.root,
            changed=changed,
        )


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


def describe_run(folder: RunFolder, spec: SweepSpec, plan: Plan, task: TrajectoryTask) -> None:
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
        "inputs": input_hashes(task),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomic(folder.info, json.dumps(info, indent=1))
