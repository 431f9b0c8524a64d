"""Models and data sets of the hub: fetched once as they are, then read from the cache.

Either is a snapshot of its repository at one commit, so a run without network reads the same files as the
one that fetched them. Code in a repository is never run, and pickled weights are never fetched.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from sweeper.errors import DataError, MissingExtraError, ModelError
from sweeper.task import DataSource

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|[A-Za-z0-9][\w-]*")


class Kind(NamedTuple):
    """A kind of repository: its name in messages, its page, and which of its files are fetched."""

    word: str
    page: str
    repo_type: str
    error: type[DataError] | type[ModelError]
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


_ROWS = ("json", "jsonl", "csv", "tsv", "parquet", "arrow", "txt", "gz", "zst", "zip", "yaml")

DATA = Kind(
    "data set",
    "https://huggingface.co/datasets/",
    "dataset",
    DataError,
    (*(f"*.{ending}" for ending in _ROWS), "README.md"),
)

MODEL = Kind(
    "model",
    "https://huggingface.co/",
    "model",
    ModelError,
    ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"),
    # Copies of the weights in other layouts.
    ("*/*.safetensors", "consolidated*", "original/*", "onnx/*"),
)


def is_hub_id(path: str) -> bool:
    """Whether a path can be an id of the hub: `owner/name` or `name`, and nothing local."""
    return _HUB_ID.fullmatch(path) is not None and not Path(path).exists()


snapshots: dict[tuple[Kind, str, str | None], Path] = {}
"""Folders of the snapshots that this process has found, by kind, id and revision."""


def fetch(path: str, revision: str | None, kind: Kind = DATA, *, download: bool = True) -> Path:
    """The folder that holds a snapshot of a repository; the name of the folder is its commit.

    Within one process the answer stays the same, even when the repository changes.

    Args:
        path: The id.
        revision: A branch, a tag or a commit; None is the default branch.
        kind: `DATA` or `MODEL`.
        download: Fetch what is not in the cache; with HF_HUB_OFFLINE=1 nothing is fetched.

    Raises:
        MissingExtraError: a data set, and the extra `data` is not installed.
        DataError, ModelError: no such repository or revision, gated, or neither cached nor reachable.
    """
    key = (kind, path, revision)
    if key not in snapshots:
        snapshots[key] = _snapshot(path, revision, kind, download)
    return snapshots[key]


def _snapshot(path: str, revision: str | None, kind: Kind, download: bool) -> Path:
    no_data = kind is DATA and _datasets().config.HF_HUB_OFFLINE
    import huggingface_hub as hub
    from huggingface_hub import errors

    offline = hub.constants.HF_HUB_OFFLINE or no_data
    try:
        folder = hub.snapshot_download(
            path,
            repo_type=kind.repo_type,
            revision=revision,
            allow_patterns=list(kind.wanted),
            ignore_patterns=list(kind.unwanted),
            local_files_only=offline or not download,
        )
    except errors.GatedRepoError:
        _refuse(
            kind,
            path,
            f"the {kind.word} `{path}` is gated: accept its terms at {kind.page}{path}, then run "
            "`hf auth login` or set HF_TOKEN, then",
            code="gated",
        )
    except errors.RepositoryNotFoundError:
        _refuse(
            kind,
            path,
            f"`{path}` is no local file or folder, and the hub has no {kind.word} of this id that you "
            "may see: correct the id, or run `hf auth login` or set HF_TOKEN if it is private, then",
            code="not_on_hub",
        )
    except errors.RevisionNotFoundError:
        _refuse(
            kind,
            path,
            f"the {kind.word} `{path}` has no revision `{revision}`: correct `revision`, then",
            code="unknown_revision",
        )
    except errors.LocalEntryNotFoundError as error:
        wanted = "" if revision is None else f" at revision `{revision}`"
        found = "only in part" if "incomplete" in str(error) else "not"
        why = "offline mode is on" if offline else "the hub was not reached"
        _refuse(
            kind,
            path,
            f"`{path}` is no local file or folder, and as a {kind.word} of the hub{wanted} it is {found} "
            f"in the cache ({why if download else 'a plan fetches nothing'}): if this is what you mean,",
            code="not_cached",
        )
    except OSError as error:
        _refuse(
            kind,
            path,
            f"the {kind.word} `{path}` cannot be fetched: {_first_line(error)}: mend that, then",
            code="not_fetched",
        )
    return Path(folder)


def _refuse(kind: Kind, path: str, problem: str, code: str) -> NoReturn:
    """One message: what is wrong, and how the files come into the cache.

    Raises:
        DataError, ModelError: always.
    """
    raise kind.error(
        f"{problem} {how_to_fetch()}", code=f"{kind.error.code}.{code}", path=path
    ) from None


def how_to_fetch() -> str:
    """The end of a message about files that are not in the cache."""
    from huggingface_hub import constants

    return (
        "run `sweeper prefetch SPEC` where there is a network; the cache is "
        f"{constants.HF_HUB_CACHE} (under HF_HOME)"
    )


def read_folder(folder: Path, source: DataSource) -> Any:
    """A split of a folder of data files, as a `datasets.Dataset`.

    Without `split` it is `train`, or the only one there is; without `subset` the default one.

    Raises:
        MissingExtraError: the extra `data` is not installed.
        DataError: no data files, unreadable ones, or no such subset or split.
    """
    datasets = _datasets()
    import pyarrow

    place, name = str(folder), source.name
    unreadable = (datasets.exceptions.DatasetsError, pyarrow.ArrowException, ValueError, OSError)
    datasets.disable_progress_bars()
    try:
        subsets = datasets.get_dataset_config_names(place)
        default = datasets.get_dataset_default_config_name(place)
        _one_of(name, "subset", source.subset, subsets, default)
        parts = datasets.load_dataset(place, name=source.subset)
    except unreadable as error:
        raise DataError(
            f"{name}: `datasets` cannot read its files in {folder}: "
            f"{_first_line(error.__cause__ or error)}",
            code="data.malformed",
            path=folder,
        ) from None
    splits = list(parts)
    default = splits[0] if len(splits) == 1 else "train" if "train" in splits else None
    return parts[_one_of(name, "split", source.split, splits, default)]


def _one_of(name: str, what: str, asked: str | None, known: list[str], default: str | None) -> str:
    """The chosen subset or split, or the default.

    Raises:
        DataError: unknown, or none chosen where there is no default.
    """
    chosen = asked or default
    if chosen not in known:
        found = f"no {what} `{asked}`" if asked else f"no default {what}"
        raise DataError(
            f"{name} has {found}; set `{what}` to one of {', '.join(known)}",
            code="data.unknown_split",
            key=what,
            found=asked,
            known=known,
        )
    return chosen


def _datasets() -> Any:
    """The package `datasets`, imported only here: local files do not need it.

    Raises:
        MissingExtraError: not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "data sets of the hub and folders of data files need the package datasets; install "
            "`sweeper-llm[train]`, or give a local .json, .jsonl or .csv file"
        ) from None
    return datasets


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
