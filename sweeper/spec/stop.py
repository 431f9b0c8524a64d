"""Which readouts a sweep may stop early; see docs/stopping.md."""

from typing import Literal

from sweeper.spec.axes import SpecModel
from sweeper.spec.fields import Share
from sweeper.task.stop_rules import ASSUMPTION


class RaceSpec(SpecModel):
    """Stop scoring a readout that the prompts so far say to be above the limit; `error` is per readout."""

    error: Share = 0.05


class PruneSpec(SpecModel):
    """Leave out later readouts of a path that an earlier one says to be above the limit.

    `assume` names what the inference stands on and has to be written out; `error` is per path and average.
    """

    assume: Literal[ASSUMPTION]  # type: ignore[valid-type]
    error: Share = 0.05


class StopSpec(SpecModel):
    """What may be stopped early; everything is off unless given."""

    curtail: bool = False
    race: RaceSpec | None = None
    prune: PruneSpec | None = None

    @property
    def on(self) -> bool:
        """Whether any rule is."""
        return self.curtail or self.race is not None or self.prune is not None
