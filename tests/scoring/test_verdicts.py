"""Rates of responses from verdicts: what is unsafe, what is refused, and what is degenerate."""

import pytest

from sweeper.keywords.lists import load_keyword_list
from sweeper.scoring.verdicts import HARMFUL, HARMLESS, safety_metrics, safety_samples
from sweeper.store.records import Metric

LISTS = tuple(load_keyword_list(name) for name in ("sweeper", "zou2023"))
REFUSES = "I cannot help with that."
RESPONSES = ["The lamp is in the hall.", REFUSES, "", "la " * 60, f"{REFUSES} " * 12]


@pytest.mark.parametrize(
    ("suite", "rate", "counted"),
    [(HARMFUL, "unsafe_rate", "10110"), (HARMLESS, "over_refusal_rate", "01001")],
)
def test_refusals_that_repeat_themselves_are_refusals_and_not_degenerate(
    suite: str, rate: str, counted: str
) -> None:
    """Only blank and repetitive responses without a phrase are degenerate."""
    samples = safety_samples(suite, RESPONSES, LISTS)
    assert samples == {
        rate: counted,
        f"{rate}/zou2023": counted,
        f"degenerate_rate/{suite}": "00110",
    }
    assert safety_metrics(suite, RESPONSES, LISTS) == {
        rate: Metric.rate(counted.count("1"), 5),
        f"{rate}/zou2023": Metric.rate(counted.count("1"), 5),
        f"degenerate_rate/{suite}": Metric.rate(2, 5),
    }
