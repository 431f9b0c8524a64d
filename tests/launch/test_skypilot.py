"""SkyPilot reads the rendered task itself, in an environment of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sweeper.launch import options_of, prepare, write
from sweeper.spec import parse_spec

ROOT = Path(__file__).parents[2]

SKYPILOT = "skypilot==0.14.1"

INSTALL_SECONDS = 400

READ = """
import json, sys
import sky
from sky.utils import yaml_utils

read = []
for path in sys.argv[1:]:
    config = yaml_utils.read_yaml(path)
    task = sky.Task.from_yaml_config(config, secrets_overrides=[("HF_TOKEN", "planted")])
    task.validate_run()
    task.validate_name()
    task.expand_and_validate_workdir()
    task.expand_and_validate_file_mounts()
    (resources,) = task.resources
    read.append({
        "name": task.name,
        "nodes": task.num_nodes,
        "accelerators": resources.accelerators,
        "spot": resources.use_spot,
        "recovery": resources.job_recovery,
        "envs": task.envs,
        "secrets": sorted(task.secrets),
        "files": task.file_mounts,
        "storage": {place: item.mode.value for place, item in (task.storage_mounts or {}).items()},
        "volumes": task.volumes,
    })
print("read:" + json.dumps(read))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def skypilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has SkyPilot alone: its requirements are not ours."""
    place = tmp_path_factory.mktemp("skypilot")
    python = place / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", SKYPILOT]
    for command in ([sys.executable, "-m", "venv", str(place)], pip):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(
                f"SkyPilot was not installed within {INSTALL_SECONDS} s, so it read nothing"
            )
        if done.returncode != 0:
            pytest.skip(f"SkyPilot cannot be installed here: {done.stderr.strip()[-300:]}")
    return python


VARIANTS: tuple[Mapping[str, Any], ...] = (
    {"accelerators": "H100:8", "bucket": "my-sweeps"},
    {"accelerators": "A100-80GB", "bucket": "my-sweeps", "spot": False, "retries": 0},
    {"accelerators": "H100:8", "volume": "shared", "spot": False, "nodes": 4},
    {"accelerators": "H100:8", "volume": "shared", "spot": True},
)


@pytest.fixture(scope="module")
def tasks(skypilot: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What SkyPilot made of the task of each variant."""
    home = tmp_path_factory.mktemp("home")
    text = (ROOT / "search_spaces" / "llama32_1b_dolly_lora.yaml").read_text(encoding="utf-8")
    paths = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "planted")
        for number, given in enumerate(VARIANTS):
            options = options_of("skypilot", {**given, "package": "sweeper-llm==0.1.0"})
            prepared = prepare(parse_spec(text), "skypilot", options, home / f"run-{number}")
            write(prepared)
            paths += [str(path) for path in prepared.files if path.name == "skypilot.yaml"]
    environment = {**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [str(skypilot), "-c", READ, *paths],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("read:")]
    read: list[dict[str, Any]] = json.loads(line.removeprefix("read:"))
    return read


def test_skypilot_reads_machines_and_recovery_as_they_were_asked_for(
    tasks: list[dict[str, Any]],
) -> None:
    assert [task["accelerators"] for task in tasks] == [
        {"H100": 8},
        {"A100-80GB": 1},
        {"H100": 8},
        {"H100": 8},
    ]
    assert [task["spot"] for task in tasks] == [True, False, False, True]
    assert [task["nodes"] for task in tasks] == [1, 1, 4, 1]
    assert {task["recovery"]["strategy"] for task in tasks} == {"EAGER_NEXT_REGION"}
    assert [task["recovery"]["max_restarts_on_errors"] for task in tasks] == [3, 0, 3, 3]


def test_skypilot_mounts_the_storage_and_takes_the_secret_by_name(
    tasks: list[dict[str, Any]],
) -> None:
    assert [task["storage"] for task in tasks] == [{"/sweeper": "MOUNT_CACHED"}] * 2 + [{}] * 2
    assert [task["volumes"] for task in tasks] == [{}, {}] + [{"/sweeper": "shared"}] * 2
    for task in tasks:
        assert task["secrets"] == ["HF_TOKEN"] and "HF_TOKEN" not in task["envs"]
        assert list(task["files"]) == ["~/sweeper-launch"]
        assert task["envs"]["HF_HOME"] == "/sweeper/huggingface"
