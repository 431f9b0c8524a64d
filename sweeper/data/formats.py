"""Converts rows of published data formats to conversations: earlier turns, a prompt and its completion."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sweeper.data.loss_marks import row_is_trained, turn_is_trained
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
"""For each format: our column name -> the published one; None: read only if `columns` maps it."""

_OPTIONAL = ("input", "system", "id", "context", "conversations")

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class Turn(NamedTuple):
    """One turn of a conversation. `role` is `system`, `user` or `assistant`."""

    role: str
    text: str


class Example(NamedTuple):
    """One row as text: the last user turn, its completion, and the earlier turns.

    `before` may begin with a system prompt; after it, user and assistant turns alternate.
    """

    prompt: str
    completion: str
    before: tuple[Turn, ...] = ()

    @property
    def full_prompt(self) -> str:
        """All turns before the completion except the system prompt; identifies duplicate rows."""
        earlier = [turn.text for turn in self.before if turn.role != "system"]
        return "\n\n".join([*earlier, self.prompt])

    @property
    def has_earlier_answers(self) -> bool:
        """Whether earlier assistant turns are shown, which are not trained on."""
        return any(turn.role == "assistant" for turn in self.before)

    @property
    def characters(self) -> int:
        """The length of the row in characters."""
        earlier = sum(len(turn.text) for turn in self.before)
        return earlier + len(self.prompt) + len(self.completion)


class Cells:
    """The cells of one row, by our own column names."""

    def __init__(self, source: DataSource, row: Row, columns: Mapping[str, str]) -> None:
        self._source = source
        self._row = row
        self._columns = columns

    def has(self, ours: str) -> bool:
        """Whether the row has this column."""
        return self._columns.get(ours) in self._row.cells

    def raw(self, ours: str) -> Any:
        """The unconverted value of a column; None if an optional column is missing.

        Raises:
            DataError: a required column, or one that `columns` maps, is missing.
        """
        theirs = self._columns.get(ours)
        if theirs is not None and (ours not in _OPTIONAL or ours in self._source.columns):
            require_column(self._source, self._row, theirs)
        return None if theirs is None else self._row.cells.get(theirs)

    def text(self, ours: str) -> str:
        """A column as text: null becomes the empty string, a number its decimal form.

        Raises:
            DataError: a required column is missing, or the value is a list or an object.
        """
        return self.as_text(self.raw(ours), self._columns.get(ours, ours))

    def as_text(self, value: Any, name: str) -> str:
        """A value as text; see `text`."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        no_text = isinstance(value, bool) or (isinstance(value, float) and math.isinf(value))
        if no_text or not isinstance(value, str | int | float):
            found = str(value).lower() if no_text else type(value).__name__
            raise self.error(f"`{name}` must be text, found {found}", column=name, found=found)
        return str(value)

    def error(self, problem: str, **values: object) -> DataError:
        """An error about this row, to be raised."""
        return DataError(
            f"{self._source.path}: row {self._row.number}: {problem}",
            code="data.invalid_row",
            path=self._source.path,
            row=self._row.number,
            **values,
        )

    def key_error(self, problem: str, key: str) -> DataError:
        """An error about a key of this row."""
        return self.error(problem, key=key)


def columns_of(source: DataSource, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our column names of a format -> the column names in the file.

    Args:
        source: Its `columns` take precedence.
        known: Column names that replace the published ones.

    Raises:
        DataError: `columns` maps a name that the format does not have.
    """
    published = FORMATS[source.format]
    unknown = sorted(set(source.columns) - set(published))
    if unknown:
        raise DataError(
            f"{source.name}: `columns` can map {', '.join(published)}, but found {', '.join(unknown)}",
            code="data.setting",
            key="columns",
            found=unknown,
        )
    names = {**published, **(known or {}), **source.columns}
    return {ours: theirs for ours, theirs in names.items() if theirs is not None}


def examples_of(source: DataSource, rows: Iterable[Row]) -> dict[int, Example]:
    """Convert rows to conversations, by row number.

    The completion of a row that is marked as not to be trained on (`weight: 0`, `train: false`) is empty.

    Raises:
        DataError: a mark or a content that is not supported (see `loss_marks`), a missing column, a nested
            value where text is expected, or turns out of order.
    """
    if source.format == "prompts":
        raise DataError(
            f"{source.name}: format `prompts` has no completions to train on; use one of "
            f"{', '.join(_READERS)}",
            code="data.setting",
            key="format",
        )
    columns = columns_of(source)
    read = _READERS[source.format]
    by_choice = [ours for ours, theirs in FORMATS[source.format].items() if theirs is None]
    known = (*columns.values(), *by_choice)
    examples = {}
    for row in rows:
        cells = Cells(source, row, columns)
        example = read(cells)
        trained = row_is_trained(row.cells, known, cells.key_error)
        examples[row.number] = example if trained else example._replace(completion="")
    return examples


def _pair(cells: Cells) -> Example:
    system = cells.text("system")
    before = (Turn("system", system),) if system.strip() else ()
    return Example(cells.text("prompt"), cells.text("completion"), before)


def _instruction(cells: Cells) -> Example:
    instruction, context = cells.text("instruction"), cells.text("input")
    prompt = f"{instruction}\n\n{context}" if context.strip() else instruction
    return Example(prompt, cells.text("output"))


def _orca(cells: Cells) -> Example:
    """A row of OpenOrca or SlimOrca; the latter has `conversations` instead."""
    if cells.has("conversations"):
        return _conversation(cells, "conversations", "from", "value")
    return _pair(cells)


def _messages(cells: Cells) -> Example:
    return _conversation(cells, "messages", "role", "content")


def _conversation(cells: Cells, column: str, role: str, content: str) -> Example:
    """The conversation up to the last assistant turn that is not marked as not to be trained on.

    That turn alone is trained on, so no other may be marked to be.

    Raises:
        DataError: not a list of turns, an unknown role, no assistant turn, roles out of order, or a turn
            that is marked to be trained on before one that is not marked as not to be.
    """
    raw = cells.raw(column)
    if not isinstance(raw, list):
        raise cells.error(
            f"`{column}` must be a list of turns, found {type(raw).__name__}",
            column=column,
            found=type(raw).__name__,
        )
    turns, trained = [], []
    for number, item in enumerate(raw, start=1):
        turn, marked = _turn(cells, number, item, role, content, column)
        turns.append(turn)
        trained.append(marked)
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        raise cells.error(f"`{column}` has no assistant turn to train on", column=column)
    to_train = [index for index in answers if trained[index] is not False]
    last = (to_train or answers)[-1]
    if lost := [index + 1 for index in to_train if trained[index] and index != last]:
        raise cells.error(
            f"turn {lost[0]} of `{column}` is marked to be trained on, but of each row only one turn is: "
            f"the last assistant turn that is not marked 0, here {last + 1}; mark the others 0, or write "
            "one row for each turn to train on, with the turns before it",
            column=column,
            turn=lost[0],
        )
    turns = turns[: last + 1]
    system = [turn for turn in turns[:1] if turn.role == "system"]
    dialogue = turns[len(system) :]
    for index, turn in enumerate(dialogue):
        expected = ("user", "assistant")[index % 2]
        if turn.role != expected:
            number = index + len(system) + 1
            raise cells.error(
                f"turn {number}: expected role {expected}, found {turn.role}",
                turn=number,
                expected=expected,
            )
    *earlier, prompt, answer = dialogue
    system = [turn for turn in system if turn.text.strip()]
    return Example(prompt.text, answer.text if to_train else "", (*system, *earlier))


def _turn(
    cells: Cells, number: int, item: Any, role: str, content: str, column: str
) -> tuple[Turn, bool | None]:
    """One turn, and whether it is marked to be trained on; None if it has no mark.

    Raises:
        DataError: no turn, an unknown role, or a mark or content that is not supported.
    """
    if not isinstance(item, dict) or not {role, content} <= set(item):
        raise cells.error(
            f"turn {number} of `{column}` must have `{role}` and `{content}`",
            column=column,
            turn=number,
        )

    def error(problem: str, key: str) -> DataError:
        return cells.error(f"turn {number}: {problem}", turn=number, key=key)

    speaker = _ROLES.get(str(item[role]))
    if speaker is None:
        raise cells.error(
            f"turn {number}: unknown role {item[role]!r}; expected one of {', '.join(_ROLES)}",
            turn=number,
            role=item[role],
        )
    trained = turn_is_trained(item, (role, content), error)
    if trained and speaker != "assistant":
        raise error(
            f"a {speaker} turn is marked to be trained on, but only assistant turns can be", role
        )
    return Turn(speaker, cells.as_text(item[content], content)), trained


_READERS: dict[str, Callable[[Cells], Example]] = {
    "prompt_completion": _pair,
    "alpaca": _instruction,
    "dolly": _instruction,
    "orca": _orca,
    "messages": _messages,
}
