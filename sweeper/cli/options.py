"""The arguments that several commands share.

torch, ray, optuna, pandas and plotly are imported inside the commands that need them, so that every
command needs only its own extras and starts quickly.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.cli import completions
from sweeper.judges import MIN_COVERAGE

if TYPE_CHECKING:
    from sweeper.runs.run import Run

SpecArgument = Annotated[
    str,
    typer.Argument(
        help="A sweep file, or the name of a shipped one.", autocompletion=completions.specs
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder.", autocompletion=completions.runs)]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override: key.path=value; may be repeated.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of tables; see `sweeper schema`.")
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="NAME",
        help="Use the rates of this judge (see `rescore`) instead of the keyword list's.",
    ),
]
CoverageOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="With --judge: records with a smaller fraction of judged responses are unscored.",
    ),
]


def open_run(run: Path, judge: str | None = None, min_coverage: float = MIN_COVERAGE) -> "Run":
    """See `sweeper.open_run`, which needs pandas."""
    from sweeper.runs.run import open_run

    return open_run(run, judge, min_coverage)
