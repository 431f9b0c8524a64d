"""`sweeper doctor --address`: every node is asked, and what differs is a problem of that node."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.ray_nodes import ray_nodes
from support.world import World, spec_text

from sweeper.setup import node_probe
from sweeper.setup.doctor import Node
from sweeper.setup.nodes import PACKAGES, compare, inputs_of
from sweeper.spec import parse_spec

HERE: Mapping[str, Any] = {
    "host": "head",
    "python": "3.11.9",
    "packages": {
        "sweeper-llm": "0.1.0",
        "torch": "2.13.0+cpu",
        "transformers": "5.20",
        "peft": "0.18",
        "ray": "2.60.0",
    },
    "code": "aaaa",
    "folder": "/shared/runs",
    "error": "",
    "offline": False,
    "inputs": {"model.path": "3 files, bbbb", "data.train.path": "cached"},
}


def differing(gpus: float = 0, unseen: int = 0, **changed: Any) -> Node:
    packages = {**HERE["packages"], **changed.pop("packages", {})}
    inputs = {**HERE["inputs"], **changed.pop("inputs", {})}
    answer = {**HERE, **changed, "packages": packages, "inputs": inputs}
    return compare(Node("n", 4, gpus), answer, HERE, unseen)


def test_an_equal_node_has_no_problem() -> None:
    node = differing()
    assert (node.problems, node.notes) == ((), ())
    assert (node.python, node.folder) == ("3.11.9", "/shared/runs")
    assert tuple(node.packages) == PACKAGES


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"python": "3.12.1"}, "python 3.12.1, here 3.11.9; use the same version"),
        (
            {"packages": {"torch": "2.12.0+cu128"}},
            "torch 2.12.0+cu128, here 2.13.0+cpu; `pip install 'torch==2.13.0'` there",
        ),
        ({"packages": {"peft": None}}, "peft not installed, here 0.18"),
        ({"packages": {"sweeper-llm": "0.2.0"}, "code": "cccc"}, "sweeper-llm 0.2.0, here 0.1.0"),
        ({"code": "cccc"}, "its sweeper has the same version and other code"),
        ({"gpus": 8}, "torch 2.13.0+cpu cannot use its GPUs"),
        ({"error": "Read-only file system"}, "/shared/runs cannot be written: Read-only file"),
        ({"unseen": 2}, "/shared/runs is not shared: 2 files of others are not to be seen"),
        ({"inputs": {"model.path": "missing"}}, "model.path: missing, here 3 files, bbbb"),
        ({"inputs": {"model.path": "2 files, cccc"}}, "model.path: 2 files, cccc, here 3 files"),
        (
            {"inputs": {"data.train.path": "not cached"}, "offline": True},
            "data.train.path: not cached, here cached",
        ),
    ],
)
def test_what_matters_is_one_problem_with_its_remedy(changed: dict[str, Any], said: str) -> None:
    node = differing(**changed)
    assert len(node.problems) == 1 and node.problems[0].startswith(said)


@pytest.mark.parametrize(
    ("changed", "noted"),
    [
        ({"python": "3.11.2"}, 0),
        ({"packages": {"torch": "2.13.0+cu128"}, "gpus": 8}, 0),
        ({"inputs": {"data.train.path": "not cached"}}, 1),
    ],
)
def test_what_does_not_matter_is_no_problem(changed: dict[str, Any], noted: int) -> None:
    node = differing(**changed)
    assert node.problems == () and len(node.notes) == noted


def test_a_fingerprint_follows_the_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    one = node_probe.fingerprint(str(tmp_path / "a"))
    (tmp_path / "a" / "x").write_text("22")
    assert one != node_probe.fingerprint(str(tmp_path / "a")) and one.startswith("1 files, ")
    file = node_probe.fingerprint(str(tmp_path / "a" / "x"))
    (tmp_path / "a" / "x").write_text("23")
    assert file != node_probe.fingerprint(str(tmp_path / "a" / "x"))
    assert node_probe.fingerprint(str(tmp_path / "b")) == "missing"
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert node_probe.fingerprint("own/llama") == "not cached"
    place = tmp_path / "hub" / "models--own--llama" / "snapshots" / "c0ffee"
    place.mkdir(parents=True)
    (place / "config.json").touch()
    assert node_probe.fingerprint("own/llama") == "cached"


def test_marks_are_written_into_the_nearest_folder_and_removed(tmp_path: Path) -> None:
    folder = str(tmp_path / "not" / "yet")
    found = node_probe.probe(PACKAGES, folder, {}, ".mark")
    assert (found["folder"], found["error"]) == (str(tmp_path), "")
    assert node_probe.visible(folder, [".mark", ".other"]) == [".mark"]
    node_probe.remove(folder, [".mark", ".other"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert node_probe.probe(PACKAGES, str(tmp_path), {}, "file/mark")["error"] == "Not a directory"


def test_the_probe_needs_no_package() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(node_probe.__file__).parent)!r}); import node_probe"
    code += "; print(node_probe.probe(['x'], '.', {}, '.mark')); node_probe.remove('.', ['.mark'])"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "'packages': {'x': None}" in done.stdout, done.stderr


def other_torch(folder: Path) -> str:
    """A folder of packages in which torch has another version."""
    info = folder / "torch-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0.0\n")
    return str(folder)


@pytest.mark.slow
def test_two_nodes_are_asked_and_the_one_that_differs_is_named(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text(tiny_world))
    wanted = inputs_of(parse_spec(spec.read_text()))
    words = [sys.executable, "-m", "sweeper", "doctor", "--json", "--out", str(tmp_path / "runs")]
    with ray_nodes() as nodes:
        nodes.add()
        words += ["--spec", str(spec), "--address", nodes.address]
        same = subprocess.run(words, capture_output=True, text=True, timeout=300)
        nodes.add(cpus=2, env_vars={"PYTHONPATH": other_torch(tmp_path / "site")})
        other = subprocess.run(words, capture_output=True, text=True, timeout=300)
        table = subprocess.run(
            [word for word in words if word != "--json"],
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert same.returncode == 0, same.stderr
    found = json.loads(same.stdout)["nodes"]
    assert sorted(node["cpus"] for node in found) == [0, 1]
    for node in found:
        assert (node["problems"], node["notes"]) == ([], [])
        assert node["folder"] == str(tmp_path) and node["packages"].keys() == set(PACKAGES)
        assert node["inputs"].keys() == wanted.keys()
        assert all("files, " in text or "bytes, " in text for text in node["inputs"].values())
    assert other.returncode == 2, other.stderr
    report = json.loads(other.stdout)
    (differs,) = [node for node in report["nodes"] if node["problems"]]
    assert (report["ok"], differs["cpus"], differs["packages"]["torch"]) == (False, 2, "1.0.0")
    (problem,) = differs["problems"]
    assert problem.startswith("torch 1.0.0, here ")
    assert table.returncode == 2
    assert f"problem: {differs['name']}: torch 1.0.0" in " ".join(table.stdout.split())
    assert "nodes with problems: 1 of 3" in table.stdout
    assert not list(tmp_path.glob(".sweeper-doctor*"))
