"""Calibration: fits of made-up runs come back exactly, and a real one on the tiny world is sane."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.factories import make_record
from support.trials import tasks_of

from sweeper.cli.app import _run
from sweeper.errors import SweeperError
from sweeper.estimate import Rates, Tokens
from sweeper.estimate.measured_rates import (
    FIRST_STEP,
    Observation,
    count_tokens,
    fit,
    measure_rates,
    measured_estimate,
    shortened,
    unmeasured,
)
from sweeper.planning import make_plan
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import SweepSpec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import Average, TrajectoryTask
from sweeper.trial.run import Keys

GUESS = Rates(1e-5, 1e-2, 1e-4, 0.1, 1.0, 10.0, "analytic", "guess")
TOKENS = Tokens(20.0, 30, 100, 1000.0, 20, 600.0, 120.0, "given")


class FakeTrial:
    """Takes exactly known seconds; remembers what it was asked to do."""

    def __init__(self, status: str = "complete") -> None:
        self.asked: list[TrajectoryTask] = []
        self.status = status

    def __call__(
        self, task: TrajectoryTask, storage: TrialStorage, done: Keys
    ) -> Iterator[TrialRecord]:
        self.asked.append(task)
        assert not storage.trajectory.exists()
        prompts = count_tokens(task).prompts
        for readout in task.readouts:
            if (readout.config_id, task.seed) in done:
                continue
            trained = readout.step * task.optimizer.batch_size * 10
            generated = prompts * task.evaluation.max_new_tokens
            warm_up = 50.0
            record = make_record(identity=readout.config_id, role=readout.role)
            if self.status == "failed":
                record = make_record(identity=readout.config_id, status="failed")
            provenance = {
                "seconds": {
                    "load": 3.0 + len(self.asked),
                    "train": warm_up + 0.25 * readout.step + 0.002 * trained,
                    "evaluate": 0.5 * prompts + 0.03 * generated,
                },
                "tokens": {"trained": trained, "generated": generated},
            }
            yield replace(record, provenance=provenance, readout=readout.described())


def test_the_rates_of_a_known_machine_are_found_again(tiny_spec: SweepSpec) -> None:
    fake = FakeTrial()
    found = measure_rates(tasks_of(tiny_spec), GUESS, run=fake)
    small, large = fake.asked  # 4 is the space's batch, 8 the default control's.
    assert (small.optimizer.batch_size, large.optimizer.batch_size) == (4, 8)
    assert (small.evaluation.max_new_tokens, large.evaluation.max_new_tokens) == (1, 6)
    rates = found.rates
    assert rates.step_seconds == pytest.approx(0.25)
    assert rates.train_token_seconds == pytest.approx(0.002)
    assert rates.generate_token_seconds == pytest.approx(0.03)
    assert rates.readout_seconds == pytest.approx(0.5 * found.tokens.prompts)
    assert rates.load_seconds == 4.0
    assert (rates.source, rates.device) == ("calibrated", "CPU, 1 thread")
    assert found.tokens.prompts == 8 + 6 + 6
    assert found.tokens.generated == pytest.approx(20 * 6)
    assert found.peak_bytes > 10 * 2**20


def test_a_failed_run_is_told(tiny_spec: SweepSpec) -> None:
    with pytest.raises(SweeperError, match=r"calibration failed in train: the training loss is na"):
        measure_rates(tasks_of(tiny_spec), GUESS, run=FakeTrial("failed"))


def test_nothing_that_trains_is_nothing_to_calibrate(tiny_spec: SweepSpec) -> None:
    base = [task for task in tasks_of(tiny_spec) if task.segments[0].stop == 0]
    assert len(base) == 1
    with pytest.raises(SweeperError, match="nothing to calibrate"):
        measure_rates(base, GUESS, run=FakeTrial())


def test_a_shortened_task_reads_twice_and_carries_every_shadow(tiny_spec: SweepSpec) -> None:
    task = next(item for item in tasks_of(tiny_spec) if len(item.readouts) > 3)
    more = replace(task.readouts[0], config_id="x", average=Average("ema", decay=0.5))
    short = shortened(replace(task, readouts=(*task.readouts, more)), 7, 3)
    steps = [(item.step, item.average.label) for item in short.readouts]
    assert steps == [(FIRST_STEP, "raw"), (FIRST_STEP + 7, "ema(0.5)"), (8, "ema(0.9)")]
    assert unmeasured(short) == {("calibrate-2", short.seed)}
    assert short.segments[0].stop == 8
    assert short.evaluation.harmful[0].rows == short.evaluation.batch_size == 4
    assert short.evaluation.max_new_tokens == 3
    assert (short.data.heldout and short.data.heldout.rows) == 4
    assert len(load_inputs(short).suites[0].prompts) == 4


def test_a_split_held_out_set_leaves_rows_to_train_on(tiny_spec: SweepSpec) -> None:
    task = tasks_of(tiny_spec)[-1]
    split = replace(task, data=replace(task.data, heldout=None, heldout_rows=9))
    short = shortened(split, 2, 2)
    assert short.data.heldout_rows == 4
    assert len(load_inputs(short).data.train) == 20


def test_tokens_are_those_of_the_tokenizer(tiny_spec: SweepSpec) -> None:
    task = tasks_of(tiny_spec)[0]
    found, inputs = count_tokens(task), load_inputs(task)
    rows = [len(row.prompt) + len(row.completion) for row in inputs.data.train]
    assert found.per_row == sum(rows) / 24
    assert found.longest_row >= max(rows)
    assert (found.prompts, found.generated) == (20, 120)
    held = [inputs.encoder.example(row) for row in inputs.data.heldout]
    assert found.heldout_tokens == sum(len(row.prompt) + len(row.completion) for row in held)
    loss = replace(task, evaluation=replace(task.evaluation, utility_metrics=("heldout_loss",)))
    assert count_tokens(loss).prompts == 14


def test_equal_batches_put_all_time_on_tokens() -> None:
    seen = [
        Observation(2, 200, 4.0, 10, 50.0, 1.0, 2.0),
        Observation(4, 400, 8.0, 10, 50.0, 1.0, 1),
    ]
    rates = fit(seen, TOKENS, 5.0, "here")
    assert rates.step_seconds == rates.readout_seconds == 0
    assert rates.train_token_seconds == pytest.approx(0.02)
    assert rates.generate_token_seconds == pytest.approx(0.02)
    assert (rates.load_seconds, rates.startup_seconds) == (1.0, 5.0)


@pytest.mark.slow
def test_a_real_calibration_of_the_tiny_world(tiny_spec: SweepSpec) -> None:
    found = measured_estimate(make_plan(tiny_spec), tiny_spec, str, workers=1)
    assert found.source == "calibrated"
    rates = found.rates
    assert 0 < rates.train_token_seconds * 40 + rates.step_seconds < 5
    assert 0 < rates.generate_token_seconds * found.tokens.generated + rates.readout_seconds < 30
    assert rates.load_seconds > 0
    assert 0 < found.tokens.generated <= 20 * 6
    assert 100 * 2**20 < (found.measured_memory_bytes or 0) < 8 * 2**30
    assert found.peak_memory_bytes == found.measured_memory_bytes
    assert found.wall_seconds == pytest.approx(found.worker_seconds)


@pytest.mark.slow
def test_the_command_calibrates(
    tiny_spec_text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    monkeypatch.setattr(sys, "argv", ["sweeper", "plan", str(path), "--calibrate", "--json"])
    assert _run() == 0
    made = json.loads(capsys.readouterr().out)["estimate"]
    assert made["source"] == made["rates"]["source"] == "calibrated"
    words = ["sweeper", "plan", str(path), "--calibrate", "--set", "data.train.path=absent.jsonl"]
    monkeypatch.setattr(sys, "argv", words)
    assert _run() == 2
    assert "absent.jsonl: no such data file" in capsys.readouterr().err
