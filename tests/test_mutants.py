"""The faults that `make mutants` makes, how they are told apart, and that a test notices one."""

import ast
import json
from pathlib import Path

import pytest
from support.faults import mutants_of
from support.mutants import PACKAGES, RESULTS, ended, package_tests, sampled

SOURCE = '''"""Text is left alone: 1 < 2."""
from math import floor

LIMIT: "int | None" = 5


def judge(é: float, low: float = 0.95) -> bool:
    if é < 0:
        raise ValueError(f"{é + 1}")
    return low <= é and not floor(é) > LIMIT
'''


def test_every_fault_is_one_change_of_code_and_compiles() -> None:
    found = mutants_of("stats/none", SOURCE)
    changed = [item.key.rpartition(" | ")[2] for item in found]
    assert changed == [
        "5 -> 6",
        "5 -> 4",
        "0.95 -> 0.97",
        "0.95 -> 0.93",
        "é < 0 -> é <= 0",
        "é < 0 -> é >= 0",
        "0 -> 1",
        "0 -> -1",
        "low <= é and (not floor(é) > LIMIT) -> None",
        "low <= é and (not floor(é) > LIMIT) -> low <= é or not floor(é) > LIMIT",
        "low <= é -> low < é",
        "low <= é -> low > é",
        "not floor(é) > LIMIT -> floor(é) > LIMIT",
        "floor(é) > LIMIT -> floor(é) >= LIMIT",
        "floor(é) > LIMIT -> floor(é) <= LIMIT",
        "floor -> ceil",
    ]
    for item in found:
        assert ast.dump(ast.parse(item.source)) != ast.dump(ast.parse(SOURCE))
    assert found[-1].source == SOURCE.replace("not floor", "not (ceil)")
    assert found[4].key == "stats/none.py judge | if é < 0: | é < 0 -> é <= 0"


def test_samples_are_those_of_their_seed() -> None:
    total, first = sampled("stats", 5, 1)
    assert sampled("stats", 5, 1) == (total, first)
    assert sampled("stats", 5, 2)[1] != first
    assert len(first) == 5 and total > 100


def test_the_package_tests_a_module_come_first_and_the_dear_ones_only_for_their_own() -> None:
    assert package_tests("stats/paired")[0] == "tests/stats/test_paired.py"
    assert "tests/stats/test_stats.py" in package_tests("stats/paired")
    assert package_tests("scoring/generate")[0] == "tests/scoring/test_generate.py"
    assert "tests/scoring/test_generate.py" not in package_tests("scoring/score")


@pytest.mark.parametrize(
    ("old", "new", "end"), [("k + 1, n - k", "k + 2, n - k", "failed"), ("", "", "passed")]
)
def test_a_fault_is_noticed_and_none_is_not(tmp_path: Path, old: str, new: str, end: str) -> None:
    path = Path(__file__).parents[1] / "sweeper" / "stats" / "rates.py"
    source = path.read_text("utf-8")
    test = tmp_path / "test_one.py"
    # 0 of 1: a rate is at most 0.5 with the confidence 1 - 0.5.
    code = "import sys\nfor name in [n for n in sys.modules if n.startswith('sweeper')]:\n"
    code += "    del sys.modules[name]\nfrom sweeper.stats.rates import probability_at_most\n"
    test.write_text(f"{code}def test_it():\n    assert probability_at_most(0, 1, 0.5) == 0.5\n")
    assert ended("stats/rates", source.replace(old, new), [str(test)]) == end


def test_every_known_survivor_has_its_reason() -> None:
    kept = json.loads(RESULTS.read_text("utf-8"))
    assert set(kept["packages"]) <= set(PACKAGES)
    survived = [key for row in kept["packages"].values() for key in row["survived"]]
    assert set(survived) <= set(kept["reasons"])
    assert all(len(reason) > 20 for reason in kept["reasons"].values())
