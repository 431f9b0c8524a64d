"""`sweeper launch --on slurm` on a real Slurm: unequal nodes, real Ray, real sweeps, and what befalls them.

All tests share one cluster. Where it cannot be started they are skipped, and the summary says why.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.slurm_cluster import SlurmCluster, lacking
from support.world import World, spec_text

from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.records import TrialRecord, read_records
from sweeper.trial.run import run_trajectory

PATIENCE_SECONDS = 400.0

Records = dict[tuple[str, int], TrialRecord]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # Five starts of Ray on a busy machine.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Two nodes, with 2 CPUs and 1."""
    if (why := lacking()) is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("slurm")
    found = SlurmCluster(folder, (2, 1), tmp_path_factory.getbasetemp())
    yield found
    found.stop()


def sweep_text(world: World, seeds: int) -> str:
    raw = yaml.safe_load(spec_text(world))
    raw["space"] |= {"learning_rate": 1e-3, "max_steps": {"values": [8, 16]}}
    raw["seeds"] = list(range(seeds))
    # Trial after trial: much is left to do whenever the first record is there.
    raw["compute"] = {"checkpoint_every": 1, "adapters_per_trial": 1, "gpus_per_trial": 0}
    raw["decide"] = False
    return yaml.safe_dump(raw)


class Job:
    """A launched job and its run folder."""

    def __init__(self, cluster: SlurmCluster, spec: Path, run: Path) -> None:
        self.cluster, self.spec, self.run = cluster, spec, run
        self.id = ""

    def launch(self, *words: str, **environment: str) -> str:
        """Submit it; the output."""
        command = [sys.executable, "-m", "sweeper", "launch", str(self.spec), "--on", "slurm"]
        text = self.cluster(*command, "--out", str(self.run), *words, **environment)
        found = re.search(r"Submitted batch job (\d+)", text)
        assert found is not None, text
        self.id = found[1]
        return text

    def sweeper(self, *words: str) -> str:
        return self.cluster(sys.executable, "-m", "sweeper", *words)

    def __getattr__(self, name: str) -> str:
        """A field of Slurm's, such as JobState."""
        return self.cluster.field(self.id, name)

    @property
    def log(self) -> str:
        path = self.run / "launch" / f"slurm-{self.id}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def count(self) -> int:
        """Records on the disk."""
        path = self.run / "records.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def records(self) -> Records:
        found = read_records(self.run / "records.jsonl").records
        assert len({record.key for record in found}) == len(found)
        return {record.key: record.comparable() for record in found}

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < until, f"{what}: {self.JobState}, {self.count}; {self.log}"
            time.sleep(0.3)

    def requeued(self) -> None:
        """Wait until Slurm has taken it back into the queue, and let it start at once."""
        before = self.Restarts
        self.wait("requeue", lambda: self.JobState == "PENDING" or self.Restarts != before)
        self.cluster.release(self.id)

    def ended(self) -> None:
        self.wait("end", lambda: self.JobState not in ("RUNNING", "PENDING", "COMPLETING"))


@pytest.fixture
def job(cluster: SlurmCluster, tiny_world: World, tmp_path: Path) -> Callable[[str, int], Job]:
    def made(name: str, seeds: int) -> Job:
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(sweep_text(tiny_world, seeds), encoding="utf-8")
        return Job(cluster, spec, tmp_path / name)

    return made


def alone(job: Job, folder: Path) -> Records:
    """The records of the same sweep without Ray, each trajectory after the other."""
    spec = parse_spec(job.spec.read_text(encoding="utf-8"))
    run = RunFolder(folder)
    run.create()
    tasks = [pin_revisions(task) for task in make_tasks(make_plan(spec), spec, resolve)]
    records = [
        record for task in tasks for record in run_trajectory(task, run.trial(task.trajectory_id))
    ]
    return {record.key: record.comparable() for record in records}


def test_unequal_nodes_a_lost_ray_and_a_requeue_end_with_the_records_of_an_undisturbed_run(
    job: Callable[[str, int], Job], tmp_path: Path
) -> None:
    """The job has all memory of its nodes, whatever the site gives by default, and an environment."""
    one = job("one", 14)
    words = ("--nodes", "2", "--gpus-per-node", "2", "--sbatch=--comment=drill")
    one.launch(*words, SBATCH_EXPORT="NONE")
    before = one.id
    one.launch("--nodes", "1", "--gpus-per-node", "0")
    again, one.id = one.id, before  # It waits for the first, which keeps its own files.
    one.wait("records", lambda: one.count > 2)
    assert (one.MinMemoryNode, one.Comment, one.NumCPUs) == ("0", "drill", "3")
    assert "2 of 2 nodes have joined" in one.log

    rays = ("pgrep", "-f", "raylet/raylet.*node_ip_address=10.78.0.2")
    (lost,) = one.cluster(*rays).split()
    one.cluster("kill", "-KILL", lost)
    one.wait("Ray of node 2", lambda: one.cluster(*rays).split() not in ([], [lost]))
    assert one.JobState == "RUNNING"

    assert one.cluster.field(again, "JobState") == "PENDING"
    count = one.count
    one.cluster("scontrol", "requeue", one.id)
    assert count < len(keys(one))
    one.requeued()
    one.wait("more records", lambda: one.count > count)
    assert one.log.count("2 of 2 nodes have joined") == 2
    one.cluster("scancel", again)
    one.wait("the end of the sweep", lambda: "\nnext: " in one.log)
    over = time.monotonic()
    one.ended()
    assert time.monotonic() - over < 45, one.log  # Ray that loses its head waits for it for 60 s.
    assert (one.JobState, one.Restarts) == ("COMPLETED", "1"), one.log
    assert one.records() == alone(one, tmp_path / "alone")
    assert len(one.log) < 12_000
    assert [path.name for path in (one.run / "launch").glob("job-*")] == []
    left = one.cluster("srun", "-N2", "ls", "/tmp")
    assert f"sweeper-{one.id}" not in left


def keys(job: Job) -> list[tuple[str, int]]:
    """The keys of all records of a sweep."""
    return list(make_plan(parse_spec(job.spec.read_text(encoding="utf-8"))).keys())


def test_two_sweeps_share_a_node_and_survive_a_walltime_a_held_folder_and_a_cancel(
    job: Callable[[str, int], Job],
) -> None:
    words = ["--shared", "--cpus-per-node=1", "--gpus-per-node=0", "--memory=2000Mi"]
    words.append("--sbatch=--nodelist=node1")
    one, two = (
        job("one", 24),
        job("two", 8),
    )  # The first is not to end before the signal reaches it.
    for each in (one, two):
        each.launch(*words)
    one.wait("two Rays", lambda: len(one.cluster("pgrep", "-f", "gcs/gcs_server").split()) == 2)
    assert one.MinMemoryNode == "2000M"

    one.wait("a record", lambda: one.count > 0)
    one.cluster("scancel", "--signal=USR1", "--batch", one.id)  # As before the walltime.
    two.wait("a record", lambda: two.count > 0)
    two.cluster("scancel", two.id)
    two.ended()
    assert two.JobState == "CANCELLED"
    one.wait("requeue", lambda: "the walltime is near; requeued" in one.log)
    with DriverLock(RunFolder(one.run)):  # Such as that of a node which Slurm has lost.
        one.requeued()
        one.wait("refusal", lambda: "the run folder is in use; requeued" in one.log)
    two.launch(*words)
    one.requeued()
    for each in (one, two):
        each.ended()
        assert each.JobState == "COMPLETED", each.log
        assert set(each.records()) == set(keys(each))
        assert {record.status for record in each.records().values()} == {"complete"}
    assert (one.Restarts, two.Restarts) == ("2", "0"), one.log
