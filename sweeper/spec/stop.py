"""Which readouts a sweep may stop early; see docs/explanation/search-and-stopping.md."""

from typing import Annotated

from sweeper.spec.axes import SpecModel
from sweeper.task import ASSUMPTION
from sweeper.task.fields import Doc, OneOf, UnitFloat


class RaceSpec(SpecModel):
    """Stop scoring a readout whose rate so far is significantly above the limit; `error` is per readout."""

    error: Annotated[UnitFloat, Doc("Error level.")] = 0.05


class PruneSpec(SpecModel):
    """Skip later readouts of a path after one that is significantly above the limit.

    `assume` names the assumption, which must be stated; `error` is per path and average.
    """

    assume: Annotated[str, OneOf(ASSUMPTION), Doc("The assumption, stated explicitly.")]
    error: Annotated[UnitFloat, Doc("Error level.")] = 0.05


class StopSpec(SpecModel):
    """What may be stopped early; everything is off unless given."""

    curtail: Annotated[bool, Doc("Stop a readout that can no longer meet the limit.")] = False
    race: Annotated[RaceSpec | None, Doc("Stop a readout that is very likely above the limit.")] = (
        None
    )
    prune: Annotated[PruneSpec | None, Doc("Skip later readouts of a path above the limit.")] = None

    @property
    def on(self) -> bool:
        """Whether any rule is."""
        return self.curtail or self.race is not None or self.prune is not None
