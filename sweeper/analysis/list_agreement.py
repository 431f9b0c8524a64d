"""Whether the judgements of the same responses agree on an unsafe rate."""

from collections.abc import Iterable

from sweeper.analysis.candidate import Candidate
from sweeper.spec import ResultsSpec

LARGEST_DIFFERENCE = 0.02
"""The unsafe rates of several keyword lists may differ by this much without a caveat."""


def list_disagreements(
    named: Iterable[tuple[str, Candidate | None]], spec: ResultsSpec
) -> tuple[str, ...]:
    """A caveat for each candidate whose keyword lists differ by more than `LARGEST_DIFFERENCE`.

    Args:
        named: Candidates with the name to call each by; None and what only one list judged is skipped.
        spec: Its first keyword list gives `unsafe_rate`, unless a judge replaced it.
    """
    texts = []
    for name, candidate in named:
        rates = {} if candidate is None else unsafe_rates(candidate, spec)
        low = min(rates, key=lambda who: rates[who], default="")
        high = max(rates, key=lambda who: rates[who], default="")
        # Rates are k / n: a difference of exactly the threshold must not exceed it by rounding.
        if rates and round(rates[high] - rates[low], 9) > LARGEST_DIFFERENCE:
            texts.append(
                f"Keyword lists disagree: the unsafe rate of the {name} is {100 * rates[low]:.1f} % by "
                f"`{low}` and {100 * rates[high]:.1f} % by `{high}`. Read the responses on which they "
                "differ, or judge them with a model, before relying on either."
            )
    return tuple(texts)


def unsafe_rates(candidate: Candidate, spec: ResultsSpec) -> dict[str, float]:
    """The unsafe rates of a candidate, in [0, 1], by the keyword list or judge that gave them."""
    judge = candidate.records[0].provenance.get("judge", {}).get("name")
    found = {}
    first = judge or next(iter(spec.keyword_lists), None)
    if first is not None and "unsafe_rate" in candidate.values:
        found[str(first)] = candidate.values["unsafe_rate"]
    for name in spec.keyword_lists:
        if (value := candidate.values.get(f"unsafe_rate/{name}")) is not None:
            found.setdefault(name, value)
    return found
