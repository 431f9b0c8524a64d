"""The sweep file with paths of the cluster, and the files to send with it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import LaunchError
from sweeper.spec import SweepSpec, dump_spec, parse_spec

MAX_SENT_BYTES = 512 * 2**20
"""The size limit of Ray's working_dir."""

LEFT_OUT_FOLDERS = {
    ".git",
    ".hg",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".ssh",
    ".aws",
    ".ray",
    "runs",
    "wandb",
    "mlruns",
}
LEFT_OUT_ENDINGS = {
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".gguf",
    ".onnx",
    ".h5",
    ".pem",
    ".key",
    ".pyc",
}
LEFT_OUT_NAMES = {".env", ".netrc", "auth_token", "token", ".gitignore", ".rayignore"}
"""Secrets, and ignore files that would make Ray leave out more."""


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
        LaunchError: the sweep names files of this machine that the cluster would not find.
    """
    raw = spec.model_dump(mode="json", exclude_none=True)
    raw["compute"].pop("ray_address", None)
    inputs: dict[str, Path] = {}
    lost = []
    for where, block, key in _places(raw):
        path = Path(block[key])
        there = storage is not None and path.is_absolute() and path.is_relative_to(storage)
        if there or not path.exists():
            continue
        if storage is None:
            block[key] = str(path.resolve())
        elif carry and where not in ("model.path", "search.warm_start"):
            name = f"{len(inputs)}-{path.name}"
            inputs[name] = path.resolve()
            block[key] = f"{out}/launch/inputs/{name}"
        else:
            lost.append(f"{where} ({path})")
    if lost:
        raise LaunchError(
            f"the cluster cannot see these files of this machine: {', '.join(lost)}; copy them below "
            f"{storage} and use their paths there, or use Hub ids",
            code="launch.not_visible",
            files=lost,
        )
    changed = SweepSpec.model_validate(raw)
    return Located(parse_spec(dump_spec(changed), source="the sweep to launch"), inputs)


def _places(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
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


def sent_files(folder: Path) -> dict[str, Path]:
    """The files of a code folder that may be sent: no runs, weights, environments, secrets or links."""
    found = {}
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if name not in LEFT_OUT_FOLDERS
            and not (here / name).is_symlink()
            and not (here / name / "run.json").exists()
        )
        for name in sorted(names):
            path = here / name
            if _may_travel(path):
                found[path.relative_to(folder).as_posix()] = path
    return found


def _may_travel(path: Path) -> bool:
    return (
        path.is_file()
        and not path.is_symlink()
        and path.suffix.lower() not in LEFT_OUT_ENDINGS
        and path.name not in LEFT_OUT_NAMES
        and not path.name.startswith(".env")
    )


def check_size(copies: dict[str, Path]) -> int:
    """Total bytes to send.

    Raises:
        LaunchError: more than Ray accepts.
    """
    sizes = {name: _size(path) for name, path in copies.items()}
    total = sum(sizes.values())
    if total > MAX_SENT_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        listed = ", ".join(f"{name} ({sizes[name] / 2**20:.0f} MiB)" for name in largest)
        raise LaunchError(
            f"{total / 2**20:.0f} MiB would be sent, but Ray accepts {MAX_SENT_BYTES // 2**20}; the "
            f"largest: {listed}; put them on storage that the nodes can see",
            code="launch.too_large",
            bytes=total,
            largest=largest,
        )
    return total


def _size(place: Path) -> int:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
