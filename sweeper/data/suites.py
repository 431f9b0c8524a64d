"""Published suites of safety prompts: their hub ids, subsets, splits and column names."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from sweeper.data.hub import fetch, is_hub_id
from sweeper.data.rows import Row, headerless_rows, read_rows
from sweeper.errors import DataError
from sweeper.task import DataSource, PromptSuite, Source

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PublishedSuite:
    """Where a suite is on the hub, and how to read the file published by its authors.

    The first column of `prompt` and of `context` that exists is used: the name in the authors' file, then
    the name in the copy on the hub. `where` selects rows of both, `file_where` only rows of the authors'
    file. `files` matches .csv files with one column and no header.
    """

    hub_id: str
    subset: str | None = None
    split: str | None = None
    prompt: tuple[str, ...] = ("prompt",)
    context: tuple[str, ...] = ()
    id: str = "id"
    where: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    file_where: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    files: str | None = None


PUBLISHED = {
    "advbench": PublishedSuite("walledai/AdvBench", split="train", prompt=("goal", "prompt")),
    "hex-phi": PublishedSuite(
        "LLM-Tuning-Safety/HEx-PHI", prompt=("instruction", "prompt"), files="category_*.csv"
    ),
    "harmbench": PublishedSuite(
        "walledai/HarmBench",
        subset="standard",
        split="train",
        prompt=("Behavior", "prompt"),
        context=("ContextString", "context"),
        id="BehaviorID",
        file_where={"FunctionalCategory": "standard"},
    ),
    "jailbreakbench": PublishedSuite(
        "JailbreakBench/JBB-Behaviors",
        subset="behaviors",
        split="harmful",
        prompt=("Goal",),
        id="Index",
    ),
    "jailbreakbench-benign": PublishedSuite(
        "JailbreakBench/JBB-Behaviors",
        subset="behaviors",
        split="benign",
        prompt=("Goal",),
        id="Index",
    ),
    "strongreject": PublishedSuite(
        "walledai/StrongREJECT", split="train", prompt=("forbidden_prompt", "prompt")
    ),
    "xstest-safe": PublishedSuite("Paul/XSTest", split="train", where={"label": "safe"}),
    "xstest-unsafe": PublishedSuite("Paul/XSTest", split="train", where={"label": "unsafe"}),
}
"""The suites of `task.data.SUITES`; the documentation lists them on a page of its own."""


def resolve_suite(source: Source) -> Source:
    """The source with the fields of its published suite filled in; the sweep file takes precedence.

    Raises:
        DataError: the source sets both `suite` and `format`.
    """
    if not isinstance(source, PromptSuite) or source.suite is None:
        return source
    suite = PUBLISHED[source.suite]
    if source.format != "prompts":
        raise DataError(
            f"the suite {source.suite} defines its own columns; remove `format: {source.format}`",
            code="data.setting",
            key="format",
        )
    if source.path:
        return replace(source, where={**suite.where, **suite.file_where, **source.where})
    return replace(
        source,
        path=suite.hub_id,
        subset=source.subset or suite.subset,
        split=source.split or suite.split,
        where={**suite.where, **source.where},
    )


def has_own_files(source: DataSource) -> bool:
    """Whether a source is a published suite of single-column files, all of which are read."""
    suite = getattr(source, "suite", None)
    return suite is not None and PUBLISHED[suite].files is not None


def suite_rows(source: PromptSuite) -> list[Row]:
    """All rows of a prompt source that match `where`.

    Raises:
        DataError, MissingExtraError: see `rows.read_rows`; or `where`, `subset` or `split` is set for a
            suite of single-column files.
    """
    suite = PUBLISHED[source.suite] if source.suite else None
    if suite is None or suite.files is None or Path(source.path).is_file():
        return read_rows(source, every=True)
    for name in ("where", "subset", "split"):
        if getattr(source, name):
            raise DataError(
                f"{source.name}: its files have one column and no splits; remove `{name}`",
                code="data.setting",
                key=name,
            )
    hub = is_hub_id(source.path)
    folder = fetch(source.path, source.revision) if hub else Path(source.path)
    paths = sorted(folder.glob(suite.files))
    if not paths:
        raise DataError(
            f"{source.name}: no {suite.files} in {folder}; give the folder that holds these files",
            code="data.not_found",
            path=folder,
        )
    return headerless_rows(paths, suite.prompt[0])


def suite_columns(source: PromptSuite, row: Row) -> dict[str, str]:
    """Our column names of a published suite -> the column names in its first row."""
    if source.suite is None:
        return {}
    suite = PUBLISHED[source.suite]
    present = [name for name in suite.prompt if name in row.cells]
    columns = {"id": suite.id, "prompt": (present or suite.prompt)[0]}
    context = [name for name in suite.context if name in row.cells]
    return {**columns, "context": context[0]} if context else columns
