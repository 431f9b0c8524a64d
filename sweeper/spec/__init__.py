"""The sweep file: what may stand in it, and how it is read."""

from sweeper.spec.axes import Axis
from sweeper.spec.data import SourceSpec, SuiteSpec
from sweeper.spec.load import dump_spec, load_spec, parse_spec, spec_hash
from sweeper.spec.models import (
    SPEC_VERSION,
    AverageSpec,
    ConstraintSpec,
    EmaAverage,
    FeedbackAverage,
    InterpolateAverage,
    ObjectiveSpec,
    RawAverage,
    SweepSpec,
)
from sweeper.spec.references import ReferencePoint, ReferenceSpec

__all__ = [
    "SPEC_VERSION",
    "AverageSpec",
    "Axis",
    "ConstraintSpec",
    "EmaAverage",
    "FeedbackAverage",
    "InterpolateAverage",
    "ObjectiveSpec",
    "RawAverage",
    "ReferencePoint",
    "ReferenceSpec",
    "SourceSpec",
    "SuiteSpec",
    "SweepSpec",
    "dump_spec",
    "load_spec",
    "parse_spec",
    "spec_hash",
]
