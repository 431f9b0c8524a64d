"""Pieces of Markdown that generated pages are made of."""

from collections.abc import Iterable, Mapping, Sequence

NOTE = "*This page is generated from the code.*"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a vertical bar in a cell is escaped."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(title: str, *parts: str, note: str = NOTE) -> str:
    """A whole page: its title, the note that it is generated, its parts."""
    return "\n\n".join([f"# {title}", note, *parts]) + "\n"


def number(value: object) -> object:
    """A cell: floats with three decimals."""
    return f"{value:.3f}" if isinstance(value, float) else value


def rows_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows that all have the same keys, as a table."""
    return table(list(rows[0]), [[number(value) for value in row.values()] for row in rows])


def code(text: str, language: str = "") -> str:
    """A fenced block."""
    return f"```{language}\n{text.strip()}\n```"
