"""A first map of a foreign table, from what the source says and from usual names."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from itertools import count as count_from
from typing import NamedTuple

from sweeper.importing.known import (
    ALIASES,
    KnownMetric,
    is_in_settings,
    is_setting,
    known_metric,
)
from sweeper.importing.mapping import JUDGED, ConstraintMap, ImportMap, MetricMap, ResponsesMap
from sweeper.importing.table import COUNT, ForeignTable, columns_of, is_number, value_of_text
from sweeper.metrics import HARNESS, KINDS

_PREFIXES = ("params_", "values_", "user_attrs_")
_SEEDS = ("seed", "random_seed", "training_seed", "train_seed")
_STEPS = ("step", "global_step", "_step", "train/global_step", "optimizer_step")
_COUNTS = (
    "n",
    "n_samples",
    "num_samples",
    "n_prompts",
    "num_prompts",
    "n_examples",
    "num_examples",
    "eval_samples",
)
_PROMPTS = ("prompt", "instruction", "goal", "behavior", "question", "query")
_RESPONSES = (
    "response",
    "responses",
    "completion",
    "completions",
    "generation",
    "generated_text",
    "model_output",
    "output",
)
UNSAFE = "unsafe_rate"
USUAL_LIMIT = 0.05
"""The limit on UNSAFE of a sweep that sets none."""

_NAMES = ("method", "model", "model_name", "run", "name", "experiment_name", "file")


_WIDE = re.compile(rf"({'|'.join(_RESPONSES)})[ _.@/-]*(?:(step|checkpoint|ckpt)[ _-]*)?(.+)", re.I)


class Guess(NamedTuple):
    """A map to be looked at, the numeric columns that it leaves out, and what was decided on the way."""

    map: ImportMap
    unmapped: tuple[str, ...]
    notes: tuple[str, ...]


_DECIMAL_COMMA = re.compile(r"-?[0-9]+,[0-9]+")


class _Columns:
    """The cells of a table by column; computed once for each."""

    def __init__(self, table: ForeignTable) -> None:
        self.table = table
        self.names = columns_of(table.rows)
        self.cells = {name: [row.values.get(name) for row in table.rows] for name in self.names}
        self.numeric = {name for name in self.names if self._is_numeric(name)}
        self.varying = {name for name in self.names if len(set(map(repr, self.cells[name]))) > 1}

    def _is_numeric(self, name: str) -> bool:
        there = [cell for cell in self.cells[name] if cell is not None]
        return bool(there) and all(map(is_number, there))

    def finite(self, name: str) -> list[float]:
        """The finite numbers of a column."""
        return [
            float(c) for c in self.cells[name] if isinstance(c, int | float) and math.isfinite(c)
        ]

    def decimal_commas(self) -> Iterator[str]:
        """The columns whose cells are all written like `0,5`, which are texts."""
        for name in self.names:
            there = [cell for cell in self.cells[name] if cell is not None]
            if there and all(isinstance(c, str) and _DECIMAL_COMMA.fullmatch(c) for c in there):
                yield name

    def is_text(self, name: str) -> bool:
        """Whether most cells of a column are texts."""
        return 2 * sum(isinstance(cell, str) for cell in self.cells[name]) > len(self.cells[name])

    def splits(self, prompt: str, name: str) -> bool:
        """Whether a column has several values for one prompt."""
        first: dict[str, str] = {}
        pairs = zip(map(repr, self.cells[prompt]), map(repr, self.cells[name]), strict=True)
        return any(first.setdefault(text, cell) != cell for text, cell in pairs)

    def named(self, names: Iterable[str]) -> str | None:
        """The numeric column whose last key is one of these; of several, one that most rows have."""
        own = {f"{name}{COUNT}" for name in self.numeric}  # Numbers of samples of one metric.
        free = [c for c in self.names if c in self.numeric and c not in own]
        found = [c for n in names for c in free if _leaf(c) == n]
        return min(
            found, key=lambda c: (self.cells[c].count(None), c not in self.varying), default=None
        )


def guess_map(table: ForeignTable) -> Guess:
    """Which columns are what, where the source or a usual name says it; nothing else is mapped.

    Settings are those that the source declares, or that are called like settings, or lie in a block of
    settings and distinguish runs that would be equal otherwise; each has at least two values. A metric
    needs a direction, which the source declares or its name determines. Per cent are recognised and kept.
    """
    columns = _Columns(table)
    notes = list(table.notes)
    seed = table.seed or columns.named(_SEEDS)
    step = table.step or columns.named(_STEPS)
    apart = {name for name in (seed, step) if name is not None}
    settings = _settings(columns, apart, notes)
    metrics, groups = _metrics(columns, apart | set(settings), notes)
    if commas := list(columns.decimal_commas()):
        notes.append(f"`{commas[0]}` is written with decimal commas, so it is text: use points")
    if not metrics:
        notes.append("no metric has a usual name: name them with their directions under `metrics`")
    objectives = _objectives(table, metrics, groups)
    if len(objectives) < 2:
        notes.append("fewer than two objectives are certain: choose them under `objectives`")
    used = apart | set(settings) | {metric.column for metric in metrics.values()}
    used |= {str(part) for metric in metrics.values() for part in (metric.n, metric.k)}
    candidates = columns.numeric & columns.varying - used
    unmapped = [name for name in columns.names if name in candidates and not is_in_settings(name)]
    limits = [
        ConstraintMap(metric=name, max=0)
        for name, metric in metrics.items()
        if metric.column in table.constraints
    ]
    if not limits:
        harms = (name for name in objectives if _is_harm_rate(metrics[name], groups[name]))
        limits = [limit for name in harms if (limit := _usual_limit(name, notes))]
    imported = ImportMap(
        kind=table.kind,
        name=_identifier(table.source.stem) or "imported",
        parameters=_by_name(settings),
        metrics=metrics,
        seed=seed,
        step=step,
        objectives=objectives,
        constraints=tuple(limits),
    )
    return Guess(imported, tuple(unmapped), tuple(notes))


def guess_responses(table: ForeignTable) -> ImportMap | None:
    """A map of rows of responses, yet without metrics; None where no columns are called so.

    Settings are columns called like settings or names of runs that tell rows of a prompt apart; what
    belongs to the prompt itself, such as its category, is none.
    """
    columns = _Columns(table)
    texts = [name for name in columns.names if columns.is_text(name)]
    prompt = next((c for name in _PROMPTS for c in texts if _leaf(c).lower() == name), None)
    named = [c for name in _RESPONSES for c in texts if _leaf(c).lower() == name and c != prompt]
    wide = {c: m for c in texts if c != prompt and (m := _WIDE.fullmatch(_leaf(c)))}
    if prompt is None or not (named or len(wide) > 1):
        return None
    values = {c: value_of_text(m[3]) for c, m in wide.items()}
    by_step = all(isinstance(value, int) for value in values.values())
    responses = ResponsesMap(
        prompt=prompt,
        response=named[0]
        if named
        else {c: v if isinstance(v, int | float) else wide[c][3] for c, v in values.items()},
        by="step" if named or by_step else "variant",
    )
    seed = table.seed or columns.named(_SEEDS)
    step = None if not named and by_step else table.step or columns.named(_STEPS)
    apart = [name for name in (seed, step) if name is not None]
    usual = [c for c in columns.names if c in columns.varying and _leaf(c) not in (seed, step)]
    settings = [c for c in usual if is_setting(c)]
    settings += [c for c in usual if c not in settings and _leaf(c) in (*_NAMES, "checkpoint")]
    settings = [
        c
        for c in settings
        if c not in (*apart, prompt, *responses.columns) and columns.splits(prompt, c)
    ]
    start, _ = _split([""] * len(table.rows), columns, apart)
    _, added = _split(start, columns, settings)
    return ImportMap(
        kind=table.kind,
        name=_identifier(table.source.stem) or "imported",
        parameters=_by_name(added),
        metrics={},
        responses=responses,
        seed=seed,
        step=step,
    )


def guess_metrics(grouping: ImportMap, groups: ForeignTable) -> Guess:
    """The map with the metrics of the table of groups, and the objectives."""
    assert grouping.responses is not None
    settings = tuple(grouping.parameters.values())
    found = guess_map(groups._replace(parameters=settings, seed=grouping.seed, step=grouping.step))
    judged = grouping.responses.judged
    names = {grouping.responses.metric, *grouping.parameters.values(), grouping.step, grouping.seed}
    metrics = {
        name: metric
        for name, metric in found.map.metrics.items()
        if metric.column != judged and name not in names
    }
    goals = [name for name in found.map.objectives if name in metrics]
    notes = [note for note in found.notes if JUDGED not in note]
    if not goals:
        notes.append(
            "only responses were judged: give further metrics of the groups with --values FILE"
        )
    limits = list(found.map.constraints)
    if grouping.responses.metric == UNSAFE and not limits:
        limits.append(_usual_limit(UNSAFE, notes))
    update = {
        "metrics": metrics,
        "objectives": (*goals[:1], grouping.responses.metric),
        "constraints": tuple(limits),
    }
    return Guess(grouping.model_copy(update=update), found.unmapped, tuple(notes))


def _settings(columns: _Columns, apart: set[str], notes: list[str]) -> list[str]:
    table = columns.table
    varying = [name for name in columns.names if name in columns.varying and name not in apart]
    if table.parameters:
        return [name for name in varying if name in table.parameters]
    metrics = set(table.metrics)
    settings = [name for name in varying if is_setting(name) and name not in metrics]
    groups, _ = _split([""] * len(table.rows), columns, settings)
    more = [name for name in varying if is_in_settings(name) and name not in settings]
    _, added = _split(groups, columns, more)
    left = len(more) - len(added)
    if left:
        notes.append(
            f"{left} more columns in blocks of settings vary only where a mapped one does, too, and are "
            "left out"
        )
    settings += added
    texts = [name for name in varying if name not in columns.numeric and name not in settings]
    few = [
        name for name in texts if len(set(map(repr, columns.cells[name]))) <= len(table.rows) / 2
    ]
    if not settings:
        settings = [name for name in texts if _leaf(name) in _NAMES][:1] or few or texts[:1]
        if settings:
            notes.append(
                f"no column is called like a setting: `{settings[0]}` tells the choices apart"
            )
    elif not more:
        settings += [name for name in few if "." not in name and name not in _NAMES[2:]]
    return settings


def _split(
    groups: Sequence[str | int], columns: _Columns, names: Sequence[str]
) -> tuple[Sequence[str | int], list[str]]:
    """The columns, in order, each of which splits groups of rows that are equal so far; and the groups."""
    added = []
    count = len(set(groups))
    for name in names:
        pairs = list(zip(groups, map(repr, columns.cells[name]), strict=True))
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        if len(numbers) > count:
            added.append(name)
            count = len(numbers)
            groups = [numbers[pair] for pair in pairs]
    return groups, added


def _metrics(
    columns: _Columns, used: set[str], notes: list[str]
) -> tuple[dict[str, MetricMap], dict[str, KnownMetric | None]]:
    """The metrics by name, and what is known of each."""
    table = columns.table
    found: dict[str, tuple[str, KnownMetric | None]] = {}
    for column in columns.names:
        if column not in columns.numeric or column in used or column.endswith((COUNT, ".k")):
            continue
        declared = column in table.metrics or column in table.constraints
        known = None if column in table.constraints else known_metric(_leaf(column))
        if column in table.directions:
            found[column] = (table.directions[column], known)
            if known is not None and known.direction != table.directions[column]:
                notes.append(
                    f"`{column}`: the source says {table.directions[column]}, usual is {known.direction}; "
                    "the source is followed: correct it if it looked for the worst case"
                )
        elif known is not None and (declared or not is_in_settings(column)):
            found[column] = (known.direction, known)
    metrics: dict[str, MetricMap] = {}
    groups: dict[str, KnownMetric | None] = {}
    for name, column in _by_name(found).items():
        direction, known = found[column]
        bounds = _range(columns, column, known, notes)
        if bounds is None:
            continue
        low, high = bounds
        n, k = _counts(columns, column, known, notes)
        called = f"{name}_percent" if high == 100 and name in KINDS else name
        metrics[called] = MetricMap.model_validate(
            {"column": column, "direction": direction, "low": low, "high": high, "n": n, "k": k}
        )
        groups[called] = known
    return metrics, groups


def _range(
    columns: _Columns, column: str, known: KnownMetric | None, notes: list[str]
) -> tuple[float | None, float | None] | None:
    """The range of a metric; None if its values do not fit its name."""
    if known is None or not known.unit:
        return (None, None) if known is None else (known.low, known.high)
    values = [value for value in columns.finite(column) if value != 0]
    shares = sum(0 < value <= 1 for value in values)
    hundredths = sum(1 < value <= 100 for value in values)
    beyond = len(values) - shares - hundredths
    if 2 * shares >= len(values):
        if shares < len(values):
            notes.append(
                f"`{column}`: {len(values) - shares} of {len(values)} values are outside [0, 1]; these "
                "rows will be refused unless you set `high: 100` for per cent"
            )
        return 0, 1
    if 2 * hundredths > len(values):
        out = f"; {beyond} are outside and will be refused" if beyond else ""
        mixed = f", though {shares} are at most 1" if shares else ""
        notes.append(
            f"`{column}`: values from {min(values):g} to {max(values):g} are read as per cent, 0 to 100, "
            f"and not divided{mixed}{out}"
        )
        return 0, 100
    if column in columns.table.directions:
        return None, None
    notes.append(
        f"`{column}`: values from {min(values):g} to {max(values):g} are neither shares nor per cent; give "
        "it a direction and a range if it is a metric"
    )
    return None


def _counts(
    columns: _Columns, column: str, known: KnownMetric | None, notes: list[str]
) -> tuple[str | None, str | None]:
    """The columns of the number of samples and of the count of a metric."""
    k = next(
        (c for c in (f"{column}.k", f"k_{column}", f"{column}_k") if c in columns.numeric), None
    )
    own = (f"{column}{COUNT}", f"n_{column}", f"{column}_n")
    n = next((c for c in own if c in columns.numeric), None)
    if n is None and known is not None and known.unit:
        n = columns.table.n or columns.named(_COUNTS)
        if n is not None:
            notes.append(f"`{n}` is taken as the number of samples of `{column}`")
    return n, k if n is not None else None


def _is_harm_rate(metric: MetricMap, known: KnownMetric | None) -> bool:
    """Whether a metric is a share of unsafe answers; refusals of harmless prompts are another matter."""
    if known is None or known.group != "harm" or "refus" in metric.column.lower():
        return False
    return metric.direction == "minimize" and (metric.low, metric.high) == (0, 1)


def _usual_limit(name: str, notes: list[str]) -> ConstraintMap:
    """The limit that a sweep has unless it says otherwise: without one, any harm would be allowed."""
    notes.append(
        f"`{name}` gets the limit of a sweep, {USUAL_LIMIT:g}: set your own under `constraints`"
    )
    return ConstraintMap(metric=name, max=USUAL_LIMIT)


def _objectives(
    table: ForeignTable, metrics: dict[str, MetricMap], groups: dict[str, KnownMetric | None]
) -> tuple[str, ...]:
    """What the source optimised; else the best known quality or loss, and harm."""
    if table.kind == "optuna":
        return tuple(
            name
            for name, metric in metrics.items()
            if metric.column in table.metrics and metric.column not in table.constraints
        )
    chosen = []
    for kinds in (("quality", "loss"), ("harm",)):
        found = [
            (_preference(name), kinds.index(known.group), name)
            for name, known in groups.items()
            if known is not None and known.group in kinds
        ]
        found.sort(key=lambda item: (item[0] > _UNMARKED, item[1], item[0]))
        chosen += [name for *_, name in found[:1]]
    return tuple(chosen)


_UNMARKED = 2
"""The preference of a name that does not say on which rows; above is training."""


def _preference(name: str) -> int:
    """0 of a test, 1 of validation, 2 of others, 3 of training."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    marks = ({"test"}, {"eval", "valid", "val", "validation", "heldout"})
    place = next((i for i, mark in enumerate(marks) if mark & words), _UNMARKED)
    return _UNMARKED + 1 if "train" in words else place


def _leaf(column: str) -> str:
    """The last key of a column, without the prefix of an export."""
    if column.startswith(f"{HARNESS}/"):
        return column
    for prefix in _PREFIXES:
        column = column.removeprefix(prefix)
    return column.rpartition(".")[2]


def _by_name(columns: Iterable[str]) -> dict[str, str]:
    """Short distinct names for columns: the last key, and more keys where two columns share it."""
    names: dict[str, str] = {}
    for column in columns:
        leaf = _leaf(column)
        keys = column.split(".")
        longer = (_identifier(".".join(keys[-count:])) for count in range(2, len(keys) + 1))
        numbered = (f"{_identifier(column)}_{number}" for number in count_from(2))
        possible = chain([_identifier(ALIASES.get(leaf.lower(), leaf))], longer, numbered)
        names[next(name for name in possible if name and name not in names)] = column
    return names


def _identifier(text: str) -> str:
    plain = re.sub(r"\s+/\s+", "_per_", text)
    kept = r"[^\w/@%+-]+" if plain.startswith(f"{HARNESS}/") else r"[^\w@%+-]+"
    return re.sub(kept, "_", plain).strip("_")[:190]
