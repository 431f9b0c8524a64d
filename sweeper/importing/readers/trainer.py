"""Folders of checkpoints that the Trainer of Transformers or TRL left: one row for each checkpoint."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sweeper.importing.files import Source, named_files
from sweeper.importing.readers.rows import object_in
from sweeper.importing.table import ForeignRow, ForeignTable, flat, is_number, printable

_STATE = "trainer_state.json"
_ADAPTER = "adapter_config.json"
_SAID = ("max_steps", "num_train_epochs", "train_batch_size")
"""Settings that the state itself holds."""

_UNREAD = (
    "training_args.bin is a pickle and is not read: learning rate, schedule and seed are not known from "
    "these checkpoints unless the names of the folders (`run`) tell them"
)


def holds_checkpoints(source: Source) -> bool:
    """Whether a folder has checkpoints, or a file is the state of one."""
    return any(named_files(source, lambda name: name == _STATE))


def read_trainer(source: Source) -> ForeignTable:
    """A row for each `trainer_state.json`: its last evaluation, `step`, `run`, and the LoRA settings.

    `step` is that of the last evaluation, `global_step` that of the checkpoint. The state in the folder of
    a run repeats its last checkpoint, and is refused if that is there.
    """
    rows: list[ForeignRow] = []
    refused = list(source.refused)
    seen: dict[tuple[str, object], str] = {}
    states = sorted(
        named_files(source, lambda name: name == _STATE), key=lambda item: -item[0].count("/")
    )
    for shown, path in states:
        run = _run(PurePosixPath(shown).parent)
        try:
            values = _values(object_in(path), path.parent)
        except ValueError as error:
            refused.append((shown, str(error)))
            continue
        same = seen.setdefault((run, values.get("global_step")), shown)
        if same != shown:
            refused.append((shown, f"the same step of the same run as {same}"))
        else:
            rows.append(ForeignRow(shown, {"run": run, **values}))
    rows.sort(key=lambda row: (str(row.values["run"]), _number(row.values["global_step"])))
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    return ForeignTable(
        "trainer",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=tuple(
            name
            for name in columns
            if name in ("run", *_SAID) or name.startswith("adapter_config.")
        ),
        metrics=tuple(name for name in columns if name.startswith("eval_")),
        step="step",
        notes=(_UNREAD,),
    )


def _run(folder: PurePosixPath) -> str:
    """The folder of a run: that of its checkpoints."""
    return str(folder.parent if folder.name.startswith("checkpoint-") else folder)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _values(state: Mapping[str, Any], folder: Path) -> dict[str, object]:
    log, step = state.get("log_history"), state.get("global_step")
    if not isinstance(log, list) or not is_number(step):
        raise ValueError("expected the keys `log_history` and `global_step` of a trainer's state")
    entries = [entry for entry in log if isinstance(entry, dict) and is_number(entry.get("step"))]
    evaluated = [entry for entry in entries if any(key.startswith("eval_") for key in entry)]
    at = max((entry["step"] for entry in evaluated), default=step)
    values: dict[str, object] = {"step": at, "global_step": step}
    values |= flat({name: state[name] for name in _SAID if state.get(name) is not None})
    for entry in evaluated:
        if entry["step"] == at:
            values |= flat({key: value for key, value in entry.items() if key.startswith("eval_")})
    losses = [entry["loss"] for entry in entries if "loss" in entry and entry["step"] <= at]
    values |= flat({"train_loss": losses[-1]} if losses else {})
    adapter = folder / _ADAPTER
    if adapter.is_file() and not adapter.is_symlink():
        values |= flat({"adapter_config": object_in(adapter)})
    return {printable(name): value for name, value in values.items()}
