"""Where rows and prompts come from, and how they are written."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sweeper.spec.axes import SpecModel
from sweeper.spec.fields import Count, Seed, listed


class RowsSpec(SpecModel):
    """A local json, jsonl, csv or parquet file or a hub data set, its columns, and which rows are taken."""

    columns: dict[str, str] = Field(default_factory=dict)
    where: dict[str, str] = Field(default_factory=dict)
    rows: Count | None = None
    sample_seed: Seed | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if self.sample_seed is not None and self.rows is None:
            raise ValueError("`sample_seed` draws `rows` of them at random; give `rows`, too")
        return self


class SourceSpec(RowsSpec):
    """Rows to train on, or to measure utility on."""

    path: Annotated[str, Field(min_length=1)]
    format: Literal["prompt_completion", "alpaca", "dolly", "orca", "messages"] = (
        "prompt_completion"
    )


SUITES = (
    "advbench",
    "hex-phi",
    "harmbench",
    "jailbreakbench",
    "jailbreakbench-benign",
    "strongreject",
    "xstest-safe",
    "xstest-unsafe",
)
"""Published suites whose place and columns are known; see `sweeper.task.trajectory.DataSource`."""


class SuiteSpec(RowsSpec):
    """Prompts to answer: a published `suite` by name, from the hub or from `path`; or any file."""

    path: str = ""
    format: Literal["prompts", "prompt_completion", "alpaca", "dolly", "orca", "messages"] = (
        "prompts"
    )
    suite: Literal[SUITES] | None = None  # type: ignore[valid-type]
    prompt_split: Literal["search", "confirm", "all"] = "search"

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        """Read the bare name of a published suite."""
        return {"suite": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.path and self.suite is None:
            raise ValueError("give `path` (a file or hub id) or `suite` (a published one)")
        return self


Suites = Annotated[tuple[SuiteSpec, ...], BeforeValidator(listed)]


class ChatFormatSpec(SpecModel):
    """`chat` is the model's own template; `system` a system prompt, None what the template has."""

    name: Literal["chat", "llama2", "alpaca"] = "chat"
    system: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        """Read a bare name."""
        return {"name": raw} if isinstance(raw, str) else raw


class TemplateSpec(SpecModel):
    """How prompts are written in training and in everything that is scored."""

    train: ChatFormatSpec = ChatFormatSpec()
    test: ChatFormatSpec = ChatFormatSpec()

    @model_validator(mode="before")
    @classmethod
    def _same(cls, raw: Any) -> Any:
        """Read one dialogue as that of both sides."""
        both = isinstance(raw, str) or (isinstance(raw, dict) and not {"train", "test"} & set(raw))
        return {"train": raw, "test": raw} if both and raw else raw

    @model_validator(mode="after")
    def _system_where_it_fits(self) -> Self:
        for side in (self.train, self.test):
            if side.name == "alpaca" and side.system is not None:
                raise ValueError(
                    "`alpaca` has no place for a system prompt; use `chat` or `llama2`"
                )
        return self


class DataSpec(SpecModel):
    """Training rows, held-out rows (a file, or `heldout_rows` split off by hash), template."""

    train: SourceSpec
    heldout: SourceSpec | None = None
    heldout_rows: Count | None = None
    template: TemplateSpec = TemplateSpec()
    max_length: Count = 512
    overlong_prompts: Literal["error", "drop"] = "error"
    filter_safety_rows: bool = False

    @model_validator(mode="after")
    def _one_heldout(self) -> Self:
        if (self.heldout is None) == (self.heldout_rows is None):
            raise ValueError("give `heldout` (a file) or `heldout_rows` (a number), one of the two")
        return self
