"""The rows that a foreign source holds, as flat columns, before anything is decided about them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import DataError
from sweeper.metrics import Direction

STEPS = ("step", "global_step", "_step", "epoch", "iteration")
"""What a log calls the place of an entry; the first one that it has counts."""

MAX_DEPTH = 20
"""The most levels of nested keys."""

COUNT = ".n"
"""The column `METRIC.n` holds the number of samples of the column `METRIC`."""


class ForeignRow(NamedTuple):
    """One run, or one state of a run.

    `where` is its place for messages: `results.csv:12`, `study.db: trial 7`. `values` are by column: texts,
    numbers (NaN and infinity as they stand in the source), truth values or None; a list of such is a text
    in JSON. A column is a path of keys joined by dots, without control characters.
    """

    where: str
    values: Mapping[str, object]


class ForeignTable(NamedTuple):
    """All rows of a source, and what the source itself says about its columns.

    `refused` are the rows and files that are not used, each with the reason. `parameters`, `metrics`,
    `constraints` (satisfied where <= 0), `seed`, `step` and `n` (a number of samples) name columns where
    the source says which are; the number of samples of a single metric stands in `METRIC.n`. `notes` say
    what was not read.
    """

    kind: str
    source: Path
    rows: tuple[ForeignRow, ...]
    refused: tuple[tuple[str, str], ...] = ()
    parameters: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    directions: Mapping[str, Direction] = {}
    constraints: tuple[str, ...] = ()
    seed: str | None = None
    step: str | None = None
    n: str | None = None
    notes: tuple[str, ...] = ()


def printable(text: str) -> str:
    """The text with line ends, control characters and marks of direction escaped."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def columns_of(rows: Sequence[ForeignRow]) -> tuple[str, ...]:
    """All columns, in the order of their first row."""
    return tuple(dict.fromkeys(name for row in rows for name in row.values))


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
_WORDS: dict[str, object] = {
    "": None,
    "none": None,
    "null": None,
    "true": True,
    "false": False,
    **{sign + word: float(sign + word) for sign in ("", "+", "-") for word in ("nan", "inf")},
    **{sign + "infinity": float(sign + "inf") for sign in ("", "+", "-")},
}


def value_of_text(text: str) -> object:
    """What a cell of text stands for: a number, a truth value, None where it is empty, or itself.

    Digits after a leading zero are a name and not a number.
    """
    plain = text.strip()
    if _WHOLE.fullmatch(plain):
        return int(plain)
    if _NUMBER.fullmatch(plain) and not (plain.isdigit() and plain[0] == "0"):
        return float(plain)
    return _WORDS.get(plain.lower(), text)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """The leaves of nested objects by path; of a log, a list of objects with a step, its last state.

    Args:
        tree: JSON-like values.
        prefix: Begins every path.

    Raises:
        ValueError: two leaves with the same path, or more than `MAX_DEPTH` levels.
    """
    leaves: dict[str, object] = {}
    for name, leaf in _leaves(tree, prefix, 0):
        if name in leaves:
            raise ValueError(f"two values for the column `{name}`; rename one of them")
        leaves[name] = leaf
    return leaves


def _leaves(tree: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested in more than {MAX_DEPTH} levels; expected one object per run")
    for key, value in tree.items():
        name = prefix + printable(str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.", depth + 1)
        elif _is_log(value):
            yield from _leaves(last_state(value), f"{name}.last.", depth + 1)
        else:
            yield name, _scalar(value)


def _is_log(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, Mapping) for entry in value)
        and _step_key(value) is not None
    )


def _step_key(log: Sequence[Mapping[str, Any]]) -> str | None:
    """The name of the steps of a log, if each entry has one."""
    return next((key for key in STEPS if all(is_number(entry.get(key)) for entry in log)), None)


def last_state(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a log says about its greatest step; a later entry of the same step replaces an earlier one.

    What was logged at earlier steps only is about other weights, and left out.
    """
    key = _step_key(log)
    assert key is not None
    last = max(entry[key] for entry in log)
    return {name: value for entry in log if entry[key] == last for name, value in entry.items()}


def is_number(value: object) -> bool:
    """Whether a value is a number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalar(value: Any) -> object:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    try:
        return json.dumps(value, default=str)
    except (RecursionError, ValueError, TypeError):
        raise ValueError("a list nested too deeply; expected scalars") from None


def refuse_empty(table: ForeignTable) -> ForeignTable:
    """The table, if it has rows.

    Raises:
        DataError: it has none; the message gives the first reasons.
    """
    if table.rows:
        return table
    first = "; ".join(f"{where}: {why}" for where, why in table.refused[:3])
    more = f" ({len(table.refused) - 3} more)" if len(table.refused) > 3 else ""
    raise DataError(
        f"{printable(str(table.source))}: no run to import ({table.kind})"
        + (f"; not used: {first}{more}" if first else "; expected at least one row with values"),
        code="data.empty",
        path=table.source,
    )
