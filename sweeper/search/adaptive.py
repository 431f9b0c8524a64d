"""An adaptive search over a run folder: which settings are suggested, round after round."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.analysis import CANDIDATE_ROLE, find_front
from sweeper.errors import SpecError
from sweeper.planning import Point, points_of
from sweeper.search.rounds import already_suggested, append_round, read_rounds
from sweeper.search.suggest import Observation, lies_in, next_points, varying_axes
from sweeper.spec import SearchSpec, SweepSpec, parse_results_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records

_log = logging.getLogger("sweeper.search.adaptive")

GENETIC, BLIND = ("nsga2", "nsga3"), ("qmc", "random")
"""Samplers that select between whole generations, and those that look at no result."""


def suggestions(spec: SweepSpec, folder: RunFolder) -> Iterator[list[Point]]:
    """Yield all settings suggested so far, whenever there are more, and [] while results must come first.

    The suggestions of earlier drivers are yielded first. A further one is on disk before it is yielded.

    Which results a suggestion is made from depends on its number alone: `batch_size` settings are under way
    at once, and each further one follows when the first of them has ended, in the order of suggestion. It
    uses the results up to that one, even if later ones are there already. So the spec, the seed and the
    records determine all suggestions, and which path was faster changes none. GENETIC samplers take
    whole rounds of `batch_size`; BLIND ones suggest everything at once.

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
    wanted = search.n_trials
    while len(suggested) < wanted:
        ended, before = ended_in_order(spec, folder, suggested), len(suggested)
        while len(suggested) < wanted:
            known, count = _turn(search, len(suggested))
            if known > ended:
                break
            observations = [*earlier, *own_observations(spec, folder, known)]
            count = min(count, wanted - len(suggested))
            number, running = len(read_rounds(folder)), suggested[known:]
            points = next_points(spec, observations, suggested, count, number, running)
            if not points:
                wanted = len(suggested)
                break
            append_round(folder, tuple(points))
            suggested += points
        yield list(suggested) if len(suggested) > before else []
    while ended_in_order(spec, folder, suggested) < len(suggested):
        yield []


def _turn(search: SearchSpec, suggested: int) -> tuple[int, int]:
    """From how many results the next suggestions are made, and how many there are."""
    if search.sampler in BLIND:
        return 0, search.n_trials or 0
    if search.sampler in GENETIC:
        return suggested, search.batch_size
    ahead = search.batch_size - suggested
    return (0, ahead) if ahead > 0 else (1 - ahead, 1)


def ended_in_order(spec: SweepSpec, folder: RunFolder, suggested: Sequence[Point]) -> int:
    """How many of the first settings have all their records, up to the first one that has not."""
    keys = {record.key for record in read_records(folder.records).records}
    for number, point in enumerate(suggested):
        wanted = ((id_, seed) for id_ in points_of(spec, [point]) for seed in spec.seeds)
        if not keys.issuperset(wanted):
            return number
    return len(suggested)


def own_observations(
    spec: SweepSpec, folder: RunFolder, first: int | None = None
) -> Iterator[Observation]:
    """The observations of the run itself in the order of the suggestions, or of its `first` ones."""
    candidates = {
        item.config_id: item
        for item in find_front(read_records(folder.records).records, spec).candidates
    }
    numbered = ((index, p) for index, r in enumerate(read_rounds(folder), start=1) for p in r)
    for index, point in itertools.islice(numbered, first):
        for config_id, full in points_of(spec, [point]).items():
            if config_id in candidates:
                yield Observation(full, index, candidates[config_id])


def warm_start(spec: SweepSpec, path: Path) -> Sequence[Observation]:
    """The observations of an earlier run in the space of a sweep, regardless of its model and data.

    Of an imported run, names and values of the settings count, which `sweeper import` takes from its map.
    Configurations elsewhere are left out, which a warning counts.

    Raises:
        SpecError: it has no complete configuration with the objectives of this sweep, or none in its space.
        RunFolderError, RecordError: the earlier run cannot be read.
    """
    folder = RunFolder(path).open()
    text = folder.spec.read_text(encoding="utf-8")
    earlier = parse_results_spec(text, source=str(folder.spec))
    seeds = spec.model_copy(update={"seeds": earlier.seeds})
    candidates = find_front(read_records(folder.records).records, seeds).candidates
    measured = [item for item in candidates if item.role == CANDIDATE_ROLE and not item.excluded]
    if isinstance(earlier, SweepSpec):
        points = points_of(earlier, already_suggested(folder) or None)
    else:
        points = {item.config_id: _foreign_point(item.config, spec) for item in measured}
    known = [item for item in measured if item.config_id in points]
    if not known:
        wanted = ", ".join(objective.metric for objective in spec.objectives)
        there = ", ".join(sorted({name for item in candidates for name in item.values})) or "none"
        problem = (
            f"search.warm_start: {path} has no complete configuration with {wanted}; its metrics are "
            f"{there}; use a run with these objectives, or remove warm_start"
        )
        raise SpecError("search", (problem,))
    inside = [item for item in known if lies_in(points[item.config_id], spec)]
    if not inside:
        raise SpecError("search", (_elsewhere(spec, path, [points[i.config_id] for i in known]),))
    if len(inside) < len(known):
        left_out = len(known) - len(inside)
        _log.warning(
            f"search.warm_start: {left_out} of {len(known)} configurations of {path} lie outside the space "
            "and are left out"
        )
    return [Observation(points[item.config_id], 0, item) for item in inside]


def _elsewhere(spec: SweepSpec, path: Path, points: Sequence[Point]) -> str:
    """Why none of the points of an earlier run can be used."""
    lacking = [name for name in varying_axes(spec) if all(name not in point for point in points)]
    if lacking:
        return (
            f"search.warm_start: {', '.join(lacking)} is swept here and no setting of {path}; in an "
            "imported run, name its column under `parameters` of import.yaml and import again with --map, "
            "or remove warm_start"
        )
    swept = ", ".join(varying_axes(spec))
    return (
        f"search.warm_start: none of {len(points)} configurations of {path} lies in this space by its "
        f"values of {swept}; change the space, or remove warm_start"
    )


def _foreign_point(config: Mapping[str, Any], spec: SweepSpec) -> Point:
    """The settings of another tool as a point: averages by their names, and none is `raw`."""
    averages = {value.label: value for value in spec.space.average.values or ()}
    average = averages.get(str(config.get("average", "raw")))
    return {**config, **({} if average is None else {"average": average})}
