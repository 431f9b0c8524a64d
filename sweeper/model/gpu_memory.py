"""Detects out-of-memory errors, and reports the memory of a device."""

import os
from typing import NamedTuple

import torch

GIB = 2**30


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. On a CPU torch raises a plain RuntimeError for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class VisibleGpus(NamedTuple):
    """How many GPUs torch can use, and which build of torch it is."""

    number: int
    build: str


def visible_gpus() -> VisibleGpus:
    """The GPUs that torch can use on this machine; creates no CUDA context."""
    runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return VisibleGpus(torch.cuda.device_count(), f"torch {torch.__version__}, {runtime}")


def usable_bytes(device: torch.device, share: float) -> int | None:
    """A share of the total (not the free) memory of a GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory * share)


def release_cached() -> None:
    """Release unused GPU memory cached by this process."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def memory_summary(device: torch.device) -> str:
    """The peak memory of this process, and the free and total memory of the device, in GiB."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        name = torch.cuda.get_device_name(device)
        return f"{name}: peak {peak / GIB:.1f} GiB, free {free / GIB:.1f} of {total / GIB:.1f} GiB"
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = (page * os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    return f"CPU: free {free / GIB:.1f} of {total / GIB:.1f} GiB"
