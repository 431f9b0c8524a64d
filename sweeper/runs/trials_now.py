"""What the trials of a run do at this moment, from the progress files that they write."""

from collections.abc import Iterator

from sweeper.planning import Trajectory, make_plan
from sweeper.search.refine import read_refinements
from sweeper.search.rounds import already_suggested
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.task import configuration_name

STAGES = {
    "load": "loading",
    "train": "training",
    "checkpoint": "writing a checkpoint",
    "evaluate": "scoring",
}
"""A stage of a trial in words."""


def running_trials(folder: RunFolder) -> Iterator[TrajectoryProgress]:
    """The trials that have started and not ended, by their last update; a killed one is among them."""
    for path in sorted(folder.trajectories.glob("*/progress.json")):
        found = read_trajectory(path)
        if found is not None and found.running:
            yield found


def planned_paths(spec: SweepSpec, folder: RunFolder) -> list[Trajectory]:
    """All paths planned so far, those of further seeds included; arguments as of `path_names`."""
    points = already_suggested(folder) or None
    paths = list(make_plan(spec, points).trajectories)
    for part in (part for each in read_refinements(folder) for part in each.parts):
        again = spec.model_copy(update={"seeds": (part.seed,)})
        paths += make_plan(again, points, part.config_ids).trajectories
    return paths


def path_names(spec: SweepSpec, folder: RunFolder) -> dict[str, str]:
    """Trajectory -> its settings that differ between paths, in words; those that vary within it left out.

    Args:
        spec: Of the run, or of its decision.
        folder: Of the run, which says what a search has suggested and which seeds were added.
    """
    shared = {}
    for path in planned_paths(spec, folder):
        first, *others = [item.values for item in path.configurations]
        same = [name for name in first if all(o.get(name) == first[name] for o in others)]
        shared[path.trajectory_id] = {name: first[name] for name in same}, path.seed
    found: dict[str, set[str]] = {}
    for values, _ in shared.values():
        for name, value in values.items():
            found.setdefault(name, set()).add(repr(value))
    swept = [name for name, values in found.items() if len(values) > 1]
    texts = {}
    for trajectory_id, (values, seed) in shared.items():
        words = configuration_name(values, swept)
        texts[trajectory_id] = ", ".join(filter(None, (words, f"seed {seed}")))
    return texts
