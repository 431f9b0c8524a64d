"""Folders of data files, snapshots of the hub included: which files are read, and which are not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeper.data.datasets_package import datasets_package
from sweeper.data.files import read_file
from sweeper.errors import DataError
from sweeper.task import DataSource

_ROWS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_READ_HERE = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
_DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
_NO_OPTIONS = ("name", "version", "data_dir", "data_files", "description", "features")


@dataclass(frozen=True)
class Folder:
    """The files of one subset of a folder, by split, as `datasets` finds them by card or file names."""

    source: DataSource
    path: Path
    builder: Any
    splits: Mapping[str, tuple[Path, ...]]

    @cached_property
    def split(self) -> str:
        """The split that is read: the requested one, else `train`, else the only one.

        Raises:
            DataError: there is no such split; or none is requested and some data files belong to none; or a
                file of the split does not end like one of rows, such as a backup copy.
        """
        splits = list(self.splits)
        default = splits[0] if len(splits) == 1 else "train" if "train" in splits else None
        split = _one_of(self.source.name, "split", self.source.split, splits, default)
        if self.source.split is None and self._strays and not _has_card(self.path):
            raise DataError(
                f"{self.source.name}: {_names(self.splits[split])} would be read as the split {split}, and "
                f"{_names(self._strays)} not at all, because of names or formats; set `split: {split}` to "
                "leave out the rest, give one file as `path`, or use one format and no split in file names",
                code="data.unknown_split",
                key="split",
                found=None,
                known=splits,
            )
        odd = [
            path
            for path in self.splits[split]
            if not _holds_rows(path) and any(part in _ROWS for part in path.suffixes[:-1])
        ]
        if odd and not _has_card(self.path):
            raise DataError(
                f"{self.source.name}: {_names(odd)} would be read as rows, too; "
                "move it out of the folder, or let its name end in the format of its rows",
                code="data.unknown_split",
                key="path",
                found=[path.name for path in odd],
            )
        return split

    @cached_property
    def _strays(self) -> tuple[str, ...]:
        """Data files that belong to no split, relative to the folder."""
        known = {path.resolve() for paths in self.splits.values() for path in paths}
        return tuple(
            str(path.relative_to(self.path))
            for path in sorted(self.path.rglob("*"))
            if _holds_rows(path)
            and not any(part.startswith((".", "__")) for part in path.relative_to(self.path).parts)
            and path.is_file()
            and path.resolve() not in known
        )

    @property
    def unread(self) -> str | None:
        """Which data files are read and which are not; None if all are read that the request is about.

        A requested split leaves out the others by request.

        Raises:
            DataError: see `split`.
        """
        others = [] if self.source.split else [name for name in self.splits if name != self.split]
        left = [path.name for name in others for path in self.splits[name]] + [*self._strays]
        if not left:
            return None
        read = [path.name for path in self.splits[self.split]]
        return f"reads {_names(read)} (split {self.split}), not {_names(left)}"

    def rows(self) -> Any:
        """The rows as a list, or as a `datasets.Dataset` that materializes only the rows that are used.

        JSON and CSV are read as they are from a file of their own, unless the card has options for them.

        Raises:
            DataError: see `split` and `files.read_file`; or unreadable files.
        """
        paths = self.splits[self.split]
        options = vars(self.builder.config)
        plain = all(
            options[name] == value
            or name in _NO_OPTIONS
            or (name == "sep" and options[name] == "\t")
            for name, value in vars(type(self.builder.config)()).items()
        )
        if plain and all(path.suffix.lower() in _READ_HERE for path in paths):
            return [row for path in paths for row in read_file(path)]
        datasets = datasets_package()
        try:
            return datasets.load_dataset(str(self.path), name=self.source.subset)[self.split]
        except _unreadable() as error:
            raise _malformed(self.source, self.path, error) from None


def open_folder(path: Path, source: DataSource) -> Folder:
    """The subset of a folder that a source requests, by default the default one.

    Raises:
        MissingExtraError: the package `datasets` is not installed.
        DataError: no data files, an unreadable card, or no such subset.
    """
    datasets = datasets_package()
    place = str(path)
    datasets.disable_progress_bars()
    try:
        subsets = datasets.get_dataset_config_names(place)
        default = datasets.get_dataset_default_config_name(place)
        _one_of(source.name, "subset", source.subset, subsets, default)
        builder = datasets.load_dataset_builder(place, name=source.subset)
    except _unreadable() as error:
        raise _malformed(source, path, error) from None
    splits = {
        str(split): tuple(map(Path, files)) for split, files in builder.config.data_files.items()
    }
    return Folder(source, path.resolve(), builder, splits)


def _unreadable() -> tuple[type[Exception], ...]:
    import pyarrow

    return (
        datasets_package().exceptions.DatasetsError,
        pyarrow.ArrowException,
        ValueError,
        OSError,
    )


def _malformed(source: DataSource, folder: Path, error: BaseException) -> DataError:
    cause = error.__cause__ or error
    first = str(cause).strip().split("\n")[0] or type(cause).__name__
    return DataError(
        f"{source.name}: `datasets` cannot read the files in {folder}: {first}",
        code="data.malformed",
        path=folder,
    )


def _holds_rows(path: Path) -> bool:
    """Whether a file is one of rows by its suffix, below that of a compression."""
    inner = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return inner.suffix.lower() in _ROWS and path.name not in _DESCRIPTIONS


def _has_card(folder: Path) -> bool:
    """Whether a data set card says which files belong to which split."""
    from huggingface_hub import DatasetCard

    card = folder / "README.md"
    return card.is_file() and bool(DatasetCard.load(card).data.get("configs"))


def _names(paths: Iterable[Path | str]) -> str:
    names = [path.name if isinstance(path, Path) else path for path in paths]
    more = len(names) - 4
    return ", ".join([*names[:4], *([f"{more} more"] if more > 0 else [])])


def _one_of(
    name: str, key: str, requested: str | None, known: list[str], default: str | None
) -> str:
    """The requested subset or split, or the default.

    Raises:
        DataError: unknown, or none requested and there is no default.
    """
    selected = requested or default
    if selected not in known:
        missing = f"no {key} `{requested}`" if requested else f"no default {key}"
        raise DataError(
            f"{name} has {missing}; set `{key}` to one of {', '.join(known)}",
            code="data.unknown_split",
            key=key,
            found=requested,
            known=known,
        )
    return selected
