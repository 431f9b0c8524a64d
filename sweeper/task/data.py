"""Where rows and prompts come from, and how they are formatted."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from sweeper.task.fields import Before, Count, Doc, OneOf, Planned, Range, Searched, Seed

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
"""Published suites whose location and columns are known."""

FORMATS = ("prompt_completion", "alpaca", "dolly", "orca", "messages")


def _words(raw: Any) -> Any:
    """Read the booleans, numbers and null of YAML as JSON writes them."""
    if not isinstance(raw, dict):
        return raw
    plain = bool | int | float | None
    return {
        key: json.dumps(value) if isinstance(value, plain) else value for key, value in raw.items()
    }


@dataclass(frozen=True, slots=True)
class DataSource:
    """Rows of a local file or a hub data set: how its columns are named, and which rows are taken.

    `path` is what is opened, `name` what the spec says. `subset`, `split` and `revision` belong to hub
    data sets.
    """

    path: Annotated[str, Doc("A json, jsonl, csv, tsv or parquet file, or a hub data set.")]
    format: Annotated[str, OneOf(*FORMATS), Doc("How a row is written.")] = "prompt_completion"
    columns: Annotated[
        dict[str, str], Doc("Name of a field of the format: the column of the file that holds it.")
    ] = field(default_factory=dict)
    where: Annotated[
        dict[str, str], Before(_words), Doc("Column: value; only matching rows are used.")
    ] = field(default_factory=dict)
    rows: Annotated[Count | None, Doc("Use only this many rows.")] = None
    sample_seed: Annotated[Seed | None, Doc("Sample `rows` at random with this seed.")] = None
    subset: Annotated[str | None, Doc("The configuration of a hub data set.")] = None
    split: Annotated[str | None, Doc("The split of a hub data set.")] = None
    revision: Annotated[str | None, Doc("Branch, tag or commit of a hub data set.")] = None
    name: Annotated[str, Planned()] = ""

    def __post_init__(self) -> None:
        if self.sample_seed is not None and self.rows is None:
            raise ValueError("`sample_seed` needs `rows`, the number of rows to sample")
        object.__setattr__(self, "name", self.name or self.path)


@dataclass(frozen=True, slots=True)
class PromptSuite(DataSource):
    """Prompts to respond to: a published `suite`, from the Hub or from `path`; or any file.

    `prompt_split` keeps the `search` or the `confirm` half of its prompts, divided by hash.
    """

    path: Annotated[str, Doc("A file or Hub data set.")] = ""
    format: Annotated[str, OneOf("prompts", *FORMATS), Doc("How a row is written.")] = "prompts"
    suite: Annotated[
        Annotated[str, OneOf(*SUITES)] | None,
        Doc("A published suite whose place and columns are known."),
    ] = None
    prompt_split: Annotated[
        str,
        OneOf("search", "confirm", "all"),
        Doc(
            "The half of the prompts that is used, split by hash; `confirm` is for measuring a choice "
            "again."
        ),
    ] = "search"

    def __post_init__(self) -> None:
        if not self.path and self.suite is None:
            raise ValueError("give `path` (a file or hub id) or `suite` (a published one)")
        object.__setattr__(self, "name", self.name or self.path or self.suite)
        DataSource.__post_init__(self)


Source = TypeVar("Source", bound=DataSource)


def _suite(raw: Any) -> Any:
    """Read the bare name of a published suite."""
    return {"suite": raw} if isinstance(raw, str) else raw


Suite = Annotated[PromptSuite, Before(_suite)]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a prompt is written: `chat` (the model's own template), `llama2`, `alpaca`; its system prompt."""

    name: Annotated[
        str, OneOf("chat", "llama2", "alpaca"), Doc("`chat` is the model's own template.")
    ] = "chat"
    system: Annotated[str | None, Doc("System prompt; by default that of the template.")] = None


def _chat_format(raw: Any) -> Any:
    """Read a bare name."""
    return {"name": raw} if isinstance(raw, str) else raw


@dataclass(frozen=True, slots=True)
class Template:
    """The chat format of training rows, and that of everything that is scored."""

    train: Annotated[ChatFormat, Before(_chat_format), Doc("Of training rows.")] = ChatFormat()
    test: Annotated[ChatFormat, Before(_chat_format), Doc("For scoring.")] = ChatFormat()

    def __post_init__(self) -> None:
        for side in (self.train, self.test):
            if side.name == "alpaca" and side.system is not None:
                raise ValueError("`alpaca` has no system prompt; use `chat` or `llama2`")


def _template(raw: Any) -> Any:
    """Read one chat format as that of both sides."""
    both = isinstance(raw, str) or (isinstance(raw, dict) and not {"train", "test"} & set(raw))
    return {"train": raw, "test": raw} if both and raw else raw


def _at_a_path(raw: Any) -> Any:
    if isinstance(raw, dict) and raw.get("path") == "":
        raise ValueError("`path` is empty; give a file or a hub id")
    return raw


Rows = Annotated[DataSource, Before(_at_a_path)]


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Training and held-out rows. Without a `heldout` source, `heldout_rows` are split off `train`."""

    train: Annotated[Rows, Doc("Rows to train on.")]
    heldout: Annotated[Rows | None, Doc("Rows that utility is measured on.")] = None
    heldout_rows: Annotated[Count | None, Doc("Rows split off `train` by hash.")] = None
    template: Annotated[
        Template,
        Before(_template),
        Searched(),
        Doc("A chat format for training and scoring, or one of each."),
    ] = Template()
    max_length: Annotated[Count, Doc("Tokens per row; completions are truncated.")] = 512
    overlong_prompts: Annotated[
        Literal["error", "drop"],
        Doc("What happens to prompts that leave no room for a completion."),
    ] = "error"
    control_tokens: Annotated[
        Literal["error", "drop", "keep"],
        Doc("What happens to rows with control tokens, such as `<|im_end|>`, in their text."),
    ] = "error"
    filter_safety_rows: Annotated[
        bool, Doc("Leave out training rows whose completion looks like safety training.")
    ] = False
    safety: Annotated[
        Rows | None, Doc("Rows with refusals, of which `safety_share` is mixed into `train`.")
    ] = None
    safety_share: Annotated[
        float,
        Range(ge=0, lt=1),
        Searched(),
        Doc("Share of the training rows that are taken from `safety`, the smallest hashes first."),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.safety_share > 0 and self.safety is None:
            raise ValueError("`safety_share` needs `safety`, the rows to mix in")
        if (self.heldout is None) == (self.heldout_rows is None):
            raise ValueError("give `heldout` (a file) or `heldout_rows` (a number), one of the two")
