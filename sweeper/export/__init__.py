"""One configuration as the files of another trainer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweeper.analysis import Candidate
from sweeper.errors import RunFolderError, SweeperError
from sweeper.export import (
    accelerate,
    axolotl,
    card,
    llamafactory,
    plain,
    torchtune,
    transformers_args,
    trl_config,
)
from sweeper.export.callback import CALLBACK_NAME, callback_source
from sweeper.export.job import UNKNOWN, ExportJob, Origin, make_job
from sweeper.spec import SweepSpec
from sweeper.store.folder import write_atomic

FORMATS: Mapping[str, Callable[[ExportJob], dict[str, str]]] = {
    "trl": trl_config.files,
    "transformers": transformers_args.files,
    "accelerate": accelerate.files,
    "llamafactory": llamafactory.files,
    "axolotl": axolotl.files,
    "torchtune": torchtune.files,
    "yaml": plain.files,
    "card": card.files,
}
"""What each format writes: file name to content."""

WITHOUT_CALLBACK = ("torchtune", "card")
"""Formats that have no use for the callback: no trainer, or one that takes none."""

__all__ = ["FORMATS", "Origin", "export", "formats_of"]


def formats_of(asked: Sequence[str]) -> tuple[str, ...]:
    """The formats asked for, each once; `all` is every one.

    Raises:
        SweeperError: one that there is not.
    """
    for name in asked:
        if name not in FORMATS and name != "all":
            raise SweeperError(f"no export format `{name}`; there are {', '.join(FORMATS)}, or all")
    return tuple(FORMATS) if "all" in asked else tuple(dict.fromkeys(asked))


def export(
    candidate: Candidate,
    spec: SweepSpec,
    fmt: str,
    folder: Path,
    world_size: int = 1,
    micro_batch: int | None = None,
    origin: Origin = UNKNOWN,
) -> tuple[Path, ...]:
    """Write a configuration for another trainer; the file to start from comes first.

    A configuration that is not read raw brings the callback its numbers depend on.

    Args:
        candidate: A trained configuration, usually the recommended one.
        spec: The sweep it comes from.
        fmt: A key of `FORMATS`.
        folder: Where to write; it is made, and files of the same name are replaced.
        world_size: Devices the training will use.
        micro_batch: Rows per device and forward pass; by default what the sweep used, or at most 8.
        origin: Which run it comes from, and what it was compared with.

    Raises:
        SweeperError: an unknown format, the untouched base model, or an effective batch that is not
            per-device batch times accumulation times devices.
        ExportError: a setting that the target cannot have.
        RunFolderError: a file cannot be written.
    """
    (fmt,) = formats_of([fmt])
    job = make_job(candidate, spec, world_size, micro_batch, origin)
    contents = FORMATS[fmt](job)
    if job.averaging is not None and fmt not in WITHOUT_CALLBACK:
        contents[CALLBACK_NAME] = callback_source(job)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomic(folder / name, content)
            paths.append(folder / name)
    except OSError as error:
        raise RunFolderError(
            f"cannot write the export to {folder}: {error.strerror}; choose another with --out"
        ) from None
    return tuple(paths)
