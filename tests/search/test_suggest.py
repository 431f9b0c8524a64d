"""Which settings an adaptive search asks for: rounds on disk, samplers, warm starts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import adaptive_search as benchmark
import numpy as np
import pytest
from support.raising import raises

from sweeper.analysis import find_front
from sweeper.errors import RunFolderError, SpecError
from sweeper.planning import Point, make_plan, points_of
from sweeper.runs.imported import import_run
from sweeper.search.adaptive import suggestions, warm_start
from sweeper.search.rounds import already_suggested, append_round, read_rounds
from sweeper.search.suggest import Observation, next_points, varying_axes
from sweeper.spec import SweepSpec, dump_spec, parse_spec
from sweeper.store.folder import RUN_VERSION, RunFolder, write_atomic
from sweeper.store.records import RecordWriter, TrialRecord

SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "qmc", "random")

Records = Mapping[str, list[TrialRecord]]


@pytest.fixture(scope="module")
def space() -> SweepSpec:
    return benchmark.listed(parse_spec(benchmark.SPEC))


@pytest.fixture(scope="module")
def valley(space: SweepSpec) -> Records:
    return benchmark.surface_records(benchmark.valley, space)


def key(point: Point) -> tuple[float, int]:
    return point["learning_rate"], point["batch_size"]


def observations_of(spec: SweepSpec, records: Records, points: list[Point]) -> list[Observation]:
    known = points_of(spec, points)
    seen = [record for config_id in known for record in records[config_id]]
    by_id = {item.config_id: item for item in find_front(seen, spec).candidates}
    return [Observation(point, 1, by_id[config_id]) for config_id, point in known.items()]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_asks_for_new_points_of_the_space_and_for_the_same_ones_again(
    sampler: str, space: SweepSpec, valley: Records
) -> None:
    spec = benchmark.adaptive(space, sampler, 3, 12)
    first = next_points(spec, [], [], 4, 0)
    observations = observations_of(spec, valley, first)
    second = next_points(spec, observations, first, 4, 1)
    assert second == next_points(spec, observations, first, 4, 1)
    assert len({key(point) for point in first + second}) == 8
    for point in first + second:
        assert point["learning_rate"] in (space.space.learning_rate.values or ())
        assert point["batch_size"] in (8, 16, 32, 64)
        assert list(point)[:2] == ["learning_rate", "batch_size"]
        assert "max_steps" not in point and "average" not in point
    other = benchmark.adaptive(space, sampler, 4, 12)
    assert next_points(other, [], [], 4, 0) != first


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "qmc", "random"])
def test_a_small_space_is_asked_for_once_and_no_further(sampler: str, space: SweepSpec) -> None:
    raw = space.model_dump(mode="json", exclude_none=True)
    raw["space"] |= {"learning_rate": [1e-5, 1e-4, 1e-3], "batch_size": {"values": [8, 16]}}
    raw["space"]["learning_rate"] = {"values": [1e-5, 1e-4, 1e-3]}
    small = SweepSpec.model_validate(raw)
    spec = benchmark.adaptive(small, sampler, 0, 40)
    records = benchmark.surface_records(benchmark.ridge, small)
    drawn = next_points(spec, [], [], 4, 0)
    drawn += next_points(spec, observations_of(spec, records, drawn), drawn, 4, 1)
    assert sorted(map(key, drawn)) == [(r, b) for r in (1e-5, 1e-4, 1e-3) for b in (8, 16)]
    assert next_points(spec, observations_of(spec, records, drawn), drawn, 4, 2) == []


def test_ranges_are_asked_for_between_their_bounds_and_constants_stay(valley: Records) -> None:
    spec = parse_spec(
        benchmark.SPEC,
        overrides=[
            "search={method: optuna, n_trials: 9, batch_size: 3}",
            "space.batch_size=16",
            "space.weight_decay={low: 0.0, high: 0.1}",
            "space.lr_scheduler_type={values: [constant, linear]}",
        ],
    )
    first = next_points(spec, [], [], 3, 0)
    records = {
        config_id: [record]
        for config_id in points_of(spec, first)
        for record in [next(iter(valley.values()))[0]]
    }
    by_id = {c: find_front(r, spec).candidates[0] for c, r in records.items()}
    observations = [Observation(p, 1, by_id[c]) for c, p in points_of(spec, first).items()]
    for point in first + next_points(spec, observations, first, 3, 1):
        assert 1e-6 <= point["learning_rate"] <= 1e-3
        assert 0.0 <= point["weight_decay"] <= 0.1
        assert point["lr_scheduler_type"] in ("constant", "linear")
        assert point["batch_size"] == 16


def test_what_was_learned_is_worth_its_rounds(space: SweepSpec, valley: Records) -> None:
    """Two of three seeds reach 95 % of the grid's safe hypervolume with 40 % of its settings."""
    base = next(items for items in valley.values() if items[0].role == "base")
    whole_front = find_front([r for items in valley.values() for r in items], space).members
    worst = benchmark.reference(space, base[0])
    whole = benchmark.area(whole_front, space, worst)
    reached = 0
    for seed in range(3):
        heights = benchmark.curve(
            benchmark.adaptive(space, "tpe", seed, 20), valley, 20, float("inf")
        )
        assert heights == sorted(heights) and heights[-1] <= whole + 1e-12
        reached += heights[-1] >= 0.95 * whole
    assert reached >= 2


def test_a_round_is_a_line_and_a_torn_one_was_never_asked_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_rounds(folder) == ()
    append_round(folder, ({"learning_rate": 1e-4, "batch_size": 8},))
    append_round(folder, ({"learning_rate": 2e-4, "batch_size": 8}, {"learning_rate": 1e-3}))
    with folder.rounds.open("ab") as file:
        file.write(b'[{"learning_rate": 0.5')
    assert [len(points) for points in read_rounds(folder)] == [1, 2]
    append_round(folder, ({"learning_rate": 3e-4},))
    assert [point["learning_rate"] for point in already_suggested(folder)] == [
        1e-4,
        2e-4,
        1e-3,
        3e-4,
    ]
    folder.rounds.write_text('[{"learning_rate": 1}]\nnonsense\n', encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"rounds\.jsonl:2: not JSON; start over"):
        read_rounds(folder)


def answered(folder: RunFolder, spec: SweepSpec, records: Records, drawn: list[Point]) -> None:
    """Write what the settings measure, the latest first: the order of records must not matter."""
    writer = RecordWriter(folder.records)
    for config_id in reversed(list(points_of(spec, drawn))):
        for record in records[config_id]:
            if record.key not in writer.keys:
                writer.append(record)
    writer.close()


def test_an_interrupted_search_asks_for_what_an_undisturbed_one_does(
    space: SweepSpec, valley: Records, tmp_path: Path
) -> None:
    spec = benchmark.adaptive(space, "tpe", 0, 11)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    for folder in (whole, broken):
        folder.root.mkdir()
    for drawn in suggestions(spec, whole):
        answered(whole, spec, valley, drawn)
    for _ in range(8):  # Each time stopped after more is asked for.
        rounds: Iterator[list[Point]] = suggestions(spec, broken)
        drawn = next(rounds)
        answered(broken, spec, valley, drawn)
        next(rounds, None)
    assert [len(points) for points in read_rounds(whole)] == [4, *7 * [1]]
    assert already_suggested(broken) == already_suggested(whole)


def finished_run(root: Path, spec: SweepSpec, records: Records) -> Path:
    folder = RunFolder(root)
    folder.create()
    write_atomic(folder.spec, dump_spec(spec))
    write_atomic(folder.info, f'{{"version": {RUN_VERSION}}}')
    writer = RecordWriter(folder.records)
    for items in records.values():
        for record in items:
            writer.append(record)
    writer.close()
    return root


def test_an_earlier_run_is_learned_from_but_never_counted_as_this_ones(
    space: SweepSpec, valley: Records, tmp_path: Path
) -> None:
    earlier = finished_run(tmp_path / "earlier", space, valley)
    spec = benchmark.adaptive(space, "tpe", 0, 4)
    search = spec.search.model_copy(update={"warm_start": str(earlier)})
    warm = spec.model_copy(update={"search": search})
    observations = warm_start(warm, earlier)
    own = [c for c in make_plan(space).configurations if c.role == "candidate"]
    assert {item.candidate.config_id for item in observations} == {c.config_id for c in own}
    folder = RunFolder(tmp_path / "new")
    folder.root.mkdir()
    first = next(suggestions(warm, folder))
    assert len(first) == 4
    best = find_front([r for items in valley.values() for r in items], space).members
    cold = next_points(spec, [], [], 4, 0)

    def away(points: Iterable[Point]) -> float:
        """Orders of magnitude between the learning rates asked for and those of the front, on average."""
        middle = np.mean([np.log10(item.config["learning_rate"]) for item in best])
        return float(np.mean([abs(np.log10(p["learning_rate"]) - middle) for p in points]))

    assert away(first) < 0.8 < away(cold)


def imported(root: Path, records: Records, names: Mapping[str, str], extra: str = "") -> Path:
    """A run that another tool might have made of the same trials, with columns `names`: theirs -> ours."""
    found = [r for items in records.values() for r in items if r.role == "candidate"]
    lines = [",".join([*names, "rouge_l", "unsafe_rate"])]
    for record in found:
        settings = [str(record.config[name]) for name in names.values()]
        metrics = [repr(record.metrics[name].value) for name in ("rouge_l", "unsafe_rate")]
        lines.append(",".join([*settings, *metrics]))
    root.mkdir()
    (root / "runs.csv").write_text("\n".join([*lines, extra]), encoding="utf-8")
    return import_run(root / "runs.csv", root / "run").run.folder.root


SETTINGS = {name: name for name in ("learning_rate", "batch_size", "max_steps", "average")}


def test_an_imported_run_is_learned_from_by_names_and_values(
    space: SweepSpec, valley: Records, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = benchmark.adaptive(space, "tpe", 0, 4)
    own = warm_start(spec, finished_run(tmp_path / "own", space, valley))
    foreign = warm_start(spec, imported(tmp_path / "all", valley, SETTINGS))
    assert len(foreign) == len(own) > 0
    varying = varying_axes(spec)

    def shown(items: Iterable[Observation]) -> set[tuple[object, ...]]:
        return {
            (*(str(i.point[name]) for name in varying), i.candidate.values["rouge_l"])
            for i in items
        }

    assert shown(foreign) == shown(own)
    assert next_points(spec, foreign, [], 4, 0) == next_points(spec, foreign, [], 4, 0)
    assert not caplog.records

    elsewhere = imported(tmp_path / "more", valley, SETTINGS, "0.5,8,40,raw,0.9,0.5\n")
    assert len(warm_start(spec, elsewhere)) == len(own)
    assert f"1 of {len(own) + 1} configurations" in caplog.text
    other = {"lr_peak": "learning_rate", **{n: n for n in SETTINGS if n != "learning_rate"}}
    with pytest.raises(SpecError, match="start: learning_rate is swept here and no setting of"):
        warm_start(spec, imported(tmp_path / "other", valley, other))
    raw = spec.model_dump(mode="json", exclude_none=True)
    raw["space"]["learning_rate"] = {"values": [0.5, 0.6]}
    with pytest.raises(SpecError, match="lies in this space by its values of learning_rate, batch"):
        warm_start(SweepSpec.model_validate(raw), elsewhere.parent.parent / "all" / "run")


def test_an_earlier_run_without_these_objectives_is_refused(
    space: SweepSpec, valley: Records, tmp_path: Path
) -> None:
    earlier = finished_run(tmp_path / "earlier", space, valley)
    raw = space.model_dump(mode="json", exclude_none=True)
    raw["evaluation"]["utility_metrics"] = ["heldout_loss"]
    raw["objectives"] = [
        {"metric": "heldout_loss", "direction": "minimize"},
        {"metric": "unsafe_rate", "direction": "minimize"},
    ]
    with pytest.raises(
        SpecError, match=r"with heldout_loss, unsafe_rate; its metrics are .*rouge_l"
    ):
        warm_start(SweepSpec.model_validate(raw), earlier)
    with raises("run.not_a_run", path=tmp_path / "nothing"):
        warm_start(space, tmp_path / "nothing")
