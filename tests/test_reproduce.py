"""The table of hours on 1, 8 and 64 GPUs, which the documentation shows."""

import importlib
from pathlib import Path

import pytest


def test_hours_fall_with_more_gpus_and_use_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    table = importlib.import_module("reproduce_table")
    rows = [line for line in table.table().splitlines() if line.startswith("| `")]
    assert len(rows) == len(table.names()) == 18
    for row in rows:
        _, _, each, total, *hours = (cell.strip(" |`") for cell in row.split(" | "))
        known = [float(cell.replace(",", "")) for cell in hours if cell != "-"]
        assert known == sorted(known, reverse=True)
        assert known[-1] * 64 >= 0.5 * float(total.replace(",", ""))
        assert len(known) == {"1": 3, "2": 2, "4": 2, "8": 2}[each]
