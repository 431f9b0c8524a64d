"""Fixtures that many tests share; what they build is in `support`."""

import pytest
from support.browser import chromium, opened  # noqa: F401  Fixtures of every test.
from support.world import World, make_world, spec_text

from sweeper.spec import SweepSpec, parse_spec


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
