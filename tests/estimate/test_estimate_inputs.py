"""What an estimate knows of machine, model and data, and how `plan`, `run` and the report show it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from support.command import Command
from support.factories import make_record, make_spec
from support.world import World, write_jsonl

from sweeper.data.split import split_rows
from sweeper.errors import DataError, ModelError, SweeperError
from sweeper.estimate import GPUS, cpu
from sweeper.estimate.inputs import (
    Machine,
    counted_characters,
    default_workers,
    known_gpu,
    local_path,
    on_gpus,
    plan_estimate,
    planned_tokens,
    this_machine,
    trial_device,
)
from sweeper.estimate.measured_rates import count_tokens
from sweeper.planning import make_plan, make_tasks
from sweeper.report import report_data
from sweeper.runs.run import open_run
from sweeper.spec import SweepSpec
from sweeper.store.folder import RUN_VERSION, RunFolder

NO_GPU = Machine((), 2)
TWO_GPUS = Machine(GPUS[2:3] * 2, 16)


@pytest.fixture
def command(no_gpu: None, command: Command) -> Command:
    """Runs `sweeper ...` on a machine without a GPU."""
    return command


def test_a_trial_runs_on_a_gpu_where_there_is_one_and_it_is_wanted() -> None:
    spec = make_spec("compute.cpus_per_trial=2")
    assert trial_device(spec, TWO_GPUS) == GPUS[2]
    assert trial_device(spec, NO_GPU) == cpu(2)
    assert trial_device(make_spec("compute.gpus_per_trial=0"), TWO_GPUS) == cpu(1)


@pytest.mark.parametrize(
    ("overrides", "machine", "workers"),
    [
        ((), NO_GPU, 2),
        (("compute.cpus_per_trial=2",), NO_GPU, 1),
        (("compute.cpus_per_trial=9",), NO_GPU, 1),
        (("compute.max_concurrent_trials=1",), NO_GPU, 1),
        ((), TWO_GPUS, 2),
        (("compute.gpus_per_trial=0.5",), TWO_GPUS, 4),
        (("compute.gpus_per_trial=0.5", "compute.max_concurrent_trials=3"), TWO_GPUS, 3),
        (("compute.gpus_per_trial=2",), TWO_GPUS, 1),
        (("compute.gpus_per_trial=0",), TWO_GPUS, 16),
        (("compute.cpus_per_trial=16",), TWO_GPUS, 1),
    ],
)
def test_workers_are_what_the_machine_runs_at_once(
    overrides: tuple[str, ...], machine: Machine, workers: int
) -> None:
    assert default_workers(make_spec(*overrides), machine) == workers


def test_a_present_gpu_has_its_own_size_and_known_peaks() -> None:
    found = known_gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20)
    assert (found.name, found.memory_bytes) == ("NVIDIA H100 80GB HBM3", 81559 * 2**20)
    assert found.bf16_flops == GPUS[2].bf16_flops
    assert known_gpu("NVIDIA H200", 143771 * 2**20).bandwidth == GPUS[3].bandwidth
    assert known_gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20).bf16_flops == GPUS[1].bf16_flops
    unknown = known_gpu("NVIDIA Other", 40 * 2**30)
    assert unknown.name == "NVIDIA Other (peaks of A100 40 GB)"


def test_the_gpus_are_those_nvidia_smi_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, "NVIDIA H100 80GB HBM3, 81559\n" * 2)

    monkeypatch.setattr(subprocess, "run", answer)
    assert [gpu.memory_bytes for gpu in this_machine().gpus] == [81559 * 2**20] * 2

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    assert this_machine().gpus == ()
    assert this_machine().cpus >= 1


def test_a_builtin_world_is_used_where_built_and_never_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path))
    assert local_path("some/path") == "some/path"
    with pytest.raises(DataError, match=r"builtin:miniature/model is not built yet"):
        local_path("builtin:miniature/model")
    (tmp_path / "miniature-abc" / "model").mkdir(parents=True)
    found = str(tmp_path / "miniature-abc" / "model")
    assert local_path("builtin:miniature/model") == found


def test_characters_are_counted_by_hand(tiny_spec: SweepSpec, tiny_world: World) -> None:
    task = make_tasks(make_plan(tiny_spec), tiny_spec, str)[0]
    found = counted_characters(task)

    def texts(path: Path) -> list[str]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row["prompt"] + row.get("completion", "") for row in rows]

    rows, held = texts(tiny_world.train), texts(tiny_world.heldout)
    prompts = [*texts(tiny_world.harmful), *texts(tiny_world.harmless), *held]
    assert found.per_row == pytest.approx(sum(map(len, rows)) / 4 / 24)
    assert (found.prompts, found.generated) == (8 + 6 + 6, 20 * 6)
    assert found.prompt_tokens == sum(map(len, prompts)) / 4
    assert found.heldout_tokens == sum(map(len, held)) / 4
    assert (found.longest_row, found.longest_prompt) == (64, 64)
    assert "characters / 4" in found.source
    assert found.rows == {
        "train_rows": 24,
        "heldout_rows": 6,
        "dropped_blank_rows": 0,
        "dropped_blank_heldout": 0,
        "dropped_heldout_duplicates": 0,
        "dropped_near_heldout": 0,
    }

    few = replace(task, data=replace(task.data, heldout=None, heldout_rows=3))
    few = replace(few, evaluation=replace(few.evaluation, utility_metrics=("heldout_loss",)))
    assert counted_characters(few).prompts == 14
    split = split_rows(few.data)
    apart = sum(row.characters for row in split.heldout.values())
    assert counted_characters(few).heldout_tokens == apart / 4
    assert counted_characters(few).per_row == pytest.approx((sum(map(len, rows)) - apart) / 4 / 21)
    cut = replace(task, data=replace(task.data, max_length=5))
    assert counted_characters(cut).per_row == 5
    alone = replace(task.evaluation, utility_metrics=("rouge_l",), harmless=())
    assert counted_characters(replace(task, evaluation=alone)).heldout_tokens == 0
    assert counted_characters(replace(task, evaluation=alone)).prompts == 14


def test_the_tokens_of_the_chat_template_are_counted_where_the_tokenizer_is_here(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    """The format of the tiny world writes three tokens before an answer, and one after it."""
    plan, task = make_plan(tiny_spec), make_tasks(make_plan(tiny_spec), tiny_spec, str)[0]
    plain, found = counted_characters(task), planned_tokens(plan, tiny_spec)
    assert found.per_row == pytest.approx(plain.per_row + 4)
    assert found.prompt_tokens == plain.prompt_tokens + 3 * plain.prompts
    assert found.heldout_tokens == plain.heldout_tokens + 4 * 6
    assert "chat template" in found.source and "chat template" not in plain.source
    counted = count_tokens(task)
    assert abs(found.per_row - counted.per_row) < abs(plain.per_row - counted.per_row)
    assert planned_tokens(plan, tiny_spec, look=False).per_row == plain.per_row
    cut = tiny_spec.model_copy(update={"data": replace(tiny_spec.data, max_length=6)})
    assert planned_tokens(plan, cut).per_row == 6
    absent = tiny_spec.model_copy(update={"model": replace(tiny_spec.model, path=str(tmp_path))})
    assert planned_tokens(plan, absent) == plain


def test_an_estimate_says_what_is_missing(tiny_spec: SweepSpec, tmp_path: Path) -> None:
    plan = make_plan(tiny_spec)
    hub = tiny_spec.model_copy(update={"model": replace(tiny_spec.model, path="no/llama")})
    with pytest.raises(ModelError, match="no/llama: no local folder and not in the hub cache"):
        plan_estimate(plan, hub, machine=NO_GPU)
    with pytest.raises(SweeperError, match="at least one worker"):
        plan_estimate(plan, tiny_spec, workers=0, machine=NO_GPU)


def test_fewer_workers_take_longer_and_cost_no_more(tiny_spec: SweepSpec) -> None:
    plan = make_plan(tiny_spec)
    one, two = (plan_estimate(plan, tiny_spec, workers=n, machine=NO_GPU) for n in (1, 2))
    assert one.wall_seconds > two.wall_seconds
    assert one.worker_seconds < two.worker_seconds  # The second worker has to start, too.
    assert plan_estimate(plan, tiny_spec, machine=NO_GPU).workers == 2


def test_how_many_trials_a_gpu_holds(tiny_spec: SweepSpec) -> None:
    plan = make_plan(tiny_spec)
    tokens = plan_estimate(plan, tiny_spec, machine=NO_GPU).tokens
    usual = on_gpus(plan, tiny_spec, tokens, NO_GPU)
    assert [item.device.name for item in usual] == [gpu.name for gpu in GPUS]
    trials = [item.trials for item in usual]
    assert trials == sorted(trials) and 1 < trials[0] < 24
    (present,) = on_gpus(plan, tiny_spec, tokens, TWO_GPUS)
    assert present.device == GPUS[2]
    refused = replace(tiny_spec.compute, gpus_per_trial=0)
    on_cpu = tiny_spec.model_copy(update={"compute": refused})
    assert on_gpus(plan, on_cpu, tokens, NO_GPU)[0].gpu_hours > 0


def test_plan_prints_the_cost(command: Command, sweep: Path) -> None:
    code, out, err = command("plan", sweep, "--workers", "3")
    assert (code, err) == (0, "")
    for text in (
        "Cost, analytic",
        "wall time, 3 at once",
        "CPU-core-hours",
        "CPU, 1 core",
        "peak memory of a trial",
        "runtime 614.4 MiB" if "614.4 MiB" in out else "runtime 0.6 GiB",
        "characters / 4",
        "A10 24 GB",
        "H200 141 GB",
    ):
        assert text in out, text


@pytest.mark.parametrize(
    "changes",
    [
        ["model.dtype=mixed_bf16"],
        ["model.dtype=mixed_bf16", "tuning={method: full}"],
        ["model.dtype=pure_bf16"],
        ["tuning={method: lora, lora_target_modules: all-linear, use_dora: true}"],
    ],
)
def test_every_precision_and_tuning_of_a_spec_has_an_estimate(
    command: Command, sweep: Path, changes: list[str]
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    code, out, err = command("plan", sweep, *words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["estimate_missing"] is None
    assert found["estimate"]["memory"]["weights"] > 0
    assert found["estimate"]["wall_seconds"] > 0


def test_plan_says_what_is_trained_on_and_what_is_left_out(
    command: Command, sweep: Path, tiny_world: World, tmp_path: Path
) -> None:
    line = (
        "data: 24 rows to train on, 6 held out; none left out; a run counts overlong and cut rows"
    )
    assert line in command("plan", sweep)[1]
    lost = [{"prompt": f"Question {n}.", "completion": "I'm sorry, no."} for n in range(3)]
    again = [{"prompt": "paint THE door red", "completion": "c"}, {"prompt": "p", "completion": ""}]
    path = write_jsonl(
        tmp_path / "rows.jsonl", [*lost, *again, *again[:1], {**again[0], "prompt": "q"}]
    )
    asked = (f"data.train.path={path}", "data.filter_safety_rows=true", "model.path=no/llama")
    words = [word for override in asked for word in ("--set", override)]
    out = command("plan", sweep, *words)[1]
    assert (
        "data: 1 rows to train on, 6 held out; dropped blank rows 1, dropped safety rows 3, "
        "dropped near heldout 2; a run counts"
    ) in out
    assert "no estimate: no/llama" in out
    found = json.loads(command("plan", sweep, "--json", *words)[1])
    assert found["rows"]["dropped_near_heldout"] == 2
    assert found["estimate"] is None


def test_a_plan_takes_hub_data_from_the_cache_or_says_what_to_do(
    command: Command, sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    code, out, err = command("plan", sweep, "--set", "data.train.path=own/none")
    assert (code, err) == (0, "")
    assert "no estimate: `own/none` is not a local file or folder" in out
    assert "(planning downloads nothing)" in out
    assert (
        json.loads(command("plan", sweep, "--json", "--set", "data.train.path=own/none")[1])["rows"]
        is None
    )


def test_plan_json_carries_the_estimate(command: Command, sweep: Path) -> None:
    found = json.loads(command("plan", sweep, "--json", "--workers", "1")[1])
    assert found["estimate_missing"] is None
    made = found["estimate"]
    assert (made["source"], made["workers"], made["gpu_hours"]) == ("analytic", 1, 0)
    phases = [made[f"{name}_seconds"] for name in ("train", "evaluate", "load", "startup")]
    assert made["worker_seconds"] == pytest.approx(sum(phases), abs=0.01)
    assert made["wall_seconds"] == pytest.approx(made["worker_seconds"], abs=0.01)
    assert made["peak_memory_bytes"] == made["memory"]["peak_bytes"] > 2**29


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=no/llama", "no/llama: no local folder and not in the hub cache"),
        ("data.train.path=absent.jsonl", "absent.jsonl: no such data file"),
    ],
)
def test_plan_without_an_estimate_still_plans(
    command: Command, sweep: Path, override: str, message: str
) -> None:
    code, out, err = command("plan", sweep, "--set", override)
    assert (code, err) == (0, "")
    assert "trajectories to train" in out
    (line,) = [line for line in out.splitlines() if line.startswith("no estimate: ")]
    assert message in line
    found = json.loads(command("plan", sweep, "--json", "--set", override)[1])
    assert found["estimate"] is None and message in found["estimate_missing"]
    assert found["trajectories"] == 4


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "a.jsonl",
            r'{"prompt": "p \ud83d", "completion": "c"}',
            r"1: row 1: `prompt` holds half a",
        ),
        ("a.csv", 'prompt,completion\np,c\nq,"d\nr,e\n', "3: malformed CSV: a quotation mark"),
        ("a.jsonl", '{"prompt": "p", "prompt": "q"}', "1: malformed JSON: duplicate key"),
    ],
)
def test_a_plan_refuses_damaged_data(
    command: Command, sweep: Path, tmp_path: Path, name: str, text: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    for override in (f"data.train.path={path}", f"evaluation.harmful={{path: {path}}}"):
        code, out, err = command("plan", sweep, "--set", override)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {path}:{problem}") and err.count("\n") == 1


@pytest.mark.parametrize("where", ["ok: true", "ok: 'true'", "n: 0", "n: 0.0", "x: null"])
def test_where_takes_the_values_of_yaml(
    command: Command, sweep: Path, tmp_path: Path, where: str
) -> None:
    rows = [
        {"prompt": f"p{i}", "completion": "c", "ok": i < 2, "n": i // 2, "x": None}
        for i in range(4)
    ]
    rows[2]["x"] = rows[3]["x"] = "y"
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    out = command("plan", sweep, "--set", f"data.train={{path: {path}, where: {{{where}}}}}")[1]
    assert "data: 2 rows to train on" in out


def test_a_plan_names_the_files_that_are_not_read(
    command: Command, sweep: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("train", "test"):
        write_jsonl(tmp_path / "mine" / f"{name}.jsonl", [{"prompt": name, "completion": "c"}])
    place = tmp_path / "mine"
    out = command("plan", sweep, "--set", f"data.train={{path: {place}}}")[1]
    assert f"data: train: {place} reads train.jsonl (split train), not test.jsonl\n" in out
    write_jsonl(place / "more.jsonl", [{"prompt": "p", "completion": "c"}])
    code, _, err = command("plan", sweep, "--set", f"data.train={{path: {place}}}")
    assert (
        code == 2
        and "more.jsonl not at all, because of names or formats; set `split: train`" in err
    )


def test_no_worker_is_refused(command: Command, sweep: Path) -> None:
    code, out, err = command("plan", sweep, "--workers", "0")
    assert (code, out) == (2, "")
    assert "--workers" in err


def test_plan_needs_no_torch(sweep: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'ray', 'peft']))\n"
        f"sys.argv = ['sweeper', 'plan', {str(sweep)!r}]\n"
        "from sweeper.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cost, analytic" in done.stdout


ESTIMATE = {
    "source": "analytic",
    "load_seconds": 2.0,
    "train_seconds": 30.0,
    "evaluate_seconds": 8.0,
}


def test_the_report_compares_the_estimate_with_the_records() -> None:
    records = [make_record(), make_record(max_steps=80, status="failed")]  # One path of 10 s.
    run = RunFolder(Path("/somewhere/run"))
    data = report_data(run, records, make_spec(), None, ESTIMATE)
    assert data.accounting == (
        (
            "worker time estimated before the run (analytic)",
            "40 s (load 2 s, train 30 s, evaluate 8 s)",
        ),
        (
            "worker time measured (sum over 2 of 2 records)",
            "15 s (load 0 s, train 10 s, evaluate 5 s)",
        ),
        ("measured compared with the estimate of the whole plan", "0.38-fold"),
    )
    (alone,) = report_data(run, records, make_spec(), None).accounting
    assert alone[0].startswith("worker time measured")
    (expected,) = report_data(run, [], make_spec(), None, ESTIMATE).accounting
    assert expected[0].startswith("worker time estimated")


def test_a_run_knows_its_estimate(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.info.write_text(json.dumps({"version": RUN_VERSION}))
    for content, expected in (
        ({"accounting": {}, "estimate": ESTIMATE}, ESTIMATE),
        ({"accounting": {}, "estimate": None}, None),
        ({"accounting": {}}, None),  # A folder of an older version.
    ):
        folder.plan.write_text(json.dumps(content))
        assert open_run(tmp_path).estimate == expected
    for damaged in ("{", "[]", '{"estimate": 3}'):
        folder.plan.write_text(damaged)
        with pytest.raises(SweeperError, match=r"plan\.json is damaged"):
            _ = open_run(tmp_path).estimate
