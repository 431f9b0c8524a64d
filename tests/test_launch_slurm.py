"""The Slurm job end to end: two nodes with networks of their own, real Ray, a real sweep, a walltime."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import World, spec_text
from slurm_stubs import NAMESPACES, namespaces, write_stubs

from sweeper.launch import options_of, prepare, submit, write
from sweeper.plan import make_plan
from sweeper.records import TrialRecord, read_records
from sweeper.spec import SweepSpec, parse_spec

PATIENCE_SECONDS = 400.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not namespaces(), reason="this machine allows no networks of one's own"),
]


@pytest.fixture
def spec(tiny_world: World) -> SweepSpec:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["space"]["learning_rate"] = {"values": [1e-3, 2e-3, 4e-3]}
    raw["compute"] = {"checkpoint_every": 1}
    return parse_spec(yaml.safe_dump(raw))


def job(stubs: Path, run: Path, *, near: int, restarts: int = 0) -> tuple[int, str]:
    """Run the batch script; the walltime is near once `near` records are there, never where it is 0."""
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
        [*NAMESPACES, str(stubs / "job"), str(run / "launch" / "slurm.sh"), str(near)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    return done.returncode, done.stdout + done.stderr


def started(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, old_ray: bool = False
) -> tuple[Path, Path]:
    """A launch through the `sbatch` of the stubs: their folder, and the run's."""
    stubs, run = write_stubs(tmp_path / "stubs", old_ray=old_ray), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{stubs}:{os.environ['PATH']}")
        patch.setenv("STUBS", str(stubs))
        prepared = prepare(
            spec, "slurm", options_of("slurm", {"nodes": 2, "gpus_per_node": 0}), run
        )
        write(prepared)
        assert submit(prepared).text == "Submitted batch job 4242"
    assert (stubs / "sbatch.log").read_text() == f"{run}/launch/slurm.sh\n"
    if old_ray:  # The script puts this environment's own `ray` in front of the stub.
        batch = run / "launch" / "slurm.sh"
        text = batch.read_text()
        assert text.count("export PATH=") == 1
        batch.write_text(text.replace("export PATH=", f"export PATH={stubs}:"))
    return stubs, run


def records_of(run: Path) -> dict[tuple[str, int], TrialRecord]:
    records = read_records(run / "records.jsonl").records
    assert len({record.key for record in records}) == len(records)
    return {record.key: record.comparable() for record in records}


def test_a_job_stops_before_its_walltime_is_requeued_and_ends_with_the_same_records(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs, run = started(spec, tmp_path, monkeypatch)
    code, log = job(stubs, run, near=1)
    assert code != 0, log
    assert (stubs / "requeued.log").exists(), log
    assert "the sweep goes on where it stopped" in log
    part = records_of(run)
    assert len(part) > 0, log
    code, log = job(stubs, run, near=0, restarts=1)
    assert code == 0, log
    assert "Running command on head node" in log
    assert (stubs / "requeued.log").read_text().count("\n") == 1
    whole = records_of(run)
    assert set(whole) == make_plan(spec).keys()
    assert {record.status for record in whole.values()} == {"complete"}
    assert {key: whole[key] for key in part} == part
    assert [path.name for path in (run / "launch").glob("stop-*")] == []

    (tmp_path / "old").mkdir()
    stubs, again = started(spec, tmp_path / "old", monkeypatch, old_ray=True)
    code, log = job(stubs, again, near=0)
    assert code == 0, log
    assert "symmetric" not in log
    assert records_of(again) == whole
    (step,) = [line for line in (stubs / "srun.log").read_text().splitlines() if "bash" in line]
    assert step == f"node1 node2: bash {again}/launch/slurm_node.sh"
