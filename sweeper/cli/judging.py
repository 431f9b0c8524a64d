"""Commands about judges: what calls a response a refusal."""

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.options import JsonOption, app
from sweeper.keywords.evaluation import evaluate_lists, read_labelled
from sweeper.keywords.lists import keyword_list_names, load_keyword_list

judges = typer.Typer(name="judges", help="How far a judge can be trusted.", no_args_is_help=True)
app.add_typer(judges)


@judges.callback()
def about() -> None:
    """How far a judge can be trusted."""


@judges.command()
def calibrate(
    labelled: Annotated[
        Path, typer.Argument(help="A CSV with the columns prompt, completion, final_label.")
    ],
    json_: JsonOption = False,
) -> None:
    """Compare every keyword list with people's labels of completions (2 and 3 are refusals)."""
    lists = [load_keyword_list(name) for name in keyword_list_names()]
    found = evaluate_lists(read_labelled(labelled), lists)
    if json_:
        show.data(show.calibration_data(found))
    else:
        show.calibration(found)
