"""The visit to a GPU, in its smallest form on a CPU: every cell runs, and bits are what is promised."""

import pytest
import torch
from support.benchmarks import benchmark

CPU = torch.device("cpu")


@pytest.mark.slow
def test_smallest_visit() -> None:
    gpu_visit = benchmark("gpu_visit")
    cells = gpu_visit.visit(gpu_visit.SMALLEST, CPU, minutes=60)["tiny"]
    assert list(cells) == [
        "bits",
        "trainer, tokens/s",
        "pack of 1",
        "pack of 2",
        "scoring 1 readouts",
        "scoring 3 readouts",
        "qlora",
    ]
    assert cells["bits"] == {"again": True, "in a pack": True}
    assert all(
        value > 0 for name, cell in cells.items() if name != "bits" for value in cell.values()
    )


def test_visit_without_time_names_what_is_left() -> None:
    gpu_visit = benchmark("gpu_visit")
    cells = gpu_visit.visit(gpu_visit.SMALLEST, CPU, minutes=0)["tiny"]
    assert cells == {"not reached": {"from": "cell 1 on"}}
