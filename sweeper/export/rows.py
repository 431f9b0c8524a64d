"""The training rows of a configuration, for a trainer that should read them in the same order."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sweeper.analysis import Candidate
from sweeper.data.sources import resolve
from sweeper.errors import ExportError, SweeperError
from sweeper.export.job import check_exportable, stem, write_files
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.trial.texts import TrainingRow, ordered_rows


def training_rows(candidate: Candidate, spec: SweepSpec) -> list[TrainingRow]:
    """Every row of every step, in order, of the first seed.

    Raises:
        SweeperError: the untouched base model, or a configuration this spec does not plan.
        DataError, ModelError: the data or the tokenizer is no longer available.
    """
    check_exportable(candidate)
    seed = candidate.seeds[0]
    tasks = make_tasks(make_plan(spec), spec, resolve)
    found = (
        task
        for task in tasks
        for readout in task.readouts
        if (readout.config_id, task.seed) == (candidate.config_id, seed)
    )
    task = next(found, None)
    if task is None:
        raise SweeperError(
            f"sweep {spec.name} plans no configuration {candidate.config_id} with seed {seed}; "
            "export from the run folder it was trained in"
        )
    return ordered_rows(task, candidate.steps)


def export_rows(
    candidate: Candidate,
    spec: SweepSpec,
    folder: Path,
    formats: Collection[str] = (),
    *,
    write: bool = True,
) -> tuple[Path, ...]:
    """Write `<stem>.rows.jsonl`: text and tokens of every row of every step, in order.

    One epoch over this file, in its order, is the complete training. `input_ids` and `labels` are the
    tokens of the sweep, which TRL and Axolotl train on as they are; LLaMA-Factory tokenizes the texts
    `prompt` and `completion`, each by itself.

    Args:
        candidate: A trained configuration.
        spec: The sweep it comes from.
        folder: Where to write.
        formats: The formats that will read the file.
        write: False: only check that they can.

    Raises:
        SweeperError, DataError, ModelError: see `training_rows`.
        ExportError: a format would make other tokens of the rows.
        RunFolderError: the file cannot be written.
    """
    rows = training_rows(candidate, spec)
    if "llamafactory" in formats:
        check_llamafactory(rows, int(candidate.config["max_length"]))
    if not write:
        return ()
    lines = "".join(f"{json.dumps(_fields(row))}\n" for row in rows)
    return write_files(folder, {f"{stem(candidate, spec)}.rows.jsonl": lines}, "the rows")


def check_llamafactory(rows: Sequence[TrainingRow], max_length: int) -> None:
    """Reject rows of which LLaMA-Factory would make other tokens.

    It truncates a row as the sweep does, at the end of the completion, where the prompt is shorter than
    half of `max_length` and the completion is not (`infer_seqlen` in its `processor_utils.py`).

    Raises: ExportError: at least one such row.
    """

    def equal(row: TrainingRow) -> bool:
        prompt, alone = len(row.prompt_ids), row.separate_ids
        fits = prompt + len(alone) <= max_length
        cut_alike = 2 * prompt < max_length <= 2 * len(alone)
        return (fits or cut_alike) and alone[: max_length - prompt] == row.completion_ids

    different = sum(not equal(row) for row in rows)
    if different:
        raise ExportError(
            f"LLaMA-Factory would make other tokens of {different} of {len(rows)} rows than the sweep: it "
            "tokenizes prompt and completion separately and truncates long rows in another way; "
            "use --format trl or axolotl, which read the tokens"
        )


def _fields(row: TrainingRow) -> dict[str, Any]:
    whole = [*row.prompt_ids, *row.completion_ids]
    return {
        "prompt": row.prompt,
        "completion": row.completion,
        "input_ids": whole,
        "attention_mask": [1] * len(whole),
        "labels": [-100] * len(row.prompt_ids) + list(row.completion_ids),
    }
