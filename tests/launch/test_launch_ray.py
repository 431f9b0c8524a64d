"""Ray jobs, for real: on a cluster of this test, a sweep is submitted, stopped and continued."""

import importlib.util
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.command import Command
from support.raising import raises
from support.ray_cluster import can_be_alone, ray_cluster
from support.world import World, spec_text

from sweeper.errors import ClusterTokenError
from sweeper.launch import Prepared, options_of, prepare, submit, write
from sweeper.planning import make_plan
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.records import read_records

PATIENCE_SECONDS = 200.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("aiohttp_cors") is None,
        reason="no dashboard takes jobs without ray[default]: pip install 'sweeper-llm[cluster]'",
    ),
    pytest.mark.skipif(not can_be_alone(), reason="this machine allows no namespaces of one's own"),
]


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process's user has no token of any cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster(tmp_path: Path, no_token: None) -> Iterator[str]:
    """A cluster that asks for no token."""
    with ray_cluster(tmp_path, RAY_AUTH_MODE="disabled") as address:
        yield address


@pytest.fixture
def spec(tiny_world: World) -> SweepSpec:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["space"]["learning_rate"] = 1e-3
    raw["compute"] = {"checkpoint_every": 1, "max_concurrent_trials": 1}
    return parse_spec(yaml.safe_dump(raw))


def launch(spec: SweepSpec, address: str, run: Path) -> tuple[Prepared, str]:
    prepared = prepare(spec, "ray", options_of("ray", {"address": address}), run)
    write(prepared)
    return prepared, submit(prepared).text


def wait_for_records(run: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (run / "records.jsonl").exists() is False or lines(run) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines(run: Path) -> int:
    return (run / "records.jsonl").read_bytes().count(b"\n")


def wait_for_end(address: str, name: str) -> str:
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(address)
    deadline = time.monotonic() + PATIENCE_SECONDS
    ended = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}
    while client.get_job_status(name) not in ended:
        assert time.monotonic() < deadline, client.get_job_logs(name)
        time.sleep(0.2)
    assert "planted" not in client.get_job_logs(name)
    return str(client.get_job_status(name).value)


def test_a_job_is_submitted_once_stopped_and_continued_under_the_next_name(
    cluster: str,
    spec: SweepSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    """It is stopped from where only the launch is, as on a machine that does not see the run folder."""
    from ray.job_submission import JobSubmissionClient

    monkeypatch.setenv("HF_TOKEN", "hf_planted_0123456789")
    run = tmp_path / "run"
    prepared, said = launch(spec, cluster, run)
    name = prepared.step.submission_id
    assert said == f"submitted job {name}"
    _, again = launch(spec, cluster, run)
    assert again == f"job {name} already exists and has not finished: nothing to submit"

    wait_for_records(run, 1)
    client = JobSubmissionClient(cluster)
    assert name is not None
    seen = tmp_path / "seen"
    shutil.copytree(run / "launch", seen / "launch")
    logs = f"ray job logs --address {cluster} {name}"
    assert command("status", seen).out == f"{seen}: Ray job {name}: RUNNING; its log: {logs}\n"
    stopped = f"Ray job {name} is cancelled; `sweeper launch` continues the run\n"
    assert command("stop", seen).out == stopped
    assert wait_for_end(cluster, name) == "STOPPED"
    assert f"Ray job {name}: STOPPED" in command("status", seen).out
    assert command("stop", seen).code == 2
    _, said = launch(spec, cluster, run)
    assert said == f"submitted job {name}-2, which continues {name} (stopped)"
    assert wait_for_end(cluster, f"{name}-2") == "SUCCEEDED", client.get_job_logs(f"{name}-2")

    records = read_records(run / "records.jsonl").records
    assert {record.status for record in records} == {"complete"}
    keys = [record.key for record in records]
    assert len(keys) == len(set(keys))
    assert set(keys) == make_plan(spec).keys()
    details = [repr(job) for job in client.list_jobs()]
    assert len(details) == 2
    assert "planted" not in "".join(details)


def test_a_cluster_that_asks_for_a_token_is_explained(
    no_token: None, spec: SweepSpec, tmp_path: Path
) -> None:
    token = tmp_path / "cluster-token"
    token.write_text("c0ffee" * 8, encoding="utf-8")
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with ray_cluster(tmp_path, **own) as address, pytest.raises(ClusterTokenError) as caught:
        launch(spec, address, tmp_path / "run")
    assert "asks for a token" in str(caught.value)
    assert "RAY_AUTH_TOKEN_PATH" in str(caught.value)
    assert "c0ffee" not in str(caught.value)


def test_no_cluster_at_the_address_is_explained(
    no_token: None, spec: SweepSpec, tmp_path: Path
) -> None:
    with raises("launch.ray_address", address="http://127.0.0.1:9"):
        launch(spec, "http://127.0.0.1:9", tmp_path / "run")
