"""What leaves this machine: code as git lists it, no secrets, and a line that says how much."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.raising import raises
from support.world import World, spec_text

from sweeper.launch import options_of, prepare, write
from sweeper.launch.sent import MAX_SENT_BYTES, Sent, code_files, data_files, measure
from sweeper.spec import parse_spec

CODE = ("a.py", "sub/b.py", "tokenizer.json", "id.py", "id_map.py", "keyboard.py", "models.json")
SECRETS = (
    "id_rsa",
    "id_ed25519.pub",
    "deploy/id_github",
    "credentials.json",
    "sub/aws_credentials",
    "client_secret_1.json",
    "secrets/db.yaml",
    "my-service-account.json",
    "kubeconfig",
    "hf_token",
    "token.txt",
    "cluster.pem",
    "Server.KEY",
    "prod.tfvars",
)
STAYS = (
    ".env",
    ".env.local",
    ".netrc",
    ".aws/config",
    ".venv/bin/python.py",
    "own-env/pyvenv.cfg",
    "own-env/lib/x.py",
    "runs/x/records.jsonl",
    "elsewhere/run.json",
    "elsewhere/records.jsonl",
    "model.safetensors",
    "w.PT",
    "__pycache__/a.pyc",
)


def plant(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    return folder


def git(folder: Path, *words: str) -> None:
    own = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Tracked, new and ignored files; below it an ignored folder and a repository of its own."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    code = plant(tmp_path / "code", *CODE, *SECRETS, *STAYS, "old.csv", "big/data.csv")
    git(code, "init")
    git(code, "add", "-f", ".")
    plant(code, "new.py", "old.log", "inner/c.py", "inner/id_rsa")
    (code / ".gitignore").write_text("*.log\nbig/\n", encoding="utf-8")
    git(code, "rm", "-r", "-q", "--cached", "big")
    git(code / "inner", "init")
    git(code / "inner", "add", ".")
    return code


def test_code_is_what_git_lists_without_secrets(repository: Path) -> None:
    found = code_files(repository)
    assert list(found.files) == sorted((*CODE, "old.csv", "new.py", "inner/c.py"))
    assert found.secrets == sorted((*SECRETS, "inner/id_rsa"))


def test_a_folder_inside_a_repository_is_listed_by_its_own_paths(repository: Path) -> None:
    assert list(code_files(repository / "sub").files) == ["b.py"]
    assert list(code_files(repository / "big").files) == ["data.csv"]  # Ignored, and asked for.


def test_without_git_the_same_names_stay_here(tmp_path: Path) -> None:
    code = plant(tmp_path / "code", *CODE, *SECRETS, *STAYS)
    (code / "link.py").symlink_to("/etc/hostname")
    (code / "linked").symlink_to(code / "sub")
    found = code_files(code)
    assert (list(found.files), found.secrets) == (sorted(CODE), sorted(SECRETS))


def test_data_that_a_sweep_names_are_sent_whole(tmp_path: Path) -> None:
    rows = plant(tmp_path / "rows", "a.jsonl", "tokens/b.csv", "x.bin", "key.pem")
    plant(rows, ".git/config")
    other = plant(tmp_path / "other", "c.parquet")
    (rows / "link.jsonl").symlink_to(other / "c.parquet")
    (rows / "linked").symlink_to(other)
    (rows / "linked" / "back").symlink_to(rows)
    found = data_files(rows)
    data = ("a.jsonl", "link.jsonl", "linked/c.parquet", "tokens/b.csv")
    assert sorted(found.files) == [*data, "x.bin"]
    assert found.secrets == ["key.pem"]
    plant(rows, "deep/secret-requests.jsonl")
    with raises("launch.secret_or_data", path=rows / "deep" / "secret-requests.jsonl"):
        data_files(rows)


def test_a_data_folder_of_a_sweep_travels_file_by_file(tiny_world: World, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    shutil.copyfile(tiny_world.train, rows / "train.jsonl")
    plant(rows, ".cache/x", "credentials.ini")
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["model"]["path"] = "/data/model"
    raw["data"]["train"]["path"] = str(rows)
    options = options_of("ray", {"storage": "/data"})
    prepared = prepare(parse_spec(yaml.safe_dump(raw)), "ray", options, tmp_path / "run")
    write(prepared)
    sent = tmp_path / "run" / "launch" / "working_dir" / "inputs" / "0-rows"
    assert [path.name for path in sent.rglob("*")] == ["train.jsonl"]
    assert prepared.sent is not None
    assert (prepared.sent.files, prepared.sent.secrets) == (4, ("rows/credentials.ini",))


def test_what_is_sent_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 * 2**20))
    (tmp_path / "b").write_bytes(bytes(512))
    sent = measure({"x/a": tmp_path / "a", "b": tmp_path / "b"}, ("id_rsa", "k.pem", "c", "d"))
    assert sent.describe() == (
        "sent: the sweep file and 2 files, 3.0 MiB; the largest: x/a (3.0 MiB), b (0.5 KiB); "
        "not sent, named like a secret: 4 (id_rsa, k.pem, c, ...)"
    )
    assert Sent(0, 0, ()).describe() == "sent: the sweep file"


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
def test_the_bound_is_exact(tmp_path: Path, over: int, refused: bool) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(MAX_SENT_BYTES + over)
    if refused:
        with raises("launch.too_large", bytes=MAX_SENT_BYTES + 1):
            measure({"big": tmp_path / "big"})
    else:
        assert measure({"big": tmp_path / "big"}).size_bytes == MAX_SENT_BYTES


@pytest.mark.parametrize(
    ("path", "storage", "refused"),
    [
        ("data/trian.jsonl", None, True),
        ("./trian", "/data", True),
        ("/data/trian.jsonl", None, True),
        ("/data/trian.jsonl", "/data", False),
        ("/opt/rows.jsonl", "/data", False),
        ("tatsu-lab/alpaca", None, False),
    ],
)
def test_a_file_that_exists_nowhere_is_refused_before_anything_is_sent(
    tiny_world: World, tmp_path: Path, path: str, storage: str | None, refused: bool
) -> None:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["model"]["path"] = "own/model"
    raw["data"]["train"]["path"] = path
    spec = parse_spec(yaml.safe_dump(raw))
    options = options_of("ray", {} if storage is None else {"storage": storage})
    if refused:
        with raises("launch.missing_files", files=[f"data.train.path ({path})"]):
            prepare(spec, "ray", options, tmp_path)
    else:
        assert prepare(spec, "ray", options, tmp_path).sent is not None
