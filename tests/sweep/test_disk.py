"""Disk and memory: what a run needs, what it keeps, where it stops, and what can be deleted."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.factories import base_record, make_record, make_spec, make_sweep
from support.world import World, spec_text

from sweeper.analysis import find_front, non_dominated, recommend
from sweeper.errors import DiskQuotaError, RunFolderError, SpecError
from sweeper.estimate import DiskNeed, Tokens, disk_need, expected_front, memory_facts
from sweeper.estimate.inputs import counted_characters
from sweeper.export.weights import export_weights, is_measured
from sweeper.memory import GIB, memory, read_shape, state_bytes
from sweeper.planning import make_plan, make_tasks
from sweeper.runs.clean import clean, leftovers
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash
from sweeper.store.folder import RUN_VERSION, RunFolder, TrialStorage
from sweeper.store.lock import DriverLock
from sweeper.store.records import RecordWriter, TrialRecord, read_records
from sweeper.sweep.disk import (
    SHARE,
    RateLimited,
    check_disk,
    free_disk_bytes,
    quota_check,
    used_bytes,
)
from sweeper.sweep.retention import WeightRetention, retained_ids, ruled_out, weight_files
from sweeper.sweep.run import SweepCallbacks, SweepOptions, run_sweep
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory

TOKENS = Tokens(12, 64, 14, 200, 64, 84, 60, "counted")

Shadowed = Callable[[int], SweepSpec]


def tiny(world: World, *overrides: str) -> SweepSpec:
    return parse_spec(spec_text(world), overrides=["constraints=[]", *overrides])


def averages(decays: int) -> str:
    shadows = [f"{{kind: ema, decay: 0.{9 - i}}}" for i in range(decays)]
    return f"space.average={{values: [{', '.join(['raw', *shadows])}]}}"


def candidates(spec: SweepSpec) -> list[TrajectoryTask]:
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return [task for task in tasks if task.readouts[0].role == "candidate"]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("decays", [0, 1, 3])
def test_a_checkpoint_has_the_size_that_is_planned(
    tiny_world: World, tmp_path: Path, method: str, decays: int
) -> None:
    spec = tiny(tiny_world, f"tuning.method={method}", averages(decays))
    task = candidates(spec)[0]
    storage = TrialStorage(tmp_path, task.trajectory_id)
    records = run_trajectory(task, storage)
    next(records)
    shape = read_shape(str(tiny_world.model))
    expected = state_bytes(shape, task.tuning, "float32", decays)
    found = sorted(path.stat().st_size for path in storage.checkpoints())
    assert found and all(expected < size < expected * 1.1 + 20_000 for size in found)
    assert expected == (12 + 4 * decays) * shape.trainable(task.tuning)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_k_shadows_cost_k_times_the_trained_weights_in_the_memory_plan(
    tiny_world: World, device: str
) -> None:
    shape = read_shape(str(tiny_world.model))
    peaks, shadows = [], []
    for decays in range(4):
        spec = tiny(tiny_world, "tuning.method=full", averages(decays))
        heaviest = max(make_plan(spec).trajectories, key=lambda item: len(item.configurations))
        facts = memory_facts(heaviest, spec, shape, TOKENS, device)  # type: ignore[arg-type]
        assert facts.shadows == decays
        parts = memory(facts)
        shadows.append(parts.shadows)
        peaks.append(parts.resident_bytes)
    trained = shape.parameters
    assert shadows == [0, 4 * trained, 8 * trained, 12 * trained]
    assert [later - peaks[0] for later in peaks] == shadows


def test_the_need_follows_from_sizes(tiny_world: World) -> None:
    shape = read_shape(str(tiny_world.model))

    def need(workers: int, *overrides: str) -> DiskNeed:
        spec = tiny(tiny_world, "compute.adapters_per_trial=1", *overrides)
        return disk_need(make_plan(spec), spec, shape, TOKENS, workers)

    one, two = need(1), need(2)
    assert two.checkpoints > one.checkpoints and need(99).checkpoints == need(3).checkpoints
    assert replace(two, checkpoints=0) == replace(one, checkpoints=0)
    assert (
        need(1, "compute.adapters_per_trial=4").checkpoints > one.checkpoints
    )  # Two of a batch size.
    assert one.weights == 0
    readouts = sum(
        len(item.configurations) for item in make_plan(tiny(tiny_world)).trajectories if item.steps
    )
    trained = 4096 + 4 * shape.trainable(candidates(tiny(tiny_world))[0].tuning)
    assert need(1, "compute.keep_weights=all").weights == readouts * trained
    assert 0 < need(1, "compute.keep_weights=front").weights < readouts * trained
    seeds = need(1, "compute.keep_weights=front", "seeds=[0, 1]")
    assert seeds.weights == need(1, "compute.keep_weights=all", "seeds=[0, 1]").weights
    parts = one.to_data()
    assert parts.pop("total_bytes") == sum(parts.values()) == one.total_bytes


def test_the_expected_front_is_that_of_independent_points() -> None:
    assert expected_front(0, 2) == 0 and expected_front(7, 1) == 1
    assert expected_front(4, 2) == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4)
    draw = random.Random(3)
    for points, objectives in ((10, 2), (12, 3)):
        sizes = []
        for _ in range(2000):
            rows = [[draw.random() for _ in range(objectives)] for _ in range(points)]
            sizes.append(int(non_dominated(rows).sum()))  # type: ignore[arg-type]
        assert sum(sizes) / len(sizes) == pytest.approx(
            expected_front(points, objectives), rel=0.05
        )


def test_a_run_that_does_not_fit_is_refused_with_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = DiskNeed(3 * GIB, 2 * GIB, GIB // 2, 0, 0)
    folder = RunFolder(tmp_path / "runs" / "none yet")
    spec = make_spec("compute.disk_quota_gib=5", "compute.keep_weights=front")
    with pytest.raises(DiskQuotaError) as refused:
        check_disk(need, spec, folder)
    text = str(refused.value)
    assert "5.50 GiB" in text and "checkpoints 3.00 GiB, weights 2.00 GiB" in text
    assert "disk_quota_gib is 5 GiB" in text and "keep_weights: front" in text
    check_disk(need, make_spec("compute.disk_quota_gib=5.5"), folder)
    assert free_disk_bytes(folder.root) == pytest.approx(free_disk_bytes(tmp_path), rel=0.1)
    monkeypatch.setattr("sweeper.sweep.disk.free_disk_bytes", lambda path: 5 * GIB)
    with pytest.raises(DiskQuotaError, match=r"5\.00 GiB are free.*--no-disk-check"):
        check_disk(need, make_spec(), folder)
    folder.root.mkdir(parents=True)
    with (folder.root / "before").open("wb") as file:  # A hole: its size without its blocks.
        file.truncate(GIB // 2)
    check_disk(need, make_spec(), folder)


@pytest.mark.parametrize("value", ["keep_weights: some", "disk_quota_gib: 0", "mirror: /disk"])
def test_other_values_are_refused(value: str) -> None:
    name, _, word = value.partition(": ")
    with pytest.raises(SpecError, match=f"compute.{name}"):
        make_spec(f"compute.{name}={word}")


def test_what_is_kept_and_where_does_not_make_another_run() -> None:
    same = ("keep_weights=all", "disk_quota_gib=3", "mirror=s3://bucket/a/b")
    for value in same:
        spec = make_spec(f"compute.{value}")
        assert spec_hash(spec) == spec_hash(make_spec())
        assert parse_spec(dump_spec(spec)) == spec


def test_the_quota_stops_a_run_once_the_folder_is_larger(tmp_path: Path) -> None:
    folder, record = RunFolder(tmp_path), make_record()
    spec = make_spec("compute.disk_quota_gib=0.001")
    on_record = quota_check(spec, folder, iter(range(0, 9999, 30)).__next__)
    on_record(record)
    (tmp_path / "large").write_bytes(b"x" * 1_100_000)
    with pytest.raises(DiskQuotaError, match=r"1\.05 MiB.*is 0\.001 GiB.*sweeper clean"):
        for _ in range(99):
            on_record(record)
    quota_check(make_spec(), folder)(record)


def test_what_takes_long_is_done_seldom() -> None:
    now, done = [0.0], list[float]()

    def work() -> None:
        done.append(now[0])
        now[0] += 1

    paced = RateLimited(work, lambda: now[0])
    for _ in range(200):
        paced()
        now[0] += 0.5
    assert len(done) <= SHARE * now[0] + 1
    assert done[:3] == [0, 21, 42]


def with_seeds(spec: SweepSpec, draw: random.Random) -> list[TrialRecord]:
    """The synthetic sweep under both seeds, in any order, some of it failed."""
    records = make_sweep(spec, seed=draw.randrange(99))
    spoilt = set(draw.sample(range(len(records)), 6))
    reason = {"class": "E", "message": "m", "traceback": "", "stage": "train"}
    records = [
        replace(item, status="failed", reason=reason, metrics={}, samples={})
        if number in spoilt and item.role != "base"
        else item
        for number, item in enumerate(records)
    ]
    draw.shuffle(records)
    return records


@pytest.mark.parametrize("seed", range(6))
def test_what_is_ruled_out_early_is_never_kept_in_the_end(seed: int) -> None:
    draw = random.Random(seed)
    spec = make_spec("seeds=[0, 1]")
    records = with_seeds(spec, draw)
    end = find_front(records, spec)
    kept = retained_ids(end, spec)
    assert kept >= {item.config_id for item in end.members}
    out: set[str] = set()
    for count in range(1, len(records) + 1):
        found = ruled_out(find_front(records[:count], spec), spec)
        assert out <= {item.config_id for item in found} | {records[count - 1].config_id}
        out = {item.config_id for item in found}
        assert not out & kept, f"after {count} records"
    untouched = {item.config_id for item in end.candidates if item.role == "base"}
    assert out == {item.config_id for item in end.candidates} - kept - untouched


def test_before_further_seeds_nothing_that_is_feasible_is_ruled_out() -> None:
    spec = make_spec("search.refine={budget: 1000}")
    found = find_front(make_sweep(spec), spec)
    out = ruled_out(found, spec)
    assert all(not item.feasible for item in out) and out
    assert len(ruled_out(found, make_spec())) > len(out)


@pytest.fixture
def weighty(tmp_path: Path) -> Iterator[tuple[RunFolder, SweepSpec, list[TrialRecord]]]:
    """A folder with a file of weights for every configuration of the synthetic sweep, no records yet."""
    spec = make_spec("compute.keep_weights=front")
    folder, records = RunFolder(tmp_path / "run"), make_sweep(spec)
    for record in records:
        storage = folder.trial(record.trajectory_id)
        storage.create()
        storage.weights(record.config_id).write_bytes(b"w" * 100)
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    folder.info.write_text(json.dumps({"version": RUN_VERSION}), encoding="utf-8")
    yield folder, spec, records


def names(folder: RunFolder) -> set[str]:
    return {config_id for config_id, _ in weight_files(folder)}


Weighty = tuple[RunFolder, SweepSpec, list[TrialRecord]]


def test_weights_go_as_records_come_and_the_front_stays(weighty: Weighty) -> None:
    folder, spec, records = weighty
    half = len(records) // 2
    weights = WeightRetention(spec, folder)
    weights.start()
    for record in records[:half]:
        weights.on_record(record)
    weights.finish(completed=False)
    unknown = {record.config_id for record in records[half:]}
    assert unknown <= names(folder) and len(names(folder)) < len(records)
    writer = RecordWriter(folder.records)  # That driver was killed; the next finds what it left.
    for record in records[:half]:
        writer.append(record)
    writer.close()
    storage = folder.trial(records[0].trajectory_id)
    torn = storage.trajectory / f".{records[0].config_id}.weights.safetensors.77.tmp"
    torn.write_bytes(b"half")
    storage.weights(records[0].config_id).write_bytes(b"an orphan, or of the front")
    weights = WeightRetention(spec, folder)
    weights.start()
    assert not torn.exists()
    for record in records[half:]:
        weights.on_record(record)
    weights.finish(completed=True)
    found = find_front(records, spec)
    chosen = recommend(found, spec).chosen
    assert chosen is not None and found.members
    assert names(folder) == {item.config_id for item in found.members} | {chosen.config_id}


@pytest.mark.parametrize("keep", ["all", "none"])
def test_nothing_is_deleted_where_nothing_is_to_be(weighty: Weighty, keep: str) -> None:
    folder, _, records = weighty
    spec = make_spec(f"compute.keep_weights={keep}")
    weights = WeightRetention(spec, folder)
    weights.start()
    for record in records:
        weights.on_record(record)
    weights.finish(completed=True)
    assert names(folder) == {record.config_id for record in records}


def test_clean_names_what_can_go_and_deletes_nothing_else(weighty: Weighty) -> None:
    folder, spec, records = weighty
    first = make_plan(spec).trajectories[0]
    records += [
        make_record(identity=one.config_id, unsafe=(200, 256)) for one in first.configurations
    ]
    folder.records.write_text("".join(f"{r.to_json()}\n" for r in records), encoding="utf-8")
    done = folder.trial(first.trajectory_id)
    for storage in (done, open_ := folder.trial("0123456789")):
        storage.create()
        storage.checkpoint.write_bytes(b"c" * 50)
        storage.checkpoint.with_name("checkpoint-before.safetensors").write_bytes(b"b" * 40)
        storage.outgoing("ab").write_text("{}", encoding="utf-8")
    (done.generations("ab", 0)).write_text("{}\n", encoding="utf-8")
    folder.ray.mkdir()
    (folder.ray / "state").write_bytes(b"r" * 30)
    before = used_bytes(folder.root)
    found = {item.what: item for item in leftovers(folder, spec)}
    assert {name: item.size_bytes for name, item in found.items()} == {
        "checkpoints of finished trajectories": 90,
        "outboxes of finished trajectories": 2,
        "Ray's temporary files": 30,
    }
    everything = leftovers(folder, spec, checkpoints=True, weights=True, responses=True)
    size = sum(item.size_bytes for item in everything)
    assert used_bytes(folder.root) == before
    with DriverLock(folder):
        for refused in (lambda: leftovers(folder, spec), lambda: clean(folder, everything)):
            with pytest.raises(RunFolderError, match=r"driver|process"):
                refused()
    clean(folder, everything)
    assert used_bytes(folder.root) - folder.lock.stat().st_size == before - size
    assert names(folder) == retained_ids(find_front(records, spec), spec)
    assert open_.outgoing("ab").exists() and not open_.checkpoint.exists()
    assert not done.outbox.exists() and not folder.ray.exists()
    assert len(read_records(folder.records).records) == len(records)
    assert leftovers(folder, spec, checkpoints=True, weights=True, responses=True) == []


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__)
    monkeypatch.setenv(
        "PYTHONPATH",
        f"{here.parents[2]}:{here.parents[1]}:{here.parent}",
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.slow
def test_a_sweep_keeps_to_its_quota_then_keeps_its_front_and_exports_it(
    tiny_world: World, tmp_path: Path, ray_here: None
) -> None:
    overrides = ("compute.keep_weights=front", "compute.max_concurrent_trials=1")
    folder = RunFolder(tmp_path / "run")
    tight = tiny(tiny_world, *overrides, "compute.disk_quota_gib=2e-5")
    needs: list[DiskNeed] = []
    with pytest.raises(DiskQuotaError, match="the run needs about"):
        run_sweep(tight, folder.root)
    with pytest.raises(DiskQuotaError, match="the same command continues"):
        run_sweep(
            tight,
            folder.root,
            SweepOptions(disk_check=False),
            SweepCallbacks(on_disk_need=needs.append),
        )
    begun = read_records(folder.records).records
    spec = tiny(tiny_world, *overrides, "compute.disk_quota_gib=1")
    peaks: list[int] = []
    ended = run_sweep(
        spec,
        folder.root,
        callbacks=SweepCallbacks(on_record=lambda record: peaks.append(used_bytes(folder.root))),
    )
    records = read_records(folder.records).records
    assert ended.completed and len(begun) >= 1 and records[: len(begun)] == begun
    assert {record.key for record in records} == ended.keys
    front = find_front(records, spec)
    kept = {item.config_id for item in front.members}
    assert kept and kept == names(folder) and len(kept) < len(records)
    assert not list(folder.trajectories.glob("*/checkpoint*"))
    assert max(peaks) / 4 < needs[0].total_bytes
    item = front.members[0]
    file = folder.trial(item.records[0].trajectory_id).weights(item.config_id)
    assert is_measured(file, item.records[0])
    found = export_weights(folder, spec, item, tmp_path / "export")
    assert "kept by the sweep: bit for bit" in found.comparison and found.same
    trained = file.read_bytes()
    file.write_bytes(trained[:-1] + bytes([trained[-1] ^ 1]))
    again = export_weights(folder, spec, item, tmp_path / "again")
    assert "trained again alone" in again.comparison
    adapters = [place.folder / "adapter_model.safetensors" for place in (found, again)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes() or not again.same
    assert adapters[0].stat().st_size > 0


def test_tokens_for_the_estimate_are_those_of_the_data(tiny_world: World) -> None:
    tokens = counted_characters(make_tasks(make_plan(tiny(tiny_world)), tiny(tiny_world), str)[0])
    assert tokens.prompts == 8 + 6 + 6


def test_the_base_model_keeps_no_weights(tiny_world: World) -> None:
    spec = tiny(tiny_world, "compute.keep_weights=all")
    kept = {
        task.segments[-1].stop > 0: task.compute.keeps_weights
        for task in make_tasks(make_plan(spec), spec, str)
    }
    assert kept == {False: False, True: True}
    assert base_record().role == "base"
