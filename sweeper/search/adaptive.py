"""An adaptive search over a run folder: which settings are suggested, round after round."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sweeper.analysis import find_front
from sweeper.errors import SpecError
from sweeper.planning import Point, points_of
from sweeper.search.rounds import already_suggested, append_round, read_rounds
from sweeper.search.suggest import Observation, next_points
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records


def suggestions(spec: SweepSpec, folder: RunFolder) -> Iterator[list[Point]]:
    """Yield all settings suggested so far, once after each round.

    The suggestions of earlier drivers are yielded first. A further round is suggested only when the
    iterator is advanced, from the records that exist then, and is on disk before it is yielded.

    Raises:
        SpecError: `search.warm_start` names a run without usable configurations.
        RunFolderError, RecordError: the files in the folder are damaged.
    """
    search = spec.search
    assert search.n_trials is not None
    suggested = already_suggested(folder)
    if suggested:
        yield list(suggested)
    earlier = () if search.warm_start is None else warm_start(spec, Path(search.warm_start))
    while len(suggested) < search.n_trials:
        count = min(search.batch_size, search.n_trials - len(suggested))
        observations = [*earlier, *own_observations(spec, folder)]
        points = next_points(spec, observations, suggested, count, len(read_rounds(folder)))
        if not points:
            return
        append_round(folder, tuple(points))
        suggested += points
        yield list(suggested)


def own_observations(spec: SweepSpec, folder: RunFolder) -> Iterator[Observation]:
    """The observations of the run itself, in the order of the suggestions."""
    candidates = {
        item.config_id: item
        for item in find_front(read_records(folder.records).records, spec).candidates
    }
    for index, points in enumerate(read_rounds(folder), start=1):
        for config_id, point in points_of(spec, points).items():
            if config_id in candidates:
                yield Observation(point, index, candidates[config_id])


def warm_start(spec: SweepSpec, path: Path) -> Sequence[Observation]:
    """The observations of an earlier run, regardless of its model and data.

    Raises:
        SpecError: it has no complete configuration with the objectives of this sweep.
        RunFolderError, RecordError: the earlier run cannot be read.
    """
    folder = RunFolder(path).open()
    earlier = parse_spec(folder.spec.read_text(encoding="utf-8"), source=str(folder.spec))
    seeds = spec.model_copy(update={"seeds": earlier.seeds})
    points = points_of(earlier, already_suggested(folder) or None)
    candidates = find_front(read_records(folder.records).records, seeds).candidates
    observations = [
        Observation(points[item.config_id], 0, item)
        for item in candidates
        if item.config_id in points and item.excluded is None
    ]
    if not observations:
        wanted = ", ".join(objective.metric for objective in spec.objectives)
        problem = (
            f"search.warm_start: {path} has no complete configuration with {wanted}; use a run with "
            "these objectives, or remove warm_start"
        )
        raise SpecError("search", (problem,))
    return observations
