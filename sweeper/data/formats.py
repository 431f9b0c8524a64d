"""From the columns of a published format to a prompt, its completion, and the turns before both."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sweeper.data.rows import Row, require_column
from sweeper.errors import DataError
from sweeper.task import DataSource

FORMATS: dict[str, dict[str, str | None]] = {
    "prompt_completion": {"prompt": "prompt", "completion": "completion", "system": None},
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output"},
    "dolly": {"instruction": "instruction", "input": "context", "output": "response"},
    "orca": {
        "system": "system_prompt",
        "prompt": "question",
        "completion": "response",
        "conversations": "conversations",
    },
    "messages": {"messages": "messages"},
    "prompts": {"prompt": "prompt", "id": "id", "context": None},
}
"""For each format: our name of a column -> its published name; None is read where `columns` maps it."""

_OPTIONAL = ("input", "system", "id", "context", "conversations")

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class Turn(NamedTuple):
    """What one side of a conversation says. `role` is `system`, `user` or `assistant`."""

    role: str
    text: str


class Example(NamedTuple):
    """One row as text: the last turn of the user, its completion, and the turns before both.

    `before` may begin with a system prompt; then users and assistants take turns.
    """

    prompt: str
    completion: str
    before: tuple[Turn, ...] = ()

    @property
    def full_prompt(self) -> str:
        """All turns before the completion but the system prompt, which does not make a row another one."""
        said = [turn.text for turn in self.before if turn.role != "system"]
        return "\n\n".join([*said, self.prompt])

    @property
    def characters(self) -> int:
        """How long the row is."""
        said = sum(len(turn.text) for turn in self.before)
        return said + len(self.prompt) + len(self.completion)


class Cells:
    """The columns of one row under our own names, as text."""

    def __init__(self, source: DataSource, row: Row, columns: Mapping[str, str]) -> None:
        self._source = source
        self._row = row
        self._columns = columns

    def has(self, ours: str) -> bool:
        """Whether the row has this column."""
        return self._columns.get(ours) in self._row.cells

    def raw(self, ours: str) -> Any:
        """The value of a column, not converted; None where an optional one is absent.

        Raises:
            DataError: a column that is needed, or that `columns` names, is absent.
        """
        theirs = self._columns.get(ours)
        if theirs is not None and (ours not in _OPTIONAL or ours in self._source.columns):
            require_column(self._source, self._row, theirs)
        return None if theirs is None else self._row.cells.get(theirs)

    def text(self, ours: str) -> str:
        """A column as text: null is blank, a number is what it reads as.

        Raises:
            DataError: absent though needed, or a nested value.
        """
        return self.as_text(self.raw(ours), self._columns.get(ours, ours))

    def as_text(self, value: Any, name: str) -> str:
        """A value as text; see `text`."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if not isinstance(value, str | int | float):
            raise self.error(
                f"`{name}` is not text but a {type(value).__name__}",
                column=name,
                found=type(value).__name__,
            )
        return str(value)

    def error(self, problem: str, **values: object) -> DataError:
        """A problem of this row, for raising."""
        return DataError(
            f"{self._source.path}: row {self._row.number}: {problem}",
            code="data.invalid_row",
            path=self._source.path,
            row=self._row.number,
            **values,
        )


def columns_of(source: DataSource, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our names of a format's columns -> those of the file.

    Args:
        source: Its `columns` come first.
        known: Then these.

    Raises:
        DataError: `columns` names a column of ours that the format does not have.
    """
    published = FORMATS[source.format]
    unknown = sorted(set(source.columns) - set(published))
    if unknown:
        raise DataError(
            f"{source.name}: `columns` may map {', '.join(published)}, found {', '.join(unknown)}",
            code="data.setting",
            key="columns",
            found=unknown,
        )
    names = {**published, **(known or {}), **source.columns}
    return {ours: theirs for ours, theirs in names.items() if theirs is not None}


def examples_of(source: DataSource, rows: Iterable[Row]) -> dict[int, Example]:
    """The conversations of rows, by row number.

    Raises:
        DataError: a missing column, a nested value where text is due, or turns out of order.
    """
    if source.format == "prompts":
        raise DataError(
            f"{source.name}: format `prompts` has no completions to train on",
            code="data.setting",
            key="format",
        )
    columns = columns_of(source)
    read = _READERS[source.format]
    return {row.number: read(Cells(source, row, columns)) for row in rows}


def _pair(cells: Cells) -> Example:
    system = cells.text("system")
    before = (Turn("system", system),) if system.strip() else ()
    return Example(cells.text("prompt"), cells.text("completion"), before)


def _instruction(cells: Cells) -> Example:
    instruction, context = cells.text("instruction"), cells.text("input")
    prompt = f"{instruction}\n\n{context}" if context.strip() else instruction
    return Example(prompt, cells.text("output"))


def _orca(cells: Cells) -> Example:
    """A row of OpenOrca, or of SlimOrca, which has `conversations` instead."""
    if cells.has("conversations"):
        return _conversation(cells, "conversations", "from", "value")
    return _pair(cells)


def _messages(cells: Cells) -> Example:
    return _conversation(cells, "messages", "role", "content")


def _conversation(cells: Cells, column: str, role: str, content: str) -> Example:
    """The conversation up to its last answer.

    Raises:
        DataError: no list of turns, an unknown role, no answer, or roles out of order.
    """
    raw = cells.raw(column)
    if not isinstance(raw, list):
        raise cells.error(
            f"`{column}` is not a list of turns but a {type(raw).__name__}",
            column=column,
            found=type(raw).__name__,
        )
    turns = []
    for number, item in enumerate(raw, start=1):
        if not isinstance(item, dict) or not {role, content} <= set(item):
            raise cells.error(
                f"turn {number} of `{column}` needs `{role}` and `{content}`",
                column=column,
                turn=number,
            )
        said_by = _ROLES.get(str(item[role]))
        if said_by is None:
            known = ", ".join(_ROLES)
            raise cells.error(
                f"turn {number}: the role {item[role]!r} is none of {known}",
                turn=number,
                role=item[role],
            )
        turns.append(Turn(said_by, cells.as_text(item[content], content)))
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns:
        raise cells.error(f"`{column}` has no turn of the assistant to train on", column=column)
    system = [turn for turn in turns[:1] if turn.role == "system"]
    spoken = turns[len(system) :]
    for place, turn in enumerate(spoken):
        due = ("user", "assistant")[place % 2]
        if turn.role != due:
            number = place + len(system) + 1
            raise cells.error(
                f"turn {number} is the {turn.role}'s, but it is the {due}'s turn",
                turn=number,
                expected=due,
            )
    *earlier, prompt, answer = spoken
    kept = [turn for turn in system if turn.text.strip()]
    return Example(prompt.text, answer.text, (*kept, *earlier))


_READERS: dict[str, Callable[[Cells], Example]] = {
    "prompt_completion": _pair,
    "alpaca": _instruction,
    "dolly": _instruction,
    "orca": _orca,
    "messages": _messages,
}
