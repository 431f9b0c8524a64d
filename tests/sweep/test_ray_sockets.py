"""The length of the paths of Ray's sockets."""

import os

import pytest

from sweeper.errors import SweeperError
from sweeper.sweep.ray_sockets import LIMIT_BYTES, check_socket_path
from sweeper.sweep.session import start_ray

BELOW = len(f"/ray/session_2026-11-30_03-12-27_685127_{os.getpid()}/sockets/plasma_store")


@pytest.mark.parametrize("letter", ["a", "\u00e9"])
@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_too_long_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, name: str, letter: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    letters, rest = divmod(LIMIT_BYTES - BELOW - 1, len(letter.encode()))
    longest = "/" + "b" * rest + letter * letters
    monkeypatch.setenv(name, longest)
    check_socket_path()
    monkeypatch.setenv(name, longest + "b")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    most = LIMIT_BYTES - BELOW
    problem = f"^{name} is .*, a path of {most + 1} bytes, .* at most {most}; set RAY_TMPDIR"
    with pytest.raises(SweeperError, match=problem):
        start_ray("local")


def test_rays_folder_counts_before_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "a" * 200)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_socket_path()
