"""The Slurm job end to end: two nodes with networks of their own, real Ray, a real sweep, a walltime."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.slurm_stubs import NAMESPACES, namespaces, write_stubs
from support.world import World, spec_text

from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.launch import options_of, prepare, submit, write
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records
from sweeper.trial.run import run_trajectory

PATIENCE_SECONDS = 400.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not namespaces(), reason="this machine allows no networks of one's own"),
]


@pytest.fixture
def spec(tiny_world: World) -> SweepSpec:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["space"]["learning_rate"] = 1e-3
    # Trial after trial: much is left to do whenever the first record is there.
    raw["seeds"] = [0, 1, 2, 3]
    raw["compute"] = {"checkpoint_every": 1, "adapters_per_trial": 1}
    return parse_spec(yaml.safe_dump(raw))


def job(
    stubs: Path, run: Path, *, near: int, restarts: int = 0, front: Path | None = None
) -> tuple[int, str]:
    """Run the batch script; the walltime is near once `near` records are there, never where it is 0.

    `front` is a folder of tools before those of this environment.
    """
    batch = run / "launch" / "slurm.sh"
    if front is not None:
        text = batch.read_text()
        assert text.count("export PATH=") == 1
        batch = batch.with_name("changed.sh")
        batch.write_text(text.replace("export PATH=", f"export PATH={front}:"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "STUBS": str(stubs),
        "RAY": str(Path(sys.executable).parent / "ray"),
        "RECORDS": str(run / "records.jsonl"),
        "SLURM_JOB_ID": str(os.getpid() % 30000 + 1000),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_RESTART_COUNT": str(restarts),
        "OMP_NUM_THREADS": "1",
        # A node waits this long for its lost head, then ends; a minute where nothing is said.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    }
    done = subprocess.run(
        [*NAMESPACES, str(stubs / "job"), str(batch), str(near)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    mounted_on = (
        f"/tmp/sweeper-{environment['SLURM_JOB_ID']}"  # Empty: each node has its own there.
    )
    shutil.rmtree(mounted_on, ignore_errors=True)
    return done.returncode, done.stdout + done.stderr


def started(spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A launch through the `sbatch` of the stubs: their folder, and the run's."""
    stubs, run = write_stubs(tmp_path / "stubs"), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{stubs}:{os.environ['PATH']}")
        patch.setenv("STUBS", str(stubs))
        prepared = prepare(
            spec, "slurm", options_of("slurm", {"nodes": 2, "gpus_per_node": 0}), run
        )
        write(prepared)
        assert submit(prepared).text == "Submitted batch job 4242"
    assert (stubs / "sbatch.log").read_text() == f"{run}/launch/slurm.sh\n"
    return stubs, run


def records_of(run: Path) -> dict[tuple[str, int], TrialRecord]:
    records = read_records(run / "records.jsonl").records
    assert len({record.key for record in records}) == len(records)
    return {record.key: record.comparable() for record in records}


def alone(spec: SweepSpec, folder: Path) -> dict[tuple[str, int], TrialRecord]:
    """The records of the same sweep without Ray, each trajectory after the other."""
    run = RunFolder(folder)
    run.create()
    tasks = [pin_revisions(task) for task in make_tasks(make_plan(spec), spec, resolve)]
    records = [
        record for task in tasks for record in run_trajectory(task, run.trial(task.trajectory_id))
    ]
    return {record.key: record.comparable() for record in records}


def test_a_job_stops_before_its_walltime_is_requeued_and_ends_with_the_same_records(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is on a Ray without `symmetric-run`, the second on the one installed."""
    stubs, run = started(spec, tmp_path, monkeypatch)
    old = write_stubs(tmp_path / "old", old_ray=True)
    code, log = job(stubs, run, near=1, front=old)
    assert code == 130, log
    assert "Running command on head node" not in log
    assert "the sweep goes on where it stopped" in log
    assert (stubs / "requeued.log").exists(), log
    part = records_of(run)
    assert part, log

    code, log = job(stubs, run, near=0, restarts=1)
    assert code == 0, log
    assert "Running command on head node" in log
    assert (stubs / "requeued.log").read_text().count("\n") == 1
    steps = [line for line in (stubs / "srun.log").read_text().splitlines() if "bash" in line]
    assert steps == [f"node1 node2: bash {run}/launch/slurm_node.sh"] * 2
    assert [path.name for path in (run / "launch").glob("stop-*")] == []
    whole = records_of(run)
    assert {record.status for record in whole.values()} == {"complete"}
    assert {key: whole[key] for key in part} == part
    assert whole == alone(spec, tmp_path / "alone")
