"""Which files of this machine are sent to a cluster, how much that is, and what is left out."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sweeper.errors import LaunchError
from sweeper.launch.inputs import DATA_ENDINGS

MAX_SENT_BYTES = 512 * 2**20
"""The size limit of Ray's working_dir."""

LEFT_OUT_FOLDERS = {"venv", "node_modules", "__pycache__", "runs", "wandb", "mlruns"}
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5"}
SECRET = re.compile(
    r"id_[^.]*(\.pub)?"
    r"|.*(credential|secret|password|passwd|htpasswd|kubeconfig|private[_-]?key|service[_-]?account"
    r"|api[_-]?key).*"
    r"|(.*[_.-])?tokens?(\.(txt|json|ya?ml))?"
    r"|.*\.(pem|key|ppk|p12|pfx|jks|keystore|kdbx|gpg|asc|tfstate|tfvars)",
    re.IGNORECASE,
)
"""Names of files and folders that usually hold keys or credentials."""


class CodeFiles(NamedTuple):
    """Files of a folder by their relative path, and the paths that look like secrets and stay here."""

    files: dict[str, Path]
    secrets: list[str]


class Sent(NamedTuple):
    """What a launch sends: the number of files, their bytes, the largest, and what looked like a secret."""

    files: int
    size_bytes: int
    largest: tuple[str, ...]
    secrets: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for the user."""
        text = "sent: the sweep file"
        if self.files:
            text += f" and {self.files} file{'s' * (self.files != 1)}, {_mib(self.size_bytes)}"
        if self.largest:
            text += f"; the largest: {', '.join(self.largest)}"
        if self.secrets:
            listed = ", ".join((*self.secrets[:3], *(["..."] if len(self.secrets) > 3 else ())))
            text += f"; not sent, named like a secret: {len(self.secrets)} ({listed})"
        return text


def code_files(folder: Path) -> CodeFiles:
    """The files of a code folder that may be sent.

    In a git repository: what `git ls-files` lists, tracked or neither tracked nor ignored. Elsewhere: all.
    Of these never hidden names, links, run folders, environments, weights, and names of `SECRET`.
    """
    return _allowed(folder, _listed_by_git(folder) or _walked(folder))


def data_files(folder: Path) -> CodeFiles:
    """The files of a data folder that a sweep names: all that are not hidden, links followed.

    What is named like a secret stays here.

    Raises:
        LaunchError: rows may be in such a file: the sweep would be another one without them.
    """
    files: dict[str, Path] = {}
    secrets = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        inner = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(n for n in inner if os.path.realpath(Path(place, n)) not in seen)
        for name in (name for name in sorted(names) if not name.startswith(".")):
            path = Path(place, name)
            below = path.relative_to(folder).as_posix()
            if SECRET.fullmatch(name):
                secrets.append(below)
            elif path.is_file():
                files[below] = path
    rows = [name for name in secrets if name.lower().endswith(DATA_ENDINGS)]
    if rows:
        raise LaunchError(
            f"{folder / rows[0]} would be read as data, but is named like a secret, which is never sent; "
            "rename it, or move it out of the folder",
            code="launch.secret_or_data",
            path=folder / rows[0],
        )
    return CodeFiles(files, secrets)


def _allowed(folder: Path, names: Iterator[str] | list[str]) -> CodeFiles:
    found, secrets = {}, []
    for name in sorted(set(names)):
        path, parts = folder / name, PurePosixPath(name).parts
        if _stays_here(folder, parts) or not path.is_file():
            continue
        if any(SECRET.fullmatch(part) for part in parts):
            secrets.append(name)
        else:
            found[name] = path
    return CodeFiles(found, secrets)


def _stays_here(folder: Path, parts: tuple[str, ...]) -> bool:
    """Whether a file is no code: hidden, a link or behind one, weights, of a run or an environment."""
    above = [folder.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
    return (
        any(part.startswith(".") for part in parts)
        or not LEFT_OUT_FOLDERS.isdisjoint(parts[:-1])
        or PurePosixPath(parts[-1]).suffix.lower() in WEIGHTS | {".pyc"}
        or any(place.is_symlink() for place in (*above, folder.joinpath(*parts)))
        or any((place / mark).exists() for place in above for mark in ("run.json", "pyvenv.cfg"))
    )


def _listed_by_git(folder: Path) -> list[str] | None:
    """What git knows or would add below a folder; None where it is in no repository, or ignored by one."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others"]
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            [*command, "--exclude-standard"], capture_output=True, check=False
        )
    except OSError:
        return None
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    listed: list[str] = []
    for name in names if done.returncode == 0 else ():
        inner = folder / name
        if (
            inner.is_dir() and not inner.is_symlink()
        ):  # A submodule, or a repository inside this one.
            listed += [f"{name.rstrip('/')}/{below}" for below in _listed_by_git(inner) or ()]
        else:
            listed.append(name)
    return listed or None


def _walked(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = [
            name for name in folders if not _stays_here(folder, (*_below(here, folder), name, "x"))
        ]
        yield from ("/".join((*_below(here, folder), name)) for name in names)


def _below(place: Path, folder: Path) -> tuple[str, ...]:
    return place.relative_to(folder).parts


def measure(copies: Mapping[str, Path], secrets: tuple[str, ...] = ()) -> Sent:
    """What is sent, from files by the name under which they arrive.

    Raises:
        LaunchError: more than Ray accepts.
    """
    sizes = {name: path.stat().st_size for name, path in copies.items()}
    total = sum(sizes.values())
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    listed = tuple(f"{name} ({_mib(sizes[name])})" for name in largest)
    if total > MAX_SENT_BYTES:
        raise LaunchError(
            f"{total / 2**20:.0f} MiB would be sent, but Ray accepts {MAX_SENT_BYTES // 2**20}; the "
            f"largest: {', '.join(listed)}; put them on storage that the nodes can see",
            code="launch.too_large",
            bytes=total,
            largest=largest,
        )
    return Sent(len(sizes), total, listed, secrets)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
