"""Studies of Optuna and runs of MLflow, made with their own clients, are read and never written to."""

import hashlib
import json
import math
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sweeper.errors import DataError
from sweeper.importing.detect import read_table
from sweeper.importing.guess import guess_map
from sweeper.importing.mapping import ConstraintMap

pytestmark = pytest.mark.filterwarnings("ignore")


def objective(trial: optuna.Trial) -> tuple[float, float]:
    lr = trial.suggest_float("lr", 1e-5, 1e-3, log=True)
    rank = trial.suggest_categorical("r", [4, 8])
    trial.set_user_attr("eval", {"n": 200})
    trial.set_constraint("mem", rank - 6.0)
    if trial.number == 2:
        raise RuntimeError("out of memory")
    return 0.5 + rank / 100, lr


def two_objectives(storage: optuna.storages.BaseStorage | str, name: str = "first") -> None:
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.set_metric_names(["accuracy", "unsafe_rate"])
    study.optimize(objective, n_trials=4, catch=RuntimeError)


def pruned(url: str) -> None:
    def one(trial: optuna.Trial) -> float:
        loss = trial.suggest_float("x", 0.0, 1.0)
        for step in (10, 20):
            trial.report(loss / step, step)
            if trial.number == 1 and step == 20:
                raise optuna.TrialPruned
        return loss / 20

    study = optuna.create_study(
        study_name="one", storage=url, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(one, n_trials=3)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plain = tmp_path_factory.mktemp("optuna") / "plain.db"
    two_objectives(f"sqlite:///{plain}")
    return plain.rename(plain.with_name("a ?#%20study.db"))


def test_a_study_gives_complete_trials_with_directions_and_constraints(study: Path) -> None:
    before = hashlib.sha256(study.read_bytes()).hexdigest()
    found = read_table(study)
    assert (found.kind, len(found.rows)) == ("optuna", 3)
    assert found.refused == (
        ("a ?#%20study.db: trial 2", "its state is FAIL; only COMPLETE trials have values"),
    )
    assert found.parameters == ("params_lr", "params_r")
    assert found.metrics == ("values_accuracy", "values_unsafe_rate", "constraints_mem")
    assert found.directions == {
        "constraints_mem": "minimize",
        "values_accuracy": "maximize",
        "values_unsafe_rate": "minimize",
    }
    assert found.constraints == ("constraints_mem",)
    first = found.rows[0]
    rank = first.values["params_r"]
    assert isinstance(rank, int)
    assert first.where == "a ?#%20study.db: trial 0"
    assert first.values["values_accuracy"] == 0.5 + rank / 100
    assert first.values["constraints_mem"] == rank - 6
    assert first.values["user_attrs_eval.n"] == 200
    assert hashlib.sha256(study.read_bytes()).hexdigest() == before
    assert list(study.parent.iterdir()) == [study]
    assert read_table(f"sqlite:///{study}").rows == found.rows


def test_the_map_of_a_study_is_what_it_optimised(study: Path) -> None:
    found = guess_map(read_table(study)).map
    assert found.parameters == {"learning_rate": "params_lr", "lora_r": "params_r"}
    assert found.objectives == ("accuracy", "unsafe_rate")
    assert found.constraints == (ConstraintMap(metric="constraints_mem", max=0),)
    assert found.metrics["constraints_mem"].low is None
    assert found.metrics["accuracy"].n == "user_attrs_eval.n"


def test_a_journal_is_read_like_a_database(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    two_objectives(JournalStorage(JournalFileBackend(str(path))))
    before = path.read_bytes()
    found = read_table(path)
    assert (found.kind, len(found.rows), len(found.refused)) == ("optuna", 3, 1)
    assert found.metrics == ("values_accuracy", "values_unsafe_rate", "constraints_mem")
    assert read_table(f"journal:{path}").rows == found.rows
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_intermediate_values_are_a_last_value_and_its_step(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    pruned(f"sqlite:///{path}")
    found = read_table(path)
    assert found.refused[0][1].startswith("its state is PRUNED at step 20")
    assert found.step == "intermediate_step"
    assert found.metrics == ("value",) and found.directions == {"value": "minimize"}
    assert [row.values["intermediate_step"] for row in found.rows] == [20, 20]
    assert found.rows[0].values["intermediate_value"] == found.rows[0].values["value"]


def test_one_of_several_studies_is_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "two.db"
    two_objectives(f"sqlite:///{path}", "one\x1b[31m")
    two_objectives(f"sqlite:///{path}", "two")
    with pytest.raises(DataError, match="2 studies: `one") as caught:
        read_table(path)
    assert "\x1b" not in str(caught.value) and "`two`; choose one by `study`" in str(caught.value)
    assert len(read_table(path, study="two").rows) == 3
    with pytest.raises(DataError, match="no study `three` among 2 studies"):
        read_table(path, study="three")


def test_a_study_that_maximises_harm_is_said(tmp_path: Path) -> None:
    path = tmp_path / "attack.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", direction="maximize")
    study.set_metric_names(["strong_reject"])
    study.optimize(lambda trial: trial.suggest_float("lr", 0.0, 1.0), n_trials=2)
    found = guess_map(read_table(path))
    assert found.map.metrics["strong_reject"].direction == "maximize"
    assert "the source says maximize, usual is minimize" in found.notes[0]


def test_damaged_and_foreign_databases_have_one_message(tmp_path: Path, study: Path) -> None:
    content = study.read_bytes()
    torn = tmp_path / "torn.db"
    torn.write_bytes(content[: len(content) // 2])
    zeros = tmp_path / "zeros.db"
    zeros.write_bytes(content[:4096] + bytes(len(content) - 4096))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (a INTEGER)")
    partial = tmp_path / "partial.db"
    with sqlite3.connect(partial) as connection:
        for name in ("studies", "trials", "trial_params"):
            connection.execute(f"CREATE TABLE {name} (a INTEGER)")
    before = partial.read_bytes()
    for path, part in {
        torn: "not a readable SQLite database",
        zeros: "not a readable SQLite database",
        other: "not a source of a known kind",
        partial: "not a readable study of Optuna",
    }.items():
        with pytest.raises(DataError) as caught:
            read_table(path)
        assert part in str(caught.value) and "\n" not in str(caught.value)
    assert partial.read_bytes() == before


def test_a_damaged_journal_has_one_message(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    two_objectives(JournalStorage(JournalFileBackend(str(path))))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "{torn", *lines[4:]]) + "\n")
    with pytest.raises(DataError, match="not a readable study of Optuna"):
        read_table(path)


@pytest.fixture(scope="module")
def mlruns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file store of one experiment with three finished runs and a failed one."""
    folder = tmp_path_factory.mktemp("mlflow") / "mlruns"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(folder.as_uri())
        experiment = client.create_experiment("first")
        for number in range(4):
            run = client.create_run(experiment, run_name=f"run {number}")
            client.log_param(run.info.run_id, "optim/learning_rate", 10.0**-number)
            client.log_param(run.info.run_id, "note", "a\nb")
            client.set_tag(run.info.run_id, "team", "x")
            for step in (0, 5, 10):
                client.log_metric(run.info.run_id, "eval/loss", 1 / (step + 1), step=step)
            client.log_metric(run.info.run_id, "early", 3.0, step=5)
            client.log_metric(run.info.run_id, "accuracy", 0.5 if number else math.nan)
            client.set_terminated(run.info.run_id, "FAILED" if number == 3 else "FINISHED")
    return folder


def test_a_file_store_gives_finished_runs_and_their_last_values(mlruns: Path) -> None:
    found = read_table(mlruns)
    assert (found.kind, len(found.rows)) == ("mlflow", 3)
    ((_, reason),) = found.refused
    assert reason == "the run is FAILED; only FINISHED runs are complete"
    (row,) = [row for row in found.rows if row.values["run"] == "run 1"]
    assert dict(row.values) == {
        "run": "run 1",
        "params.optim/learning_rate": 0.1,
        "params.note": "a\nb",
        "metrics.eval/loss": 1 / 11,
        "metrics.early": 3.0,
        "metrics.accuracy": 0.5,
        "tags.team": "x",
        "step": 10,
    }
    assert found.step == "step" and "metrics.accuracy" in found.metrics
    assert found.notes == (
        "`metrics.early`: last logged before the last step of its run, in 3 of 3 runs",
    )
    (diverged,) = [row for row in found.rows if row.values["run"] == "run 0"]
    assert math.isnan(float(str(diverged.values["metrics.accuracy"])))


def test_the_map_of_a_file_store(mlruns: Path) -> None:
    found = guess_map(read_table(mlruns))
    assert found.map.parameters == {"optim_learning_rate": "params.optim/learning_rate"}
    assert found.map.metrics["accuracy"].high == 1
    assert found.map.objectives == ("accuracy",)
    assert found.unmapped == ()


def test_damaged_runs_and_further_experiments(mlruns: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "mlruns"
    shutil.copytree(mlruns, copy)
    one, two = sorted(copy.glob("*/*/meta.yaml"))[:2]
    (one.parent / "metrics" / "accuracy").write_text("gone wrong here\n")
    two.write_text("- no mapping\n")
    reasons = [why for _, why in read_table(copy).refused if why.startswith("a damaged run")]
    assert len(reasons) == 2 and any("meta.yaml is no mapping" in why for why in reasons)
    second = copy / "7"
    shutil.copytree(one.parent.parent, second)
    (second / "meta.yaml").write_text("name: second\nexperiment_id: '7'\n")
    with pytest.raises(DataError, match="2 experiments: `first`, `second`; choose one"):
        read_table(copy)
    assert len(read_table(copy, study="second").rows) <= 2


def test_a_sqlite_store_of_mlflow_is_read_by_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
            "CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, lifecycle_stage TEXT,"
            " experiment_id INTEGER, start_time INTEGER);"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);"
            "CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);"
            "CREATE TABLE latest_metrics (key TEXT, value REAL, timestamp INTEGER, step INTEGER,"
            " is_nan INTEGER, run_uuid TEXT);"
            "INSERT INTO experiments VALUES (1, 'e');"
            "INSERT INTO runs VALUES ('a', 'A', 'FINISHED', 'active', 1, 1),"
            " ('b', 'B', 'RUNNING', 'active', 1, 2), ('c', 'C', 'FINISHED', 'deleted', 1, 3);"
            "INSERT INTO params VALUES ('lr', '1e-4', 'a');"
            "INSERT INTO latest_metrics VALUES ('loss', 0.5, 1, 7, 0, 'a'), ('acc', 0, 1, 7, 1, 'a');"
        )
    found = read_table(path)
    assert found.kind == "mlflow"
    (row,) = found.rows
    assert row.where == "mlflow.db: run a"
    assert (row.values["params.lr"], row.values["metrics.loss"], row.values["step"]) == (
        1e-4,
        0.5,
        7,
    )
    assert math.isnan(float(str(row.values["metrics.acc"])))
    assert [why.split(";")[0] for _, why in found.refused] == [
        "the run is RUNNING",
        "the run is deleted",
    ]


def state(step: int, **evaluated: float) -> dict[str, object]:
    log: list[dict[str, object]] = [
        {"step": s, "loss": 1 / s, "epoch": 1.0} for s in range(1, step + 1)
    ]
    log.append({"step": step, "epoch": 1.0, **{f"eval_{k}": v for k, v in evaluated.items()}})
    return {"global_step": step, "max_steps": 10, "log_history": log, "best_metric": None}


def checkpoint(folder: Path, content: object, rank: int | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps(content))
    (folder / "training_args.bin").write_bytes(b"\x80\x04never loaded")
    if rank is not None:
        (folder / "adapter_config.json").write_text(
            json.dumps({"r": rank, "target_modules": ["q"]})
        )


def test_checkpoints_of_a_trainer_are_rows_and_pickles_stay_closed(tmp_path: Path) -> None:
    checkpoint(tmp_path / "lr1" / "checkpoint-5", state(5, loss=0.5, accuracy=0.7), rank=8)
    checkpoint(tmp_path / "lr1" / "checkpoint-10", state(10, loss=0.4, accuracy=0.8), rank=8)
    (tmp_path / "lr1" / "trainer_state.json").write_text(json.dumps(state(10, loss=0.4)))
    checkpoint(tmp_path / "lr2" / "checkpoint-5", state(5, loss=0.6, accuracy=0.6), rank=4)
    checkpoint(tmp_path / "lr3" / "checkpoint-5", {"global_step": 5})
    found = read_table(tmp_path)
    assert found.kind == "trainer"
    assert [(row.values["run"], row.values["step"]) for row in found.rows] == [
        ("lr1", 5),
        ("lr1", 10),
        ("lr2", 5),
    ]
    last = found.rows[1].values
    assert (last["eval_loss"], last["train_loss"], last["adapter_config.r"]) == (0.4, 0.1, 8)
    assert last["adapter_config.target_modules"] == '["q"]'
    assert dict(found.refused) == {
        "lr1/trainer_state.json": "the same step of the same run as lr1/checkpoint-10/trainer_state.json",
        "lr3/checkpoint-5/trainer_state.json": "expected the keys `log_history` and `global_step` of a "
        "trainer's state",
    }
    assert "training_args.bin is a pickle and is not read" in found.notes[0]
    imported = guess_map(found).map
    assert imported.parameters == {"run": "run", "lora_r": "adapter_config.r"}
    assert imported.step == "step" and imported.metrics["eval_accuracy"].direction == "maximize"


def test_an_older_evaluation_keeps_its_own_step(tmp_path: Path) -> None:
    content = {**state(5, loss=0.5), "global_step": 7}
    checkpoint(tmp_path / "checkpoint-7", content)
    (row,) = read_table(tmp_path).rows
    assert (row.values["step"], row.values["global_step"], row.values["run"]) == (5, 7, ".")


def harness(acc: float, better: bool = True) -> dict[str, object]:
    return {
        "results": {
            "arc": {"alias": "arc", "acc,none": acc, "acc_stderr,none": 0.01, "bleu,strict": 3.0}
        },
        "versions": {"arc": 1},
        "n-samples": {"arc": {"original": 2376, "effective": 100}},
        "higher_is_better": {"arc": {"acc": better}},
        "config": {
            "model": "hf",
            "model_args": "pretrained=m,peft=a",
            "random_seed": 3,
            "batch_size": 8,
        },
    }


def test_results_of_the_harness_have_counts_directions_and_settings(tmp_path: Path) -> None:
    for number, acc in enumerate((0.25, 0.5)):
        (tmp_path / f"m{number}").mkdir()
        (tmp_path / f"m{number}" / "results_2026.json").write_text(json.dumps(harness(acc)))
    (tmp_path / "results_mixed.json").write_text(json.dumps(harness(0.5, better=False)))
    (tmp_path / "results_torn.json").write_text('{"results": {')
    (tmp_path / "results_other.json").write_text('{"a": 1}')
    (tmp_path / "samples_arc.json").write_text('{"a": 1}')
    found = read_table(tmp_path)
    assert (found.kind, [row.where for row in found.rows]) == (
        "lm_eval",
        ["m0/results_2026.json", "m1/results_2026.json"],
    )
    values = found.rows[1].values
    assert (values["lm_eval/arc/acc"], values["lm_eval/arc/acc.n"]) == (0.5, 100)
    assert values["lm_eval/arc/acc.stderr"] == 0.01
    assert (values["model_args.peft"], values["config.random_seed"]) == ("a", 3)
    assert found.directions == {"lm_eval/arc/acc": "maximize"}
    assert found.metrics == ("lm_eval/arc/acc", "lm_eval/arc/bleu/strict")
    reasons = dict(found.refused)
    assert set(reasons) == {"results_mixed.json", "results_torn.json", "results_other.json"}
    assert "another direction" in reasons["results_mixed.json"]
    metric = guess_map(found).map.metrics["lm_eval/arc/acc"]
    assert (metric.n, metric.low, metric.high) == ("lm_eval/arc/acc.n", 0, 1)


def test_a_single_file_of_the_harness_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps(harness(0.5)))
    assert read_table(path).kind == "lm_eval"
    path.write_text(json.dumps({"acc": 0.5}))
    assert read_table(path).kind == "json"
