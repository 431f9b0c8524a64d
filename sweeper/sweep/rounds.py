"""The rounds of a sweep: one for a grid, several where the search is adaptive or adds seeds."""

import json
from collections.abc import Iterable, Iterator

from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.planning import Plan, Point, make_plan, make_tasks
from sweeper.search.adaptive import suggestions
from sweeper.search.refine import read_refinements, refined_plans
from sweeper.search.rounds import already_suggested
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import read_records
from sweeper.task import TrajectoryTask


def plan_so_far(spec: SweepSpec, folder: RunFolder) -> Plan:
    """The first pass of a sweep: of an adaptive search what it has suggested so far, else all of it."""
    return make_plan(spec, already_suggested(folder) or None)


def keys_so_far(spec: SweepSpec, folder: RunFolder) -> frozenset[tuple[str, int]]:
    """The (config_id, seed) pairs of the first pass and of the further seeds decided on so far."""
    parts = [part for refinement in read_refinements(folder) for part in refinement.parts]
    further = {(config_id, part.seed) for part in parts for config_id in part.config_ids}
    return plan_so_far(spec, folder).keys() | further


def search_rounds(spec: SweepSpec, folder: RunFolder, plan: Plan) -> Iterator[list[TrajectoryTask]]:
    """The tasks of a sweep, round by round; those of earlier rounds may come again.

    A round is decided when the iterator is advanced, from the records that are on disk then, and is on
    disk itself before it is yielded, together with the number of records that plan.json expects. An
    adaptive search may be advanced while earlier rounds still run: a round is empty where some of their
    records have to come first.

    Args:
        spec: The sweep.
        folder: Its run folder.
        plan: The first pass of a sweep that is not adaptive.

    Raises:
        SpecError, RunFolderError, RecordError: see `suggestions` and `refined_plans`.
    """
    points: list[Point] | None = None
    if not is_adaptive(spec):
        yield tasks_of(plan, spec)
    else:
        for more in suggestions(spec, folder):
            if more:
                points, plan = more, make_plan(spec, more)
                _write_accounting(folder, plan)
            yield tasks_of(plan, spec) if more else []
    if spec.search.refine is not None:
        for plans in refined_plans(spec, folder, points):
            yield [task for one in plans for task in tasks_of(one, spec)]
            while is_adaptive(spec) and not _measured(folder, plans):
                yield []


def is_adaptive(spec: SweepSpec) -> bool:
    """Whether `search_rounds` may be advanced while a round still runs."""
    return spec.search.method == "optuna"


def _measured(folder: RunFolder, plans: Iterable[Plan]) -> bool:
    keys = {record.key for record in read_records(folder.records).records}
    return all(plan.keys() <= keys for plan in plans)


def tasks_of(plan: Plan, spec: SweepSpec) -> list[TrajectoryTask]:
    """The complete tasks of a plan, their data pinned to what it is now."""
    return [pin_revisions(task) for task in make_tasks(plan, spec, resolve)]


def _write_accounting(folder: RunFolder, plan: Plan) -> None:
    content = json.loads(folder.plan.read_text(encoding="utf-8"))
    content["accounting"] = plan.accounting._asdict()
    write_atomic(folder.plan, json.dumps(content, indent=1))
