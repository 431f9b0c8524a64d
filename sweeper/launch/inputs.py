"""The sweep file with paths of the cluster, and the files to send with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import LaunchError
from sweeper.spec import SweepSpec, dump_spec, parse_spec

DATA_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Endings of data files, by which a path is told from a hub id."""


class Located(NamedTuple):
    """The sweep with paths of the cluster, and the files to send: name below `inputs/` -> local file."""

    spec: SweepSpec
    inputs: dict[str, Path]


def located(spec: SweepSpec, out: str, storage: str | None, *, carry: bool) -> Located:
    """The sweep for the cluster: without relative paths and without the address of another cluster.

    Args: spec: The sweep as read on this machine. out: The run folder on the cluster. storage: A folder
    that exists only on the cluster; None where it can see the files of this machine. carry: Send data
    files, too; they go to `out`/launch/inputs.

    Raises:
        LaunchError: the sweep names files that do not exist, or that the cluster would not find.
    """
    raw = spec.model_dump(mode="json", exclude_none=True)
    raw["compute"].pop("ray_address", None)
    inputs: dict[str, Path] = {}
    lost, missing = [], []
    for where, block, key in path_places(raw):
        path = Path(block[key])
        there = storage is not None and path.is_absolute() and path.is_relative_to(storage)
        if there or not path.exists():
            if _is_missing(block[key], storage):
                missing.append(f"{where} ({block[key]})")
            continue
        if storage is None:
            block[key] = str(path.resolve())
        elif carry and where not in ("model.path", "search.warm_start"):
            name = f"{len(inputs)}-{path.name}"
            inputs[name] = path.resolve()
            block[key] = f"{out}/launch/inputs/{name}"
        else:
            lost.append(f"{where} ({path})")
    if missing:
        raise LaunchError(
            f"these files do not exist: {', '.join(missing)}; correct the paths, or use Hub ids",
            code="launch.missing_files",
            files=missing,
        )
    if lost:
        raise LaunchError(
            f"the cluster cannot see these files of this machine: {', '.join(lost)}; copy them below "
            f"{storage} and use their paths there, or use Hub ids",
            code="launch.not_visible",
            files=lost,
        )
    changed = SweepSpec.model_validate(raw)
    return Located(parse_spec(dump_spec(changed), source="the sweep to launch"), inputs)


def _is_missing(path: str, storage: str | None) -> bool:
    """Whether what does not exist here can be no hub id and, with `storage`, no path of the cluster."""
    if path.startswith("builtin:"):
        return False
    if Path(path).is_absolute():
        return storage is None
    return path.startswith(("./", "../", "~")) or path.lower().endswith(DATA_ENDINGS)


def path_places(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every key of a sweep that may hold a path: where, its block, its name there."""
    data, evaluation = raw["data"], raw["evaluation"]
    found = [
        ("model", raw["model"], "path"),
        ("search", raw["search"], "warm_start"),
        ("data.train", data["train"], "path"),
        ("data.heldout", data.get("heldout"), "path"),
        ("data.safety", data.get("safety"), "path"),
        ("evaluation.lm_eval", evaluation.get("lm_eval"), "include_path"),
    ]
    for name in ("harmful", "harmless"):
        found += [(f"evaluation.{name}", suite, "path") for suite in evaluation.get(name, ())]
    for where, block, key in found:
        if isinstance(block, dict) and block.get(key):  # A named suite has no path.
            yield f"{where}.{key}", block, key
