"""No secret of the environment is in anything that a sweep and what follows it write or print."""

import base64
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.busy_machine import BUSY
from support.world import World, spec_text

from sweeper.store.records import read_records

SECRETS = {
    name: f"planted-{name.lower()}-5f1c9e0b7a"
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "OPENAI_API_KEY",
        "WANDB_API_KEY",
        "PGPASSWORD",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "RAY_JOB_HEADERS",
    )
}
SECRETS["WANDB_API_KEY"] = "5f1c9e0b7a" * 4  # Others than 40 letters are refused.
SECRETS["RAY_JOB_HEADERS"] = '{"Authorization": "Bearer planted-ray-5f1c9e0b7a"}'


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it is, backwards quoted, and as base64 has it at each of the three places of a byte."""
    raw = secret.encode("ascii")
    yield raw
    yield raw.replace(b'"', b'\\"')
    for before in range(3):
        coded = base64.b64encode(b"x" * before + raw)
        yield coded[4 if before else 0 : -4]  # Without what neighbours change.
    yield raw.hex().encode("ascii")


def leaks(data: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if any(f in data for f in forms(secret))]


def test_the_search_finds_what_it_looks_for() -> None:
    secret = SECRETS["HF_TOKEN"].encode("ascii")
    for text in (secret, secret.hex().encode("ascii")):
        assert leaks(b"..." + text + b"...") == ["HF_TOKEN"]
    for before in (b"", b"a", b"ab", b"user:"):
        assert leaks(base64.b64encode(before + secret + b"@")) == ["HF_TOKEN"]
    assert leaks(b"planted-hf_token") == []


@pytest.mark.slow
def test_a_token_in_the_environment_is_in_no_file_and_no_line(
    tiny_world: World, tmp_path: Path
) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    spec = tmp_path / "tiny.yaml"
    text = spec_text(tiny_world).replace("[1e-3, 4e-3]", "[1e-3]")
    spec.write_text(text.replace("cpus_per_trial: 1", "cpus_per_trial: 1, trackers: LOGGERS"))
    loggers = "[tensorboard, mlflow, wandb]"
    spec.write_text(spec.read_text().replace("LOGGERS", loggers))
    with tempfile.TemporaryDirectory(
        dir="/tmp", prefix="r"
    ) as rays:  # Ray's sockets need short names.
        environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            **BUSY,
            **SECRETS,
            "HOME": str(home),
            "RAY_TMPDIR": rays,
            "TMPDIR": rays,
            "WANDB_MODE": "offline",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        printed = b""
        commands: list[tuple[object, ...]] = [
            ("run", spec, "--out", run),
            ("report", run),
            ("front", run, "--json"),
            ("export", run, "--format", "all", "--config", "CONFIG"),
            ("rescore", run, "--judge", "keyword:qi2023"),
            ("export-study", run),
            ("doctor",),
            *(
                ("launch", spec, "--on", target, "--dry-run", *more)
                for target, more in (("ray", ()), ("slurm", ()), ("skypilot", ("--image", "i")))
            ),
        ]
        for command in commands:
            words = [str(word) for word in command]
            if "CONFIG" in words:
                records = read_records(run / "records.jsonl").records
                trained = [record for record in records if record.role == "candidate"]
                words[words.index("CONFIG")] = trained[0].config_id
            done = subprocess.run(
                [sys.executable, "-m", "sweeper", *words],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                timeout=240,
            )
            if words[0] not in ("doctor", "launch"):
                assert done.returncode == 0, done.stderr[-3000:]
            printed += done.stdout + done.stderr
        files = [
            path
            for root in (run, home, tmp_path, Path(rays))
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        ends = {path.name for path in files}
        assert {"records.jsonl", "report.html", "run.json"} <= ends
        assert any("raylet" in name for name in ends)  # Ray's own logs are among them.
        found = {str(path): names for path in files if (names := leaks(path.read_bytes()))}
    assert found == {}
    assert leaks(printed) == []
