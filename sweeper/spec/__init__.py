"""The sweep file: its keys, and how it is read and validated."""

from sweeper.spec.axes import Axis
from sweeper.spec.load import dump_spec, load_spec, parse_results_spec, parse_spec, spec_hash
from sweeper.spec.models import (
    SPEC_VERSION,
    ConstraintSpec,
    DecideSpec,
    ObjectiveSpec,
    SearchSpec,
    SweepSpec,
)
from sweeper.spec.references import ReferencePoint, ReferenceSpec
from sweeper.spec.results import Constraint, ImportedSpec, Objective, ResultsSpec
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
    "Constraint",
    "ConstraintSpec",
    "DecideSpec",
    "EmaAverage",
    "FeedbackAverage",
    "ImportedSpec",
    "InterpolateAverage",
    "Objective",
    "ObjectiveSpec",
    "RawAverage",
    "ReferencePoint",
    "ReferenceSpec",
    "ResultsSpec",
    "SearchSpec",
    "SweepSpec",
    "dump_spec",
    "load_spec",
    "parse_results_spec",
    "parse_spec",
    "spec_hash",
]
