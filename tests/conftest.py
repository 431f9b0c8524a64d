"""Fixtures that many tests share; what they build is in `support`."""

import os
from pathlib import Path

import pytest
from support.browser import chromium, opened  # noqa: F401  Fixtures of every test.
from support.busy_machine import BUSY
from support.command import Command, in_process
from support.hub_cache import use_cache
from support.smollm2 import measurements, smollm2  # noqa: F401  The same.
from support.snapshot import Snapshot
from support.world import World, make_world, spec_text

from sweeper.estimate import inputs
from sweeper.spec import SweepSpec, parse_spec

for name, value in BUSY.items():
    os.environ.setdefault(name, value)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, files with slow ones begin, and quick ones fill the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """See `make_world`. Treat it as read-only: it is shared by the whole session."""
    return make_world(tmp_path_factory.mktemp("tiny_world"))


@pytest.fixture(scope="session")
def tiny_spec_text(tiny_world: World) -> str:
    """The tiny sweep as YAML."""
    return spec_text(tiny_world)


@pytest.fixture(scope="session")
def tiny_spec(tiny_spec_text: str) -> SweepSpec:
    """The tiny sweep, validated."""
    return parse_spec(tiny_spec_text, source="tiny")


@pytest.fixture
def sweep(tiny_spec_text: str, tmp_path: Path) -> Path:
    """The tiny sweep as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text, encoding="utf-8")
    return path


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Runs `sweeper ...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process(monkeypatch, capsys)


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    return use_cache(monkeypatch, tmp_path / "hub")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    monkeypatch.setattr(inputs, "present_gpus", tuple)


@pytest.fixture
def workers_import_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial functions of a test travel to Ray's workers by reference."""
    folders = {str(request.path.parent), str(Path(__file__).parent)}
    monkeypatch.setenv("PYTHONPATH", ":".join(sorted(folders)))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def snapshot(request: pytest.FixtureRequest) -> Snapshot:
    """Compares the wording of a surface with a file in `snapshots` beside the test."""
    return Snapshot(request.path.parent / "snapshots")
