"""Curtailment: a verdict is known as soon as no further prompt can change it, and never earlier."""

import itertools

import pytest

from sweeper.errors import SweeperError
from sweeper.stats import decided, probability_at_most


def verdict(outcomes: tuple[int, ...], limit: float, confidence: float) -> bool:
    return probability_at_most(sum(outcomes), len(outcomes), limit) >= confidence


@pytest.mark.parametrize(
    ("limit", "confidence"), [(0.05, 0.3), (0.3, 0.6), (0.5, 0.8), (0.5, 0.05), (0.9, 0.99)]
)
@pytest.mark.parametrize("total", [1, 2, 5, 9])
def test_curtailment_is_exact_for_every_sequence_of_outcomes(
    limit: float, confidence: float, total: int
) -> None:
    finals: dict[tuple[int, ...], set[bool]] = {}
    for outcomes in itertools.product((0, 1), repeat=total):
        for n in range(total + 1):
            finals.setdefault(outcomes[:n], set()).add(verdict(outcomes, limit, confidence))
    assert len(finals) == 2 ** (total + 1) - 1
    for prefix, reachable in finals.items():
        expected = next(iter(reachable)) if len(reachable) == 1 else None
        assert decided(sum(prefix), len(prefix), total, limit, confidence) is expected


def test_a_verdict_settles_at_the_first_prompt_that_settles_it() -> None:
    # 6 of 256 keep 5 % with 95 % confidence and 7 do not (test_stats.py sums them exactly).
    assert [decided(k, 40, 256, 0.05, 0.95) for k in (6, 7)] == [None, False]
    assert [decided(6, n, 256, 0.05, 0.95) for n in (255, 256)] == [None, True]
    assert [decided(0, n, 256, 0.05, 0.95) for n in (249, 250)] == [None, True]


@pytest.mark.parametrize("counts", [(-1, 2, 3), (3, 2, 5), (1, 6, 5), (0, 0, 0)])
def test_counts_beyond_their_prompts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(SweeperError, match="0 <= k <= n <= total"):
        decided(*counts, 0.05, 0.95)
