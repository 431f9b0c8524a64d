"""Which trajectories train side by side, through one forward and backward pass over a shared base model."""

from collections.abc import Iterable, Sequence
from typing import Literal

from sweeper.task import TrajectoryTask, equal_parts

AUTO_PACK = 8
"""`adapters_per_trial: auto` puts at most this many together: more gain little and need much memory."""

READOUT_ROWS = 200
"""A readout takes about as long as training on this many rows (measured on the miniature)."""

HEAVIEST = 1.5
"""With several workers, a pack has at most an equal share of the work per worker divided by this."""

Pack = tuple[TrajectoryTask, ...]


def make_packs(
    tasks: Iterable[TrajectoryTask], adapters_per_trial: Literal["auto"] | int, workers: int
) -> list[Pack]:
    """Put LoRA trajectories of one batch size together; all others stay alone.

    A pack saves work and occupies one worker. With `auto` packs are therefore cut until several workers
    can end at about the same time, as far as the trajectories allow, and only trajectories of one seed,
    which see the same rows, go together. A number is obeyed: packs of that size, over seeds where need be.

    Args:
        tasks: Trajectories in the order they should start.
        adapters_per_trial: `auto`, or how many go together at most (1: nobody).
        workers: How many trials run at the same time.

    Returns:
        The packs, those with most work first; what trains nothing (the base model) keeps its place at
        the head.
    """
    groups: dict[object, list[TrajectoryTask]] = {}
    for task in tasks:
        groups.setdefault(_key(task, by_seed=adapters_per_trial == "auto"), []).append(task)
    size = AUTO_PACK if adapters_per_trial == "auto" else adapters_per_trial
    packs = [part for group in groups.values() for part in equal_parts(group, size)]
    if adapters_per_trial == "auto" and workers > 1:
        packs = _balanced(packs, workers)
    ordered = sorted(packs, key=lambda members: (_rows(members) > 0, -_work(members)))
    return [tuple(members) for members in ordered]


def _balanced(
    packs: list[Sequence[TrajectoryTask]], workers: int
) -> list[Sequence[TrajectoryTask]]:
    """Halve the packs that would finish well after all others."""
    fair = sum(map(_work, packs)) / (HEAVIEST * workers)
    while heavy := [members for members in packs if len(members) > 1 and _work(members) > fair]:
        heaviest = max(heavy, key=_work)
        packs.remove(heaviest)
        packs += equal_parts(heaviest, (len(heaviest) + 1) // 2)
    return packs


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
