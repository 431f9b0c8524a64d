"""TensorBoard event files: one row for each folder of them, with the last value of each scalar."""

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.errors import MissingExtraError
from sweeper.importing.files import Source, named_files, problem_of
from sweeper.importing.table import ForeignRow, ForeignTable, printable

_HPARAMS = "_hparams_/session_start_info"


def _is_events(name: str) -> bool:
    return "tfevents" in name


def holds_events(source: Source) -> bool:
    """Whether there are event files, by their names."""
    return any(named_files(source, _is_events))


def read_tensorboard(source: Source) -> ForeignTable:
    """The scalars of each folder by tag, `step` (the greatest), `run` (the folder), and `hparams.*`.

    Tags that were last written before the last step are in the notes. A torn last event, which a killed
    writer leaves, is left out.

    Raises:
        MissingExtraError: the package tensorboardX is not installed.
    """
    try:  # Only this kind needs it.
        from tensorboardX.proto import event_pb2, plugin_hparams_pb2
    except ImportError:
        raise MissingExtraError(
            f"{source.shown}: event files of TensorBoard need the package tensorboardX; install "
            "`sweeper-llm[trackers]`"
        ) from None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    folders: dict[str, list[Path]] = defaultdict(list)
    for name, path in named_files(source, _is_events):
        folders[name.rpartition("/")[0] or "."].append(path)
    rows: list[ForeignRow] = []
    refused = list(source.refused)
    older: Counter[str] = Counter()
    for folder in sorted(folders):
        scalars: dict[str, tuple[int, float]] = {}
        values: dict[str, object] = {"run": folder}
        try:
            for path in sorted(folders[folder]):
                for event in _events(path, event_pb2.Event):
                    for item in event.summary.value:
                        _add(event.step, item, scalars)
                        if item.tag == _HPARAMS:
                            values |= _settings(item, plugin_hparams_pb2.HParamsPluginData)
        except (OSError, ValueError, DecodeError) as error:
            refused.append((folder, printable(f"a damaged event file: {error}")))
            continue
        if not scalars:
            refused.append((folder, "no scalars in its event files"))
            continue
        last = max(step for step, _ in scalars.values())
        older.update(tag for tag, (step, _) in scalars.items() if step not in (0, last))
        values |= {tag: value for tag, (_, value) in scalars.items()} | {"step": last}
        rows.append(ForeignRow(folder, values))
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    settings = tuple(name for name in columns if name.startswith("hparams."))
    return ForeignTable(
        "tensorboard",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=settings or ("run",),
        metrics=tuple(name for name in columns if name not in ("run", "step", *settings)),
        step="step",
        notes=tuple(
            f"`{tag}`: last written before the last step of its run, in {count} of {len(rows)} runs"
            for tag, count in older.items()
        ),
    )


def _events(path: Path, event: Any) -> Iterator[Any]:
    """The events of a file of TFRecords: 8 bytes of length, 4 of checksum, the data, 4 of checksum.

    Raises:
        ValueError: it is too large, or no such file.
    """
    problem = problem_of(path)
    if problem:
        raise ValueError(problem)
    with path.open("rb") as file:
        size = path.stat().st_size
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack_from("<Q", head)
            if file.tell() + length + 4 > size:
                if length > 2**31:
                    raise ValueError("a length beyond all bounds")
                return
            yield event.FromString(file.read(length))
            file.read(4)


def _add(step: int, item: Any, scalars: dict[str, tuple[int, float]]) -> None:
    kind = item.WhichOneof("value")
    if kind == "simple_value":
        value = item.simple_value
    elif kind == "tensor" and item.tensor.dtype == 1 and len(item.tensor.float_val) == 1:
        value = item.tensor.float_val[0]
    elif kind == "tensor" and item.tensor.dtype == 1 and len(item.tensor.tensor_content) == 4:
        (value,) = struct.unpack("<f", item.tensor.tensor_content)
    else:
        return
    tag = printable(item.tag)
    if tag not in scalars or step >= scalars[tag][0]:
        scalars[tag] = (step, value)


def _settings(item: Any, plugin: Any) -> dict[str, object]:
    """The hyperparameters that `add_hparams` wrote."""
    info = plugin.FromString(item.metadata.plugin_data.content).session_start_info
    return {
        f"hparams.{printable(name)}": getattr(value, value.WhichOneof("kind"))
        for name, value in info.hparams.items()
        if value.WhichOneof("kind") in ("number_value", "string_value", "bool_value")
    }
