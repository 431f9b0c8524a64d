"""What a sweep has cost so far, beside its estimate."""

from dataclasses import replace

import pytest
from support.factories import make_record, make_spec

from sweeper.runs.cost_so_far import cost_so_far

SECONDS = {"load": 2.0, "train": 40.0, "evaluate": 18.0}
RECORDS = [replace(make_record(identity="a"), provenance={"seconds": SECONDS})]
PRICED = "compute.budget={usd: 100, usd_per_gpu_hour: 3}"


@pytest.mark.parametrize(
    ("estimate", "overrides", "text"),
    [
        (None, (), "60 s of worker time"),
        ({"worker_seconds": 600.0}, (), "60 s of worker time, about 10.0 min estimated"),
        ({"worker_seconds": 600.0, "gpu_hours": 0.0}, (PRICED,),
         "60 s of worker time, about 10.0 min estimated"),
        ({"worker_seconds": 7200.0, "gpu_hours": 4.0}, (), "0.03 GPU-hours, about 4.00 estimated"),
        ({"worker_seconds": 7200.0, "gpu_hours": 4.0}, (PRICED,),
         "0.03 GPU-hours, about 4.00 estimated; 0.10 USD, about 12.00 estimated"),
    ],
)  # fmt: skip
def test_the_cost_is_told_beside_its_estimate_in_the_units_that_are_known(
    estimate: dict[str, float] | None, overrides: tuple[str, ...], text: str
) -> None:
    assert cost_so_far(RECORDS, estimate, make_spec(*overrides)).text == text
