"""Which trajectories train side by side, through one forward and backward pass over a shared base model."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from sweeper.task import TrajectoryTask

AUTO_PACK = 8
"""`pack: auto` puts at most this many together: beyond, little is gained and much memory lost."""

Pack = tuple[TrajectoryTask, ...]


def make_packs(
    tasks: Iterable[TrajectoryTask], pack: Literal["auto"] | int, workers: int
) -> list[Pack]:
    """Put LoRA trajectories of one batch size together; all others stay alone.

    A pack saves work and occupies one worker. With `auto` several workers therefore get two packs each, as
    far as the trajectories allow, so that they end at about the same time, and only trajectories of one
    seed, which see the same rows, go together. A number is obeyed: packs of that size, over seeds where
    need be.

    Args:
        tasks: Trajectories in the order they should start.
        pack: `auto`, or how many go together at most (1: nobody).
        workers: How many trials run at the same time.

    Returns:
        The packs, those that train longest first; what trains nothing (the base model) keeps its place at
        the head.
    """
    groups: dict[object, list[TrajectoryTask]] = {}
    for task in tasks:
        groups.setdefault(_key(task, by_seed=pack == "auto"), []).append(task)
    size = AUTO_PACK if pack == "auto" else pack
    packs = [part for group in groups.values() for part in _cut(group, size)]
    wanted = 2 * workers if workers > 1 else 1
    while pack == "auto" and len(packs) < wanted and max(map(len, packs), default=1) > 1:
        largest = max(packs, key=lambda members: (len(members) > 1, _work(members)))
        packs.remove(largest)
        packs += _cut(largest, (len(largest) + 1) // 2)
    return sorted(packs, key=lambda members: (_work(members) > 0, -_work(members)))


def _key(task: TrajectoryTask, by_seed: bool) -> object:
    """Equal for trajectories that may share a forward pass."""
    if task.tuning.method != "lora" or _work([task]) == 0:
        return task.trajectory_id
    return (
        task.optimizer.batch_size,
        task.tuning.lora_target_modules,
        task.seed if by_seed else None,
    )


def _cut(group: Sequence[TrajectoryTask], size: int) -> list[Pack]:
    """Equal parts of at most `size` members."""
    parts = -(-len(group) // size)
    bounds = [len(group) * i // parts for i in range(parts + 1)]
    return [tuple(group[a:b]) for a, b in pairwise(bounds)]


def _work(members: Sequence[TrajectoryTask]) -> int:
    """Rows trained on."""
    return sum(
        (segment.stop - segment.start) * task.optimizer.batch_size
        for task in members
        for segment in task.segments
    )
