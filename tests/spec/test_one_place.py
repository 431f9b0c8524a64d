"""A training key is one field of one dataclass: from there it is in spec, plan, task and record."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_spec

from sweeper.planning import make_plan, make_tasks
from sweeper.spec.reference import markdown, spec_reference
from sweeper.task import (
    ComputeSettings,
    DataSettings,
    EvaluationSettings,
    ModelSource,
    OptimizerSettings,
    TrajectoryTask,
    Tuning,
)
from sweeper.task.fields import stated_fields

PACKAGE = Path(__file__).parents[2] / "sweeper"

FIELD = '    new_key: Annotated[UnitFloat, Doc("A key that is new.")] = 0.5\n'

ASKING = """
import json, sys
from support.factories import make_spec
from sweeper.errors import SpecError
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import dump_spec, parse_spec
from sweeper.spec.reference import spec_reference
from sweeper.store.records import lost_records
from sweeper.task import TrajectoryTask

block, part = sys.argv[1:]
spec = make_spec("tuning.method=lora", f"{block}.new_key=0.25")
(task, *_) = [t for t in make_tasks(make_plan(spec), spec, str) if t.readouts[0].role == "candidate"]
again = TrajectoryTask.from_json(task.to_json())
try:
    make_spec("tuning.method=lora", f"{block}.new_key=1.5")
    problems = ()
except SpecError as error:
    problems = error.problems
default = {c.config_id for c in make_plan(make_spec("tuning.method=lora")).configurations}
print(json.dumps({
    "kept": parse_spec(dump_spec(spec)) == spec,
    "task": getattr(getattr(again, part), "new_key"),
    "equal": again == task,
    "record": [r.config["new_key"] for r in lost_records(task, "gone")][0],
    "ids": len(default & {r.config_id for r in task.readouts}),
    "problems": problems,
    "keys": [key for key in spec_reference() if key.path.endswith("new_key")],
}))
"""

BLOCKS = {
    "space": ("optimizer", "optimizer.py", "    feedback: Annotated"),
    "tuning": ("tuning", "model.py", "    use_rslora: Annotated"),
    "model": ("model", "model.py", "    name: Annotated"),
    "data": ("data", "data.py", "    filter_safety_rows: Annotated"),
}
"""Block of the sweep file -> the part of a task, the file of its dataclass, and the field that follows."""


@pytest.mark.parametrize("block", BLOCKS)
def test_a_key_that_is_added_in_one_place_is_everywhere(block: str, tmp_path: Path) -> None:
    part, name, before = BLOCKS[block]
    shutil.copytree(
        PACKAGE, tmp_path / "sweeper", ignore=shutil.ignore_patterns("__pycache__", "*.html")
    )
    path = tmp_path / "sweeper" / "task" / name
    text = path.read_text("utf-8")
    assert text.count(before) == 1
    text = text.replace(before, FIELD + before)
    if "UnitFloat" not in text.replace(FIELD, ""):
        text = text.replace("import (\n    Before,", "import (\n    Before,\n    UnitFloat,", 1)
        text = text.replace("fields import Before,", "fields import UnitFloat, Before,", 1)
    path.write_text(text, "utf-8")
    places = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", ASKING, block, part],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["kept"], found["equal"], found["ids"]) == (True, True, 0)
    assert (found["task"], found["record"]) == (0.25, 0.25)
    (problem,) = found["problems"]
    assert problem.startswith(f"{block}.new_key") and "less than 1" in problem
    ((key, _, default, bounds, text),) = found["keys"]
    assert (key, default, bounds) == (f"{block}.new_key", "0.5", "> 0, < 1")
    assert text == "A key that is new."


def test_every_setting_is_in_the_reference_with_its_description() -> None:
    keys = {key.path: key for key in spec_reference()}
    assert len(keys) == len(spec_reference())
    assert all(key.description for key in keys.values())
    blocks = {
        "model": ModelSource,
        "tuning": Tuning,
        "data": DataSettings,
        "space": OptimizerSettings,
        "evaluation": EvaluationSettings,
        "compute": ComputeSettings,
    }
    for name, block in blocks.items():
        for item in stated_fields(block):
            assert f"{name}.{item.name}" in keys
            assert f"| `{name}.{item.name}` |" in markdown()
    assert keys["model.path"].default is None
    assert (keys["compute.logging_steps"].default, keys["compute.logging_steps"].range) == (
        "10",
        "≥ 1",
    )
    assert "compute.device" not in keys and "model.name" not in keys


def test_the_planner_passes_blocks_on_as_the_sweep_file_states_them() -> None:
    spec = make_spec()
    task = make_tasks(make_plan(spec), spec, lambda path: f"/opened/{path}", "cpu")[-1]
    pairs = (
        (task.evaluation, spec.evaluation),
        (task.compute, spec.compute),
        (task.data, spec.data),
        (task.model, spec.model),
    )
    moved = {"path", "device", "train", "heldout", "harmful", "harmless"}
    for passed, stated in pairs:
        assert type(passed) is type(stated)
        for item in fields(passed):
            if item.name not in moved:
                assert getattr(passed, item.name) == getattr(stated, item.name)
    assert (task.model.name, task.model.path) == (spec.model.path, f"/opened/{spec.model.path}")
    assert task.compute.device == "cpu" and spec.compute.device == "auto"
    assert TrajectoryTask.from_json(task.to_json()) == task
