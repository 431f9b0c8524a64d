"""Names in a spec and the paths they become."""

from pathlib import Path

import pytest
from support.raising import raises

from sweeper.data import sources


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the built miniature."""
    folder = tmp_path / "world"
    (folder / "model").mkdir(parents=True)
    monkeypatch.setattr(sources, "ensure_miniature", lambda root: folder)
    return folder


def test_a_builtin_name_is_a_place_in_the_built_world(world: Path) -> None:
    assert sources.resolve("builtin:miniature/model") == str(world / "model")


@pytest.mark.parametrize(
    "name", ["builtin:miniature/modle", "builtin:miniature", "builtin:other/model"]
)
def test_a_builtin_name_that_does_not_exist_is_refused(name: str) -> None:
    with raises("data.builtin", path=name):
        sources.resolve(name)


def test_an_existing_path_becomes_absolute_and_a_hub_id_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").touch()
    assert sources.resolve("rows.jsonl") == str((tmp_path / "rows.jsonl").resolve())
    assert sources.resolve("meta-llama/Llama-3.2-1B-Instruct") == "meta-llama/Llama-3.2-1B-Instruct"


def test_a_cache_that_cannot_be_written_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(sources, "ensure_miniature", refuse)
    with raises("data.builtin", path=sources.cache_root()):
        sources.resolve("builtin:miniature/model")


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWEEPER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert sources.cache_root() == tmp_path / "xdg" / "sweeper"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.cache_root() == tmp_path / ".cache" / "sweeper"
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "own"))
    assert sources.cache_root() == tmp_path / "own"
