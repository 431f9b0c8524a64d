"""Checkpoint files: each contains the hash of its contents, and the previous one is kept until the next.

Checkpoints only save time: if one is unreadable, the previous one is used, and without any a path starts
from the beginning. Either way the results are bit-identical.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from sweeper.store.retry import with_retry

State = dict[str, torch.Tensor]

HASH_KEY = "sha256"

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The dtypes of a training state, as safetensors names them."""


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
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()


def _raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, in its own memory if that is contiguous."""
    data: memoryview = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data
    return data


def weights_hash(weights: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the raw bytes of the weights, in order: equal if and only if they are bit-equal."""
    digest = hashlib.sha256()
    for tensor in weights:
        digest.update(_raw(tensor.cpu()))
    return digest.hexdigest()


def write_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint atomically; the existing one becomes the previous one.

    If there was a complete checkpoint before, there is one at any time. The tensors, on the CPU, are
    written from where they are: safetensors would need the memory of another state for it.

    Raises:
        DiskFullError, UnreachableError, OSError: it cannot be written; existing files are unchanged.
    """
    parts: list[bytes | memoryview] = [_header(state)]
    parts += [_raw(state[name]) for name in _ordered(state)]
    with_retry(partial(_replace, path, parts), path, sum(map(len, parts)))


def _ordered(state: State) -> list[str]:
    """Names in the order of the file: larger elements first, so that each is aligned."""
    return sorted(state, key=lambda name: (-state[name].element_size(), name))


def _header(state: State) -> bytes:
    """The beginning of a safetensors file: https://huggingface.co/docs/safetensors."""
    entries: dict[str, Any] = {"__metadata__": {HASH_KEY: state_hash(state)}}
    end = 0
    for name in _ordered(state):
        start, end = end, end + state[name].nbytes
        shape = list(state[name].shape)
        dtype = DTYPES[state[name].dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _replace(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """The new file is complete on disk before it gets its name; an incomplete one is overwritten."""
    fresh = path.with_name(path.name.replace("checkpoint", "checkpoint-new", 1))
    try:
        with fresh.open("wb") as file:
            for part in parts:
                file.write(part)
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
