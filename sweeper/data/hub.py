"""Models and data sets of the Hugging Face Hub: downloaded once, then read from the cache.

Each is a snapshot of its repository at one commit, so an offline run reads the same files as the run that
downloaded them. Code in a repository is never executed, and pickled weights are never downloaded.
"""

import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from sweeper.data.datasets_package import datasets_package
from sweeper.errors import DataError, ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|[A-Za-z0-9][\w-]*")


class Kind(NamedTuple):
    """A kind of repository: its name in messages, its URL prefix, and which files are downloaded."""

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
    # Copies of the weights in other formats.
    ("*/*.safetensors", "consolidated*", "original/*", "onnx/*"),
)


def is_hub_id(path: str) -> bool:
    """Whether a path can be a hub id: `owner/name` or `name`, and not an existing local path."""
    return _HUB_ID.fullmatch(path) is not None and not Path(path).exists()


snapshots: dict[tuple[Kind, str, str | None], Path] = {}
"""Snapshot folders that this process has looked up, by kind, id and revision."""


def fetch(path: str, revision: str | None, kind: Kind = DATA, *, download: bool = True) -> Path:
    """The folder of a repository snapshot; its name is the commit.

    Repeated calls in one process return the same folder, even if the repository changes meanwhile.

    Args:
        path: The hub id.
        revision: A branch, a tag or a commit; None is the default branch.
        kind: `DATA` or `MODEL`.
        download: Download what is not in the cache; with HF_HUB_OFFLINE=1 nothing is downloaded.

    Raises:
        MissingExtraError: a data set, and the package `datasets` is not installed.
        DataError, ModelError: no such repository or revision, gated, or neither cached nor reachable.
    """
    key = (kind, path, revision)
    if key not in snapshots:
        snapshots[key] = _snapshot(path, revision, kind, download)
    return snapshots[key]


def _snapshot(path: str, revision: str | None, kind: Kind, download: bool) -> Path:
    no_data = kind is DATA and datasets_package().config.HF_HUB_OFFLINE
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
            way_out=_REPEAT,
        )
    except errors.RepositoryNotFoundError:
        _refuse(
            kind,
            path,
            f"`{path}` is not a local file or folder, and the hub has no {kind.word} with this id that "
            "you can access: correct the id, or run `hf auth login` or set HF_TOKEN if it is private, then",
            code="not_on_hub",
            way_out=_REPEAT,
        )
    except errors.RevisionNotFoundError:
        _refuse(
            kind,
            path,
            f"the {kind.word} `{path}` has no revision `{revision}`: correct `revision`, then",
            code="unknown_revision",
            way_out=_REPEAT,
        )
    except errors.LocalEntryNotFoundError as error:
        wanted = "" if revision is None else f" at revision `{revision}`"
        state = "only partly" if "incomplete" in str(error) else "not"
        why = "offline mode is on" if offline else "the hub could not be reached"
        _refuse(
            kind,
            path,
            f"`{path}` is not a local file or folder, and the {kind.word} of this id on the hub{wanted} is "
            f"{state} in the cache ({why if download else 'planning downloads nothing'}): if you mean the "
            f"{kind.word} on the hub,",
            code="not_cached",
        )
    except OSError as error:
        _refuse(
            kind,
            path,
            f"the {kind.word} `{path}` cannot be downloaded: {_first_line(error)}: fix that, then",
            code="not_fetched",
            way_out=_REPEAT,
        )
    return Path(folder)


def is_gated(path: str, kind: Kind = MODEL) -> bool | None:
    """Whether the terms of a hub repository have to be accepted; None where the hub cannot be asked."""
    import huggingface_hub as hub

    try:
        info = hub.HfApi().repo_info(path, repo_type=kind.repo_type, timeout=10)
    except (OSError, ValueError):  # Offline mode and HTTP errors are among them.
        return None
    return bool(getattr(info, "gated", False))


_REPEAT = "repeat this command"

_PREFETCH = (
    "run `sweeper prefetch SPEC` on a machine with network access (before there is a SPEC, `sweeper "
    "init`)"
)


def _refuse(kind: Kind, path: str, problem: str, code: str, way_out: str = _PREFETCH) -> NoReturn:
    """Raise an error that says what is wrong and how to fill the cache.

    Raises:
        DataError, ModelError: always.
    """
    raise kind.error(
        f"{problem} {how_to_fetch(way_out)}", code=f"{kind.error.code}.{code}", path=path
    ) from None


def how_to_fetch(way_out: str = _PREFETCH) -> str:
    """How to get missing files into the cache, as the end of an error message."""
    from huggingface_hub import constants

    return f"{way_out}; the cache is {constants.HF_HUB_CACHE} (under HF_HOME)"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
