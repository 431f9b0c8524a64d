"""Data sets of the hub, and folders of data files: fetched once as they are, read by `datasets`.

A data set is a snapshot of its repository at one commit, so a run without network reads the same rows
as the one that fetched them. Code in a repository is never run.
"""

import re
from pathlib import Path
from typing import Any, NoReturn

from sweeper.errors import DataError, MissingExtraError
from sweeper.task import DataSource

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|[A-Za-z0-9][\w-]*")

_FETCHED = [f"*.{ending}" for ending in ("json", "jsonl", "csv", "tsv", "parquet", "arrow", "txt")]
_FETCHED += ["*.gz", "*.zst", "*.zip", "*.yaml", "README.md"]


def is_hub_id(path: str) -> bool:
    """Whether a path can be the id of a data set: `owner/name` or `name`, and nothing local."""
    return _HUB_ID.fullmatch(path) is not None and not Path(path).exists()


_FOUND: dict[tuple[str, str | None], Path] = {}
"""Where data sets lie, by id and revision, as far as this process knows."""


def fetch(path: str, revision: str | None, *, download: bool = True) -> Path:
    """The folder that holds a data set of the hub; the name of the folder is its commit.

    Asked again in one process, the answer is the same one, whatever happens on the hub.

    Args:
        path: The id.
        revision: A branch, a tag or a commit; None is the default branch.
        download: Fetch what is not in the cache; with HF_HUB_OFFLINE=1 nothing is fetched.

    Raises:
        MissingExtraError: the extra `data` is not installed.
        DataError: no such data set or revision, gated, or neither cached nor reachable.
    """
    key = (path, revision)
    if key not in _FOUND:
        _FOUND[key] = _snapshot(path, revision, download)
    return _FOUND[key]


def _snapshot(path: str, revision: str | None, download: bool) -> Path:
    datasets = _datasets()
    import huggingface_hub as hub
    from huggingface_hub import errors

    offline = hub.constants.HF_HUB_OFFLINE or datasets.config.HF_HUB_OFFLINE
    try:
        folder = hub.snapshot_download(
            path,
            repo_type="dataset",
            revision=revision,
            allow_patterns=_FETCHED,
            local_files_only=offline or not download,
        )
    except errors.GatedRepoError:
        _refuse(
            f"the data set `{path}` is gated: accept its terms at "
            f"https://huggingface.co/datasets/{path} and set HF_TOKEN, then"
        )
    except (errors.RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError):
        _refuse(
            f"`{path}` is no local file or folder, and the hub has no data set of this id that you may "
            "see: correct the id, or set HF_TOKEN if it is private, then"
        )
    except errors.RevisionNotFoundError:
        _refuse(f"the data set `{path}` has no revision `{revision}`: correct `revision`, then")
    except errors.LocalEntryNotFoundError as error:
        wanted = "" if revision is None else f" at revision `{revision}`"
        found = "only in part" if "incomplete" in str(error) else "not"
        why = "offline mode is on" if offline else "the hub was not reached"
        _refuse(
            f"`{path}` is no local file or folder, and as a data set of the hub{wanted} it is {found} in "
            f"the cache ({why if download else 'a plan fetches nothing'}): if this is what you mean,"
        )
    except OSError as error:
        _refuse(f"the data set `{path}` cannot be fetched: {_first_line(error)}: mend that, then")
    return Path(folder)


def _refuse(problem: str) -> NoReturn:
    """One message: what is wrong, and how the data comes into the cache.

    Raises:
        DataError: always.
    """
    from huggingface_hub import constants

    raise DataError(
        f"{problem} run `sweeper prefetch SPEC` where there is a network; the cache is "
        f"{constants.HF_HUB_CACHE} (under HF_HOME)"
    ) from None


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
            f"{_first_line(error.__cause__ or error)}"
        ) from None
    splits = list(parts)
    default = splits[0] if len(splits) == 1 else "train" if "train" in splits else None
    return parts[_one_of(name, "split", source.split, splits, default)]


def _one_of(name: str, what: str, asked: str | None, known: list[str], default: str | None) -> str:
    """What was asked for, or the default.

    Raises:
        DataError: unknown, or none asked for where there is no default.
    """
    chosen = asked or default
    if chosen not in known:
        found = f"no {what} `{asked}`" if asked else f"no default {what}"
        raise DataError(f"{name} has {found}; set `{what}` to one of {', '.join(known)}")
    return chosen


def _datasets() -> Any:
    """The package `datasets`, imported only here: local files do without it.

    Raises:
        MissingExtraError: not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "data sets of the hub and folders of data files need the package datasets; install "
            "`sweeper[data]`, or give a local .json, .jsonl or .csv file"
        ) from None
    return datasets


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
