"""docs/reproduce.md says what the cost model says."""

import importlib
from pathlib import Path

import pytest


def test_the_table_of_the_docs_is_what_the_cost_model_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    table = importlib.import_module("reproduce_table")
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.written(page) == page, "run: python benchmarks/reproduce_table.py --write"
    assert "was measured on a GPU" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(table.names()) == 18
    for row in rows:
        _, _, each, total, *hours = (cell.strip(" |`") for cell in row.split(" | "))
        known = [float(cell.replace(",", "")) for cell in hours if cell != "-"]
        assert known == sorted(known, reverse=True)
        assert known[-1] * 64 >= 0.5 * float(total.replace(",", ""))
        assert len(known) == {"1": 3, "2": 2, "4": 2, "8": 2}[each]
