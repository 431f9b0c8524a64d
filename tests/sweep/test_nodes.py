"""A sweep on a head and two worker nodes, each a `ray start` of its own, that go and come back.

At last the head goes, and the driver with it; the same command ends with the records of an undisturbed run.

Every node lives in a process namespace of its own, so that it goes at once and as a whole.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.fake_hub import COMMIT, FakeHub, fake_hub
from support.hub_cache import use_cache, use_hub
from support.ray_cluster import free_port
from support.world import World, spec_text

from sweeper.data.load import pin_revisions
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord, read_records
from sweeper.trial.run import run_trajectory

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 240.0

MODEL = "own/llama"

NAMESPACE = [
    *("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
]


def wait_for(happened: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
        time.sleep(0.05)


SLOW_DISK = """
import os, time
fsync = os.fsync
def slow(descriptor):
    time.sleep(0.4)
    fsync(descriptor)
os.fsync = slow
"""
"""What Python runs at its start on the nodes: trials are to last until the nodes have gone and come."""


class Cluster:
    """Nodes on this machine with addresses of their own; the head offers no CPU."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.log = home / "nodes.log"
        self.log.touch()
        self._port = free_port()
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        own = {"HOME": str(home), "RAY_TMPDIR": str(home), "RAY_AUTH_MODE": "disabled"}
        search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        (home / "slow").mkdir()
        (home / "slow" / "sitecustomize.py").write_text(SLOW_DISK)
        self.slow = True
        self.environment = {**os.environ, **own, "PATH": search, "OMP_NUM_THREADS": "1"}
        # How long a driver looks for a head that is gone; a minute if nobody says anything.
        self.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "10"
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{self._port}"

    def start_head(self) -> None:
        head = ["--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false"]
        self._start("head", "127.0.0.1", [*head, f"--ray-client-server-port={free_port()}"])

    def start_worker(self, name: str, number: int) -> None:
        self._start(
            name, f"127.0.0.{number}", [f"--address=127.0.0.1:{self._port}", "--num-cpus=1"]
        )

    def _start(self, name: str, address: str, more: list[str]) -> None:
        ray = ["ray", "start", "--block", f"--node-ip-address={address}", "--disable-usage-stats"]
        paths = [str(self._home / "slow")] * self.slow + [os.environ.get("PYTHONPATH", "")]
        environment = {**self.environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment["HF_HOME"] = str(self.cache(name))
        del environment["RAY_ADDRESS"]
        before = self.log.read_text(errors="replace").count("Ray runtime started")
        with self.log.open("ab") as log:
            self._nodes[name] = subprocess.Popen(
                [*NAMESPACE, *ray, "--num-gpus=0", *more],
                stdout=log,
                stderr=log,
                env=environment,
            )
        wait_for(
            lambda: self.log.read_text(errors="replace").count("Ray runtime started") > before,
            self.log,
        )

    def cache(self, name: str) -> Path:
        """Where a node, or the driver, keeps what it has fetched from the hub; nobody shares it."""
        return self._home / f"hub-{name}"

    def kill(self, name: str) -> None:
        """The node is gone, with all of its processes."""
        node = self._nodes.pop(name)
        node.kill()
        node.wait()

    def kill_all(self) -> None:
        for name in list(self._nodes):
            self.kill(name)


@pytest.fixture(scope="module")
def hub(tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    """A hub with the tiny model, which this process reaches too."""
    with pytest.MonkeyPatch.context() as patch, fake_hub() as hub:
        hub.repositories[f"models/{MODEL}"] = tiny_world.model
        use_hub(patch, hub)
        use_cache(patch, tmp_path_factory.mktemp("hub"), offline=False)
        yield hub


@pytest.fixture(scope="module")
def cluster(hub: FakeHub) -> Iterator[Cluster]:
    can = subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False)
    if can.returncode:
        pytest.skip(f"no process namespaces here: {can.stderr.decode(errors='replace').strip()}")
    home = Path(f"/tmp/swn-{os.getpid()}")  # The path of a socket has at most 107 bytes.
    home.mkdir()
    made = Cluster(home)
    made.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    try:
        yield made
    finally:
        made.kill_all()
        shutil.rmtree(home, ignore_errors=True)


class Story(NamedTuple):
    """What became of a sweep while nodes went and came."""

    at_loss: int
    on_the_rest: int
    alone: int
    on_the_returned: int
    at_head_loss: int
    first_end: int
    second_end: int
    said: str
    fetched: dict[str, int]
    records: dict[tuple[str, int], TrialRecord]
    expected: dict[tuple[str, int], TrialRecord]


def undisturbed(text: str, root: Path) -> dict[tuple[str, int], TrialRecord]:
    spec = parse_spec(text)
    plan = make_plan(spec)
    tasks = [
        pin_revisions(task) for task in make_tasks(plan, spec, lambda path: path, device="cpu")
    ]
    return {
        record.key: record.comparable()
        for task in tasks
        for record in run_trajectory(task, TrialStorage(root, task.trajectory_id))
    }


@pytest.fixture(scope="module")
def story(cluster: Cluster, tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("nodes")
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["model"]["path"] = MODEL
    raw["space"]["learning_rate"] = {"values": [1e-3, 2e-3, 3e-3, 4e-3]}
    raw["space"]["max_steps"] = {"values": [2, 4, 6, 8]}
    raw["space"]["lr_scheduler_type"] = "constant"
    raw["compute"] = {"checkpoint_every": 1, "adapters_per_trial": 1}
    text = yaml.safe_dump(raw)
    (root / "spec.yaml").write_text(text)
    command = [sys.executable, "-m", "sweeper", "run", str(root / "spec.yaml")]
    command += ["--out", str(root / "run")]
    log = root / "driver.log"

    def count() -> int:
        return len(read_records(root / "run" / "records.jsonl").records)

    def drive() -> "subprocess.Popen[bytes]":
        with log.open("ab") as out:
            environment = {**cluster.environment, "HF_HOME": str(cluster.cache("driver"))}
            return subprocess.Popen(command, stdout=out, stderr=out, env=environment)

    cluster.start_head()
    cluster.start_worker("a", 2)
    cluster.start_worker("b", 3)
    driver = drive()
    try:
        wait_for(lambda: count() >= 2, log)
        cluster.kill("a")
        at_loss = count()
        wait_for(lambda: count() >= at_loss + 3, log)
        on_the_rest = count()
        cluster.start_worker("a", 2)
        cluster.kill("b")
        alone = count()
        wait_for(lambda: count() >= alone + 3, log)
        on_the_returned = count()
        cluster.kill("head")
        at_head_loss = count()
        first_end = driver.wait(PATIENCE_SECONDS)
        cluster.kill_all()
        cluster.slow = False
        cluster.start_head()
        cluster.start_worker("b", 3)
        driver = drive()
        second_end = driver.wait(PATIENCE_SECONDS)
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    found = read_records(root / "run" / "records.jsonl")
    return Story(
        at_loss,
        on_the_rest,
        alone,
        on_the_returned,
        at_head_loss,
        first_end,
        second_end,
        log.read_text(errors="replace"),
        {
            name: sum(1 for _ in cluster.cache(name).rglob("snapshots/*/model.safetensors"))
            for name in ("driver", "a", "b", "head")
        },
        {record.key: record.comparable() for record in found.records},
        undisturbed(text, root / "whole"),
    )


def test_a_sweep_goes_on_when_a_node_is_gone(story: Story) -> None:
    assert 2 <= story.at_loss < story.on_the_rest


def test_a_node_that_is_back_is_used_again(story: Story) -> None:
    assert story.alone < story.on_the_returned < len(story.expected)


def test_each_node_fetches_the_model_into_a_cache_of_its_own(story: Story) -> None:
    assert story.fetched == {"driver": 1, "a": 1, "b": 1, "head": 0}
    commits = {record.provenance["model"]["revision"] for record in story.records.values()}
    assert commits == {COMMIT}


def test_the_driver_ends_with_the_head(story: Story) -> None:
    assert story.at_head_loss < len(story.expected)
    assert story.first_end != 0


def test_on_a_new_cluster_the_same_command_ends_with_the_records_of_an_undisturbed_run(
    story: Story,
) -> None:
    assert story.second_end == 0, story.said[-4000:]
    assert story.records.keys() == story.expected.keys()
    assert {record.status for record in story.records.values()} == {"complete"}
    assert story.records == story.expected
