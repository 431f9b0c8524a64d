"""The command application, and the arguments that several commands share.

torch, ray, optuna, pandas and plotly are imported inside the commands that need them, so that every
command works with the extras it needs and no others, and starts at once.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import completions

app = typer.Typer(
    name="sweeper",
    help="Sweep fine-tuning hyperparameters for safety and utility at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

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
JsonOption = Annotated[bool, typer.Option("--json", help="Print data instead of a table.")]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="NAME",
        help="Rates of a judge that `rescore` asked, not the keyword list's.",
    ),
]
CoverageOption = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="With --judge: below this share of judged responses, unscored."
    ),
]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the cycle collector: records are very many objects that all stay until the command ends.

    Walking them again and again would be a third of the time of a report on ten thousand.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
