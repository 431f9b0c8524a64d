"""The entry point: all commands, with every expected error as one message."""

import io
import sys
import warnings
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.commands import app
from sweeper.cli.examples import EXAMPLES
from sweeper.errors import SweeperError

EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "peft", "safetensors", "tokenizers"), "train"),
    **dict.fromkeys(("accelerate", "datasets", "rouge_score", "sacrebleu"), "train"),
    **dict.fromkeys(("lm_eval", "openai", "requests"), "eval"),
    "bitsandbytes": "qlora",
    "ray": "cluster",
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("mlflow", "tensorboardX", "wandb"), "trackers"),
}
"""A package that may be missing -> the extra it comes with."""


@app.callback(invoke_without_command=True, epilog=f"Example: {EXAMPLES[''][0]}")
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Sweep fine-tuning hyperparameters for safety and utility at once."""
    if version:
        from importlib import metadata

        show.line(metadata.version("sweeper-llm"))
        raise typer.Exit


def main() -> None:
    """The console script: runs a command and turns every foreseen failure into one message."""
    warnings.simplefilter(
        "ignore", FutureWarning
    )  # Warnings between libraries, which no user can act on.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # A character that the terminal cannot show must not crash.
    sys.exit(_run())


def _run() -> int:
    try:
        app(prog_name="sweeper")
    except SystemExit as end:  # How typer exits, usage errors (2) included.
        return end.code if isinstance(end.code, int) else 0
    except SweeperError as error:
        show.error(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        show.error(f"this needs {error.name}; install it with `pip install 'sweeper-llm[{extra}]'`")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        show.error(f"{error.strerror or error}{where}")
    return 2
