"""The wheel carries its data: the sweeps, the templates, the keyword lists, the report's files."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DATA = {
    "sweeper/py.typed",
    "sweeper/search_spaces/miniature.yaml",
    "sweeper/search_spaces/miniature_full.yaml",
    "sweeper/search_spaces/llama32_1b_dolly_lora.yaml",
    "sweeper/search_spaces/qi2023_lr_batch.yaml",
    "sweeper/jobs/README.md",
    "sweeper/jobs/ray.yaml",
    "sweeper/jobs/slurm.sh",
    "sweeper/jobs/slurm_node.sh",
    "sweeper/jobs/kuberay.yaml",
    "sweeper/jobs/skypilot.yaml",
    "sweeper/keywords/keyword_lists/sweeper.yaml",
    "sweeper/keywords/keyword_lists/qi2023.yaml",
    "sweeper/report/assets/page.html",
    "sweeper/report/assets/page.css",
    "sweeper/report/assets/table.js",
    "sweeper/export/ema_callback.py.txt",
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sources as they are, unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_holds_every_data_file(unpacked: Path) -> None:
    assert {name for name in DATA if not (unpacked / name).is_file()} == set()
    shipped = sorted(
        path.name for path in (unpacked / "sweeper/keywords/keyword_lists").glob("*.yaml")
    )
    assert shipped == sorted(
        path.name for path in (ROOT / "sweeper/keywords/keyword_lists").glob("*.yaml")
    )


@pytest.mark.slow
def test_an_installed_wheel_plans_the_miniature_outside_the_repository(
    unpacked: Path, tmp_path: Path
) -> None:
    code = "import sweeper, sys; print(sweeper.__file__); from sweeper.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", "miniature", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where, _, plan = done.stdout.partition("\n")
    assert Path(where).is_relative_to(unpacked)
    assert json.loads(plan)["configurations"] == 120
