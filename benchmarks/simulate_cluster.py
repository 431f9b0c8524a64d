"""A sweep on 64 GPUs in virtual time: what the driver itself costs, and how long GPUs wait.

The searcher, the packs, the writer of records and the observer that keeps the Optuna study are those of a
sweep; Ray is left out, and a trial lasts as long as its optimizer steps and readouts are estimated to.
`python benchmarks/simulate_cluster.py` takes about ten thousand configurations under three seeds.
"""

import argparse
import heapq
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import scale

from sweeper.planning import Pack, make_packs
from sweeper.planning.packs import READOUT_ROWS
from sweeper.search.live_study import LiveStudy
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import RecordWriter, TrialRecord
from sweeper.sweep.schedule import RoundSchedule
from sweeper.sweep.trials import PackSearcher, tasks_of
from sweeper.task import TrajectoryTask

RESULTS = Path(__file__).resolve().parent / "results" / "simulate_cluster.json"

GPUS = 64

ROW_SECONDS = 0.02
"""Virtual seconds for training on one row: about an 8B model with LoRA on one H100."""

START_SECONDS = 60.0
"""Virtual seconds before the first trial of a worker: its process, its imports, its model."""


class Clock:
    """Processor seconds of this process by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds what the block takes to a part."""
        begin = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin


def duration(pack: Pack) -> float:
    """The virtual seconds of a pack, as the schedule estimates its work: rows, and readouts as rows."""
    steps = sum(
        (segment.stop - segment.start) * task.optimizer.batch_size
        for task in pack
        for segment in task.segments
    )
    rows = steps + READOUT_ROWS * sum(len(task.readouts) for task in pack)
    return ROW_SECONDS * rows


def simulate(
    spec: SweepSpec,
    tasks: tuple[TrajectoryTask, ...],
    folder: RunFolder,
    gpus: int = GPUS,
    lasts: Callable[[Pack], float] = duration,
) -> dict[str, Any]:
    """Drive all tasks on as many workers as GPUs, in virtual time.

    Returns:
        Counts; virtual makespan in seconds and the share of GPU time that is idle, starts included; the
        driver's processor seconds by part and, over all parts, per trial and per record; its peak memory.
    """
    clock = Clock()
    writer = RecordWriter(folder.records)
    waiting: list[tuple[float, int, str, list[TrajectoryTask]]] = []
    trials, busy, now = 0, 0.0, 0.0
    with clock.part("packs"):
        packs = make_packs(tasks, spec.compute.adapters_per_trial, gpus)
    schedule = RoundSchedule(iter([tasks]), lambda _: packs)
    searcher = PackSearcher(schedule, writer.keys)
    with LiveStudy(spec, folder.study, ()) as study:
        free = [(START_SECONDS, worker) for worker in range(gpus)]
        while True:
            while free and not schedule.exhausted:
                with clock.part("suggestions"):
                    config = searcher.suggest(str(trials))
                if not isinstance(config, dict):
                    break
                begin, worker = heapq.heappop(free)
                pack = tasks_of(config)
                seconds = lasts(tuple(pack))
                heapq.heappush(waiting, (max(now, begin) + seconds, worker, str(trials), pack))
                trials, busy = trials + 1, busy + seconds
            if not waiting:
                break
            now, worker, trial_id, pack = heapq.heappop(waiting)
            texts = [
                scale.made_up(task, item, {}).to_json() for task in pack for item in task.readouts
            ]
            with clock.part("records"):
                records = [TrialRecord.from_json(text) for text in texts]
                for record in records:
                    writer.append(record)
            with clock.part("study"):
                for record in records:
                    study.on_record(record)
            with clock.part("suggestions"):
                searcher.on_trial_complete(trial_id)
            heapq.heappush(free, (now, worker))
    count = len(writer.keys)
    writer.close()
    spent = sum(clock.seconds.values())
    return {
        "gpus": gpus,
        "trajectories": len(tasks),
        "trials": trials,
        "records": count,
        "makespan_seconds": now,
        "idle_share": 1 - busy / (gpus * now),
        "driver_cpu_seconds": clock.seconds,
        "driver_seconds_per_trial": spent / trials,
        "driver_seconds_per_record": spent / count,
        "driver_share_of_makespan": spent / now,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**20 if sys.platform == "darwin" else 2**10),
    }


def main() -> None:
    """Simulate the sweep of `scale.py` under some seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gpus", type=int, default=GPUS)
    given = parser.parse_args()
    begin = time.process_time()
    spec, plan, tasks = scale.laid_out(f"{scale.SPEC}seeds: {given.seeds}\n")
    planned = time.process_time() - begin
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        folder.create()
        found = simulate(spec, tasks, folder, given.gpus)
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count()},
        "versions": package_versions(),
        "git_commit": git_commit(),
        "configurations": plan.accounting.configurations + plan.accounting.controls,
        "seeds": given.seeds,
        "planning_cpu_seconds": planned,
        **found,
    }
    print(json.dumps(content, indent=1))
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
