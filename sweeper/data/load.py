"""Rows to train on and prompts to answer, from a file, a folder or the hub."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sweeper.data.formats import Cells, Example, Turn, columns_of, examples_of
from sweeper.data.hub import MODEL, fetch, is_hub_id
from sweeper.data.prompt_hash import prompt_split_of
from sweeper.data.rows import Row, read_rows, rows_hash, select_rows
from sweeper.data.suites import resolve_suite, suite_columns, suite_rows
from sweeper.errors import DataError
from sweeper.task import DataSource, PromptSuite, Source, TrajectoryTask

__all__ = [
    "Example",
    "Examples",
    "Prompt",
    "Turn",
    "check_cached",
    "data_hash",
    "load_examples",
    "load_prompts",
    "load_suite",
    "pin_revisions",
    "read_examples",
]


class Examples(NamedTuple):
    """The rows of a source that can be used, by row number, and how many were read."""

    kept: dict[int, Example]
    read: int


class Prompt(NamedTuple):
    """One prompt of a suite."""

    id: str
    text: str


def read_examples(source: DataSource) -> Examples:
    """Rows with a prompt and a completion; rows that lack the text of either are left out.

    Raises:
        DataError: see `rows.read_rows` and `formats.examples_of`; or not one row has both.
        MissingExtraError: the extra `data` is not installed, and needed.
    """
    rows = read_rows(source)
    found = examples_of(source, rows)
    kept = {
        number: example
        for number, example in found.items()
        if example.prompt.strip() and example.completion.strip()
    }
    if not kept:
        raise DataError(
            f"{source.path}: each of {len(rows)} rows has a blank prompt or completion; map other "
            "columns with `columns`",
            code="data.blank",
            path=source.path,
        )
    return Examples(kept, len(rows))


def load_examples(source: DataSource) -> list[Example]:
    """Rows with a prompt and a completion; see `read_examples`."""
    return list(read_examples(source).kept.values())


def load_suite(sources: Sequence[PromptSuite]) -> list[Prompt]:
    """The prompts of several sources as one suite; of several, each id begins with its source's name.

    Raises:
        DataError: see `load_prompts`; or two sources of one name.
    """
    if len(sources) == 1:
        return load_prompts(sources[0])
    names = [source.suite or Path(source.name).stem for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two sources of one suite are named `{name}`; give one of them another name",
                code="data.duplicate",
                name=name,
            )
    return [
        Prompt(f"{name}/{prompt.id}", prompt.text)
        for name, source in zip(names, sources, strict=True)
        for prompt in load_prompts(source)
    ]


def load_prompts(source: PromptSuite) -> list[Prompt]:
    """The prompts of a source: those of its `prompt_split`, of which `rows` and `sample_seed` choose some.

    Ids are the `id` column, else the row's number in the file: the same whatever part is taken.

    Raises:
        DataError: see `rows.read_rows`; or a blank prompt; or two prompts with one id; or none is left.
        MissingExtraError: the extra `data` is not installed, and needed.
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
                f"{source.path}: duplicate id {prompt.id!r}",
                code="data.duplicate",
                path=source.path,
                id=prompt.id,
            )
        seen.add(prompt.id)
    halves = [
        item for item in prompts if source.prompt_split in ("all", prompt_split_of(item.text))
    ]
    if not halves:
        raise DataError(
            f"{source.path}: none of {len(prompts)} prompts is in the split `{source.prompt_split}`; "
            "use `prompt_split: all`",
            code="data.empty",
            path=source.path,
            key="prompt_split",
            found=source.prompt_split,
        )
    return select_rows(halves, source)


def _prompts(source: PromptSuite, rows: Sequence[Row]) -> list[Prompt]:
    if source.format != "prompts":
        return _prompts_of_examples(source, rows)
    columns = columns_of(source, suite_columns(source, rows[0]))
    found = []
    for row in rows:
        cells = Cells(source, row, columns)
        text, context = cells.text("prompt"), cells.text("context")
        if context.strip():  # As HarmBench's own DirectRequest writes them.
            text = f"{context}\n\n---\n\n{text}"
        found.append(Prompt(cells.text("id") or str(row.number), text))
    return found


def _prompts_of_examples(source: DataSource, rows: Sequence[Row]) -> list[Prompt]:
    examples = examples_of(source, rows)
    found = []
    for row in rows:
        example = examples[row.number]
        if example.before:
            raise DataError(
                f"{source.path}: row {row.number} has a system prompt or earlier turns, and a suite "
                "asks single prompts; write the system prompt into `data.template`",
                code="data.not_single_prompt",
                path=source.path,
                row=row.number,
            )
        found.append(Prompt(str(row.cells.get("id", row.number)), example.prompt))
    return found


def check_cached(source: DataSource) -> None:
    """Refuse a data set of the hub that is not in the cache; see `hub.fetch` for the error."""
    source = resolve_suite(source)
    if is_hub_id(source.path):
        fetch(source.path, source.revision, download=False)


def pin_revisions(task: TrajectoryTask) -> TrajectoryTask:
    """The task with the commits of its model and data sets of the hub as their revisions.

    Workers then read the same files, even when the repository changes meanwhile.

    Raises:
        DataError, ModelError, MissingExtraError: see `hub.fetch`.
    """

    def pin(source: Source) -> Source:
        known = resolve_suite(source)
        if not is_hub_id(known.path):
            return source
        return replace(source, revision=fetch(known.path, known.revision).name)

    data, evaluation, model = task.data, task.evaluation, task.model
    heldout = None if data.heldout is None else pin(data.heldout)
    if is_hub_id(model.path):
        model = replace(model, revision=fetch(model.path, model.revision, MODEL).name)
    return replace(
        task,
        model=model,
        data=replace(data, train=pin(data.train), heldout=heldout),
        evaluation=replace(
            evaluation,
            harmful=tuple(pin(source) for source in evaluation.harmful),
            harmless=tuple(pin(source) for source in evaluation.harmless),
        ),
    )


def data_hash(source: DataSource) -> str | None:
    """What identifies the rows of a source, a published suite included; see `rows.rows_hash`."""
    return rows_hash(resolve_suite(source))
