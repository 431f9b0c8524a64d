"""docs/explanation/faults.md names tests that exist, and every fault names at least one."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "explanation" / "faults.md"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named_in(name: str) -> set[str]:
    (path,) = TESTS.rglob(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in functions if name.startswith("test_")}


def test_every_fault_names_tests_that_exist() -> None:
    found = rows()
    assert len(found) >= 25
    for fault, outcome, tests in found:
        assert fault and outcome
        named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", tests)
        assert named, f"{fault} is shown by no test"
        for file, function in named:
            there = named_in(file)
            assert function in there or (not function and there), f"{file}::{function}"


def test_no_test_is_named_for_two_faults() -> None:
    named = [name for *_, tests in rows() for name in re.findall(r"::(\w+)`", tests)]
    assert len(named) == len(set(named)) > 30
