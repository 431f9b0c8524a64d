"""Runs of W&B from its local folders: the log `run-ID.wandb`, or the files of summary and config."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import MissingExtraError
from sweeper.importing.files import Source, problem_of
from sweeper.importing.readers.rows import object_in
from sweeper.importing.table import ForeignRow, ForeignTable, flat, is_number, printable
from sweeper.spec.document import read_yaml

_BLOCK = 32 * 1024
_SUMMARY, _CONFIG = "files/wandb-summary.json", "files/config.yaml"


def holds_wandb(source: Source) -> bool:
    """Whether there are logs or summaries of W&B."""
    return any(_is_log(name) or name.endswith(_SUMMARY) for name in source.names)


def _is_log(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith("run-") and base.endswith(".wandb")


def read_wandb(source: Source) -> ForeignTable:
    """A row for each finished run: `config.*`, the summary under its own names, and `_step`.

    A log tells whether the run ended well; runs that did not are refused. Files of a summary do not tell,
    which is noted.

    Raises:
        MissingExtraError: a log without these files, and the package wandb is not installed.
    """
    logs: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in source.names:
        if _is_log(name):
            logs[name.rpartition("/")[0]] = name
        elif name.endswith(_SUMMARY):
            folders[name.removesuffix(_SUMMARY).rstrip("/")] = name
    rows: list[ForeignRow] = []
    refused = [(where, why) for where, why in source.refused if "/logs/" not in where]
    unsure = 0
    for folder in sorted({*logs, *folders}):
        log, where = logs.get(folder), printable(folder or source.path.name)
        try:
            if log is not None and (folder not in folders or _protocol() is not None):
                values = _logged(source.folder / log)
            else:
                values = _filed(source.path / folder)
                unsure += 1
            rows.append(ForeignRow(where, values))
        except (OSError, ValueError) as error:
            refused.append((where, printable(str(error))))
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    parameters = tuple(name for name in columns if name.startswith("config."))
    return ForeignTable(
        "wandb",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=parameters,
        metrics=tuple(
            name
            for name in columns
            if name not in parameters
            and not name.startswith("_")
            and any(is_number(row.values.get(name)) for row in rows)
        ),
        step="_step" if "_step" in columns else None,
        notes=(f"{unsure} runs do not say whether they ended well",) if unsure else (),
    )


def _columns(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, object]:
    kept = {key: value for key, value in config.items() if not key.startswith(("_wandb", "wandb_"))}
    values = flat({"config": kept})
    return values | flat({key: value for key, value in summary.items() if key != "_wandb"})


def _filed(folder: Path) -> dict[str, object]:
    path = folder / _CONFIG
    config: dict[str, Any] = {}
    if path.is_file() and not problem_of(path):
        found = read_yaml(path.read_text(encoding="utf-8"))
        for key, item in found.items() if isinstance(found, dict) else ():
            config[str(key)] = item["value"] if isinstance(item, dict) and "value" in item else item
    return _columns(config, object_in(folder / _SUMMARY))


def _protocol() -> Any:
    try:  # Only logs need it.
        from wandb.proto import wandb_internal_pb2
    except ImportError:
        return None
    return wandb_internal_pb2


def _logged(path: Path) -> dict[str, object]:
    """The columns of a log.

    Raises:
        ValueError: damaged, or the run did not end well.
        MissingExtraError: the package wandb is not installed.
    """
    protocol = _protocol()
    if protocol is None:
        raise MissingExtraError(
            f"{printable(str(path))}: logs of W&B need the package wandb; install `sweeper-llm[trackers]`"
        )
    problem = problem_of(path)
    if problem:
        raise ValueError(problem)
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    ended = None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    for content in _records(path.read_bytes()):
        record = protocol.Record()
        try:
            record.ParseFromString(content)
        except DecodeError:
            raise ValueError("a damaged log of W&B; sync or copy the run again") from None
        kind = record.WhichOneof("record_type")
        if kind == "run":
            _apply(config, record.run.config)
        elif kind == "config":
            _apply(config, record.config)
        elif kind == "summary":
            _apply(summary, record.summary)
        elif kind == "exit":
            ended = record.exit.exit_code
    if ended != 0:
        state = (
            "has no end: it is running or was killed" if ended is None else f"ended with {ended}"
        )
        raise ValueError(f"the run {state}; only finished runs are complete")
    return _columns(config, summary)


def _apply(tree: dict[str, Any], record: Any) -> None:
    """Update a config or summary by a record, whose keys may be paths."""
    for item in record.update:
        *parents, last = list(item.nested_key) or [item.key]
        place = tree
        for key in parents:
            inner = place.get(key)
            place[key] = inner if isinstance(inner, dict) else {}
            place = place[key]
        place[last] = json.loads(item.value_json)
    for item in record.remove:
        tree.pop(item.key or ".".join(item.nested_key), None)


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a log in the format of LevelDB after a header of 7 bytes; a torn last one is left out.

    A chunk never crosses a block of 32 KiB: 4 bytes of checksum, 2 of length, 1 of type (1 whole, 2 first,
    3 middle, 4 last), and the data.

    Raises:
        ValueError: another format.
    """
    if content[:4] != b":W&B":
        raise ValueError("not a log of W&B")
    place, parts = 7, bytearray()
    while place + 7 <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        place += 7
        if length > left - 7 or kind > 4:
            raise ValueError("a damaged log of W&B; sync or copy the run again")
        if place + length > len(content):
            return
        parts += content[place : place + length]
        place += length
        if kind in (1, 4):
            yield bytes(parts)
            parts.clear()
