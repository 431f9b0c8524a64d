"""The rows a configuration was trained on, for a trainer that is to see them in the same order."""

import json
from pathlib import Path

from sweeper.errors import RunFolderError, SweeperError
from sweeper.export.job import check_exportable, stem
from sweeper.folder import write_atomic
from sweeper.front import Candidate
from sweeper.plan import make_plan, make_tasks
from sweeper.sources import resolve
from sweeper.spec import SweepSpec
from sweeper.trial.texts import ordered_texts


def export_rows(candidate: Candidate, spec: SweepSpec, folder: Path) -> Path:
    """Write `<stem>.rows.jsonl`: `prompt` and `completion` of every row of every step, in order.

    Of the first seed. One epoch over this file, in its order, is the whole training.

    Raises:
        SweeperError: the untouched base model, or a configuration this spec does not plan.
        DataError, ModelError: the data or the tokenizer is gone.
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
    path = folder / f"{stem(candidate, spec)}.rows.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(f"{json.dumps(text._asdict())}\n" for text in texts))
    except OSError as error:
        raise RunFolderError(
            f"cannot write the rows to {folder}: {error.strerror}; choose another with --out"
        ) from None
    return path
