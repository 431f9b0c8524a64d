"""Sweeps under seeded schedules of faults, compared with an undisturbed one: `make chaos SEEDS=50`.

A seed is a list of lives. In each a driver process runs what is left of a small sweep, with the real spec,
planner, lock, trials and files, and one to three faults happen at chosen moments: it is killed while it
trains, scores, or writes a checkpoint, responses or a record; the disk is full or away; it hangs; its clock
jumps; a second driver comes. Between lives files are damaged as power cuts and bad disks damage them. Then
it is left in peace until it has finished. Its records and responses must be those of the undisturbed run.

Lives are forked, so that torch is imported once. With `--ray` the sweep runs on a real local Ray instead,
and its driver and workers are killed.
"""

import argparse
import errno
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

import sweeper.model.checkpoint
import sweeper.store.folder
import sweeper.store.retry
import sweeper.sweep.run
from support.world import make_world, spec_text
from sweeper.errors import DiskFullError, RunFolderError, UnreachableError
from sweeper.planning import make_packs
from sweeper.scoring.score import Scorer
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.journal import Journal
from sweeper.store.records import RecordWriter, TrialRecord, read_records
from sweeper.sweep.run import run_sweep
from sweeper.task import TrajectoryTask
from sweeper.trial import resources
from sweeper.trial.run import run_pack
from sweeper.trial.train import PathTrainer
from sweeper.trial.watchdog import Watchdog

FINISHED, DISK_FULL, TEMPORARY_ERRORS, REFUSED, OTHER = 0, 21, 22, 23, 24
"""How a life ends, where no signal and no watchdog ends it."""

HUNG = 1
"""What a watchdog ends a process with."""

POINTS = ("load", "train", "score", "checkpoint", "rename", "responses", "outbox", "record", "kept")
"""Where a fault may happen; `kept`: a record is on disk, and nobody was told yet."""

WRITES = ("checkpoint", "responses", "outbox", "record")

DAMAGES = ("flip", "truncate", "delete", "torn", "leftover")


class Fault(NamedTuple):
    """What happens at the `nth` time that a process comes to a point."""

    point: str
    nth: int
    action: str

    def __str__(self) -> str:
        return f"{self.action} at {self.point} {self.nth}"


class Life(NamedTuple):
    """One run of the driver: what happens in it, what was damaged before it, and whether a rival comes."""

    faults: tuple[Fault, ...]
    damage: str
    rival: bool


def schedule(seed: int) -> list[Life]:
    """The lives of a seed, before it is left in peace."""
    draw = random.Random(seed)
    lives = []
    for number in range(draw.randint(4, 7)):
        faults = []
        for _ in range(draw.randint(1, 3)):
            point = draw.choice(POINTS)
            actions = ["kill", "kill", "term"]
            if point in WRITES:
                actions += ["full", "away", "lost"]
            if point in ("record", "outbox"):
                actions += ["torn"]
            if point in ("load", "train", "score", "checkpoint", "responses"):
                actions += ["hang"]
            faults.append(Fault(point, draw.randint(1, 5), draw.choice(actions)))
        damage = draw.choice(DAMAGES) if number and draw.random() < 0.6 else ""
        lives.append(Life(tuple(faults), damage, draw.random() < 0.25))
    return lives


@dataclass
class Chaos:
    """The faults of one life, in its own process."""

    faults: Sequence[Fault]
    clock: random.Random
    counts: dict[str, int] = field(default_factory=dict)
    failing: dict[str, tuple[int, int]] = field(default_factory=dict)

    def at(self, point: str, tear: Callable[[], None] = lambda: None) -> None:
        """The process has come to a point."""
        self.counts[point] = self.counts.get(point, 0) + 1
        for fault in self.faults:
            if (fault.point, fault.nth) == (point, self.counts[point]):
                self._happen(fault, tear)
        times, code = self.failing.get(point, (0, 0))
        if times:
            self.failing[point] = times - 1, code
            raise OSError(code, os.strerror(code), point)

    def _happen(self, fault: Fault, tear: Callable[[], None]) -> None:
        if fault.action in ("kill", "term", "torn"):
            if fault.action == "torn":
                tear()
            os.kill(os.getpid(), signal.SIGTERM if fault.action == "term" else signal.SIGKILL)
            time.sleep(60)
        if fault.action == "hang":
            hang()
        code = {"full": errno.ENOSPC, "away": errno.EIO, "lost": errno.ESTALE}.get(fault.action, 0)
        if code:
            self.failing[fault.point] = {"full": 1, "away": 3, "lost": 10**9}[fault.action], code

    def now(self) -> float:
        """The time of day, as a clock without discipline tells it."""
        return self.clock.uniform(0.0, 4e9)


def hang() -> None:
    """Make no progress; the watchdog's patience is made short first."""
    for item in gc.get_objects():
        if isinstance(item, Watchdog):
            item._seconds, item._due = 0.1, 0.0
            item.beat()
            time.sleep(600)


def install(chaos: Chaos) -> None:
    """Put the faults where they happen, in this process for good."""

    def before(owner: Any, name: str, point: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            chaos.at(point)
            return real(*arguments, **more)

        setattr(owner, name, wrapped)

    before(PathTrainer, "finish", "train")
    before(Scorer, "_scores", "score")
    before(resources, "load_inputs", "load")
    before(sweeper.model.checkpoint, "_replace", "checkpoint")
    write_atomic, write_line, rename = (
        sweeper.store.folder.write_atomic,
        Journal._write,
        Path.replace,
    )

    def atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
        point = {"generations": "responses", "outbox": "outbox"}.get(path.parent.name)
        if point is not None:
            chaos.at(point, lambda: void(path.with_name(f".{path.name}.1.tmp").write_bytes(b"{")))
        write_atomic(path, content, durable)

    def line(self: Journal, data: bytes) -> None:
        def tear() -> None:
            with self.path.open("ab") as file:
                file.write(data[: len(data) // 2])

        chaos.at("record", tear)
        write_line(self, data)
        chaos.at("kept")

    def replaced(self: Path, target: Path) -> Path:
        if self.name.startswith("checkpoint"):
            chaos.at("rename")
        return rename(self, target)

    sweeper.store.folder.write_atomic = atomic
    setattr(Journal, "_write", line)  # noqa: B010 - mypy knows no other assignment
    Path.replace = replaced  # type: ignore[method-assign, assignment]
    defaults = sweeper.store.retry.with_retry.__kwdefaults__ or {}
    defaults["sleep"] = lambda seconds: None
    time.time = chaos.now


def void(anything: object) -> None:
    """Nothing."""


def driver(
    rounds: Iterable[Sequence[TrajectoryTask]],
    spec: SweepSpec,
    folder: RunFolder,
    run: object,
    on_record: Callable[[TrialRecord], None],
    guard: Callable[[], None],
    phase: object = None,
    session: object = None,
) -> bool:
    """What `sweeper.sweep.driver` does, in this process and without Ray."""
    writer = RecordWriter(folder.records)
    tasks = [task for tasks in rounds for task in tasks]
    left = [
        task
        for task in tasks
        if any((item.config_id, task.seed) not in writer.keys for item in task.readouts)
    ]
    for pack in make_packs(left, spec.compute.adapters_per_trial, 1):
        for records in run_pack(pack, folder.trial, frozenset(writer.keys)):
            for record in records:
                guard()
                writer.append(record)
                on_record(record)
        for task in pack:
            folder.trial(task.trajectory_id).drop_checkpoints()
    return True


def live(spec: SweepSpec, root: Path, faults: Sequence[Fault], seed: int) -> int:
    """One life, in the process that called: how it ended."""
    install(Chaos(faults, random.Random(seed)))
    setattr(sweeper.sweep.run, "drive", driver)  # noqa: B010 - mypy knows no other assignment
    try:
        ended = run_sweep(spec, root)
    except DiskFullError:
        return DISK_FULL
    except UnreachableError:
        return TEMPORARY_ERRORS
    except RunFolderError as error:
        return REFUSED if "is using" in str(error) else OTHER
    return FINISHED if ended.completed else OTHER


def begin(spec: SweepSpec, root: Path, faults: Sequence[Fault], seed: int, log: Path) -> int:
    """Fork a life; its process id."""
    child = os.fork()
    if child:
        return child
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = OTHER
    try:
        code = live(spec, root, faults, seed)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)


def end_of(child: int) -> int:
    """Wait for a life: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def damaged(root: Path, kind: str, draw: random.Random) -> None:
    """Do to the files of a dead run what a power cut or a bad disk does."""
    checkpoints = sorted((root / "trajectories").glob("*/checkpoint*.safetensors"))
    records = root / "records.jsonl"
    if kind == "torn" and records.exists():
        with records.open("ab") as file:
            file.write(b'{"config_id": "torn'[: draw.randint(1, 19)])
    if kind == "leftover" and checkpoints:
        fresh = checkpoints[0].name.replace("checkpoint", "checkpoint-new", 1)
        checkpoints[0].with_name(fresh).write_bytes(b"\0" * 100)
    if kind in ("flip", "truncate", "delete") and checkpoints:
        path = draw.choice(checkpoints)
        data = path.read_bytes()
        place = draw.randrange(len(data)) if data else 0
        if kind == "delete":
            path.unlink()
        elif kind == "truncate":
            path.write_bytes(data[:place])
        else:
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])


class Outcome(NamedTuple):
    """What a run left: its records without what may differ, and the responses by file."""

    records: dict[tuple[str, int], TrialRecord]
    responses: dict[str, bytes]


def outcome(root: Path) -> Outcome:
    """Read a finished run; a record that stands twice is an error of `read_records`."""
    found = read_records(root / "records.jsonl")
    assert found.torn == b""
    files = sorted((root / "generations").glob("*.jsonl"))
    return Outcome(
        {record.key: _comparable(record) for record in found.records},
        {path.name: path.read_bytes() for path in files},
    )


def _comparable(record: TrialRecord) -> TrialRecord:
    """Without what differs honestly; the repository, too, may be written to meanwhile."""
    plain = record.comparable()
    return replace(plain, provenance={**plain.provenance, "git_commit": None})


def differences(found: Outcome, expected: Outcome) -> list[str]:
    """What a disturbed run has lost, made up or changed."""
    pairs: list[tuple[str, Mapping[Any, object], Mapping[Any, object]]] = [
        ("record", found.records, expected.records),
        ("responses", found.responses, expected.responses),
    ]
    return [
        f"{name} {key}"
        for name, left, right in pairs
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]


SPEC: dict[str, dict[str, Any]] = {
    "space": {
        "learning_rate": {"values": [1e-3, 2e-3, 4e-3, 1e20]},
        "max_steps": {"values": [2, 4, 6]},
        "lr_scheduler_type": "wsd",
        "decay_steps": 1,
    },
    "compute": {"checkpoint_every": 1, "max_concurrent_trials": 1, "adapters_per_trial": 2},
}
"""What a small sweep has beyond `world.spec_text`. At the last learning rate the loss is NaN."""


def prepare(root: Path) -> tuple[SweepSpec, Outcome]:
    """The sweep, and what it leaves undisturbed."""
    torch.set_num_threads(1)
    (root / "world").mkdir()
    raw = yaml.safe_load(spec_text(make_world(root / "world")))
    for key, value in SPEC.items():
        raw[key] = {**raw[key], **value}
    (root / "spec.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    spec = parse_spec(yaml.safe_dump(raw))
    code = end_of(begin(spec, root / "whole", (), 0, root / "log.txt"))
    assert code == FINISHED, (root / "log.txt").read_text()
    return spec, outcome(root / "whole")


class Observation(NamedTuple):
    """What came of a seed: how its lives ended, and what differs."""

    ends: list[int]
    differences: list[str]


def run_seed(seed: int, spec: SweepSpec, expected: Outcome, root: Path) -> Observation:
    """Live through the faults of a seed, then to the end."""
    draw = random.Random(seed + 10**6)
    log = root.with_suffix(".log")
    ends = []
    for number, life in enumerate(schedule(seed)):
        if life.damage:
            damaged(root, life.damage, draw)
        child = begin(spec, root, life.faults, seed + number, log)
        if life.rival:
            time.sleep(draw.uniform(0.0, 0.6))
            ends.append(end_of(begin(spec, root, (), seed, log)))
        ends.append(end_of(child))
    return in_peace(spec, root, ends, expected)


def in_peace(spec: SweepSpec, root: Path, ends: Sequence[int], expected: Outcome) -> Observation:
    """Let a run that was disturbed finish, and compare what it leaves."""
    log = root.with_suffix(".log")
    last = end_of(begin(spec, root, (), 0, log))
    wrong = [] if last == FINISHED else [f"left in peace it ended with {last}"]
    if OTHER in (*ends, last):
        wrong.append(f"a life ended in an unforeseen way: {log.read_text()[-2000:]}")
    return Observation([*ends, last], wrong + differences(outcome(root), expected))


SCRIPT = (
    (Fault("responses", 1, "full"), DISK_FULL),
    (Fault("outbox", 1, "full"), DISK_FULL),
    (Fault("record", 1, "full"), DISK_FULL),
    (Fault("responses", 1, "lost"), TEMPORARY_ERRORS),
    (Fault("outbox", 1, "lost"), TEMPORARY_ERRORS),
    (Fault("record", 1, "lost"), TEMPORARY_ERRORS),
    (Fault("load", 1, "kill"), -signal.SIGKILL),
    (Fault("train", 2, "kill"), -signal.SIGKILL),
    (Fault("checkpoint", 2, "kill"), -signal.SIGKILL),
    (Fault("rename", 2, "kill"), -signal.SIGKILL),
    (Fault("rename", 3, "kill"), -signal.SIGKILL),
    (Fault("score", 1, "kill"), -signal.SIGKILL),
    (Fault("score", 1, "term"), -signal.SIGTERM),
    (Fault("responses", 2, "kill"), -signal.SIGKILL),
    (Fault("outbox", 2, "kill"), -signal.SIGKILL),
    (Fault("outbox", 1, "torn"), -signal.SIGKILL),
    (Fault("record", 1, "kill"), -signal.SIGKILL),
    (Fault("record", 2, "torn"), -signal.SIGKILL),
    (Fault("kept", 1, "kill"), -signal.SIGKILL),
    (Fault("train", 3, "hang"), HUNG),
    (Fault("score", 1, "hang"), HUNG),
    (Fault("load", 1, "hang"), HUNG),
)
"""Faults one after the other, each in a life of its own, and how that life ends."""

HARMLESS = (
    Fault("checkpoint", 1, "full"),
    Fault("checkpoint", 3, "lost"),
    Fault("responses", 1, "away"),
    Fault("outbox", 1, "away"),
    Fault("record", 1, "away"),
)
"""Faults that end no life."""


def run_script(spec: SweepSpec, expected: Outcome, root: Path) -> Observation:
    """Live through SCRIPT and what is HARMLESS, then to the end; says of each fault what came of it."""
    log, ends = root.with_suffix(".log"), []
    wrong = []
    for number, (fault, due) in enumerate(SCRIPT):
        ends.append(end_of(begin(spec, root, (fault,), number, log)))
        print(f"{fault}: ended {ends[-1]}", flush=True)
        wrong += [] if ends[-1] == due else [f"{fault} ended with {ends[-1]}, not {due}"]
    ends.append(end_of(begin(spec, root, HARMLESS, 0, log)))
    print(f"what is harmless: ended {ends[-1]}", flush=True)
    told = in_peace(spec, root, ends, expected)
    return Observation(told.ends, wrong + told.differences)


RAY_PATIENCE_SECONDS = 240.0


def workers_of(driver: int) -> list[int]:
    """The trial processes below a driver, from /proc."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(status.parent.name)] = int(rest.split()[1]), name
    found = []
    for process, (parent, name) in parents.items():
        above = parent
        while above in parents and above != driver:
            above = parents[above][0]
        if above == driver and "ray::" in name:
            found.append(process)
    return found


def run_ray_seed(seed: int, expected: Outcome, root: Path) -> Observation:
    """The command line on a real local Ray; workers and driver are killed, then it is left in peace."""
    draw = random.Random(seed)
    spec, out, ends = root.parent / "spec.yaml", root, []
    for life in range(4):
        command = [sys.executable, "-m", "sweeper", "run", str(spec), "--out", str(out)]
        with root.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        target = draw.choice(("worker", "driver", "terminated driver")) if life < 3 else "nobody"
        there = len(read_records(out / "records.jsonl").records)
        moment = there + draw.randint(1, 3)
        deadline = time.monotonic() + RAY_PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if target != "nobody" and len(read_records(out / "records.jsonl").records) >= moment:
                time.sleep(draw.uniform(0.0, 0.3))
                if target == "worker":
                    for worker in workers_of(process.pid)[:1]:
                        os.kill(worker, signal.SIGKILL)
                else:
                    end = signal.SIGKILL if target == "driver" else signal.SIGTERM
                    os.kill(process.pid, end)
                target = "nobody"
            time.sleep(0.01)
        ends.append(process.wait(RAY_PATIENCE_SECONDS))
        damaged(out, draw.choice(DAMAGES), draw) if life < 3 else None
    return Observation(ends, differences(outcome(out), expected))


def main() -> int:
    """Run the seeds and say what differs; 1 where anything does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--ray", type=int, default=0, help="Further seeds on a real local Ray.")
    parser.add_argument("--script", action="store_true", help="Every fault of SCRIPT once, too.")
    asked = parser.parse_args()
    bad = lives = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        root = Path(folder)
        spec, expected = prepare(root)
        print(f"undisturbed: {len(expected.records)} records", flush=True)
        runs: list[tuple[str, Callable[[], Observation]]] = []
        if asked.script:
            runs.append(("script", partial(run_script, spec, expected, root / "script")))
        for seed in range(asked.first, asked.first + asked.seeds):
            runs.append((f"seed {seed}", partial(run_seed, seed, spec, expected, root / f"{seed}")))
        for seed in range(asked.first, asked.first + asked.ray):
            runs.append(
                (f"Ray seed {seed}", partial(run_ray_seed, seed, expected, root / f"ray-{seed}"))
            )
        for name, run in runs:
            began = time.monotonic()
            told = run()
            lives += len(told.ends)
            bad += bool(told.differences)
            spent = time.monotonic() - began
            print(
                f"{name}: {spent:.0f} s, lives ended {told.ends}, differences "
                f"{told.differences or 'none'}",
                flush=True,
            )
    print(f"{len(runs)} seeds, {lives} lives, {bad} seeds with differences")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
