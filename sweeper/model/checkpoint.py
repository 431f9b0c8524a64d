"""Checkpoint files: each contains the hash of its contents, and the previous one is kept until the next.

Checkpoints only save time: if one is unreadable, the previous one is used, and without any a path starts
from the beginning. Either way the results are bit-identical.
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
    """A checkpoint's state if it is intact, or else the reason why it is not."""

    state: State | None
    fault: str = ""


def previous_checkpoint(path: Path) -> Path:
    """The path of the checkpoint written before the one at `path`."""
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
    """Write a checkpoint atomically; the existing one becomes the previous one.

    If there was a complete checkpoint before, there is one at any time.

    Raises:
        DiskFullError, UnreachableError, OSError: it cannot be written; existing files are unchanged.
    """
    data = save_tensors(state, metadata={HASH_KEY: state_hash(state)})
    with_retry(partial(_replace, path, data), path, len(data))


def _replace(path: Path, data: bytes) -> None:
    """The new file is complete on disk before it gets its name; an incomplete one is overwritten."""
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
    """Read the checkpoint at `path`, then the previous one; missing files are skipped.

    Files are read lazily: usually the first one suffices. A damaged file is deleted, so that it never
    becomes the previous checkpoint.
    """
    for candidate in (path, previous_checkpoint(path)):
        if candidate.is_file():
            checkpoint = read_checkpoint(candidate)
            if checkpoint.state is None:
                with suppress(OSError):
                    candidate.unlink()
            yield checkpoint


def read_checkpoint(path: Path) -> CheckpointRead:
    """Read one checkpoint and verify its hash."""
    try:
        data = path.read_bytes()
        state = load_tensors(data)
    except (SafetensorError, OSError) as error:
        return CheckpointRead(None, f"{path.name}: {error}")
    if _stored_hash(data) != state_hash(state):
        return CheckpointRead(None, f"{path.name}: its hash does not match its contents")
    return CheckpointRead(state)


def _stored_hash(data: bytes) -> str | None:
    """The hash in the header of a valid safetensors file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    stored: str | None = header.get("__metadata__", {}).get(HASH_KEY)
    return stored
