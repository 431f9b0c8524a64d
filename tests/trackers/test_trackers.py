"""Trackers: what they show is what the records say, and what becomes of them never harms a sweep."""

import itertools
import json
import logging
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_config, make_record, make_spec, make_sweep
from support.world import World, spec_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sweeper.errors import MissingExtraError, SpecError, SweeperError
from sweeper.spec import SweepSpec, parse_spec, spec_hash
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.store.records import Metric, RecordWriter, TrialRecord, read_records
from sweeper.task import TrajectoryTask
from sweeper.trackers import Trackers, threads
from sweeper.trackers.logged import ConfigurationRun, TrajectoryRun, configuration_of

LOSSES = (2.5, 2.25, 1.75, 1.5)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tracker of the machine gets anything; what trackers set is taken back."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in threads.ENVIRONMENT:
        monkeypatch.setenv(name, threads.ENVIRONMENT[name])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder that has begun."""
    made = RunFolder(tmp_path / "run")
    made.root.mkdir()
    info = {"version": RUN_VERSION, "spec_hash": "abc", "created_at": "2026-01-01"}
    made.info.write_text(json.dumps(info))
    return made


def spec_with(*trackers: str) -> SweepSpec:
    return make_spec(f"compute.trackers=[{', '.join(trackers)}]")


def records() -> list[TrialRecord]:
    """One record for each end, of two trajectories."""
    metrics = {"unsafe_rate/zou2023": Metric.rate(3, 256), "lm_eval/arc/acc,none": Metric(0.5, 80)}
    return [
        make_record(identity="good", metrics=metrics, utility=0.75, unsafe=(4, 256)),
        make_record(identity="bad", status="failed", learning_rate=9.0),
        make_record(identity="cut", status="pruned", max_steps=160),
        make_record(identity="half", status="unscored", average="ema(0.99)"),
    ]


def end_trajectories(folder: RunFolder, found: Sequence[TrialRecord], stage: str = "end") -> None:
    for trajectory_id in {record.trajectory_id for record in found}:
        path = folder.trial(trajectory_id).progress
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TrajectoryProgress(trajectory_id, stage, 4, 4, LOSSES, 9, 1.7e9).to_json())


def send(spec: SweepSpec, folder: RunFolder, found: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Send records through, as the driver does; returns those that were passed on."""
    passed: list[TrialRecord] = []
    with Trackers(spec, folder).observing() as on_record:
        for record in found:
            on_record(record)
            passed.append(record)
    return passed


def events(path: Path) -> EventAccumulator:
    (file,) = path.glob("events.*")
    return EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()


def hparams(accumulator: EventAccumulator, part: str) -> Any:
    content = accumulator.summary_metadata[f"_hparams_/{part}"].plugin_data.content
    return getattr(HParamsPluginData.FromString(content), part)


def test_tensorboard_has_a_run_for_each_configuration_and_curve(folder: RunFolder) -> None:
    found = records()
    end_trajectories(folder, found)
    assert send(spec_with("tensorboard"), folder, found) == found
    root = folder.root / "tensorboard"
    ends = {"good": "SUCCESS", "bad": "FAILURE", "cut": "FAILURE", "half": "FAILURE"}
    assert {path.name for path in (root / "configurations").iterdir()} == {f"{n}-0" for n in ends}
    for record in found:
        read = events(root / "configurations" / f"{record.config_id}-0")
        complete = record.status == "complete"
        names = {name.replace(",", "_") for name in record.metrics}
        assert set(read.Tags()["scalars"]) == (names if complete else set())
        start = hparams(read, "session_start_info").hparams
        assert start["learning_rate"].number_value == record.config["learning_rate"]
        assert start["train.path"].string_value == "train.jsonl"
        assert start["status"].string_value == record.status
        end = hparams(read, "session_end_info").status
        assert Status.Name(end) == f"STATUS_{ends[record.config_id]}"
        assert ("reason/text_summary" in read.Tags()["tensors"]) != complete
    good = events(root / "configurations" / "good-0")
    (point,) = good.Scalars("unsafe_rate")
    assert (point.step, point.value) == (320, 4 / 256)
    for trajectory_id in {record.trajectory_id for record in found}:
        curve = events(root / "trajectories" / trajectory_id).Scalars("train/loss")
        assert [(point.step, point.value) for point in curve] == list(enumerate(LOSSES, start=1))


def test_mlflow_reads_back_runs_of_a_local_store_and_a_second_pass_replaces_them(
    folder: RunFolder,
) -> None:
    from mlflow.tracking import MlflowClient

    found = records()
    end_trajectories(folder, found)
    for _ in range(2):
        send(spec_with("mlflow"), folder, found)
    client = MlflowClient(tracking_uri=(folder.root / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("synthetic")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    trajectories = {f"trajectory-{record.trajectory_id}" for record in found}
    assert set(runs) == {"good-0", "bad-0", "cut-0", "half-0"} | trajectories
    assert len(client.search_runs([experiment.experiment_id])) == len(runs)
    good = runs["good-0"]
    assert good.info.status == "FINISHED"
    assert good.data.metrics["unsafe_rate"] == 4 / 256
    assert good.data.metrics["unsafe_rate.zou2023"] == 3 / 256
    assert good.data.metrics["lm_eval.arc.acc.none"] == 0.5
    assert good.data.metrics["rouge_l"] == 0.75
    assert good.data.params["learning_rate"] == "0.0002"
    assert good.data.params["train.path"] == "train.jsonl" and "revision" not in good.data.params
    (point,) = client.get_metric_history(good.info.run_id, "unsafe_rate")
    assert point.step == 320
    for name, status in (("bad-0", "FAILED"), ("cut-0", "KILLED"), ("half-0", "FAILED")):
        assert (runs[name].info.status, runs[name].data.metrics) == (status, {})
    assert runs["bad-0"].data.tags["sweeper.status"] == "failed"
    assert "nan at optimizer step 7" in runs["bad-0"].data.tags["sweeper.reason"]
    assert "Traceback" not in runs["bad-0"].data.tags["sweeper.reason"]
    for name in trajectories:
        history = client.get_metric_history(runs[name].info.run_id, "train.loss")
        assert [(m.step, m.value) for m in history] == list(enumerate(LOSSES, start=1))


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: protocol buffers in a LevelDB log after seven bytes of head."""
    from wandb.proto import wandb_internal_pb2

    buffers: Any = wandb_internal_pb2
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + length > len(data):
            return  # W&B's own process is still writing.
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield buffers.Record.FromString(parts)
            parts = b""


def whole_wandb_run(path: Path) -> list[Any]:
    """The records once the last one is there: W&B's own process writes on after `finish` has returned."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = list(wandb_records(path))
        if found and any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{path.name} has no end")


@pytest.mark.slow
def test_wandb_writes_runs_below_the_folder_without_a_network(folder: RunFolder) -> None:
    found = records()[:2]
    end_trajectories(folder, found[:1])
    send(spec_with("wandb"), folder, found)
    logs = {path.stem: path for path in folder.root.glob("wandb/offline-run-*/run-*.wandb")}
    sweep = threads.sweep_key(folder)
    curve = f"run-{sweep}-trajectory-{found[0].trajectory_id}"
    assert set(logs) == {f"run-{sweep}-good-0", f"run-{sweep}-bad-0", curve}
    read = {name: whole_wandb_run(path) for name, path in logs.items()}

    def of(name: str, kind: str) -> list[Any]:
        return [getattr(r, kind) for r in read[name] if r.WhichOneof("record_type") == kind]

    (good,) = of(f"run-{sweep}-good-0", "run")
    assert (good.project, good.run_group) == ("synthetic", found[0].trajectory_id)
    config = {item.key: json.loads(item.value_json) for item in good.config.update}
    assert (config["learning_rate"], config["status"]) == (0.0002, "complete")
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for part in of(f"run-{sweep}-good-0", "summary")
        for item in part.update
    }
    assert summary["unsafe_rate"] == 4 / 256 and summary["rouge_l"] == 0.75
    assert [part.exit_code for part in of(f"run-{sweep}-good-0", "exit")] == [0]
    assert [part.exit_code for part in of(f"run-{sweep}-bad-0", "exit")] == [1]
    failed = [item.key for part in of(f"run-{sweep}-bad-0", "summary") for item in part.update]
    assert not {"unsafe_rate", "rouge_l"} & set(failed)
    points = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in part.item}
        for part in of(curve, "history")
    ]
    assert [(p["_step"], p["train/loss"]) for p in points] == list(enumerate(LOSSES, start=1))


def test_a_curve_waits_until_its_trajectory_has_ended(folder: RunFolder) -> None:
    found = records()
    end_trajectories(folder, found, stage="train")
    send(spec_with("tensorboard"), folder, found)
    assert not (folder.root / "tensorboard" / "trajectories").exists()


def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.root / "in the way").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (folder.root / "in the way" / "store").as_uri())
    found = make_sweep()[:6]
    with caplog.at_level(logging.WARNING, logger="sweeper.trackers"):
        assert send(spec_with("mlflow", "tensorboard"), folder, found) == found
    said = [r.getMessage() for r in caplog.records if r.name == "sweeper.trackers"]
    assert len(said) == 1
    assert said[0].startswith("mlflow failed and is disabled; the sweep itself is")
    assert len(list((folder.root / "tensorboard" / "configurations").iterdir())) == 6


def test_a_tracker_that_hangs_holds_nothing_up(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()

    class Hanging:
        def configuration(self, run: ConfigurationRun) -> None:
            released.wait(60)

        def trajectory(self, run: TrajectoryRun) -> None:
            raise AssertionError("nothing ended")

    monkeypatch.setitem(threads.OPENERS, "mlflow", lambda spec, folder: Hanging())
    monkeypatch.setattr(threads, "CLOSE_SECONDS", 0.0)
    found = records()
    try:
        with caplog.at_level(logging.WARNING, logger="sweeper.trackers"):
            assert send(spec_with("mlflow"), folder, found) == found
        assert not released.is_set()
        (said,) = [r.getMessage() for r in caplog.records if r.name == "sweeper.trackers"]
        assert "mlflow did not finish within" in said and "5 runs are missing" in said
    finally:
        released.set()


def test_what_a_tracker_needs_is_checked_before_the_sweep(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(SweeperError, match="has no WANDB_API_KEY; set it, or WANDB_MODE=offline"):
        Trackers(spec_with("wandb"), folder)
    monkeypatch.setitem(threads.PACKAGES, "mlflow", "no_such_package")
    with pytest.raises(MissingExtraError, match=r"pip install 'sweeper-llm\[trackers\]'"):
        Trackers(spec_with("tensorboard", "mlflow"), folder)
    Trackers(spec_with("tensorboard"), folder)


def test_trackers_are_off_by_default_and_no_part_of_what_a_run_is() -> None:
    assert make_spec().compute.trackers == ()
    assert spec_with("mlflow", "wandb").compute.trackers == ("mlflow", "wandb")
    assert make_spec("compute.trackers=wandb").compute.trackers == ("wandb",)
    assert spec_hash(spec_with("tensorboard")) == spec_hash(make_spec())
    with pytest.raises(SpecError, match=r"compute\.trackers"):
        spec_with("neptune")


def test_hyperparameters_are_flat_and_nothing_is_made_up() -> None:
    record = make_record(
        config=make_config(lora_target_modules=["q_proj", "v_proj"], template={"name": "x" * 900})
    )
    logged = configuration_of(record)
    assert logged.params["lora_target_modules"] == '["q_proj", "v_proj"]'
    assert logged.params["template.name"] == "x" * 500
    assert "revision" not in logged.params  # None is no value.
    assert logged.metrics == {name: metric.value for name, metric in record.metrics.items()}
    unscored = configuration_of(make_record(status="unscored"))
    assert unscored.metrics == {} and json.loads(unscored.reason) == {"metrics": ["rouge_l"]}


def test_the_trackers_of_a_sweep_show_what_its_trials_find(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.sweep import run as sweep

    def in_this_process(
        rounds: Iterable[Sequence[TrajectoryTask]],
        spec: SweepSpec,
        folder: RunFolder,
        run: Any,
        on_record: Any,
        guard: Any,
        phase: Any = None,
        session: Any = None,
    ) -> bool:
        """What `drive` does, without Ray."""
        writer = RecordWriter(folder.records)
        for task in itertools.chain.from_iterable(rounds):
            for part in run([task], folder.trial, frozenset()):
                for record in part:
                    writer.append(record)
                    on_record(record)
        writer.close()
        return True

    monkeypatch.setattr(sweep, "drive", in_this_process)
    spec = parse_spec(
        spec_text(tiny_world),
        overrides=["compute.trackers=[tensorboard]", "space.learning_rate=1e-3"],
    )
    folder, heard = RunFolder(tmp_path / "run"), list[TrialRecord]()
    ended = sweep.run_sweep(
        spec, folder.root, callbacks=sweep.SweepCallbacks(on_record=heard.append)
    )
    found = read_records(folder.records).records
    assert ended.completed and list(found) == heard
    assert {record.status for record in found} == {"complete"}
    root = folder.root / "tensorboard"
    named = {f"{record.config_id}-{record.seed}" for record in found}
    assert {path.name for path in (root / "configurations").iterdir()} == named
    read = [read_trajectory(path) for path in folder.trajectories.glob("*/progress.json")]
    curves = {item.trajectory_id: item.losses for item in read if item is not None and item.losses}
    assert {path.name for path in (root / "trajectories").iterdir()} == set(curves)
    for trajectory_id, losses in curves.items():
        points = events(root / "trajectories" / trajectory_id).Scalars("train/loss")
        assert [point.value for point in points] == pytest.approx(losses)
