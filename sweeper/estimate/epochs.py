"""Epochs as optimizer steps: the rows of an epoch, counted as a trial would keep them."""

from dataclasses import replace

from sweeper.data.load import scored_prompt_hashes
from sweeper.data.split import split_rows
from sweeper.estimate.inputs import local_path
from sweeper.planning import steps_of
from sweeper.planning.configurations import readout_axes
from sweeper.spec import SweepSpec
from sweeper.task import DataSettings, EvaluationSettings, Source


def count_epoch_rows(spec: SweepSpec) -> SweepSpec:
    """The spec with `rows_per_epoch`, where its space has `num_epochs`; else the spec itself.

    Counted are the training rows that are left after blank, filtered, held-out and scored rows and, with
    `overlong_prompts: drop` or `control_tokens: drop`, those that a tokenizer shows.

    Raises:
        DataError, MissingExtraError: the rows cannot be read.
        ModelError: rows are dropped by their length, and the tokenizer is missing.
    """
    if spec.space.num_epochs is None or spec.rows_per_epoch is not None:
        return spec
    data = _local(spec.data)
    scored = scored_prompt_hashes(_local_suites(spec.evaluation))
    if "drop" not in (data.overlong_prompts, data.control_tokens):
        rows = len(split_rows(data, scored).rows)
    else:
        from sweeper.data.encode import Encoder, load_training_data  # It needs transformers.
        from sweeper.model.load import load_tokenizer

        model = replace(spec.model, path=local_path(spec.model.path))
        template = data.template.train
        encoder = Encoder(load_tokenizer(model), template.name, data.max_length, template.system)
        rows = load_training_data(data, encoder, asked=scored).counts["train_rows"]
    return spec.model_copy(update={"rows_per_epoch": rows})


def _local(data: DataSettings) -> DataSettings:
    """The settings with the files of `builtin:` sources."""
    return replace(
        data,
        train=_local_source(data.train),
        heldout=data.heldout and _local_source(data.heldout),
        safety=data.safety and _local_source(data.safety),
    )


def _local_suites(evaluation: EvaluationSettings) -> EvaluationSettings:
    return replace(
        evaluation,
        harmful=tuple(map(_local_source, evaluation.harmful)),
        harmless=tuple(map(_local_source, evaluation.harmless)),
    )


def _local_source(source: Source) -> Source:
    return replace(source, path=local_path(source.path)) if source.path else source


def epochs_text(spec: SweepSpec) -> str | None:
    """The steps of every number of epochs, per batch size, in one line; None without `num_epochs`."""
    axis = readout_axes(spec).get("num_epochs")
    if axis is None:
        return None
    batch = spec.space.batch_size
    sizes = batch.values or (batch.grid() if batch.num else (batch.low, batch.high))
    parts = []
    for size in sizes:
        points = [{"num_epochs": epochs, "batch_size": size} for epochs in axis.grid()]
        counted = ", ".join(
            f"{point['num_epochs']:g} = {steps_of(spec, point)}" for point in points
        )
        parts.append(f"{counted} at batch size {size}")
    return f"steps by epochs of {spec.rows_per_epoch} rows: {'; '.join(parts)}"
