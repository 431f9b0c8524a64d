"""W&B folders, TensorBoard events and TamperBench results, made with the writers of each tool."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeper.errors import DataError
from sweeper.importing.detect import read_table
from sweeper.importing.guess import guess_map
from sweeper.importing.table import ForeignTable

WANDB = """
import sys, wandb
for number in range(2):
    run = wandb.init(
        project="p",
        dir=sys.argv[1],
        mode="offline",
        config={"learning_rate": 10.0**-number, "lora": {"r": 8}},
    )
    run.config.update({"late": "x" * 70000})
    for step in range(3):
        run.log({"eval/loss": 1 / (step + 1), "acc": 0.1 * number})
    run.finish(exit_code=number)
"""


@pytest.mark.slow
def test_offline_runs_of_wandb_are_read_from_their_logs(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    command = [sys.executable, "-c", WANDB, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    found = read_table(tmp_path)
    assert found.kind == "wandb" and found.step == "_step"
    (row,) = found.rows
    assert row.values["config.learning_rate"] == 1.0 and row.values["config.lora.r"] == 8
    assert row.values["config.late"] == "x" * 70000  # Over several blocks.
    assert (row.values["eval/loss"], row.values["_step"]) == (pytest.approx(1 / 3), 2)
    assert found.metrics == ("eval/loss", "acc")
    assert [why for _, why in found.refused] == [
        "the run ended with 1; only finished runs are complete"
    ]
    (log,) = (tmp_path / "wandb").glob(f"{Path(row.where).name}/*.wandb")
    content = log.read_bytes()
    log.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="no run to import") as caught:
        read_table(tmp_path)
    assert "has no end" in str(caught.value)
    log.write_bytes(b"no log" + content)
    with pytest.raises(DataError, match="not a log of W&B"):
        read_table(tmp_path)


def test_summaries_of_wandb_do_not_say_how_a_run_ended(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / f"run-2026-{number}" / "files"
        folder.mkdir(parents=True)
        summary = {"acc": 0.5 + number / 10, "_step": 7, "_wandb": {"runtime": 3}}
        (folder / "wandb-summary.json").write_text(json.dumps(summary))
        (folder / "config.yaml").write_text(f"lr:\n  value: {number}\nwandb_version: 1\n")
    found = read_table(tmp_path)
    assert [dict(row.values) for row in found.rows] == [
        {"config.lr": 0, "acc": 0.5, "_step": 7},
        {"config.lr": 1, "acc": 0.6, "_step": 7},
    ]
    assert found.notes == ("2 runs do not say whether they ended well",)
    assert guess_map(found).map.parameters == {"learning_rate": "config.lr"}


def events(folder: Path) -> Path:
    board = pytest.importorskip("tensorboardX")
    for number in range(2):
        writer = board.SummaryWriter(str(folder / f"run{number}"))
        for step in (0, 5, 10):
            writer.add_scalar("eval/loss", 1 / (step + 1 + number), step)
        writer.add_scalar("early", 1.0, 5)
        writer.close()
    return folder


def test_event_files_give_the_last_scalar_of_each_folder(tmp_path: Path) -> None:
    found = read_table(events(tmp_path))
    assert (found.kind, [row.where for row in found.rows]) == ("tensorboard", ["run0", "run1"])
    assert found.rows[0].values["eval/loss"] == pytest.approx(1 / 11)
    assert found.rows[1].values["step"] == 10
    assert found.notes[0] == "`early`: last written before the last step of its run, in 2 of 2 runs"
    assert guess_map(found).map.parameters == {"run": "run"}


def test_a_torn_event_is_left_out_and_damage_is_counted(tmp_path: Path) -> None:
    events(tmp_path)
    (first,) = (tmp_path / "run0").iterdir()
    (second,) = (tmp_path / "run1").iterdir()
    first.write_bytes(first.read_bytes()[:-5])
    second.write_bytes(b"\xff" * 100)
    found = read_table(tmp_path)
    assert [row.where for row in found.rows] == ["run0"]
    ((where, why),) = found.refused
    assert where == "run1" and why.startswith("a damaged event file")


def test_hyperparameters_of_tensorboard_are_settings(tmp_path: Path) -> None:
    board = pytest.importorskip("tensorboardX")
    for lr in (0.1, 0.2):
        with board.SummaryWriter(str(tmp_path)) as writer:
            writer.add_hparams({"lr": lr, "opt": "sgd"}, {"accuracy": lr}, name=f"t{lr}")
    found = read_table(tmp_path)
    rows = [row for row in found.rows if "hparams.lr" in row.values]
    assert [row.values["hparams.lr"] for row in rows] == [0.1, 0.2]
    assert rows[0].values["accuracy"] == pytest.approx(0.1)


def parquet(path: Path, **columns: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(columns).to_parquet(path, index=False)


def tamperbench(folder: Path) -> ForeignTable:
    """A study with two trials and their evaluations, a third whose results have another schema."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = folder / "qwen" / "lora_finetune" / "optuna_single"
    place.mkdir(parents=True)
    study = optuna.create_study(storage=f"sqlite:///{place / 'study.db'}", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 0.0, 1.0), n_trials=3)
    for number in range(3):
        trial = place / f"trial_{number}" / "tamperbench_evaluation"
        harm = trial / "strong_reject"
        names = "metric_name" if number < 2 else "other"
        parquet(
            harm / "results.parquet",
            **{names: ["strong_reject_score"]},
            metric_value=[0.2 + number / 10],
        )
        parquet(harm / "scores.parquet", prompt=["a", "b"], response=["c", "d"], score=[0.1, 0.3])
        parquet(
            trial / "mmlu_pro_val" / "results.parquet",
            metric_name=["mmlu_pro_accuracy"],
            metric_value=[0.5],
        )
    return read_table(folder)


def test_tamperbench_gives_trials_with_their_settings_and_harm_minimised(tmp_path: Path) -> None:
    found = tamperbench(tmp_path)
    assert (found.kind, len(found.rows)) == ("tamperbench", 2)
    values = found.rows[1].values
    assert (values["study"], values["run"]) == ("qwen/lora_finetune/optuna_single", "trial_1")
    assert values["strong_reject.strong_reject_score"] == pytest.approx(0.3)
    assert values["strong_reject.strong_reject_score.n"] == 2
    assert isinstance(values["params_learning_rate"], float)
    ((where, why),) = found.refused
    assert where.endswith("trial_2") and "expected the columns `metric_name`" in why
    guess = guess_map(found)
    assert guess.map.parameters == {"learning_rate": "params_learning_rate"}
    assert guess.map.metrics["strong_reject_score"].direction == "minimize"
    assert guess.map.objectives == ("mmlu_pro_accuracy", "strong_reject_score")
    assert "looks for the strongest attack" in guess.notes[0]
