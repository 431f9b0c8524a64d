"""The training rows of a configuration, for a trainer that should read them in the same order."""

import json
from pathlib import Path
from typing import Any

from sweeper.analysis import Candidate
from sweeper.data.sources import resolve
from sweeper.errors import SweeperError
from sweeper.export.job import check_exportable, stem, write_files
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.trial.texts import Text, ordered_texts


def export_rows(
    candidate: Candidate, spec: SweepSpec, folder: Path, segments: bool = False
) -> tuple[Path, ...]:
    """Write `<stem>.rows.jsonl`: `prompt` and `completion` of every row of every step, in order.

    They are those of the first seed. One epoch over this file, in its order, is the complete training.
    With `segments` also `<stem>.segments.jsonl`, the same rows as Axolotl's `input_output` takes them.

    Raises:
        SweeperError: the untouched base model, or a configuration this spec does not plan.
        DataError, ModelError: the data or the tokenizer is no longer available.
        RunFolderError: the file cannot be written.
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
    texts = ordered_texts(task, candidate.steps)
    name = stem(candidate, spec)
    contents = {f"{name}.rows.jsonl": [text._asdict() for text in texts]}
    if segments:
        contents[f"{name}.segments.jsonl"] = [_segments(text) for text in texts]
    lines = {
        file: "".join(f"{json.dumps(row)}\n" for row in rows) for file, rows in contents.items()
    }
    return write_files(folder, lines, "the rows")


def _segments(text: Text) -> dict[str, Any]:
    """Parts with and without loss."""
    parts = ((False, text.prompt), (True, text.completion))
    return {"segments": [{"label": label, "text": part} for label, part in parts]}
