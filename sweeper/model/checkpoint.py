"""Checkpoint files: each carries the hash of what it holds, and the one before it stays until the next.

A checkpoint saves time and nothing else: one that cannot be read is passed over for the one before it, and
without any a path starts anew; both end with the same bits.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from sweeper.store.retry import with_retry

State = dict[str, torch.Tensor]

HASH_KEY = "sha256"


class CheckpointRead(NamedTuple):
    """A checkpoint that holds what was written, or why it does not."""

    state: State | None
    fault: str = ""


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one at `path` lies."""
    return path.with_name(path.name.replace("checkpoint", "checkpoint-before", 1))


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors on the CPU, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_hash(weights: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the raw bytes of the weights, in order: equal if and only if they are bit-equal."""
    digest = hashlib.sha256()
    for tensor in weights:
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint whole or not at all; the one that was there becomes the one before.

    At no moment is there less on disk than one whole checkpoint, if there was one.

    Raises:
        DiskFullError, UnreachableError, OSError: it cannot be written; what was there is untouched.
    """
    data = save_tensors(state, metadata={HASH_KEY: state_hash(state)})
    with_retry(partial(_replace, path, data), path, len(data))


def _replace(path: Path, data: bytes) -> None:
    """The new file is complete on disk before it takes the name; a torn one is written over."""
    fresh = path.with_name(path.name.replace("checkpoint", "checkpoint-new", 1))
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    if path.exists():
        path.replace(previous_checkpoint(path))
    fresh.replace(path)


def read_checkpoints(path: Path) -> Iterator[CheckpointRead]:
    """What lies at `path`, then the one before it; a file that is not there is no finding.

    A file is read when the iterator reaches it: usually the first one will do. A damaged one is deleted,
    so that it never becomes the one before.
    """
    for place in (path, previous_checkpoint(path)):
        if place.is_file():
            found = read_checkpoint(place)
            if found.state is None:
                with suppress(OSError):
                    place.unlink()
            yield found


def read_checkpoint(path: Path) -> CheckpointRead:
    """One checkpoint, if its hash is that of what it holds."""
    try:
        data = path.read_bytes()
        state = load_tensors(data)
    except (SafetensorError, OSError) as error:
        return CheckpointRead(None, f"{path.name}: {error}")
    if _hash_noted(data) != state_hash(state):
        return CheckpointRead(None, f"{path.name}: its hash is not that of what it holds")
    return CheckpointRead(state)


def _hash_noted(data: bytes) -> str | None:
    """The hash in the header of a file of safetensors that could be loaded."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    noted: str | None = header.get("__metadata__", {}).get(HASH_KEY)
    return noted
