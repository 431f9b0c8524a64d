"""What the figure of the averaging effect shows: averaged minus control, level by level."""

from typing import NamedTuple


class EffectPoint(NamedTuple):
    """One metric of one kind of average at one level of a factor, over all pairs that have it.

    `mean` is averaged - control, `low` and `high` bound it (95 %, paired by prompt or row; None
    where pairs have no rows in common). `wins`, `losses` and `ties` count pairs by their own intervals.
    """

    metric: str
    factor: str
    level: str
    place: int
    average: str
    pairs: int
    wins: int
    losses: int
    ties: int
    mean: float
    low: float | None
    high: float | None


class FactorialInfo(NamedTuple):
    """All points against one kind of control; `maximize` says for each metric whether more is better."""

    against: str
    points: tuple[EffectPoint, ...]
    maximize: tuple[tuple[str, bool], ...]

    def levels(self, factor: str) -> tuple[str, ...]:
        """The levels of a factor, in their order."""
        found = {point.place: point.level for point in self.points if point.factor == factor}
        return tuple(found[place] for place in sorted(found))
