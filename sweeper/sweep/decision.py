"""How a decision is laid out over a run, and read back from its records. Needs neither torch nor Ray."""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

from sweeper.analysis import (
    SAFEST_USEFUL,
    Candidate,
    Front,
    Policy,
    find_front,
    recommend,
    unaveraged_control,
    under_policy,
)
from sweeper.analysis.decision import Decision, Walk, decide, promising_first
from sweeper.analysis.policies import qualified
from sweeper.errors import RunFolderError, SweeperError
from sweeper.planning import Plan, Point, make_plan
from sweeper.search.rounds import already_suggested
from sweeper.spec import DecideSpec, ResultsSpec, SweepSpec, parse_spec, spec_hash
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import RecordsRead, read_records
from sweeper.task import PromptSuite

OTHER_HALF = {"search": "confirm", "confirm": "search", "all": "all"}
"""The half of a suite that a run left out; none where it used both."""

NO_CONSTRAINT = "nothing to decide: the sweep has no constraint"


class DecisionRound(NamedTuple):
    """A round that begins: what is measured, the records planned so far, and those that there are."""

    text: str
    planned: int
    found: RecordsRead


RoundObserver = Callable[[DecisionRound], None]


class Stage(NamedTuple):
    """A decision that can be run: its folder inside the run, the walk, and the plans of its rounds.

    `rounds` has one entry per path in the order of the walk: the ids measured on it under the new seeds.
    One at a time it has one per configuration: its id and that of its control.
    `points` are the optimizer settings of an adaptive search, which are in no spec.
    """

    folder: RunFolder
    walk: Walk
    rounds: tuple[tuple[str, ...], ...]
    points: Sequence[Point] | None

    def plan(self, ids: Sequence[str], seeds: Sequence[int]) -> Plan:
        """The plan that measures some configurations under some seeds."""
        under = self.walk.spec.model_copy(update={"seeds": tuple(seeds)})
        return make_plan(under, self.points, ids)

    def first_plans(self) -> tuple[Plan, ...]:
        """What the first round measures: the best, those of its path, and the untouched model."""
        base, walk = self.walk.base, self.walk
        beside = () if base is None else (self.plan([base.config_id], walk.old_seeds[:1]),)
        return (self.plan(self.rounds[0], walk.spec.seeds), *beside)


def stage_folder(run: RunFolder, policy: Policy) -> RunFolder:
    """The folder of the decision for a policy, begun or not: `confirm/safest-useful` inside the run."""
    numbers = [f"{number:g}" for number in (policy.limit, policy.utility) if number is not None]
    return RunFolder(run.confirm / "-".join([policy.name, *numbers]))


def lay_out(
    run: RunFolder,
    spec: SweepSpec,
    front: Front,
    policy: Policy = SAFEST_USEFUL,
    seeds: int | None = None,
    candidates: int | None = None,
    one_at_a_time: bool = False,
) -> Stage | str:
    """Lay out the decision for a policy, or say in a sentence why there is nothing to decide.

    Args:
        run: The folder of the sweep, whose search is finished.
        spec: Of the sweep.
        front: Of its records.
        policy: Whose ranking is walked down.
        seeds: How many new seeds; where not given those of a decision that has begun, else the spec's.
        candidates: The most configurations to test, likewise.
        one_at_a_time: Measure one configuration in each round, not all of its path: less is measured if it
            holds, and its path is trained again if it does not.

    Raises:
        SweeperError: the decision was begun with another number of seeds, or for another sweep.
        SpecError, RunFolderError: its files are damaged.
    """
    folder = stage_folder(run, policy)
    begun = _begun(folder)
    closed = _search_records(folder)
    if begun is not None and closed is not None:
        front = find_front(read_records(run.records).records[:closed], spec)
    usual = (begun and begun.decide) or spec.decide or DecideSpec()
    asked = DecideSpec(
        seeds=usual.seeds if seeds is None else seeds,
        candidates=usual.candidates if candidates is None else candidates,
        rows=usual.rows,
    )
    if begun is not None and begun.decide and begun.decide.seeds != asked.seeds:
        raise SweeperError(
            f"the decision in {folder.root} was begun with {begun.decide.seeds} new seeds, and now "
            f"{asked.seeds} are asked for; keep {begun.decide.seeds}, or delete the folder to begin again: "
            "testing again until something holds would void the error level"
        )
    ranking = qualified(*under_policy(front, spec, policy), policy)
    if not under_policy(front, spec, policy)[1].constraints:
        return NO_CONSTRAINT
    if not ranking:
        return f"nothing to decide: {recommend(front, spec, policy).reason}"
    points = already_suggested(run) or None
    stage = _stage(folder, spec, front, policy, ranking, asked, points, one_at_a_time)
    if begun is not None and spec_hash(begun) != spec_hash(stage.walk.spec):
        raise SweeperError(f"{folder.root} belongs to another sweep; delete it to decide again")
    return stage


def note_search_records(run: RunFolder, finished: bool) -> None:
    """Write down what a decision knows of a search that is not finished, before it begins.

    It stays the ranking of that decision when the search goes on: a ranking that changes between tests
    would void their error level.
    """
    folder = stage_folder(run, SAFEST_USEFUL)
    if _begun(folder) is not None:
        return
    if finished:
        folder.search.unlink(missing_ok=True)
    else:
        folder.create()
        count = len(read_records(run.records).records)
        write_atomic(folder.search, json.dumps({"records": count}))


def _search_records(folder: RunFolder) -> int | None:
    """How many records the search had; None where it was finished when the decision began."""
    if not folder.search.exists():
        return None
    try:
        return int(json.loads(folder.search.read_text(encoding="utf-8"))["records"])
    except (ValueError, TypeError, KeyError):
        raise RunFolderError(
            f"{folder.search} is damaged: expected the number of records of the search; delete "
            f"{folder.root} to decide again",
            code="run.damaged",
            path=folder.search,
        ) from None


def read_decision(
    run: RunFolder, spec: ResultsSpec, front: Front, policy: Policy = SAFEST_USEFUL
) -> Decision | None:
    """The decision for a policy as far as it is measured; None where none has begun.

    Raises:
        SweeperError: see `lay_out`.
        RecordError: its records cannot be trusted.
    """
    if not isinstance(spec, SweepSpec) or stage_folder(run, policy).read_info() is None:
        return None
    stage = lay_out(run, spec, front, policy)
    if isinstance(stage, str):
        return None
    return decide(stage.walk, read_records(stage.folder.records).records)


def is_decided(stage: Stage) -> bool:
    """Whether all of a decision is measured, the weights of what holds included."""
    records = read_records(stage.folder.records).records
    found = decide(stage.walk, records)
    if not found.complete or found.survivor is None:
        return found.complete
    weights = stage.plan([found.survivor.config_id], stage.walk.old_seeds)
    return weights.keys() <= {record.key for record in records}


def _begun(folder: RunFolder) -> SweepSpec | None:
    if folder.read_info() is None:
        return None
    return parse_spec(folder.spec.read_text(encoding="utf-8"), source=str(folder.spec))


def _stage(
    folder: RunFolder,
    spec: SweepSpec,
    front: Front,
    policy: Policy,
    ranking: Sequence[Candidate],
    asked: DecideSpec,
    points: Sequence[Point] | None,
    one_at_a_time: bool,
) -> Stage:
    under = under_policy(front, spec, policy)[1]
    ranked = tuple(promising_first(ranking, front.base, under, policy)[: asked.candidates])
    again = decision_spec(under_policy(front, spec, policy)[1], asked)
    raw = [unaveraged_control(item, front.candidates) for item in ranked]
    known = {item.config_id: item for item in (*ranked, *raw) if item is not None}
    first = again.model_copy(update={"seeds": again.seeds[:1]})
    paths: dict[str, Hashable] = {
        item.config_id: trajectory.trajectory_id
        for trajectory in make_plan(first, points, known).trajectories
        for item in trajectory.configurations
    }
    walked = list(dict.fromkeys(paths[item.config_id] for item in ranked))
    own = {item.config_id for item in ranked}
    controls = {
        control.config_id: (f"number {place}, without averaging", control)
        for place, control in reversed(list(enumerate(raw, start=1)))
        if control is not None
        and control.config_id not in own
        and paths[control.config_id] == paths[ranked[place - 1].config_id]
    }
    walk = Walk(
        ranked=ranked,
        controls=tuple(reversed(controls.values())),
        base=front.base,
        paths=paths,
        compared=len(front.competing),
        policy=policy,
        spec=again,
        old_seeds=spec.seeds,
        new_prompts=prompts_are_new(spec, again),
        notes=(
            *_notes(spec, again),
            *_unfinished_notes(folder),
            *_edited_notes(folder, spec, asked),
        ),
    )
    measured = (*own, *controls)
    groups: list[list[str]] = [[key for key in known if paths[key] == path] for path in walked]
    if one_at_a_time:
        pairs = zip(ranked, raw, strict=True)
        groups = [[item.config_id for item in pair if item is not None] for pair in pairs]
    rounds = tuple(
        tuple(key for key in group if key in measured and paths[key] == paths[group[0]])
        for group in groups
    )
    return Stage(folder, walk, rounds, points)


def decision_spec(spec: SweepSpec, asked: DecideSpec) -> SweepSpec:
    """What a decision measures: the other half of each suite, under new seeds, nothing stopped early.

    Suites that a constraint is measured on have `asked.rows` prompts where it is given. The seeds that
    `search.refine` may use are left out.
    """
    refine = spec.search.refine
    further = 0 if refine is None else max(0, refine.max_seeds - len(spec.seeds))
    later = max(spec.seeds) + 1 + further
    constrained = spec.constrained_suites if asked.rows else ()

    def left_out(suite: PromptSuite) -> PromptSuite:
        rows = asked.rows if suite in constrained else suite.rows
        return replace(suite, prompt_split=OTHER_HALF[suite.prompt_split], rows=rows)

    evaluation = replace(
        spec.evaluation,
        harmful=tuple(map(left_out, spec.evaluation.harmful)),
        harmless=tuple(map(left_out, spec.evaluation.harmless)),
    )
    plain = type(spec.search)()
    search = spec.search.model_copy(update={"stop": plain.stop, "refine": None})
    return spec.model_copy(
        update={
            "evaluation": evaluation,
            "seeds": tuple(range(later, later + asked.seeds)),
            "search": search,
            "compute": replace(spec.compute, keep_weights="none"),
            "decide": asked,
        }
    )


def _unfinished_notes(folder: RunFolder) -> list[str]:
    count = _search_records(folder)
    if count is None:
        return []
    return [
        f"the budget had ended the search: its first {count} records chose what is tested. Delete "
        f"{folder.root} to decide on all; each decision has an error level of its own"
    ]


def _edited_notes(folder: RunFolder, spec: SweepSpec, asked: DecideSpec) -> list[str]:
    """Whether the sweep file asks for another decision than the one that has begun."""
    now = spec.decide
    begun = folder.read_info() is not None
    if not now or not begun or (now.seeds, now.rows) == (asked.seeds, asked.rows):
        return []
    return [
        f"the decision was begun with {_size(asked)}, and the sweep file says {_size(now)}: what it was "
        "begun with counts, since testing again until something holds would void the error level. Delete "
        f"{folder.root} to begin another one"
    ]


def _size(decision: DecideSpec) -> str:
    rows = "as many prompts as the search" if decision.rows is None else f"{decision.rows} prompts"
    return f"{decision.seeds} new seeds and {rows}"


def prompts_are_new(spec: SweepSpec, under: SweepSpec) -> bool:
    """Whether the search left half of every suite out that a constraint is measured on."""
    return all(
        suite.prompt_split != "all"
        for suite in spec.model_copy(update={"constraints": under.constraints}).constrained_suites
    )


def _notes(spec: SweepSpec, under: SweepSpec) -> list[str]:
    """What is new in a decision and what is not."""
    seeds = f"seeds {', '.join(map(str, under.seeds))} are new"
    suites = (*spec.evaluation.harmful, *spec.evaluation.harmless)
    used = [suite.path or str(suite.suite) for suite in suites if suite.prompt_split == "all"]
    utility = f"the held-out rows of {spec.utility.metric} are those of the search"
    if prompts_are_new(spec, under):
        same = f"prompts of {', '.join(used)} are the same (`prompt_split: all`); " if used else ""
        return [f"{seeds}, and so are the prompts of every constraint; {same}{utility}"]
    return [
        f"{seeds}, but the prompts are those of the search (`prompt_split: all`): what was selected on "
        "them still looks better than it is on others. So each test uses the error level divided by how "
        "many configurations were compared",
        utility,
    ]
