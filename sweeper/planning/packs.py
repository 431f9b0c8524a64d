"""Which trajectories train side by side, through one forward and backward pass over a shared base model."""

import heapq
import math
from bisect import insort
from collections.abc import Iterable, Sequence
from typing import Literal

from sweeper.task import TrajectoryTask, equal_parts

AUTO_PACK = 8
"""`adapters_per_trial: auto` puts at most this many together: more gain little and need much memory."""

READOUT_ROWS = 200
"""A readout takes about as long as training on this many rows (measured on the miniature)."""

PACK_GAIN = 0.1
"""A pack of n is taken to last n ** PACK_GAIN times less than its paths one by one, four 1.15 times: more
was measured on the miniature (1.6), less on SmolLM2 (at most 1.1)."""

EVEN = 1.02
"""Packs are divided no further where workers end within this factor of an even share."""

Pack = tuple[TrajectoryTask, ...]


def make_packs(
    tasks: Iterable[TrajectoryTask], adapters_per_trial: Literal["auto"] | int, workers: int
) -> list[Pack]:
    """Put LoRA trajectories of one batch size together; all others stay alone.

    A pack saves work and occupies one worker. With `auto` packs are therefore divided until the last of
    several workers is expected to end soonest, and only trajectories of one seed, which see the same rows,
    go together. A number is obeyed: packs of that size, over seeds where need be.

    Args:
        tasks: Trajectories in the order they should start.
        adapters_per_trial: `auto`, or how many go together at most (1: nobody).
        workers: How many trials run at the same time.

    Returns:
        The packs, those that last longest first; what trains nothing (the base model) keeps its place at
        the head.
    """
    groups: dict[object, list[TrajectoryTask]] = {}
    for task in tasks:
        groups.setdefault(_key(task, by_seed=adapters_per_trial == "auto"), []).append(task)
    size = AUTO_PACK if adapters_per_trial == "auto" else adapters_per_trial
    packs = [part for group in groups.values() for part in equal_parts(group, size)]
    if adapters_per_trial == "auto" and workers > 1 and packs:
        packs = _divided(packs, workers)
    return sorted(map(tuple, packs), key=_place)


def take_pack(waiting: list[Pack], workers: int) -> Pack:
    """Remove the first pack of some, and divide it so that no worker will be idle while another has a pack.

    What is started has at most twice an equal share of all that waits (guided self-scheduling of
    Polychronopoulos and Kuck 1987, there once the share), and the last one is always divided.

    Args:
        waiting: Packs in the order of `make_packs`, at least one; changed.
        workers: How many trials run at the same time; with one, nothing is divided.
    """
    most = 2 * sum(map(_duration, waiting)) / workers
    pack = waiting.pop(0)
    while workers > 1 and len(pack) > 1 and (not waiting or _duration(pack) > most):
        pack, rest = (tuple(part) for part in equal_parts(pack, (len(pack) + 1) // 2))
        insort(waiting, rest, key=_place)
    return pack


def _divided(packs: list[Sequence[TrajectoryTask]], workers: int) -> list[Sequence[TrajectoryTask]]:
    """Halve the pack that ends last, or else the longest one, again and again; the best of all tried."""
    best, soonest = packs, float("inf")
    while True:
        packs = sorted(packs, key=_duration, reverse=True)
        ends = _ends(packs, workers)
        last = ends.index(max(ends))
        if ends[last] < soonest:
            best, soonest = packs, ends[last]
        even = sum(map(_duration, packs)) / workers
        if soonest <= EVEN * even or (len(packs[last]) == 1 and last < workers):
            return best
        several = [index for index, members in enumerate(packs) if len(members) > 1]
        if not several:
            return best
        halved = packs.pop(last if last in several else several[0])
        packs += equal_parts(halved, (len(halved) + 1) // 2)


def _ends(packs: Sequence[Sequence[TrajectoryTask]], workers: int) -> list[float]:
    """When each pack ends if the next one always goes to the first free worker."""
    free, ends = [0.0] * workers, []
    for members in packs:
        ends.append(free[0] + _duration(members))
        heapq.heapreplace(free, ends[-1])
    return ends


def _place(members: Sequence[TrajectoryTask]) -> tuple[bool, float]:
    """Where a pack stands among others."""
    return _rows(members) > 0, -_duration(members)


def _duration(members: Sequence[TrajectoryTask]) -> float:
    """How long a pack is expected to last, in rows trained alone."""
    return _work(members) / math.pow(len(members), PACK_GAIN)


def _key(task: TrajectoryTask, by_seed: bool) -> object:
    """Equal for trajectories that may share a forward pass."""
    if not task.tuning.has_adapter or _rows([task]) == 0:
        return task.trajectory_id
    return (
        task.optimizer.batch_size,
        task.tuning.lora_target_modules,
        task.tuning.use_dora,
        repr(task.data),
        task.seed if by_seed else None,
    )


def _work(members: Sequence[TrajectoryTask]) -> int:
    """Rows trained on, and readouts counted in such rows: good enough to order and to balance by."""
    return _rows(members) + READOUT_ROWS * sum(len(task.readouts) for task in members)


def _rows(members: Sequence[TrajectoryTask]) -> int:
    """Rows trained on."""
    return sum(
        (segment.stop - segment.start) * task.optimizer.batch_size
        for task in members
        for segment in task.segments
    )
