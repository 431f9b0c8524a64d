"""A run folder made of a foreign table and its map: records that say where they are from."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import DataError, ImportMapError, RunFolderError
from sweeper.importing.mapping import ImportMap, MetricMap, map_text, metric_value, number_in
from sweeper.importing.table import ForeignRow, ForeignTable
from sweeper.metrics import KINDS, direction_of, is_rate
from sweeper.spec import Constraint, ImportedSpec, Objective, dump_spec
from sweeper.store.folder import RUN_VERSION, RunFolder, write_atomic
from sweeper.store.records import Metric, TrialRecord, write_records

MAP_NAME = "import.yaml"
"""The map of a run, in its folder."""

MAX_SETTING = 10_000
"""Characters of a setting; what is longer is data."""

BASE_ROLE, CANDIDATE_ROLE = "base", "candidate"


class Imported(NamedTuple):
    """What was made of a source: its spec, the records, and every row left out with the reason."""

    spec: ImportedSpec
    records: tuple[TrialRecord, ...]
    refused: tuple[tuple[str, str], ...]


def import_table(table: ForeignTable, mapping: ImportMap) -> Imported:
    """Records of the rows of a table, one for each configuration and seed.

    A rate is counted where the map gives its k, or its n and value determine k. Otherwise it has no
    interval, and no limit on it can be known to be kept.

    Raises:
        ImportMapError: the map does not suit the table, or no row can be used.
    """
    _check_map(table, mapping)
    refused = list(table.refused)
    records: dict[tuple[str, int], TrialRecord] = {}
    first_of: dict[tuple[str, int], str] = {}
    places = {
        name: places_of(row.values.get(metric.column) for row in table.rows)
        for name, metric in mapping.metrics.items()
    }
    for row in table.rows:
        try:
            record = _record(row, table, mapping, places)
        except (DataError, ImportMapError) as error:
            refused.append((row.where, str(error).removeprefix(f"{row.where}: ")))
            continue
        if record.key in records:
            refused.append((row.where, _twice(first_of[record.key], mapping)))
            continue
        records[record.key], first_of[record.key] = record, row.where
    if not any(record.role == CANDIDATE_ROLE for record in records.values()):
        first = "; ".join(f"{where}: {why}" for where, why in refused[:3])
        raise ImportMapError(
            f"{table.source.name}: none of {len(table.rows)} rows can be imported; {first}",
            code="import.no_rows",
            path=table.source,
        )
    found = tuple(records.values())
    return Imported(_spec(table, mapping, found), found, tuple(refused))


def _twice(first: str, mapping: ImportMap) -> str:
    remedy = (
        "name the column of the seed as `seed`, or further `parameters`"
        if mapping.seed is None
        else "name further `parameters`, or remove one of the two"
    )
    return f"the same settings and seed as {first}; {remedy}"


def _check_map(table: ForeignTable, mapping: ImportMap) -> None:
    """Refuse columns that the table lacks, and metrics whose names mean something else.

    Raises:
        ImportMapError: see above.
    """
    columns = {name for row in table.rows for name in row.values}
    wanted = [*mapping.parameters.values(), *(mapping.base or {})]
    wanted += [name for name in (mapping.seed, mapping.step) if name is not None]
    for metric in mapping.metrics.values():
        wanted += [name for name in (metric.column, metric.n, metric.k) if isinstance(name, str)]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ImportMapError(
            f"{table.source.name} has no column `{missing[0]}`, which the map names; it has "
            f"{', '.join(sorted(columns)[:12])}{', ...' if len(columns) > 12 else ''}",
            code="import.no_column",
            column=missing[0],
        )
    if len(mapping.objectives) < 2:
        raise ImportMapError(
            f"the map has {len(mapping.objectives)} objectives; at least two of its metrics are expected "
            "in `objectives`, the utility first",
            code="import.objectives",
        )
    for name, metric in mapping.metrics.items():
        expected = direction_of(name)
        if expected not in (None, metric.direction):
            raise ImportMapError(
                f"metrics.{name}: a metric of this name must be {expected}d; rename it or change its "
                "direction",
                code="import.direction",
                metric=name,
            )
        if is_rate(name) and (metric.low, metric.high) != (0, 1):
            raise ImportMapError(
                f"metrics.{name}: a name that ends in `_rate` is a share with low: 0 and high: 1; divide "
                "per cent by 100, or rename it",
                code="import.rate",
                metric=name,
            )
        if name in KINDS and KINDS[name].sampled and (metric.low, metric.high) != (0, 1):
            raise ImportMapError(
                f"metrics.{name}: a metric of this name is a mean of scores with low: 0 and high: 1; "
                "divide per cent by 100, or rename it",
                code="import.rate",
                metric=name,
            )
    for limit in mapping.constraints:
        metric = mapping.metrics[limit.metric]
        if (metric.low, metric.high) != (0, 1) or not 0 <= limit.max <= 1:
            raise ImportMapError(
                f"constraints: {limit.metric} is no rate; only a metric with low: 0 and high: 1 can have a "
                "limit, from 0 to 1; trade others off as `objectives`",
                code="import.constraint",
                metric=limit.metric,
            )


def _record(
    row: ForeignRow, table: ForeignTable, mapping: ImportMap, places: Mapping[str, int]
) -> TrialRecord:
    """Raises what a row lacks: no number, outside its range, or an objective is missing."""
    seed = 0 if mapping.seed is None else _whole(row, mapping.seed)
    step = 0 if mapping.step is None else _whole(row, mapping.step)
    is_base = is_base_row(row, mapping)
    params = {
        name: value
        for name, column in mapping.parameters.items()
        if (value := row.values.get(column)) is not None
    }
    metrics: dict[str, Metric] = {}
    for name, metric in mapping.metrics.items():
        needed = name in mapping.objectives and not (is_base and name != mapping.objectives[0])
        if needed or row.values.get(metric.column) is not None:
            metrics[name] = _metric(row, metric, places[name])
    if is_base:
        params, step = {}, 0
    else:
        for name, value in params.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ImportMapError(f"`{name}`: {value} is no setting", code="import.setting")
            if isinstance(value, str) and len(value) > MAX_SETTING:
                raise ImportMapError(
                    f"`{name}`: a text of {len(value):,} characters; a setting has at most {MAX_SETTING:,}",
                    code="import.setting",
                )
    path = _identity(params)
    config = params if mapping.step is None or is_base else {**params, "max_steps": step}
    return TrialRecord(
        config_id=_identity({**config, "role": BASE_ROLE} if is_base else config),
        trajectory_id=path,
        seed=seed,
        role=BASE_ROLE if is_base else CANDIDATE_ROLE,
        status="complete",
        config=config,
        readout={"step": step, "kind": "raw", "decay": None, "weight": None, "label": "raw"},
        metrics=metrics,
        objectives=mapping.objectives[:1] if is_base else mapping.objectives,
        provenance={
            "imported": {"kind": table.kind, "source": table.source.name, "where": row.where}
        },
    )


def is_base_row(row: ForeignRow, mapping: ImportMap) -> bool:
    """Whether a row is of the untouched model, as the map says."""
    return mapping.base is not None and all(
        row.values.get(column) == value for column, value in mapping.base.items()
    )


def _whole(row: ForeignRow, column: str) -> int:
    value = number_in(row, column)
    if value < 0 or value != int(value):
        raise ImportMapError(
            f"`{column}`: found {value:g}; a whole number from 0 is expected", code="import.whole"
        )
    return int(value)


def _metric(row: ForeignRow, metric: MetricMap, places: int) -> Metric:
    value = metric_value(row, metric)
    n = metric.n if metric.n is None or isinstance(metric.n, int) else _whole(row, metric.n)
    if n is not None and n < 1:
        raise ImportMapError(
            f"`{metric.n}`: found {n}; at least 1 is expected", code="import.whole"
        )
    if n is None or (metric.low, metric.high) != (0, 1):
        return Metric(value, n)
    if metric.k is None:
        k = count_of(value, n, places)
        return Metric(value, n) if k is None else Metric.rate(k, n)
    k = _whole(row, metric.k)
    if k > n or not _rounds(k / n, value, places):
        raise ImportMapError(
            f"`{metric.column}`: found {value:g}, but `{metric.k}` and n give {k}/{n}",
            code="import.counts",
        )
    return Metric.rate(k, n)


def count_of(value: float, n: int, places: int) -> int | None:
    """The k of which `value` is k / n, as written; None where no k or more than one is.

    Args:
        value: In [0, 1], perhaps rounded.
        n: How many were counted.
        places: Decimal places that the source writes, see `places_of`.
    """
    near = round(value * n)
    found = [k for k in (near - 1, near, near + 1) if 0 <= k <= n and _rounds(k / n, value, places)]
    return found[0] if len(found) == 1 else None


def _rounds(exact: float, written: float, places: int) -> bool:
    """Whether a value is the exact one, rounded to as many decimal places."""
    return abs(exact - written) <= max(0.5 * 10.0**-places * (1 + 1e-9), 1e-12)


def places_of(values: Iterable[object]) -> int:
    """The most decimal places of any of the numbers: what a column is rounded to."""
    return max((_places(value) for value in values if isinstance(value, float)), default=0)


def _places(value: float) -> int:
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _identity(params: Mapping[str, Any]) -> str:
    canonical = json.dumps(params, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:10]


def _spec(table: ForeignTable, mapping: ImportMap, records: Sequence[TrialRecord]) -> ImportedSpec:
    has_base = any(record.role == BASE_ROLE for record in records)
    return ImportedSpec(
        imported=table.kind,
        name=mapping.name,
        objectives=tuple(
            Objective(metric=name, direction=mapping.metrics[name].direction)
            for name in mapping.objectives
        ),
        constraints=tuple(
            Constraint(metric=item.metric, max=item.max, confidence=item.confidence)
            for item in mapping.constraints
        ),
        seeds=_common_seeds(records),
        metrics=tuple(mapping.metrics),
        needs_gain=has_base,
        rows=len(table.rows) + len(table.refused),
    )


def _common_seeds(records: Iterable[TrialRecord]) -> tuple[int, ...]:
    """The seeds that every configuration has."""
    seeds: dict[str, set[int]] = {}
    for record in records:
        if record.role == CANDIDATE_ROLE:
            seeds.setdefault(record.config_id, set()).add(record.seed)
    return tuple(sorted(set.intersection(*seeds.values())))


def new_run(out: Path) -> RunFolder:
    """The folder of a new run, created.

    Raises:
        RunFolderError: the folder holds a run, or cannot be written.
    """
    folder = RunFolder(out)
    if folder.read_info(accepted=range(1, RUN_VERSION + 1)) is not None:
        raise RunFolderError(
            f"{out} holds a run; import into another folder with --out",
            code="run.exists",
            path=out,
        )
    folder.create()
    return folder


def write_run(found: Imported, mapping: ImportMap, source: Path, out: Path) -> RunFolder:
    """Write the run folder, with the map as MAP_NAME and the rows left out as `refused.jsonl`.

    Raises:
        RunFolderError: the folder holds a run, or cannot be written.
    """
    folder = new_run(out)
    spec = dump_spec(found.spec)
    trained = [record for record in found.records if record.role == CANDIDATE_ROLE]
    accounting = {
        "configurations": len({record.config_id for record in trained}),
        "trajectories": len({(record.trajectory_id, record.seed) for record in trained}),
        "readouts": len(found.records),
    }
    write_atomic(folder.spec, spec)
    write_atomic(folder.plan, json.dumps({"version": RUN_VERSION, "accounting": accounting}))
    write_atomic(out / MAP_NAME, map_text(mapping))
    left_out = (json.dumps({"where": where, "reason": why}) for where, why in found.refused)
    write_atomic(out / "refused.jsonl", "".join(f"{line}\n" for line in left_out))
    write_records(folder.records, found.records)
    info = {
        "version": RUN_VERSION,
        "name": found.spec.name,
        "spec_hash": hashlib.sha256(spec.encode("utf-8")).hexdigest()[:16],
        "inputs": {source.name: None},
        "imported": found.spec.imported,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomic(folder.info, json.dumps(info, indent=1))
    return folder
