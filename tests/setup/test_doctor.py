"""What `sweeper doctor` finds, and that it never tells a token or leaves anything behind."""

import json
import logging
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support.command import Command

from sweeper.estimate import GPUS
from sweeper.estimate import inputs as facts
from sweeper.memory import hub_cache
from sweeper.model.gpu_memory import visible_gpus
from sweeper.setup import doctor
from sweeper.setup.doctor import Check, examine, pinned_versions, requirements

ROOT = Path(__file__).parents[2]
TOKEN = "hf_averysecrettokenindeed"


@pytest.fixture(autouse=True)
def machine(no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without GPUs, token and flags, whose folders are all in one place."""
    for name in (*doctor.OFFLINE_FLAGS, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(name: str, **given: object) -> Check:
    (check,) = [item for item in examine(Path("runs"), **given) if item.name == name]  # type: ignore[arg-type]
    return check


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    groups = {extra: extras[extra] for extra in extras if extra not in ("all", "dev")}
    wanted: dict[str, tuple[SpecifierSet, str]] = {}
    for extra, lines in {"base": project["dependencies"], **groups}.items():
        for requirement in map(Requirement, lines):
            wanted.setdefault(requirement.name, (requirement.specifier, extra))
    found = {name: (item.specifier, extra) for name, (item, extra) in requirements().items()}
    assert found == wanted
    assert {extra for _, extra in found.values()} == {"base", *groups}


def test_every_requirement_has_a_tested_version_that_it_allows() -> None:
    tested = pinned_versions()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name, (requirement, _) in requirements().items():
        (pin,) = tested[name]
        assert pin.operator == "==" and requirement.specifier.contains(pin.version)
        assert re.search(rf"(?im)^{name.replace('-', '[-_]')}=={re.escape(pin.version)}$", pins)


def test_sweeper_that_is_not_installed_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISTRIBUTION", "sweeper-that-is-nowhere")
    checks = {check.name: check for check in examine(Path("runs"))}
    assert checks["sweeper-that-is-nowhere"].state == "problem"
    assert "torch" not in checks


def test_a_sound_machine_has_no_problem_and_nothing_is_left_behind(
    command: Command, machine: Path
) -> None:
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert "this machine can run a sweep" in out
    for text in ("torch", "transformers", "GPUs", "hub cache", "own cache", "Ray cluster"):
        assert text in out
    assert list(machine.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("2.13.0", "ok"),
        ("2.13.0+cpu", "ok"),
        ("2.13", "ok"),
        ("2.14.1", "note"),
        ("2.8.0", "note"),
        ("2.7.1", "problem"),
        ("1.13.0", "problem"),
    ],
)
def test_versions_are_compared_with_the_tested_and_the_oldest_one(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    real = metadata.version
    fake = {"torch": version}
    monkeypatch.setattr(metadata, "version", lambda name: fake.get(name) or real(name))
    found = find("torch")
    assert (found.state, found.found) == (state, version)
    if state == "problem":
        assert (found.expected, found.remedy) == (">=2.8", "pip install 'sweeper-llm[train]'")
    if state == "note":
        assert found.expected == "2.13.0 (tested)"


@pytest.mark.parametrize(
    ("name", "state", "extra"),
    [("ray", "problem", "cluster"), ("torch", "problem", "train"), ("lm-eval", "note", "eval")],
)
def test_a_missing_package_is_a_problem_only_where_no_sweep_runs_without(
    monkeypatch: pytest.MonkeyPatch, command: Command, name: str, state: str, extra: str
) -> None:
    real = metadata.version

    def version(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return real(asked)

    monkeypatch.setattr(metadata, "version", version)
    found = find(name)
    assert (found.state, found.found) == (state, "not installed")
    assert found.remedy == f"pip install 'sweeper-llm[{extra}]'"
    code, out, _ = command("doctor")
    assert code == (1 if state == "problem" else 0)
    pin = str(pinned_versions()[name]).removeprefix("==")
    assert f"{state}: {name}: found not installed; expected {pin}" in out


def test_a_token_is_seen_and_never_told(
    command: Command, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find("hub token").state == "note"
    (machine / "hf").mkdir()
    (machine / "hf" / "token").write_text(TOKEN)
    assert find("hub token")[1:3] == ("ok", "present (hf auth login)")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find("hub token")[1:3] == ("ok", "present (environment)")
    for words in (("doctor",), ("doctor", "--json")):
        code, out, err = command(*words)
        assert code == 0 and TOKEN not in out + err


def test_the_hub_cache_is_where_the_hub_library_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from huggingface_hub import constants as c; print(c.HF_HUB_CACHE, c.HF_TOKEN_PATH)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cache, token = done.stdout.split()
    assert str(hub_cache()) == cache
    assert str(hub_cache().parent / "token") == token
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HF_HUB_CACHE", "/somewhere/hub")
    assert str(hub_cache()) == "/somewhere/hub"
    assert constants.HF_HUB_CACHE != "/somewhere/hub"  # It is read once, at import.


def test_a_folder_that_cannot_be_written_is_a_problem(
    command: Command, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "file").touch()
    code, out, _ = command("doctor", "--out", machine / "file" / "runs")
    assert code == 1
    assert f"problem: runs: found {machine}/file/runs cannot be written: Not a directory" in out
    assert "expected a writable folder; set --out to one" in out
    monkeypatch.setenv("HF_HOME", str(machine / "file" / "hf"))
    assert find("hub cache").remedy == "set HF_HOME or HF_HUB_CACHE to one"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # Then nothing is written there.
    assert find("hub cache")[1:3] == ("ok", f"{machine}/file/hf/hub, read only")


def test_a_machine_without_torch_and_ray_is_examined_all_the_same() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'ray', 'datasets']))\n"
        "sys.argv = ['sweeper', 'doctor', '--json', '--address', 'auto']\n"
        "from sweeper.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    (problem,) = [c for c in json.loads(done.stdout)["checks"] if c["state"] == "problem"]
    assert (problem["name"], problem["found"]) == ("Ray cluster", "ray is not installed")


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 2**60)
    found = find("runs")
    assert (found.state, found.expected) == ("problem", f"at least {2**30} GiB")
    assert re.fullmatch(r"runs, [\d.]+ GiB free", found.found)


@pytest.mark.parametrize("name", doctor.OFFLINE_FLAGS)
def test_offline_flags_are_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert find("offline mode")[1:3] == ("ok", "off")
    monkeypatch.setenv(name, "0")
    assert find("offline mode").found == "off"
    monkeypatch.setenv(name, "1")
    found = find("offline mode")
    assert (found.state, found.found) == ("note", f"{name}=1")
    assert "sweeper prefetch SPEC" in found.remedy


def test_gpus_that_torch_does_not_see_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("GPUs")[1:3] == ("ok", f"none ({visible_gpus().build})")
    monkeypatch.setattr(facts, "present_gpus", lambda: GPUS[2:3] * 2)
    found = find("GPUs")
    assert found.state == "problem"
    gpu = "H100 80 GB 75 GiB"
    assert found.found == f"{gpu}, {gpu} (nvidia-smi), but torch sees {visible_gpus().number}"
    assert "install a CUDA build of torch" in found.remedy


def test_json_is_the_same_with_the_same_code(command: Command) -> None:
    code, out, _ = command("doctor", "--json", "--address", "127.0.0.1:9")
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    (cluster,) = [check for check in found["checks"] if check["state"] == "problem"]
    assert cluster["name"] == "Ray cluster"
    assert cluster["found"] == "nothing answers at 127.0.0.1:9: Connection refused"
    assert "ray start --head" in cluster["remedy"]


def test_something_that_is_no_ray_cluster_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = find("Ray cluster", address=f"ray.invalid.scheme://127.0.0.1:{port}")
    assert found.state == "problem"
    assert "cannot connect Ray to" in found.found


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a running one-core cluster."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_running_cluster_is_joined_for_a_moment(cluster: str) -> None:
    words = [sys.executable, "-m", "sweeper", "doctor", "--address", cluster, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    (found,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "Ray cluster"]
    assert (found["state"], found["found"]) == ("ok", f"{cluster}: 1 CPU, 0 GPU"), done.stderr
    assert done.returncode == 0
