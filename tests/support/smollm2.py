"""SmolLM2-135M-Instruct for tests, made by `examples/smollm2/model.py`, and where its measurements go."""

import importlib.util
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.world import World, make_world
from sweeper.store.provenance import git_commit, package_versions

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "smollm2"
RESULTS = "SWEEPER_REAL_RESULTS"
"""The variable that names the file to write measurements to; without it they are only printed."""


def script(name: str) -> Any:
    """A script of the example as a module; it is not typed for the tests."""
    spec = importlib.util.spec_from_file_location(f"smollm2_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_folder() -> Path:
    """The model, from the cache or made now.

    Raises:
        pytest.skip.Exception: the package is neither cached nor to be had, with the reason.
    """
    maker = script("model")
    try:
        folder: Path = maker.ensure_model()
    except (maker.UnavailableError, ImportError) as error:
        pytest.skip(f"SmolLM2 is not tested: {error}")
    return folder


class Measurements:
    """Figures by name; written at the end of a session, beside those of earlier ones."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def note(self, name: str, **figures: Any) -> None:
        """Keep figures and print them."""
        self.found[name] = figures
        print(name, json.dumps(figures))

    def write(self) -> None:
        """Write them where RESULTS says."""
        place = os.environ.get(RESULTS)
        if not place or not self.found:
            return
        path = ROOT / place
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        content = {
            **before,
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": f"{len(os.sched_getaffinity(0))} cores, no GPU",
            "versions": package_versions(),
            "git_commit": git_commit(),
            "measured": {**before.get("measured", {}), **self.found},
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> World:
    """SmolLM2-135M-Instruct with the rows and prompts of the tiny world. Treat it as read-only."""
    return make_world(tmp_path_factory.mktemp("smollm2"), model_folder())


@pytest.fixture(scope="session")
def measurements() -> Iterator[Measurements]:
    """Collects the figures of the session."""
    found = Measurements()
    yield found
    found.write()
