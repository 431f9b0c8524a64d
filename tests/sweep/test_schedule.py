"""Which pack a free worker takes, in virtual time: no worker idles, and no speed changes a suggestion."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.fake_trials import measured, prepared

from sweeper.planning import Pack, make_packs, make_plan, make_tasks
from sweeper.search.rounds import already_suggested, read_rounds
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.records import RecordWriter
from sweeper.sweep.driver import _unfinished
from sweeper.sweep.forecast import Start, VirtualClock, play
from sweeper.sweep.rounds import search_rounds
from sweeper.sweep.schedule import FINISHED, Finished, RoundSchedule
from sweeper.task import TrajectoryTask

WORKERS = 3
RATES = "space.learning_rate={low: 1e-5, high: 1e-2, log: true, num: 16}"
SEARCH = "search={{method: optuna, n_trials: 14, batch_size: 4, seed: 3, sampler: {}}}"
CONTINUOUS = "space.learning_rate={low: 1e-5, high: 1e-2, log: true}"


def grid(text: str, *overrides: str) -> list[TrajectoryTask]:
    spec = parse_spec(text, source="grid", overrides=(RATES, *overrides))
    return list(make_tasks(make_plan(spec), spec, lambda path: path))


def steps_of(pack: Pack) -> float:
    """A second per step of each path, and one for its readouts."""
    return float(sum(1 + task.steps for task in pack))


def played(tasks: Sequence[TrajectoryTask], workers: int, divide: bool) -> list[Start]:
    """One round whose packs have four paths each, however many workers there are."""
    schedule = RoundSchedule(
        iter([tasks]), lambda some: make_packs(some, 4, 1), workers if divide else 1
    )
    return play(schedule, VirtualClock(), workers, steps_of)


def idle_share(starts: Sequence[Start], workers: int) -> float:
    busy = sum(item.ended - item.began for item in starts)
    return 1 - busy / (workers * max(item.ended for item in starts))


def test_a_pack_is_divided_where_a_worker_would_be_idle(tiny_spec_text: str) -> None:
    tasks = grid(tiny_spec_text)
    whole, divided = played(tasks, WORKERS, divide=False), played(tasks, WORKERS, divide=True)
    assert max(len(item.pack) for item in whole) == 4
    assert sorted(t.trajectory_id for i in divided for t in i.pack) == sorted(
        t.trajectory_id for t in tasks
    )
    assert idle_share(whole, WORKERS) > 0.15
    assert idle_share(divided, WORKERS) < 0.08
    assert max(i.ended for i in divided) < max(i.ended for i in whole)
    lengths = [len(item.pack) for item in divided if item.pack[0].steps]
    assert lengths[0] == 4 and lengths[-1] == 1


def test_one_worker_divides_nothing(tiny_spec_text: str) -> None:
    tasks = grid(tiny_spec_text)
    assert [i.pack for i in played(tasks, 1, divide=True)] == make_packs(tasks, 4, 1)


class _Measured(RoundSchedule):
    """Writes what a pack has measured when it ends, as the driver does."""

    writer: RecordWriter

    def __init__(self, *arguments: object, writer: RecordWriter, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.writer = writer
        self._packs: dict[str, Pack] = {}

    def next(self, trial_id: str) -> Pack | Finished | None:
        pack = super().next(trial_id)
        if pack is not None and pack != FINISHED:
            self._packs[trial_id] = pack
        return pack

    def ended(self, trial_id: str) -> None:
        for task in self._packs[trial_id]:
            for readout in task.readouts:
                self.writer.append(measured(task, readout))
        super().ended(trial_id)


def searched(
    spec: SweepSpec, root: Path, order: int, workers: int = WORKERS, ahead: bool = True
) -> list[Start]:
    """A whole search; how long a pack takes is drawn anew for each `order`."""
    rng = random.Random(order)
    folder, _ = prepared(spec, root)
    folder.plan.write_text('{"accounting": {}}', encoding="utf-8")
    writer = RecordWriter(folder.records)
    rounds = _unfinished(search_rounds(spec, folder, make_plan(spec)), writer, folder)
    schedule = _Measured(
        rounds, lambda some: make_packs(some, 1, workers), workers, ahead, writer=writer
    )
    starts = play(schedule, VirtualClock(), workers, lambda pack: rng.lognormvariate(0.0, 0.6))
    writer.close()
    assert schedule.exhausted and schedule.failure is None
    assert writer.keys == make_plan(spec, already_suggested(folder)).keys()
    return starts


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "qmc"])
def test_which_path_is_faster_changes_no_suggestion(
    tiny_spec_text: str, tmp_path: Path, sampler: str
) -> None:
    overrides = (SEARCH.format(sampler), CONTINUOUS, "seeds=2")
    spec = parse_spec(tiny_spec_text, source="search", overrides=overrides)
    lines = []
    for order, workers in [(0, 1), (1, 3), (2, 3), (3, 8)]:
        searched(spec, tmp_path / str(order), order, workers)
        folder, _ = prepared(spec, tmp_path / str(order))
        lines.append(read_rounds(folder))
    assert lines[0] == lines[1] == lines[2] == lines[3]
    sizes = {"nsga2": [4, 4, 4, 2], "qmc": [14]}.get(sampler, [4] + 10 * [1])
    assert [len(points) for points in lines[0]] == sizes


def test_a_search_waits_for_the_oldest_of_those_under_way_and_not_for_all(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """Rounds leave a seventh of two workers idle, suggestions one by one 3 percent."""
    overrides = (SEARCH.format("tpe"), CONTINUOUS, "search.n_trials=24")
    spec = parse_spec(tiny_spec_text, source="search", overrides=overrides)
    rounds, stream = [], []
    for order in range(5):
        a = searched(spec, tmp_path / f"a{order}", order, 2, ahead=False)
        b = searched(spec, tmp_path / f"b{order}", order, 2)
        rounds.append(idle_share(a, 2))
        stream.append(idle_share(b, 2))
    assert sum(rounds) / 5 > 0.12
    assert sum(stream) / 5 < 0.05
