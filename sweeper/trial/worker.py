"""One process of a trial on several GPUs: `python -m sweeper.trial.worker JOB RANK PIPE`.

Started by `trial.ranks`, never by hand.
"""

import json
import os
import sys
import threading
from collections.abc import Generator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sweeper.errors import DiskFullError, UnreachableError
from sweeper.model.distributed import World
from sweeper.model.load import choose_device
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.failure import Failure, Limits
from sweeper.trial.run import run_here


def main(job_path: str, rank: int, pipe: int) -> None:
    """Run one attempt together with the other processes, and report its result through the pipe."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    tasks = [TrajectoryTask.from_json(text) for text in job["tasks"]]
    world = World(rank, tasks[0].compute.processes)
    device = choose_device(tasks[0].compute.device)
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=job["rendezvous"],
        rank=rank,
        world_size=world.size,
    )
    world.barrier()  # A process without work must not disconnect while others still connect.
    attempt = run_here(
        tasks,
        partial(TrialStorage, Path(job["root"])),
        {(config_id, seed) for config_id, seed in job["known"]},
        Limits(**job["limits"]),
        world,
    )
    with os.fdopen(pipe, "w", encoding="utf-8") as out:
        try:
            failure = _report(attempt, world, out)
        except (DiskFullError, UnreachableError) as error:
            out.write(json.dumps({"refused": [type(error).__name__, *error.args]}) + "\n")
            out.flush()
            os._exit(0)
        if failure is not None:
            out.write(json.dumps({"failure": asdict(failure)}) + "\n")
    if failure is None:
        dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # After a failure others may wait for ever in a collective; nothing is left to do.


def _report(
    attempt: Generator[list[TrialRecord], None, Failure | None], world: World, out: Any
) -> Failure | None:
    while True:
        try:
            records = next(attempt)
        except StopIteration as end:
            failure: Failure | None = end.value
            return failure
        if world.is_main_process:
            out.write(json.dumps({"records": [record.to_json() for record in records]}) + "\n")
            out.flush()


def _end_with_parent() -> None:
    """Standard input is a pipe that the parent holds and never writes to."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
