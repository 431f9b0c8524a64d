"""The judge whose rates a command shows instead of the keyword list's."""

from sweeper.cli import show
from sweeper.judges import RejudgedRecords

MOST_ROWS = 40
"""The most lines about single records."""


def print_overlay(judged: RejudgedRecords | None, json_: bool = False) -> None:
    """Print the judge of the shown rates, its coverage, and the records left unscored."""
    if judged is None:
        return
    lines = [judged.summary]
    lines += [
        f"unscored: {i.config_id} seed {i.seed}: {i.why}" for i in judged.unscored[:MOST_ROWS]
    ]
    if len(judged.unscored) > MOST_ROWS:
        lines.append(f"... and {len(judged.unscored) - MOST_ROWS} more")
    for line in lines:
        (show.note if json_ else show.line)(line)
