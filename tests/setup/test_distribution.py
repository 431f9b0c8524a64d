"""What people are told to install is ours: on the index, `sweeper` is another program."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WRONG = re.compile(
    r"pip install (-\S+ )*['\"`]?sweeper(?!-llm|\w)|['\"`(]sweeper\\*\[|\bsweeper\s*[=~><]=\s*\d"
    r"|metadata\.(version|requires|distribution)\(['\"]sweeper['\"]"
)


def tracked() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install sweeper", True),
        ("pip install -U sweeper", True),
        ("pip install 'sweeper[train]'", True),
        ("install `sweeper[data]`", True),
        (r"match=r\"install `sweeper\[data\]\"", True),
        ("sweeper==0.1.0", True),
        ('metadata.version("sweeper")', True),
        ("pip install 'sweeper-llm[train]'", False),
        ("sweeper-llm==0.1.0", False),
        ("the wheel of sweeper_llm-0.1.0", False),
        ("sweeper run SPEC", False),
    ],
)
def test_the_search_knows_the_wrong_name_from_the_right_one(line: str, wrong: bool) -> None:
    assert bool(WRONG.search(line)) == wrong


def test_nothing_here_says_to_install_another_program() -> None:
    files = [path for path in tracked() if path != Path(__file__) and path.is_file()]
    assert len(files) > 300
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files
        if path.suffix not in (".html", ".png", ".ipynb")
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1)
        if WRONG.search(line)
    ]
    assert found == []


@pytest.mark.slow
def test_the_wheel_holds_what_is_read_beside_the_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("sweeper_llm-")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("jobs", "search_spaces"):
        for path in (ROOT / folder).iterdir():
            assert f"sweeper/{folder}/{path.name}" in names
    assert {"sweeper/constraints.txt", "sweeper/py.typed", "sweeper/__init__.py"} <= names
    assert not [name for name in names if not name.startswith(("sweeper/", "sweeper_llm-"))]
