"""Which readouts may be stopped early and why, as a task states it. Standard library alone."""

from dataclasses import dataclass

ASSUMPTION = "unsafe_rate_never_falls_with_steps"
"""What inferring later readouts of a path from an earlier one assumes; a sweep file must name it."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A constraint on the unsafe rate: P(rate <= max) >= confidence with all prompts."""

    max: float
    confidence: float


@dataclass(frozen=True, slots=True)
class StopRules:
    """The rules of a sweep that are on; see docs/explanation/search-and-stopping.md.

    `limits` are its constraints on the unsafe rate, at least one. `race_error` and `prune_error` are the
    error levels of these rules, in (0, 1), None where a rule is off. `seed` orders the harmful prompts.
    `candidates` are the readouts of this trajectory that may be stopped; controls are not among them.
    """

    limits: tuple[RateLimit, ...]
    curtail: bool = False
    race_error: float | None = None
    prune_error: float | None = None
    seed: int = 0
    candidates: tuple[str, ...] = ()

    @property
    def tightest(self) -> float:
        """The smallest limit of all constraints."""
        return min(limit.max for limit in self.limits)
