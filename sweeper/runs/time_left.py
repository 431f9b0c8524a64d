"""How long a running sweep still takes, from its files: the plan, its estimate, and the logs of trials."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from sweeper.analysis import SAFEST_USEFUL
from sweeper.estimate import Rates, Tokens
from sweeper.estimate.remaining import PlannedWork, Remaining, planned_work
from sweeper.planning import Plan, make_plan
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.lock import Holder, this_machine
from sweeper.store.trial_log import LogReader
from sweeper.sweep.decision import stage_folder


def work_of(spec: SweepSpec, folder: RunFolder, plan: Plan) -> PlannedWork:
    """The work of a plan by the estimate in plan.json; nothing where there is none."""
    try:
        cost = json.loads(folder.plan.read_text(encoding="utf-8"))["estimate"]
        rates, tokens = Rates(**cost["rates"]), Tokens(**cost["tokens"])
        return planned_work(plan, spec, rates, tokens, int(cost["workers"]))
    except (OSError, ValueError, LookupError, TypeError):
        return PlannedWork({})


def seconds_left(
    folder: RunFolder, decision: RunFolder, spec: SweepSpec, began: float, now: float
) -> float | None:
    """The seconds left of a search and its decision; None while nothing is known.

    Args:
        folder: Of the run.
        decision: Of its decision, begun or not.
        spec: Of the sweep.
        began: When its driver began, in seconds since 1970.
        now: The time, likewise.
    """
    plan = make_plan(spec)
    work = work_of(spec, folder, plan)
    seeds = {path.trajectory_id: path.seed for path in plan.trajectories}
    found = sorted(_readouts(folder))
    keys = {(config_id, seeds.get(trial, 0)) for time, trial, config_id in found if time < began}
    left = sum(seconds for key, seconds in work.seconds.items() if key not in keys)
    search = Remaining(work, began, left or float(folder.planned_records() - len(keys)))
    for time, trial, config_id in found:
        if time >= began:
            search.finished((config_id, seeds.get(trial, 0)), time)
    if not decision.info.exists():
        return search.seconds_left(now)
    search.seconds_left(now)
    begun = max(began, decision.info.stat().st_mtime)
    found = sorted(_readouts(decision))
    new = [item for item in found if item[0] >= begun]
    planned = float(decision.planned_records() - len(found) + len(new))
    walk = Remaining(PlannedWork({}, work.workers), begun, planned, search.later or None)
    for time, _, config_id in new:
        walk.finished((config_id, 0), time)
    return walk.seconds_left(now)


def _readouts(folder: RunFolder) -> Iterator[tuple[float, str, str]]:
    """Time, trial and configuration of every readout in the logs."""
    for trial in folder.trials_with_logs():
        for line in LogReader(folder.trial(trial)).new_lines():
            if line.event == "readout":
                yield line.time, trial, str(line.fields.get("config_id"))


def run_seconds_left(folder: RunFolder, spec: SweepSpec, now: float) -> float | None:
    """See `seconds_left`; a driver of another machine counts from the start of the run."""
    holder = Holder.read(folder.lock)
    here = holder is not None and (holder.host, holder.boot) == this_machine()
    began = process_began(holder.process) if here and holder is not None else None
    stage = stage_folder(folder, SAFEST_USEFUL)
    return seconds_left(folder, stage, spec, began or folder.info.stat().st_mtime, now)


def process_began(process: int) -> float | None:
    """When a process of this machine began, in seconds since 1970; None where the system does not say."""
    try:
        fields = (
            Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        )
        system = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        boot = next(line for line in system if line.startswith("btime ")).split()[1]
        return int(boot) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, LookupError, StopIteration):
        return None
