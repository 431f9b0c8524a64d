"""Output of commands: tables and messages. All terminal output goes through this module."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from sweeper.runs.terminal import Terminal

if TYPE_CHECKING:  # It needs pydantic.
    from sweeper.runs.fields import Output

UNBOUNDED = 1000
"""The width used for a file or a pipe, so that lines do not wrap."""

out = Terminal(highlight=False, emoji=False)
if not out.is_terminal and "COLUMNS" not in os.environ:
    out.width = UNBOUNDED
err = Terminal(stderr=True, highlight=False, emoji=False)


def fit(table: Table, to: Console = out) -> None:
    """Print a table; where it is wider than the terminal, one block per row, so that nothing is cut.

    Blocks leave out what is empty.
    """
    options = to.options.update(max_width=UNBOUNDED)
    if Measurement.get(to, options, table).maximum <= to.width:
        to.print(table)
        return
    if table.title:
        to.print(table.title, style="italic")
    heads = [str(column.header) for column in table.columns]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    if not table.show_header:
        _block(rows, max(cell_len(str(row[0])) for row in rows), to)
        return
    widest = max(map(cell_len, heads[1:]))
    for row in rows:
        to.print(row[0], style="bold")
        pairs = zip(heads[1:], row[1:], strict=True)
        _block([(head, cell) for head, cell in pairs if str(cell)], widest, to)


def _block(rows: Sequence[Sequence[RenderableType]], widest: int, to: Console) -> None:
    """Indented rows without lines, of a first column that is at most half as wide as the terminal."""
    block = Table.grid(padding=(0, 2, 0, 0))
    block.add_column(width=min(widest, to.width // 2 - 2), overflow="fold")
    for row in rows:
        block.add_row(*row)
    for column in block.columns[1:]:
        column.overflow = "fold"
    to.print(Padding(block, (0, 0, 0, 2), expand=False))


def error(message: str) -> None:
    """One error message on standard error, without markup."""
    err.print(f"error: {message}", markup=False, soft_wrap=True)


def note(text: str) -> None:
    """One plain line on standard error."""
    err.print(text, markup=False, soft_wrap=True)


def line(text: str) -> None:
    """One plain line on standard output."""
    out.print(text, markup=False, soft_wrap=True)


def data(output: "Output") -> None:
    """JSON on standard output, for programs."""
    json_text(json.dumps(output.model_dump(), indent=1))


def json_text(text: str) -> None:
    """JSON text, which is ASCII, so that only DEL is left to escape."""
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")


def table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Rows of cells under a title, without headers and without markup."""
    made = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    fit(made)


def size(count: int) -> str:
    """Bytes as text."""
    if count < 2**20 / 10:
        return f"{count / 2**10:.1f} KiB"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
