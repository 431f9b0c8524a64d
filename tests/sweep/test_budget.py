"""A run under a budget, in virtual time: what starts, in which order, and where it ends."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_trials import expected, measured, prepared, sound

from sweeper.errors import RunFolderError, SpecError
from sweeper.planning import Pack, coverage_order, make_packs, make_plan, make_tasks
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, TrialRecord, read_records
from sweeper.sweep.budget import MARGIN, NO_RESERVE, Account, Reserve, read_used
from sweeper.sweep.budget_schedule import Phase, settings_text
from sweeper.sweep.driver import drive
from sweeper.sweep.forecast import Start, VirtualClock, play
from sweeper.task import Budget, TrajectoryTask

RATES = "space.learning_rate={low: 1e-5, high: 1e-2, log: true, num: 40}"


def sweep(text: str, *overrides: str) -> tuple[SweepSpec, list[TrajectoryTask]]:
    spec = parse_spec(text, source="budget", overrides=overrides)
    return spec, list(make_tasks(make_plan(spec), spec, lambda path: path))


def alone(task: TrajectoryTask) -> float:
    """An hour per step, and one for the readouts."""
    return 3600.0 * (1 + task.steps)


class Played:
    """A run of some tasks under a budget, in virtual time, each path alone unless `size` says more."""

    def __init__(
        self,
        root: Path,
        spec: SweepSpec,
        rounds: Sequence[Sequence[TrajectoryTask]],
        budget: Budget,
        *,
        workers: int = 1,
        slower: float = 1.0,
        size: int = 1,
        reserve: Reserve = NO_RESERVE,
        unsafe: Sequence[str] = (),
        whole_rounds: bool = False,
        start: float = 0.0,
        stop: float = 0.0,
        decidable: bool = True,
    ) -> None:
        self.clock = VirtualClock(start)
        self.folder = RunFolder(root)
        self.folder.create()
        margin = 0.0 if whole_rounds else MARGIN
        account = Account(budget, self.folder, reserve, margin, stop, now=self.clock)
        self.phase = Phase(account, alone, spec, whole_rounds)
        self.schedule = self.phase.schedule(
            iter(rounds), lambda tasks: make_packs(tasks, size, workers), 1.0, workers
        )
        self.schedule.decidable = decidable
        self._unsafe = unsafe
        self._slower = slower
        self.starts = play(self.schedule, self.clock, workers, self._seconds)

    def _seconds(self, pack: Pack) -> float:
        for task in pack:
            for readout in task.readouts:
                if readout.config_id in self._unsafe:
                    self.schedule.on_record(_unsafe(measured(task, readout)))
        return self._slower * sum(map(alone, pack))

    @property
    def hours(self) -> float:
        """Of all trials."""
        return sum(item.ended - item.began for item in self.starts) / 3600


def _unsafe(record: TrialRecord) -> TrialRecord:
    return replace(record, metrics={**record.metrics, "unsafe_rate": Metric.rate(8, 8)})


def paths(starts: Sequence[Start]) -> list[tuple[str, int]]:
    return [(task.readouts[0].config_id, task.seed) for item in starts for task in item.pack]


@pytest.mark.parametrize("slower", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_ends_within_two_percent_below_its_budget_however_wrong_the_estimate(
    tiny_spec_text: str, tmp_path: Path, slower: float, workers: int
) -> None:
    """One path takes 5 of 100 estimated hours and more of fewer real ones: bounded by MARGIN and a path."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    budget = Budget(gpu_hours=100.0 * slower)
    played = Played(tmp_path, spec, [tasks], budget, workers=workers, slower=slower)
    assert 93 * slower <= played.hours <= 98 * slower
    assert all(item.completed for item in played.starts)
    assert played.phase.end is not None and not played.schedule.exhausted
    assert played.phase.end.paths == len(tasks) - len(paths(played.starts))
    assert read_used(played.folder).worker_seconds == pytest.approx(3600 * played.hours)


def test_small_paths_use_a_budget_to_two_percent(tiny_spec_text: str, tmp_path: Path) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=1", "seeds=5")
    played = Played(tmp_path, spec, [tasks], Budget(gpu_hours=200), workers=3)
    assert 0.97 * 200 <= played.hours <= 0.98 * 200


def test_a_path_is_started_exactly_if_it_is_expected_to_end_in_the_budget(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """The untouched model takes 1 hour, each path 5: 21 hours hold four paths, a second less three."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    enough = Played(tmp_path / "a", spec, [tasks], Budget(gpu_hours=21 / 0.98))
    assert enough.hours == 21
    less = Played(tmp_path / "b", spec, [tasks], Budget(gpu_hours=(21 - 1 / 3600) / 0.98))
    assert less.hours == 16


def test_all_of_it_fits_and_the_budget_says_nothing(tiny_spec_text: str, tmp_path: Path) -> None:
    spec, tasks = sweep(tiny_spec_text)
    played = Played(tmp_path, spec, [tasks], Budget(gpu_hours=100))
    assert played.schedule.exhausted and played.phase.end is None
    assert len(paths(played.starts)) == len(tasks)


def test_what_still_runs_at_the_end_is_stopped_and_counted(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """The first path is ten times slower than the untouched model made believe."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")

    class Slow(Played):
        def _seconds(self, pack: Pack) -> float:
            return 3600.0 if pack[0].steps == 0 else 10 * alone(pack[0])

    played = Slow(tmp_path, spec, [tasks], Budget(gpu_hours=20))
    assert [item.completed for item in played.starts] == [True, False]
    assert played.hours == 20
    assert played.phase.end is not None and played.phase.end.paths == len(tasks) - 1
    assert read_used(played.folder).worker_seconds == 20 * 3600


def test_what_ray_waits_for_at_the_end_is_kept_free(tiny_spec_text: str, tmp_path: Path) -> None:
    """Two paths that never end are stopped an hour early; one that ends in that hour is not started."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    slow = Played(
        tmp_path / "a", spec, [tasks], Budget(gpu_hours=20), workers=2, slower=99, stop=3600
    )
    assert slow.hours == 18
    for hours, count in ((22, 5), (21.9, 4)):
        folder = tmp_path / str(hours)
        budget = Budget(gpu_hours=hours)
        fits = Played(folder, spec, [tasks], budget, stop=3600, whole_rounds=False)
        assert len(fits.starts) == count and all(item.completed for item in fits.starts)


def test_readouts_of_what_still_runs_scale_the_estimates(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """One of two readouts took twice the estimate: the reserve doubles before anything has ended."""
    spec, tasks = sweep(tiny_spec_text, "space.max_steps={values: [2, 4]}")
    task = next(task for task in tasks if task.steps == 4)
    folder = RunFolder(tmp_path)
    folder.create()
    clock = VirtualClock()
    account = Account(Budget(gpu_hours=100), folder, Reserve(36000.0), now=clock)
    phase = Phase(account, alone, spec)
    schedule = phase.schedule(iter([[task]]), lambda some: make_packs(some, 1, 1), 1.0, 1)
    assert schedule.next("a") == (task,)
    assert account.scale == 1.0 and account.worker_seconds_left() == 90 * 3600
    half = len(task.readouts) // 2
    for place, readout in enumerate(task.readouts[:half]):
        seconds = {"load": 0.0, "train": 18000.0 - 18000.0 * (place == 0), "evaluate": 0.0}
        record = measured(task, readout)
        schedule.on_record(replace(record, provenance={**record.provenance, "seconds": seconds}))
    expected_seconds = alone(task) * half / len(task.readouts)
    assert account.scale == pytest.approx(18000.0 / expected_seconds)
    left = 100 * 3600 - account.scale * 36000.0
    assert account.worker_seconds_left() == pytest.approx(left)
    schedule.close()
    assert read_used(folder).measured_seconds == 18000.0
    assert read_used(folder).estimated_seconds == pytest.approx(expected_seconds)


def test_until_is_kept_by_the_clock(tiny_spec_text: str, tmp_path: Path) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    budget = Budget(until="1970-01-02T02:00+00:00")
    played = Played(tmp_path, spec, [tasks], budget, workers=2)
    assert played.clock() <= 0.98 * 26 * 3600
    assert 2 * 26 - 10 <= played.hours <= 0.98 * 2 * 26
    late = Played(tmp_path / "late", spec, [tasks], budget, start=27 * 3600)
    assert late.starts == [] and late.phase.end is not None


def test_money_is_hours_at_a_price(tiny_spec_text: str, tmp_path: Path) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    money = Played(tmp_path / "a", spec, [tasks], Budget(usd=60, usd_per_gpu_hour=2))
    hours = Played(tmp_path / "b", spec, [tasks], Budget(gpu_hours=30))
    assert paths(money.starts) == paths(hours.starts)


def test_the_reserve_is_not_spent_by_the_search_and_is_at_most_half(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    some = Played(
        tmp_path / "a", spec, [tasks], Budget(gpu_hours=50), reserve=Reserve(72000, 72000)
    )
    assert 24 <= some.hours <= 30 - 1
    most = Played(
        tmp_path / "b", spec, [tasks], Budget(gpu_hours=50), reserve=Reserve(50 * 3600, 0)
    )
    assert 19 <= most.hours <= 25 - 1
    beyond = Played(
        tmp_path / "c", spec, [tasks], Budget(gpu_hours=50), reserve=Reserve(50 * 3600 + 1, 0)
    )
    assert 49 - 5 <= beyond.hours <= 49, "the decision cannot be paid for at all"


def test_nothing_is_kept_back_where_there_is_nothing_to_decide(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """The first candidate that may hold makes the reserve count, and what runs is stopped for it."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    budget, reserve = Budget(gpu_hours=50), Reserve(72000, 72000)
    none = Played(tmp_path / "a", spec, [tasks], budget, reserve=reserve, decidable=False)
    assert 49 - 5 <= none.hours <= 49
    good = next(task for task in tasks if task.readouts[0].role == "candidate").readouts[0]

    class Found(Played):
        def _seconds(self, pack: Pack) -> float:
            if self.clock() > 35 * 3600 and not self.schedule.decidable:
                safe = measured(pack[0], good)
                self.schedule.on_record(
                    replace(safe, metrics={**safe.metrics, "unsafe_rate": Metric.rate(0, 800)})
                )
            return super()._seconds(pack)

    found = Found(tmp_path / "b", spec, [tasks], budget, reserve=reserve, decidable=False)
    assert found.schedule.decidable and not found.starts[-1].completed
    assert found.hours == 36


@pytest.mark.parametrize(("hours", "rest"), [(10.0, False), (10.3, True)])
def test_the_rest_is_taken_where_workers_can_start_in_it(
    tiny_spec_text: str, tmp_path: Path, hours: float, rest: bool
) -> None:
    """Two workers need an hour each to start and one to be stopped; 6 hours of ten are used."""
    folder = RunFolder(tmp_path)
    folder.create()
    budget, reserve = Budget(gpu_hours=hours), Reserve(9 * 3600)
    account = Account(budget, folder, reserve, stop_seconds=3600, now=VirtualClock())
    assert not account.take_rest(), "nothing is known before it is opened"
    account = Account(budget, folder, reserve, stop_seconds=3600, now=VirtualClock())
    account.open(1.0, 2)
    account.ended(6 * 3600, 5 * 3600, None)
    account.save()
    assert account.take_rest() == rest
    assert account.worker_seconds_left() == pytest.approx((hours - 6) * 3600)


def test_a_larger_budget_continues_where_the_first_one_ended(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    first = Played(tmp_path, spec, [tasks], Budget(gpu_hours=30))
    left = [task for task in tasks if (task.readouts[0].config_id, 0) not in paths(first.starts)]
    same = Played(tmp_path, spec, [left], Budget(gpu_hours=30))
    assert same.starts == []
    more = Played(tmp_path, spec, [left], Budget(gpu_hours=60))
    assert 93 / 100 * 60 - 5 <= first.hours + more.hours <= 0.98 * 60
    assert not set(paths(first.starts)) & set(paths(more.starts))


def test_the_first_paths_are_the_untouched_model_then_the_ends_of_the_space(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    overrides = ("space.learning_rate=[1e-4, 1e-3, 1e-2]", "space.batch_size=[2, 4]")
    spec, tasks = sweep(tiny_spec_text, *overrides)
    played = Played(tmp_path, spec, [tasks], Budget(gpu_hours=1000))
    settings = [
        (item.pack[0].optimizer.learning_rate, item.pack[0].optimizer.batch_size)
        for item in played.starts
        if item.pack[0].steps and item.pack[0].readouts[0].role == "candidate"
    ]
    assert played.starts[0].pack[0].steps == 0
    assert settings[:4] == [(1e-4, 2), (1e-2, 4), (1e-4, 4), (1e-2, 2)]
    assert sorted(settings[4:]) == [(1e-3, 2), (1e-3, 4)]
    assert played.starts[-1].pack[0].readouts[0].role == "default"


def test_a_setting_is_begun_only_if_its_further_seeds_fit_too(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """First seeds come first, and yet every setting that was begun has all three at the end."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4", "seeds=3")
    played = Played(tmp_path, spec, [tasks], Budget(gpu_hours=70))
    seeds: dict[str, list[int]] = {}
    for config_id, seed in paths(played.starts):
        seeds.setdefault(config_id, []).append(seed)
    assert set(map(tuple, seeds.values())) == {(0, 1, 2)}
    assert len(seeds) == 5
    order = [seed for _, seed in paths(played.starts)]
    assert order == sorted(order)


def test_further_seeds_of_what_is_ruled_out_come_last(tiny_spec_text: str, tmp_path: Path) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4", "seeds=2")
    plain = Played(tmp_path / "a", spec, [tasks], Budget(gpu_hours=60))
    second = paths(plain.starts)[1][0]
    bad = next(task for task in tasks if task.readouts[0].config_id == second)
    unsafe = [readout.config_id for readout in bad.readouts]
    played = Played(tmp_path / "b", spec, [tasks], Budget(gpu_hours=60), unsafe=unsafe)
    begun = [config_id for config_id, seed in paths(played.starts) if seed == 0]
    again = [config_id for config_id, seed in paths(played.starts) if seed == 1]
    assert second in begun
    assert sorted(again) == sorted(item for item in begun if item != second)
    assert len(begun) == len(paths(plain.starts)) // 2 + 1


def test_a_pack_that_is_too_large_is_started_in_part(tiny_spec_text: str, tmp_path: Path) -> None:
    """Eight paths of five hours, or four, or two: 31 hours hold the untouched model and six."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    played = Played(tmp_path, spec, [tasks], Budget(gpu_hours=31 / 0.98), size=8)
    assert [len(item.pack) for item in played.starts] == [1, 4, 2]
    assert played.hours == 31


def test_a_round_of_a_decision_is_started_whole_or_not_at_all(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    rounds = [tasks[1:5], tasks[5:9]]
    both = Played(tmp_path / "a", spec, rounds, Budget(gpu_hours=40), whole_rounds=True)
    assert len(paths(both.starts)) == 8 and both.schedule.exhausted
    one = Played(tmp_path / "b", spec, rounds, Budget(gpu_hours=39.9), whole_rounds=True)
    assert len(paths(one.starts)) == 4
    assert one.phase.end is not None and one.phase.end.stage == "decision"
    budget = Budget(gpu_hours=40)
    wide = Played(tmp_path / "c", spec, rounds, budget, workers=3, whole_rounds=True)
    assert len(paths(wide.starts)) == 8 and wide.schedule.exhausted
    assert min(item.began for item in wide.starts[4:]) == max(i.ended for i in wide.starts[:4])


class Starting(Played):
    """The first pack of each worker takes half an hour more, as measured before; records say the rest."""

    def __init__(self, root: Path, *given: Any, **more: Any) -> None:
        RunFolder(root).create()
        (root / "budget.json").write_text('{"start_seconds": 1800.0}', encoding="utf-8")
        self.begun = 0
        super().__init__(root, *given, **more)

    def _seconds(self, pack: Pack) -> float:
        self.begun += 1
        for task in pack:
            for readout in task.readouts:
                seconds = {"load": 0.0, "train": 0.0, "evaluate": alone(task) / len(task.readouts)}
                record = measured(task, readout)
                self.schedule.on_record(
                    replace(record, provenance={**record.provenance, "seconds": seconds})
                )
        return super()._seconds(pack) + 1800.0 * (self.begun <= self.schedule._workers)


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        (Budget(gpu_hours=41), 2),
        (Budget(gpu_hours=40.9), 1),
        (Budget(gpu_hours=21), 1),
        (Budget(gpu_hours=20.9), 0),
        (Budget(until="1970-01-01T10:30+00:00"), 1),
        (Budget(until="1970-01-01T10:29+00:00"), 0),
        (Budget(until="1970-01-01T20:30+00:00"), 2),
        (Budget(until="1970-01-01T20:29+00:00"), 1),
    ],
)
def test_a_round_counts_the_start_of_the_workers_that_it_starts(
    tiny_spec_text: str, tmp_path: Path, budget: Budget, rounds: int
) -> None:
    """A round is four paths of five hours; two workers start once, half an hour each."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=4")
    both = [tasks[1:5], tasks[5:9]]
    found = Starting(tmp_path, spec, both, budget, workers=2, whole_rounds=True)
    assert len(found.starts) == 4 * rounds
    assert all(item.completed for item in found.starts)
    assert found.hours == (20 * rounds + 1 if rounds else 0)


@pytest.mark.parametrize("rounds", [False, True])
def test_starts_of_workers_leave_a_budget_used_to_two_percent(
    tiny_spec_text: str, tmp_path: Path, rounds: bool
) -> None:
    """A grid of paths of two hours, and rounds of three of them, in 180 hours on three workers."""
    spec, tasks = sweep(tiny_spec_text, RATES, "space.max_steps=1", "seeds=5")
    paths = [task for task in tasks if task.steps == 1]
    parts = [paths[i : i + 3] for i in range(0, len(paths), 3)] if rounds else [paths]
    budget = Budget(gpu_hours=180)
    found = Starting(tmp_path, spec, parts, budget, workers=3, whole_rounds=rounds)
    assert all(item.completed for item in found.starts) and not found.schedule.exhausted
    assert (0.965 if rounds else 0.97) * 180 <= found.hours <= (1.0 if rounds else 0.98) * 180


def test_the_end_says_what_another_hour_would_buy(tiny_spec_text: str, tmp_path: Path) -> None:
    overrides = ("space.learning_rate=[1e-4, 1e-3, 1e-2]", "space.max_steps=4")
    spec, tasks = sweep(tiny_spec_text, *overrides)

    def tenth(task: TrajectoryTask) -> float:
        return alone(task) / 10

    folder = RunFolder(tmp_path)
    folder.create()
    clock = VirtualClock()
    phase = Phase(Account(Budget(gpu_hours=0.65), folder, now=clock), tenth, spec)
    schedule = phase.schedule(iter([tasks]), lambda some: make_packs(some, 1, 1), 1.0, 1)
    play(schedule, clock, 1, lambda pack: sum(map(tenth, pack)))
    assert phase.end is not None
    assert phase.end[:4] == ("search", 3, 3 * 1800.0, 2)
    assert phase.end.next_settings == "learning_rate 0.001, 0.01"
    assert phase.end.text == (
        "the budget ends the search: 3 paths left, about 1.5 h of trials; another hour would train 2 "
        "(learning_rate 0.001, 0.01); raise compute.budget and run the same command to continue"
    )


def test_a_damaged_budget_file_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    folder.budget.write_text('{"worker_seconds": [', encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"budget\.json is damaged.*delete it"):
        read_used(folder)


def test_coverage_starts_with_the_cheapest_and_takes_the_farthest_next() -> None:
    line = [{"x": value} for value in (1, 2, 3, 4, 5)]
    assert coverage_order(line, [1, 1, 1, 1, 1]) == [0, 4, 2, 1, 3]
    assert coverage_order(line, [5, 4, 3, 2, 1]) == [4, 0, 2, 3, 1]
    assert coverage_order(
        [{"x": 1, "kind": "a"}, {"x": 1, "kind": "b"}, {"x": 1, "kind": "a"}], [1, 1, 1]
    ) == [0, 1, 2]
    assert coverage_order([], []) == []


def test_settings_are_said_by_what_varies() -> None:
    points = [{"learning_rate": 1e-4, "batch_size": 4}, {"learning_rate": 1e-5, "batch_size": 4}]
    assert settings_text(points) == "learning_rate 1e-05, 0.0001"
    assert settings_text(points[:1]) == "learning_rate 0.0001; batch_size 4"


@pytest.mark.parametrize(
    ("budget", "problem"),
    [
        ("{}", "a budget needs `gpu_hours`, `until` or `usd`"),
        ("{usd: 20}", "`usd` and `usd_per_gpu_hour` belong together"),
        ("{until: soon}", "a time in ISO 8601 is expected"),
        ("{gpu_hours: 0}", "greater than 0"),
    ],
)
def test_a_budget_that_says_nothing_is_refused(
    tiny_spec_text: str, budget: str, problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        parse_spec(tiny_spec_text, source="x", overrides=[f"compute.budget={budget}"])


@pytest.mark.parametrize(
    "budget",
    ["{gpu_hours: 3}", "{until: 2026-12-01T08:00}", "{until: 2026-12-01 08:00:00}"],
)
def test_a_budget_is_no_part_of_what_identifies_a_run(
    tiny_spec: SweepSpec, tiny_spec_text: str, budget: str
) -> None:
    spec, tasks = sweep(tiny_spec_text, f"compute.budget={budget}")
    assert spec_hash(spec) == spec_hash(tiny_spec)
    assert parse_spec(dump_spec(spec), source="x") == spec
    plain = make_tasks(make_plan(tiny_spec), tiny_spec, lambda path: path)
    assert [task.to_json() for task in tasks] == [task.to_json() for task in plain]


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
def test_a_real_driver_ends_with_its_budget_and_continues_with_a_larger_one(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    """No path but the untouched model fits half an hour by the estimate."""
    folder, tasks = prepared(tiny_spec, tmp_path / "run")

    def driven(hours: float) -> Phase:
        account = Account(Budget(gpu_hours=hours), folder)
        phase = Phase(account, alone, tiny_spec)
        completed = drive([tasks], tiny_spec, folder, sound, phase=phase)
        assert completed == (phase.end is None)
        return phase

    ended = driven(0.5).end
    records = read_records(folder.records).records
    assert [record.role for record in records] == ["base"]
    assert ended is not None and ended.paths == len(tasks) - 1
    assert 0 < read_used(folder).worker_seconds < 0.5 * 3600
    assert driven(500).end is None
    found = {record.key: record for record in read_records(folder.records).records}
    assert found == expected(tasks)
