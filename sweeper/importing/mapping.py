"""The map of a foreign table: which columns are settings, metrics, seeds and steps; as YAML."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import ValidationError, model_validator

from sweeper.errors import DataError, SpecError
from sweeper.importing.table import ForeignRow, is_number, printable
from sweeper.metrics import Direction
from sweeper.spec.axes import SpecModel
from sweeper.spec.document import MAX_BYTES, read_yaml
from sweeper.task.fields import Doc, Length, Pattern, UnitFloat

Column = Annotated[str, Length(least=1)]

Name = Annotated[str, Pattern(r"^[^\s\x00-\x1f\x7f]{1,200}$")]


class MetricMap(SpecModel):
    """Where a metric stands, which way is better, and which values it can have."""

    column: Annotated[Column, Doc("The column of its values.")]
    direction: Annotated[Direction, Doc("`minimize` or `maximize`.")]
    low: Annotated[float | None, Doc("The least possible value; rows below it are refused.")] = None
    high: Annotated[float | None, Doc("The greatest possible value; rows above are refused.")] = (
        None
    )
    n: Annotated[int | Column | None, Doc("The number of samples, or the column of it.")] = None
    k: Annotated[Column | None, Doc("The column of counts, for a rate of k in n.")] = None

    @model_validator(mode="after")
    def _law(self) -> Self:
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got (low={self.low}, high={self.high})")
        if isinstance(self.n, int) and self.n < 1:
            raise ValueError(f"`n >= 1` must hold, but got n={self.n}")
        if self.k is not None and self.n is None:
            raise ValueError("`k` is a count among `n` samples: give `n`, too")
        return self


class ConstraintMap(SpecModel):
    """A metric that must stay at or below `max` with probability at least `confidence`."""

    metric: Annotated[Name, Doc("One of `metrics`.")]
    max: Annotated[float, Doc("The largest value allowed.")]
    confidence: Annotated[UnitFloat, Doc("The least probability that it is allowed.")] = 0.95


class ResponsesMap(SpecModel):
    """Where the responses stand that are judged here by the refusal list of the product.

    One column holds all, or several hold those of one setting each, such as `{step_10: 10, step_20: 20}`.
    """

    prompt: Annotated[Column, Doc("The column of the prompt.")]
    response: Annotated[
        Column | dict[Column, str | int | float],
        Doc("The column of the response; or several, each with its value of `by`."),
    ]
    by: Annotated[Name, Doc("What several columns differ in: `step`, or a setting.")] = "step"
    metric: Annotated[
        Literal["unsafe_rate", "over_refusal_rate"],
        Doc("`unsafe_rate` of harmful prompts, `over_refusal_rate` of harmless ones."),
    ] = "unsafe_rate"

    @property
    def columns(self) -> dict[str, str | int | float | None]:
        """The columns of responses, each with its value of `by`; None of the only one."""
        return {self.response: None} if isinstance(self.response, str) else dict(self.response)

    @property
    def is_wide(self) -> bool:
        """Whether several columns hold responses."""
        return not isinstance(self.response, str)

    @property
    def judged(self) -> str:
        """The column that the judged rate gets in the table of groups."""
        return f"{JUDGED}{self.metric}"


JUDGED = "responses."
"""Begins the columns of what was judged here."""


class ImportMap(SpecModel):
    """Which columns of a foreign table are what. Columns that it does not name are not imported."""

    version: Annotated[Literal[1], Doc("Of this format.")] = 1
    kind: Annotated[str, Doc("The kind of the source.")]
    name: Annotated[Name, Doc("What the run is called.")]
    parameters: Annotated[
        dict[Name, Column],
        Doc("Settings, by name: the column of each. Equal settings are one choice."),
    ]
    metrics: Annotated[
        dict[Name, MetricMap],
        Doc(
            "Metrics, by name: their column, direction, range [low, high] and number of samples n, without "
            "which a rate has no interval."
        ),
    ]
    responses: Annotated[
        ResponsesMap | None,
        Doc(
            "Responses to judge, as {prompt, response, by, metric}: rows of equal settings, seed and step "
            "are one choice; `metrics` are then columns of the file of --values."
        ),
    ] = None
    seed: Annotated[Column | None, Doc("The column of the seed of a repetition.")] = None
    step: Annotated[Column | None, Doc("The column of the optimizer step.")] = None
    base: Annotated[
        dict[Column, str | int | float | bool | None] | None,
        Doc("Values by column that only the row of the untouched model has."),
    ] = None
    objectives: Annotated[tuple[Name, ...], Doc("The metrics to trade off, two or more.")] = ()
    constraints: Annotated[
        tuple[ConstraintMap, ...], Doc("Limits, as {metric, max, confidence}.")
    ] = ()

    @model_validator(mode="after")
    def _law(self) -> Self:
        used = [item.metric for item in self.constraints]
        metrics = [*self.metrics, *([self.responses.metric] if self.responses else [])]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"`{metrics[-1]}` is judged from responses: rename it in `metrics`")
        unknown = [name for name in [*self.objectives, *used] if name not in metrics]
        if unknown:
            raise ValueError(
                f"`{unknown[0]}` is an objective or constraint but none of `metrics`: "
                f"{', '.join(metrics) or 'there is none'}"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("an objective is given twice")
        places = [*self.parameters.values(), *(item.column for item in self.metrics.values())]
        places += [column for column in (self.seed, self.step) if column is not None]
        if self.responses is not None:
            places += [self.responses.prompt, *self.responses.columns]
            taken = self.step if self.responses.by == "step" else None
            if self.responses.is_wide and (taken or self.responses.by in self.parameters):
                raise ValueError(f"the columns of `responses` are the {self.responses.by} already")
        twice = next((column for column in places if places.count(column) > 1), None)
        if twice is not None:
            raise ValueError(f"the column `{twice}` is used twice; a column is one thing only")
        return self

    def of_groups(self) -> "ImportMap":
        """The map of the table of groups, where the responses were judged."""
        if self.responses is None:
            return self
        column, by = self.responses.judged, self.responses.by
        rate = MetricMap(
            column=column, direction="minimize", low=0, high=1, n=f"{column}.n", k=f"{column}.k"
        )
        changed: dict[str, Any] = {"metrics": {**self.metrics, self.responses.metric: rate}}
        if self.responses.is_wide and by == "step":
            changed["step"] = by
        elif self.responses.is_wide:
            changed["parameters"] = {**self.parameters, by: by}
        return self.model_copy(update=changed)


def metric_value(row: ForeignRow, metric: MetricMap) -> float:
    """The value of a metric in a row.

    Raises:
        DataError: missing, no finite number, or outside the declared range.
    """
    value = number_in(row, metric.column)
    low, high = metric.low, metric.high
    if (low is not None and value < low) or (high is not None and value > high):
        expected = (
            f"[{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]"
        )
        raise _invalid(row, metric.column, f"{value:g} is outside its range {expected}")
    return value


def number_in(row: ForeignRow, column: str) -> float:
    """The finite number in a column of a row.

    Raises:
        DataError: missing, or no finite number.
    """
    value = row.values.get(column)
    if value is None:
        raise _invalid(row, column, "missing")
    if not is_number(value):
        raise _invalid(row, column, f"found `{printable(str(value))[:60]}`; expected a number")
    assert isinstance(value, int | float)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _invalid(row, column, f"{number} is no measurement; the run may have diverged")
    return number


def _invalid(row: ForeignRow, column: str, problem: str) -> DataError:
    return DataError(
        f"{row.where}: `{column}`: {problem}",
        code="data.invalid_row",
        where=row.where,
        column=column,
    )


def load_map(path: Path) -> ImportMap:
    """Read a map that `map_text` or a person wrote.

    Raises:
        SpecError: it cannot be read, is no YAML, or has unknown, missing or wrong keys; all are named.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8")
        raw = read_yaml(text)
    except (OSError, ValueError) as error:
        raise SpecError(str(path), (f"cannot be read as YAML: {error}",)) from None
    if not isinstance(raw, dict):
        raise SpecError(
            str(path), ("a mapping with `kind`, `parameters` and `metrics` is expected",)
        )
    try:
        return ImportMap.model_validate(raw)
    except ValidationError as error:
        raise SpecError(str(path), tuple(map(_problem, error.errors()))) from None


def _problem(item: Mapping[str, Any]) -> str:
    where = ".".join(map(str, item["loc"])) or "map"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or check its spelling"
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should", "it should")
    if item["type"] in ("missing", "value_error"):
        return f"{where}: {'missing' if item['type'] == 'missing' else message}"
    return f"{where}: found {repr(item['input'])[:80]}; {message}"


def map_text(imported: ImportMap) -> str:
    """The map as YAML with a comment above each key; `load_map` reads it back to an equal map."""
    values = imported.model_dump(mode="json")
    values["metrics"] = {
        name: {key: value for key, value in metric.items() if value is not None}
        for name, metric in values["metrics"].items()
    }
    if imported.responses is None:
        del values["responses"]
    lines = []
    for name, field in ImportMap.model_fields.items():
        if name not in values:
            continue
        doc = next(item for item in field.metadata if isinstance(item, Doc))
        block = yaml.safe_dump(
            {name: values[name]},
            sort_keys=False,
            allow_unicode=True,
            width=100,
            default_flow_style=None if name in ("metrics", "constraints") else False,
        )
        lines.append(f"# {doc.text}\n{block}")
    return "".join(lines)
