"""The weights of a configuration: kept by the sweep, or trained again and compared with the record."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import Candidate
from sweeper.errors import RunFolderError, SweeperError
from sweeper.export.card import card
from sweeper.export.job import UNKNOWN, Origin, check_exportable, make_job, stem
from sweeper.model.checkpoint import weights_hash
from sweeper.model.saved import read_weights, save_weights
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, TrialStorage, write_atomic
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.verify import PACK_TOLERANCE, Verification, retrain, task_alone, tasks_of
from sweeper.task import TrajectoryTask


class Exported(NamedTuple):
    """The folder of the weights, and a sentence on how they compare with those that were measured."""

    folder: Path
    comparison: str
    same: bool


def export_weights(
    run: RunFolder, spec: SweepSpec, candidate: Candidate, out: Path, origin: Origin = UNKNOWN
) -> Exported:
    """Save the weights that a configuration was measured on, for its first seed.

    If the run kept the weights (`compute.keep_weights`) and their hash equals the record's, those are
    used. Otherwise the configuration is trained again alone, as by `verify`, scored, and compared with the
    record; weights are written in any case, with the result of the comparison in the README.md beside
    them.

    Args:
        run: The run folder.
        spec: Its spec.
        candidate: A trained configuration.
        out: Where the new folder `<stem>-weights` is created; files of the same name are replaced.
        origin: What the model card says of the run.

    Raises:
        SweeperError: the untouched base model, a configuration that was never measured, or a retraining
            that failed.
        DataError, ModelError: the inputs of the run are no longer available.
        RunFolderError: the folder cannot be written.
    """
    check_exportable(candidate)
    record = _record(run, candidate)
    task = tasks_of(run, spec).get(record.key)
    if task is None:
        raise SweeperError(
            f"sweep {spec.name} plans no configuration {candidate.config_id} with seed {record.seed}; "
            "export from the run folder it was trained in"
        )
    alone = task_alone(record, task)
    folder = out / f"{stem(candidate, spec)}-weights"
    kept = run.trial(record.trajectory_id).weights(record.config_id)
    if is_measured(kept, record):
        comparison = (
            f"These weights are of seed {record.seed}, kept by the sweep: bit for bit those that "
            "were measured."
        )
        _write(alone, kept, folder, _card(candidate, spec, origin, comparison))
        return Exported(folder, comparison, True)
    alone = replace(alone, compute=replace(alone.compute, keep_weights="all"))
    with tempfile.TemporaryDirectory(prefix="sweeper-weights-") as scratch:
        storage = TrialStorage(Path(scratch), alone.trajectory_id)
        found, retrained = retrain(run, record, alone, storage, len(task.readouts) - 1)
        kept = storage.weights(record.config_id)
        if not kept.is_file():
            raise SweeperError(
                f"configuration {record.config_id} could not be trained again: {found.failure}; "
                "no weights are written"
            )
        comparison = compared(found, retrained, record.seed)
        _write(alone, kept, folder, _card(candidate, spec, origin, comparison))
    return Exported(folder, comparison, found.bit_equal and found.verdicts_equal)


def _card(candidate: Candidate, spec: SweepSpec, origin: Origin, comparison: str) -> str:
    return card(make_job(candidate, spec, 1, None, origin), [comparison])


def is_measured(path: Path, record: TrialRecord) -> bool:
    """Whether a file holds, bit for bit, the weights that a record was measured on."""
    kept = read_weights(path)
    return kept is not None and weights_hash(kept) == record.provenance.get("weights_sha256")


def _write(task: TrajectoryTask, weights: Path, folder: Path, readme: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(task, weights, folder)
        write_atomic(folder / "README.md", readme)
    except OSError as error:
        raise RunFolderError(
            f"cannot write the weights to {folder}: {error.strerror}; choose another with --out"
        ) from None


def _record(run: RunFolder, candidate: Candidate) -> TrialRecord:
    """The record of the first seed as the sweep wrote it, without the rates of a judge."""
    key = (candidate.config_id, candidate.seeds[0])
    record = next(item for item in read_records(run.records).records if item.key == key)
    if record.provenance.get("weights_sha256") is None:
        raise SweeperError(
            f"configuration {candidate.config_id} was not measured ({record.status}): there are no "
            f"measured weights; choose another with --config"
        )
    return record


def compared(found: Verification, retrained: TrialRecord, seed: int) -> str:
    """How the retrained weights compare with the measured ones, in one sentence."""
    whose = f"These weights are of seed {seed}, trained again alone"
    if found.bit_equal and found.verdicts_equal:
        return f"{whose}: bit for bit those that were measured, with the same verdicts."
    if found.verdicts_equal and found.difference <= PACK_TOLERANCE:
        return (
            f"{whose}: not bit for bit those that were measured, but with the same verdicts and "
            f"metrics within {PACK_TOLERANCE:g}."
        )
    again = ", ".join(
        f"{name} {metric.value:.4g}" + ("" if metric.k is None else f" ({metric.k}/{metric.n})")
        for name, metric in sorted(retrained.metrics.items())
        if "/" not in name
    )
    return (
        f"{whose}: THEY ARE NOT THOSE THAT WERE MEASURED, and answer differently. Scored again: "
        f"{again or 'nothing'}."
    )
