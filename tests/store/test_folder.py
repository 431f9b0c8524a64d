"""The run folder: whole files or none, one driver at a time, plain refusals."""

import json
import re
import shlex
from pathlib import Path

import pytest

import sweeper
from sweeper.errors import RunFolderError
from sweeper.store.folder import RUN_VERSION, RunFolder, write_atomic


def test_write_atomic_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "öne")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_write_atomic_keeps_the_old_file_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sweeper.store.folder.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new and much longer")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_write_atomic_keeps_the_old_file_when_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_below_a_regular_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"cannot write to the run folder .*file/run.*--out"):
        RunFolder(tmp_path / "file" / "run").create()


def test_create_leaves_an_empty_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path / "deep" / "run").create()
    assert list((tmp_path / "deep" / "run").iterdir()) == []


def test_read_info_of_a_folder_without_a_run_is_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).read_info() is None
    assert RunFolder(tmp_path / "absent").read_info() is None


def test_opening_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is not a run folder \(no run.json\)"):
        RunFolder(tmp_path).open()


@pytest.mark.parametrize("content", ["{", '"text"', "[]", '{"version": 99}', "{}"])
def test_a_damaged_or_foreign_run_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"run\.json"):
        RunFolder(tmp_path).read_info()


def test_a_file_in_place_of_a_run_folder_is_named_as_one(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("x", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"report\.html is a file, not a run folder; give"):
        RunFolder(file).read_info()


def test_read_info_gives_back_what_was_written(tmp_path: Path) -> None:
    info = {"version": RUN_VERSION, "name": "a", "inputs": {"x": None}}
    (tmp_path / "run.json").write_text(json.dumps(info))
    assert RunFolder(tmp_path).read_info() == info
    assert RunFolder(tmp_path).open().root == tmp_path


def test_a_trial_writes_below_its_own_trajectory_and_into_the_generations(tmp_path: Path) -> None:
    storage = RunFolder(tmp_path).trial("t1")
    storage.create()
    storage.create()
    assert storage.outgoing("c1") == tmp_path / "trajectories" / "t1" / "outbox" / "c1.json"
    assert storage.generations("c1", 3) == tmp_path / "generations" / "c1-3.jsonl"
    assert storage.outbox.is_dir() and storage.generations("c1", 3).parent.is_dir()


def test_a_printed_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "my runs; it's one")
    folder.root.mkdir()
    folder.info.write_text('{"version": 1}')
    with pytest.raises(RunFolderError) as caught:
        folder.read_info()
    command = str(caught.value).split("`")[1]
    assert shlex.split(command) == ["sweeper", "migrate", str(folder.root), "--write"]


def test_no_command_is_printed_with_a_bare_path() -> None:
    package = Path(sweeper.__file__).parent
    bare = re.compile(r"sweeper (?!reads)[a-z-]+ \{(?!shlex\.quote|quoted\})")
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    assert len(texts) > 100
    assert [found for text in texts for found in bare.findall(text)] == []
    assert bare.search("next: sweeper front {folder.root}")
