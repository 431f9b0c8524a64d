"""How sure a front is: for each configuration the probability that it is on it, and the front's volume."""

from sweeper.certainty.standing import (
    DRAWS,
    OFF,
    ON,
    Certainty,
    Standing,
    Volume,
    certainty,
)

__all__ = ["DRAWS", "OFF", "ON", "Certainty", "Standing", "Volume", "certainty"]
