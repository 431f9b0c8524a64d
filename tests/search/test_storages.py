"""Studies in storages that others share: a journal, SQLite, and a real PostgreSQL where it is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import optuna
import pytest
from support.factories import make_spec, make_sweep
from support.raising import raises
from support.ray_cluster import free_port

from sweeper.analysis import find_front
from sweeper.search.storages import open_storage, shown_url
from sweeper.search.study import copy_study


def postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def as_postgres(command: list[str]) -> None:
    """PostgreSQL refuses to run as root."""
    user = "postgres" if os.geteuid() == 0 else None
    subprocess.run(command, check=True, capture_output=True, cwd="/", user=user, group=user)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as these tests."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(mkdtemp(dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()
    words = folder / "password"
    words.write_text("not secret\n", encoding="utf-8")
    words.chmod(0o644)
    account = ["-U", "sweeper", "-A", "scram-sha-256", f"--pwfile={words}"]
    as_postgres([f"{programs}/initdb", "-D", f"{data}", "--no-sync", *account])
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [f"{programs}/pg_ctl", "-D", f"{data}", "-w"]
    as_postgres([*control, "-l", f"{folder}/log", "-o", options, "start"])
    yield f"postgresql+psycopg://sweeper@127.0.0.1:{port}/postgres"
    as_postgres([*control, "-m", "immediate", "stop"])
    shutil.rmtree(folder)


def check(url: str) -> None:
    """A study is there whole, is replaced by the next one, and another's is left alone."""
    spec = make_spec()
    records = make_sweep()[:40]
    copy_study(find_front(records[:7], spec), spec, url)
    front = find_front(records, spec)
    copy_study(front, spec, url)
    read = optuna.load_study(study_name="synthetic", storage=open_storage(url))
    ended = [item.config_id for item in front.candidates if item.role != "base"]
    assert sorted(t.user_attrs["config_id"] for t in read.trials) == sorted(ended)
    best = sorted(item.config_id for item in front.members)
    assert sorted(t.user_attrs["config_id"] for t in read.best_trials) == best
    optuna.create_study(study_name="mine", storage=open_storage(url))
    with raises("study_storage.other_study", study="mine"):
        copy_study(front, spec.model_copy(update={"name": "mine"}), url)
    assert {s.study_name for s in optuna.get_all_study_summaries(open_storage(url))} == {
        "synthetic",
        "mine",
    }


def test_a_journal_holds_a_study(tmp_path: Path) -> None:
    check(f"journal:{tmp_path / 'studies.log'}")


def test_an_sqlite_file_holds_a_study(tmp_path: Path) -> None:
    check(f"sqlite:///{tmp_path / 'studies.sqlite3'}")


@pytest.mark.slow
def test_postgresql_holds_a_study(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "not secret")
    check(postgres)


@pytest.mark.slow
def test_a_wrong_password_is_told_and_not_repeated(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with raises("study_storage.unusable") as refused:
        open_storage(postgres.replace("sweeper@", "sweeper:hunter2@"))
    assert "hunter2" not in str(refused.value)
    assert "sweeper:***@127.0.0.1" in str(refused.value)


def test_what_is_no_storage_is_refused(tmp_path: Path) -> None:
    with raises("study_storage.not_a_url"):
        open_storage("somewhere")
    with raises("study_storage.missing_driver"):
        open_storage("postgresql+pg8000://someone@127.0.0.1/none")
    with raises("study_storage.unusable"):
        open_storage(f"sqlite:///{tmp_path / 'no' / 'folder' / 'x.sqlite3'}")
    port = free_port()
    with raises("study_storage.unusable") as refused:
        open_storage(f"postgresql+psycopg://someone:hunter2@127.0.0.1:{port}/none")
    assert "hunter2" not in str(refused.value)
    assert shown_url("journal:a/b.log") == "journal:a/b.log"


def test_a_storage_that_refuses_to_be_written_is_named(tmp_path: Path) -> None:
    spec, path = make_spec(), tmp_path / "studies.sqlite3"
    copy_study(find_front(make_sweep()[:3], spec), spec, f"sqlite:///{path}")
    read_only = f"sqlite:///file:{path}?mode=ro&uri=true"
    with raises("study_storage.unusable", problem="attempt to write a readonly database"):
        copy_study(find_front(make_sweep()[:7], spec), spec, read_only)
