"""The order of packs under a budget: what can change the decision most comes first.

1. The untouched model, which every recommendation is measured by.
2. Settings in `coverage_order`, each on its first seed, as long as what is left also pays for the further
   seeds of all settings begun: a configuration that lacks a seed is not on the front.
3. The further seeds of those; last of all those of paths whose configurations have all failed or broken a
   constraint under another seed, and can no longer be on the front.

A pack is started only if it is expected to end in time: measured over estimated time of all readouts so
far scales every estimate. Of a pack that is too large its first members are started. What the decision
needs is kept back, and what runs is stopped for it, once there is a candidate that may hold.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sweeper.analysis import find_front
from sweeper.estimate import makespan, spent
from sweeper.planning import Pack, coverage_order
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.budget import STOP_SECONDS, Account, BudgetEnd, PathCost, PlannedCosts
from sweeper.sweep.schedule import FINISHED, Finished, MakePacks, Rounds, Schedule
from sweeper.task import TrajectoryTask


@dataclass(slots=True)
class _Block:
    """Paths that train together, under each seed that has not been started, the first one first."""

    packs: dict[int, Pack]
    begun: bool = False

    @property
    def trains(self) -> bool:
        """Whether any of its paths takes a step."""
        return any(task.steps for task in itertools.chain(*self.packs.values()))


@dataclass(slots=True)
class _Running:
    """A pack on a worker; `fresh` where the worker has to start first. `since` is None while it waits."""

    pack: Pack
    estimated: float
    fresh: bool
    since: float | None
    records: list[TrialRecord] = field(default_factory=list)


class _Cost(NamedTuple):
    """Estimated seconds: of the longest pack, and of all."""

    longest: float
    total: float


class BudgetSchedule(Schedule):
    """Packs under a budget; `decidable` says whether a candidate that may hold has been measured.

    Args:
        rounds: The tasks of each round.
        make: Puts tasks of one seed into packs.
        account: The budget, opened.
        seconds_of: The estimate of one path.
        spec: Its constraints say what a record rules out.
        workers: Trials at once.
        whole_rounds: A round is started only if all of it is expected to end in time, in the order of its
            packs: a decision learns nothing from half of one.
        on_end: Called by `close` with what the budget left undone, None where it did not end the phase.
        ahead: See `Schedule`.
    """

    def __init__(
        self,
        rounds: Rounds,
        make: MakePacks,
        account: Account,
        seconds_of: PathCost,
        spec: SweepSpec,
        workers: int,
        whole_rounds: bool = False,
        on_end: Callable[[BudgetEnd | None], None] = lambda end: None,
        ahead: bool = False,
    ) -> None:
        super().__init__(rounds, ahead)
        self._make = make
        self._account = account
        self._seconds_of = seconds_of
        self._spec = spec
        self._workers = self._to_start = workers
        self._whole = whole_rounds
        self._on_end = on_end
        self._blocks: list[_Block] = []
        self._running: dict[str, _Running] = {}
        self._ruled_out: set[str] = set()
        self.decidable = False
        self.end: BudgetEnd | None = None

    def next(self, trial_id: str) -> Pack | Finished | None:
        """See `Schedule`."""
        if len(self._running) > self._workers or self.end is not None:
            return None if self.end is None else FINISHED
        if not self._blocks:
            tasks = self._next_round(bool(self._running))
            if tasks is None or tasks == FINISHED:
                return tasks
            self._blocks = self._laid_out(tasks)
        pack = self._choose()
        if pack is None:
            if self._running:
                return None
            self.end = self._left()
            return FINISHED
        fresh, self._to_start = self._to_start > 0, max(0, self._to_start - 1)
        # The start of a worker counts; a pack beyond the workers waits for its turn.
        since = self._account.now() if len(self._running) < self._workers else None
        self._running[trial_id] = _Running(pack, self._estimate(pack), fresh, since)
        return pack

    def started(self, trial_id: str) -> None:
        """A worker has begun with the pack; the first time counts where one is started again."""
        item = self._running.get(trial_id)
        if item is not None and item.since is None:
            item.since = self._account.now()

    def ended(self, trial_id: str) -> None:
        """Its time is counted, and scales what is expected of the others."""
        super().ended(trial_id)
        item = self._running.pop(trial_id, None)
        if item is not None:
            elapsed = self._elapsed(item)
            work = min(elapsed, spent(item.records).seconds) if item.fresh else elapsed
            trains = any(task.steps for task in item.pack)
            self._account.ended(elapsed, work or elapsed, item.estimated if trains else None)
            self._account.progress = self._progress()
            self._account.save(self._elapsed_of_all())

    def on_record(self, record: TrialRecord) -> None:
        """Note what the record has cost, and what it rules out."""
        for item in self._running.values():
            if any(task.trajectory_id == record.trajectory_id for task in item.pack):
                item.records.append(record)
        self._account.progress = self._progress()
        self._account.save(self._elapsed_of_all())
        self._rule_out(record)

    def _progress(self) -> tuple[float, float]:
        """Measured and estimated seconds of the readouts so far of the packs that run and train."""
        measured = estimated = 0.0
        for item in self._running.values():
            if any(task.steps for task in item.pack):
                timed = [record for record in item.records if record.provenance.get("seconds")]
                counts = Counter(record.trajectory_id for record in timed)
                measured += spent(timed).seconds
                estimated += sum(
                    self._seconds_of(task) * counts[task.trajectory_id] / len(task.readouts)
                    for task in item.pack
                )
        return measured, estimated

    def learn(self, records: Iterable[TrialRecord]) -> None:
        """Note what the records of earlier starts rule out."""
        for record in records:
            self._rule_out(record)

    def _rule_out(self, record: TrialRecord) -> None:
        (found,) = find_front([record], self._spec).candidates
        if record.status != "complete" or not found.feasible:
            self._ruled_out.add(record.config_id)
        elif record.role == "candidate":
            self.decidable = True

    def stop(self) -> bool:
        """Whether the budget of this phase is used up."""
        used_up = self.seconds_to_stop() <= 0
        if used_up and self.end is None:
            self._give_back()
            self.end = self._left()
        return used_up

    def seconds_to_stop(self) -> float:
        """Seconds on the clock until what runs now is stopped."""
        keep = self.decidable
        left = self._account.worker_seconds_left(keep) - self._elapsed_of_all()
        at_work = sum(item.since is not None for item in self._running.values())
        left = min(self._account.wall_seconds_left(keep), left / at_work if at_work else left)
        return left - self._account.stop_seconds

    def close(self) -> None:
        """Count what was running at the end, and write it down."""
        self._account.used.worker_seconds += self._elapsed_of_all()
        measured, estimated = self._account.progress
        self._account.used.measured_seconds += measured
        self._account.used.estimated_seconds += estimated
        self._account.progress = (0.0, 0.0)
        self._running.clear()
        self._account.save()
        self._on_end(self.end)

    def _give_back(self) -> None:
        for item in self._running.values():
            self._blocks.append(_Block({item.pack[0].seed: item.pack}, begun=True))

    # What is started next.

    def _choose(self) -> Pack | None:
        if not self._blocks:
            return None
        if self._whole:
            return self._next_of_round()
        first = self._blocks[0]
        if not (first.begun or first.trains or self.stop()):
            return self._begin(
                first, math.inf
            )  # The untouched model: nothing is worth much without it.
        for block in self._blocks:
            if not block.begun and (pack := self._begin(block, self._further())) is not None:
                return pack
        begun = [block for block in self._blocks if block.begun]
        begun.sort(key=lambda block: -len(block.packs))  # Second seeds of all before third ones.
        for hopeless, block in itertools.product((False, True), begun):
            if (pack := self._further_pack(block, hopeless)) is not None:
                return pack
        return None

    def _next_of_round(self) -> Pack | None:
        first = self._blocks[0]
        packs = [pack for block in self._blocks for pack in block.packs.values()]
        if not first.begun:
            if not self._fits(self._cost(packs), len(packs)):
                return None
            for block in self._blocks:
                block.begun = True
        return self._take(first, next(iter(first.packs)))

    def _begin(self, block: _Block, kept: float) -> Pack | None:
        """The first seed of a block, or of as many of its first members as fit; None where none does."""
        members = len(next(iter(block.packs.values())))
        while members:
            parts = [pack[:members] for pack in block.packs.values()]
            own, *further = map(self._estimate, parts)
            if math.isinf(kept) or self._fits(_Cost(own, own + sum(further) + kept)):
                return self._split(block, members)
            members //= 2
        return None

    def _split(self, block: _Block, members: int) -> Pack:
        rest = {seed: pack[members:] for seed, pack in block.packs.items() if pack[members:]}
        block.packs = {seed: pack[:members] for seed, pack in block.packs.items()}
        if rest:
            self._blocks.insert(self._blocks.index(block) + 1, _Block(rest))
        block.begun = True
        return self._take(block, next(iter(block.packs)))

    def _further_pack(self, block: _Block, hopeless: bool) -> Pack | None:
        """The next seed of a block that has begun, without the paths that can change nothing, or those."""
        seed = next(iter(block.packs))
        pack = tuple(t for t in block.packs[seed] if self._is_hopeless(t) == hopeless)
        if not pack or not self._fits(self._cost([pack])):
            return None
        rest = tuple(task for task in block.packs[seed] if task not in pack)
        taken = self._take(block, seed, pack)
        if rest:
            self._blocks.append(_Block({seed: rest}, begun=True))
        return taken

    def _take(self, block: _Block, seed: int, pack: Pack | None = None) -> Pack:
        whole = block.packs.pop(seed)
        if not block.packs:
            self._blocks.remove(block)
        return whole if pack is None else pack

    def _is_hopeless(self, task: TrajectoryTask) -> bool:
        own = [item.config_id for item in task.readouts if item.role == "candidate"]
        return bool(own) and self._ruled_out.issuperset(own)

    def _further(self) -> float:
        """Estimated seconds of the further seeds of all blocks begun."""
        return sum(
            self._seconds_of(task)
            for block in self._blocks
            if block.begun
            for task in itertools.chain(*block.packs.values())
            if not self._is_hopeless(task)
        )

    def _fits(self, cost: _Cost, packs: int = 1) -> bool:
        """Whether packs are expected to end in time if the next free worker begins with the first.

        Workers that have not started yet start for them, as many as there are packs.
        """
        account, scale = self._account, self._account.scale
        start = account.used.start_seconds
        rests = [
            max(0.0, scale * r.estimated + start * r.fresh - self._elapsed(r))
            for r in self._running.values()
        ]
        worker_margin, wall_margin = account.margins()
        starts = start * min(packs, self._to_start)
        promised = self._elapsed_of_all() + sum(rests) + worker_margin + starts
        keep = self.decidable or bool(self._running)
        if promised + scale * cost.total > account.worker_seconds_left(keep):
            return False
        wait = min(rests) if len(rests) >= self._workers else 0.0
        left = account.wall_seconds_left(keep) - wall_margin
        room = left * self._workers - sum(rests) - starts
        longest = scale * cost.longest + start * (self._to_start > 0)
        return wait + longest <= left and scale * cost.total <= room

    def _cost(self, packs: Sequence[Pack]) -> _Cost:
        each = [self._estimate(pack) for pack in packs]
        return _Cost(makespan(each, self._workers), sum(each))

    def _estimate(self, pack: Pack) -> float:
        return sum(map(self._seconds_of, pack))

    def _elapsed(self, item: _Running) -> float:
        return 0.0 if item.since is None else self._account.now() - item.since

    def _elapsed_of_all(self) -> float:
        return sum(map(self._elapsed, self._running.values()))

    # What a round is made of.

    def _laid_out(self, tasks: Sequence[TrajectoryTask]) -> list[_Block]:
        if self._whole:
            return [_Block({number: pack}) for number, pack in enumerate(self._make(tasks))]
        paths: dict[tuple[str, ...], dict[int, TrajectoryTask]] = {}
        for task in sorted(tasks, key=self._seed_rank):
            paths.setdefault(_readouts(task), {})[task.seed] = task
        firsts = [next(iter(seeds.values())) for seeds in paths.values()]
        rank = {_readouts(task): place for place, task in enumerate(self._ordered(firsts))}
        firsts.sort(key=lambda task: rank[_readouts(task)])
        packs = sorted(self._make(firsts), key=lambda pack: min(rank[_readouts(t)] for t in pack))
        return [_Block(_seeds_of([paths[_readouts(task)] for task in pack])) for pack in packs]

    def _seed_rank(self, task: TrajectoryTask) -> tuple[int, int]:
        seeds = self._spec.seeds
        return (seeds.index(task.seed) if task.seed in seeds else len(seeds), task.seed)

    def _ordered(self, tasks: Sequence[TrajectoryTask]) -> list[TrajectoryTask]:
        """What trains nothing, then candidates spread over the space, then paths of controls alone."""
        still = [task for task in tasks if task.steps == 0]
        moving = [task for task in tasks if task.steps > 0]
        own = [task for task in moving if any(r.role == "candidate" for r in task.readouts)]
        controls = [task for task in moving if all(r.role != "candidate" for r in task.readouts)]
        order = coverage_order(list(map(settings_of, own)), list(map(self._seconds_of, own)))
        return [*still, *(own[index] for index in order), *controls]

    # What is left at the end.

    def _left(self) -> BudgetEnd:
        waiting = [pack for block in self._blocks for pack in block.packs.values()]
        tasks = list(itertools.chain(*waiting))
        scale, hour = self._account.scale, self._account.hour
        seconds = [scale * self._seconds_of(task) for task in tasks]
        count = sum(total <= hour for total in itertools.accumulate(seconds))
        stage = "decision" if self._whole else "search"
        settings = settings_text(list(map(settings_of, tasks[:count])))
        return BudgetEnd(stage, len(tasks), sum(seconds), count, settings)


@dataclass(slots=True)
class Phase:
    """One phase of a run under a budget, the search or the decision; `end` says what the budget left."""

    account: Account
    seconds_of: PathCost
    spec: SweepSpec
    whole_rounds: bool = False
    known: Sequence[TrialRecord] = ()
    end: BudgetEnd | None = None

    def schedule(
        self, rounds: Rounds, make: MakePacks, gpus: float, workers: int, ahead: bool = False
    ) -> BudgetSchedule:
        """The schedule on a cluster whose trials have so many GPUs and of which so many run at once."""
        self.account.open(gpus, workers)
        whole, spec = self.whole_rounds, self.spec
        made = BudgetSchedule(
            rounds, make, self.account, self.seconds_of, spec, workers, whole, self._ended, ahead
        )
        made.learn(self.known)
        return made

    def _ended(self, end: BudgetEnd | None) -> None:
        self.end = end


def search_phase(spec: SweepSpec, folder: RunFolder, costs: PlannedCosts) -> Phase:
    """The search of a sweep that has a budget, with what its decision needs kept back."""
    assert spec.compute.budget is not None
    account = Account(spec.compute.budget, folder, costs.reserve, stop_seconds=STOP_SECONDS)
    known = read_records(folder.records).records
    return Phase(account, costs.seconds_of, spec, known=known)


def decision_phase(search: Phase, spec: SweepSpec, folder: RunFolder) -> Phase:
    """The decision after a search: it may use all that is left."""
    assert spec.compute.budget is not None
    account = Account(
        spec.compute.budget,
        folder,
        margin=0.0,
        stop_seconds=STOP_SECONDS,
        now=search.account.now,
    )
    return Phase(account, search.seconds_of, spec, whole_rounds=True)


def _readouts(task: TrajectoryTask) -> tuple[str, ...]:
    """The same for one path under any seed."""
    return tuple(readout.config_id for readout in task.readouts)


def _seeds_of(paths: Sequence[Mapping[int, TrajectoryTask]]) -> dict[int, Pack]:
    seeds = dict.fromkeys(itertools.chain(*paths))
    return {seed: tuple(path[seed] for path in paths if seed in path) for seed in seeds}


def settings_of(task: TrajectoryTask) -> dict[str, object]:
    """The settings that tell one path from another: those of its last readout, without its average."""
    last = max(task.readouts, key=lambda readout: readout.step)
    average = last.config.get("average") if task.optimizer.feedback is not None else "raw"
    return {**last.config, "max_steps": task.steps, "average": average}


def settings_text(points: Sequence[Mapping[str, object]]) -> str:
    """The values of the axes that vary among some settings, or of the learning rate where none does."""
    values = {
        name: sorted({str(point.get(name)) for point in points}, key=_numeric)
        for name in sorted({name for point in points for name in point})
    }
    shown = {name: found for name, found in values.items() if len(found) > 1}
    shown = shown or {
        name: values[name] for name in ("learning_rate", "batch_size") if name in values
    }
    return "; ".join(f"{name} {', '.join(found)}" for name, found in shown.items())


def _numeric(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text
