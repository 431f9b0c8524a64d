"""The sweep file: its keys, and how it is read and validated."""

from sweeper.spec.axes import Axis
from sweeper.spec.load import dump_spec, load_spec, parse_spec, spec_hash
from sweeper.spec.models import (
    SPEC_VERSION,
    ConstraintSpec,
    DecideSpec,
    ObjectiveSpec,
    SearchSpec,
    SweepSpec,
)
from sweeper.spec.references import ReferencePoint, ReferenceSpec
from sweeper.spec.space import (
    AverageSpec,
    BemaAverage,
    EmaAverage,
    FeedbackAverage,
    InterpolateAverage,
    RawAverage,
)

__all__ = [
    "SPEC_VERSION",
    "AverageSpec",
    "Axis",
    "BemaAverage",
    "ConstraintSpec",
    "DecideSpec",
    "EmaAverage",
    "FeedbackAverage",
    "InterpolateAverage",
    "ObjectiveSpec",
    "RawAverage",
    "ReferencePoint",
    "ReferenceSpec",
    "SearchSpec",
    "SweepSpec",
    "dump_spec",
    "load_spec",
    "parse_spec",
    "spec_hash",
]
