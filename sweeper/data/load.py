"""Loads training rows and evaluation prompts from a file, a folder or the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sweeper.data.formats import Cells, Example, Turn, columns_of, examples_of
from sweeper.data.hub import MODEL, fetch, is_hub_id
from sweeper.data.prompt_hash import normalized_prompt_hash, prompt_split_of
from sweeper.data.rows import Row, read_rows, rows_hash, select_rows, unread_files
from sweeper.data.suites import has_own_files, resolve_suite, suite_columns, suite_rows
from sweeper.errors import DataError, MissingExtraError
from sweeper.task import (
    DataSettings,
    DataSource,
    EvaluationSettings,
    ModelSource,
    PromptSuite,
    Source,
    TrajectoryTask,
)

__all__ = [
    "Example",
    "Examples",
    "Prompt",
    "Turn",
    "check_cached",
    "check_prefetched",
    "data_hash",
    "load_examples",
    "load_prompts",
    "load_suite",
    "pin_revisions",
    "read_examples",
    "scored_prompt_hashes",
    "unread_data",
]


class Examples(NamedTuple):
    """The usable rows of a source, by row number, and the number of rows read."""

    kept: dict[int, Example]
    read: int


class Prompt(NamedTuple):
    """One prompt of a suite."""

    id: str
    text: str


def read_examples(source: DataSource) -> Examples:
    """Read the rows that have a prompt and a completion; rows with a blank one are skipped.

    Raises:
        DataError: see `rows.read_rows` and `formats.examples_of`; or no row has both.
        MissingExtraError: a package that the source needs is not installed.
    """
    rows = read_rows(source)
    kept = {
        number: example
        for number, example in examples_of(source, rows).items()
        if example.prompt.strip() and example.completion.strip()
    }
    if not kept:
        raise DataError(
            f"{source.path}: all {len(rows)} rows have a blank prompt or completion, or are marked as "
            "not to be trained on; use `columns` to map other columns",
            code="data.blank",
            path=source.path,
        )
    return Examples(kept, len(rows))


def load_examples(source: DataSource) -> list[Example]:
    """Rows with a prompt and a completion; see `read_examples`."""
    return list(read_examples(source).kept.values())


def load_suite(sources: Sequence[PromptSuite]) -> list[Prompt]:
    """Load several sources as one suite; if there are several, ids are prefixed with the source name.

    Raises:
        DataError: see `load_prompts`; or two sources have the same name.
    """
    if len(sources) == 1:
        return load_prompts(sources[0])
    names = [source.suite or Path(source.name).stem for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two sources of one suite are named `{name}`; rename one of them",
                code="data.duplicate",
                name=name,
            )
    return [
        Prompt(f"{name}/{prompt.id}", prompt.text)
        for name, source in zip(names, sources, strict=True)
        for prompt in load_prompts(source)
    ]


def scored_prompt_hashes(evaluation: EvaluationSettings) -> frozenset[str]:
    """The hashes of every prompt that a sweep may be scored on, in both splits of its suites.

    Raises:
        DataError, MissingExtraError: see `load_prompts`.
    """
    sources = (*evaluation.harmful, *evaluation.harmless)
    whole = [replace(item, prompt_split="all", rows=None, sample_seed=None) for item in sources]
    return frozenset(normalized_prompt_hash(p.text) for item in whole for p in load_prompts(item))


def load_prompts(source: PromptSuite) -> list[Prompt]:
    """Load the prompts in a source's `prompt_split`, limited by `rows` and `sample_seed`.

    The id is the `id` column, or else the row number in the file, which does not depend on the split.

    Raises:
        DataError: see `rows.read_rows`; or a blank prompt; or a duplicate id; or no prompt is left.
        MissingExtraError: a package that the source needs is not installed.
    """
    source = resolve_suite(source)
    rows = suite_rows(source)
    prompts = _prompts(source, rows)
    seen: set[str] = set()
    for row, prompt in zip(rows, prompts, strict=True):
        if not prompt.text.strip():
            raise DataError(
                f"{source.path}: row {row.number} has a blank prompt; remove the row",
                code="data.blank",
                path=source.path,
                row=row.number,
            )
        if prompt.id in seen:
            raise DataError(
                f"{source.path}: duplicate id {prompt.id!r} in row {row.number}; ids must be unique",
                code="data.duplicate",
                path=source.path,
                id=prompt.id,
            )
        seen.add(prompt.id)
    selected = [
        prompt for prompt in prompts if source.prompt_split in ("all", prompt_split_of(prompt.text))
    ]
    if not selected:
        raise DataError(
            f"{source.path}: none of the {len(prompts)} prompts is in the split `{source.prompt_split}`; "
            "set `prompt_split: all`",
            code="data.empty",
            path=source.path,
            key="prompt_split",
            found=source.prompt_split,
        )
    return select_rows(selected, source)


def _prompts(source: PromptSuite, rows: Sequence[Row]) -> list[Prompt]:
    if source.format != "prompts":
        return _prompts_of_examples(source, rows)
    columns = columns_of(source, suite_columns(source, rows[0]))
    prompts = []
    ids = _ids(source, rows, columns)
    for row, name in zip(rows, ids, strict=True):
        cells = Cells(source, row, columns)
        text, context = cells.text("prompt"), cells.text("context")
        if context.strip():  # The format of HarmBench's DirectRequest.
            text = f"{context}\n\n---\n\n{text}"
        prompts.append(Prompt(name, text))
    return prompts


def _ids(source: DataSource, rows: Sequence[Row], columns: Mapping[str, str]) -> list[str]:
    """The ids of rows: their `id` column, or their numbers if no row has one.

    Raises:
        DataError: some rows have an id and others none.
    """
    ids = [Cells(source, row, columns).text("id") for row in rows]
    if not any(name.strip() for name in ids):
        return [str(row.number) for row in rows]
    for row, name in zip(rows, ids, strict=True):
        if not name.strip():
            column = columns["id"]
            raise DataError(
                f"{source.path}: row {row.number} has no `{column}`, but other rows have one; give each "
                f"row an id, or remove the column `{column}`",
                code="data.blank",
                path=source.path,
                row=row.number,
                column=column,
            )
    return ids


def _prompts_of_examples(source: DataSource, rows: Sequence[Row]) -> list[Prompt]:
    examples = examples_of(source, rows)
    prompts = []
    for row, name in zip(rows, _ids(source, rows, {"id": "id"}), strict=True):
        example = examples[row.number]
        if example.before:
            raise DataError(
                f"{source.path}: row {row.number} has a system prompt or earlier turns, but a suite "
                "takes single prompts; put the system prompt into `data.template`",
                code="data.not_single_prompt",
                path=source.path,
                row=row.number,
            )
        prompts.append(Prompt(name, example.prompt))
    return prompts


def check_cached(source: DataSource) -> None:
    """Reject a hub data set that is not in the cache; see `hub.fetch` for the error."""
    source = resolve_suite(source)
    if is_hub_id(source.path):
        fetch(source.path, source.revision, download=False)


def pin_revisions(task: TrajectoryTask) -> TrajectoryTask:
    """The task with the revisions of its hub models and data sets replaced by commits.

    Workers then read the same files, even if a repository changes meanwhile.

    Raises:
        DataError, ModelError, MissingExtraError: see `hub.fetch`.
    """

    def pin(source: Source) -> Source:
        resolved = resolve_suite(source)
        if not is_hub_id(resolved.path):
            return source
        return replace(source, revision=fetch(resolved.path, resolved.revision).name)

    data, evaluation, model = task.data, task.evaluation, task.model
    heldout = None if data.heldout is None else pin(data.heldout)
    safety = None if data.safety is None else pin(data.safety)
    if is_hub_id(model.path):
        model = replace(model, revision=fetch(model.path, model.revision, MODEL).name)
    return replace(
        task,
        model=model,
        data=replace(data, train=pin(data.train), heldout=heldout, safety=safety),
        evaluation=replace(
            evaluation,
            harmful=tuple(pin(source) for source in evaluation.harmful),
            harmless=tuple(pin(source) for source in evaluation.harmless),
        ),
    )


def data_hash(source: DataSource) -> str | None:
    """Identifies the contents of a source, published suites included; see `rows.rows_hash`."""
    return rows_hash(resolve_suite(source))


def check_prefetched(
    model: ModelSource, data: DataSettings, evaluation: EvaluationSettings
) -> None:
    """Reject a sweep whose model or data of the hub are not in the cache: machines may have no network.

    Raises:
        DataError, ModelError, MissingExtraError: see `hub.fetch`.
    """
    if is_hub_id(model.path):
        fetch(model.path, model.revision, MODEL, download=False)
    sources = (data.train, data.heldout, data.safety, *evaluation.harmful, *evaluation.harmless)
    for source in sources:
        if source is not None:
            check_cached(source)


def unread_data(data: DataSettings, evaluation: EvaluationSettings) -> list[str]:
    """For each source with data files that are not read: which are read, and which are not.

    Sources that cannot be opened here have none; reading them says why.
    """
    sources: dict[str, Sequence[DataSource | None]] = {
        "train": [data.train],
        "heldout": [data.heldout],
        "safety": [data.safety],
        "harmful": evaluation.harmful,
        "harmless": evaluation.harmless,
    }
    found = []
    for what, group in sources.items():
        for source in group:
            if source is None or has_own_files(source):
                continue
            try:
                unread = unread_files(resolve_suite(source))
            except (DataError, MissingExtraError):
                continue
            if unread is not None:
                found.append(f"{what}: {source.name} {unread}")
    return found
