"""Epochs as optimizer steps: the rows of an epoch, counted as a trial would keep them."""

from dataclasses import replace

from sweeper.data.split import split_rows
from sweeper.estimate.inputs import local_path
from sweeper.planning import steps_of
from sweeper.planning.configurations import readout_axes
from sweeper.spec import SweepSpec
from sweeper.task import DataSettings


def count_epoch_rows(spec: SweepSpec) -> SweepSpec:
    """The spec with `rows_per_epoch`, where its space has `num_epochs`; else the spec itself.

    Counted are the training rows that are left after blank, filtered and held-out rows and, with
    `overlong_prompts: drop`, those whose prompt leaves no room for an answer.

    Raises:
        DataError, MissingExtraError: the rows cannot be read.
        ModelError: rows are dropped by their length, and the tokenizer is missing.
    """
    if spec.space.num_epochs is None or spec.rows_per_epoch is not None:
        return spec
    data = _local(spec.data)
    if data.overlong_prompts == "error":
        rows = len(split_rows(data).train)
    else:
        from sweeper.data.encode import Encoder, load_training_data  # It needs transformers.
        from sweeper.model.load import load_tokenizer

        model = replace(spec.model, path=local_path(spec.model.path))
        template = data.template.train
        encoder = Encoder(load_tokenizer(model), template.name, data.max_length, template.system)
        rows = load_training_data(data, encoder).counts["train_rows"]
    return spec.model_copy(update={"rows_per_epoch": rows})


def _local(data: DataSettings) -> DataSettings:
    """The settings with the files of `builtin:` sources."""
    heldout = data.heldout
    return replace(
        data,
        train=replace(data.train, path=local_path(data.train.path)),
        heldout=None if heldout is None else replace(heldout, path=local_path(heldout.path)),
    )


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
