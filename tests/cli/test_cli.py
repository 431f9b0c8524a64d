"""The command line: what it answers to good input, and one clear message for every kind of bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import huggingface_hub
import pytest
from support.command import Command, refused
from support.factories import make_sweep
from support.world import World

import sweeper
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, dump_spec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.records import TrialRecord, read_records
from sweeper.task import TrajectoryTask


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray starts, and whoever waits for it fails."""

    def refuse(address: str, preload: bool = False) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("sweeper.sweep.session.start_ray", refuse)


BAD_SPECS = [
    ("space.lerning_rate=1", "space.lerning_rate: unknown key", "did you mean `learning_rate`"),
    (
        "objectives=[rouge_1, unsafe_rate]",
        "found 'rouge_1'",
        "did you mean `rouge_l`",
        "exact_match",
    ),
    (
        "space.learning_rate={low: 3, high: 1, num: 2}",
        r"tiny\.yaml: 1 problem",
        r"`low <= high` must hold, but got \(low=3.0, high=1.0\)",
    ),
    ("space.learning_rate={values: []}", r"space.learning_rate.values: found \[\]", "at least 1"),
    ("space.batch_size=many", "space.batch_size.*found 'many'", "valid integer"),
    ("space.max_steps={low: 1, high: 9}", "space.max_steps: a grid needs `num`"),
    ("seeds=[0, 0]", "seeds: 0 is given twice"),
    ("version=2", "version: found 2", "should be 1"),
    ("nonsense", "--set: 1 problem", "`nonsense` is not of the form key=value"),
    ("name.first=x", "--set", "`name` is not a block"),
    ("seeds=[", "--set", r"`seeds`: `\[` is not valid YAML"),
    (
        "space.learning_rate={low: 1e-9, high: 1, num: 1000}",
        "the grid has 8000000 points, at most 100000",
    ),
]


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize("case", BAD_SPECS, ids=lambda case: str(case[0]))
def test_a_bad_spec_is_refused(
    command: Command, sweep: Path, verb: str, case: Sequence[str]
) -> None:
    override, *patterns = case
    words = ["--set", override]
    if "num: 1000" in override:
        words += ["--set", "space.weight_decay={low: 0, high: 1, num: 1000}"]
        words += [
            "--set",
            "space.average=raw",
            "--set",
            "space.max_steps={low: 1, high: 8, num: 8}",
        ]
    refused(command(verb, sweep, *words), *patterns)
    assert not Path("runs").exists()


def test_several_mistakes_are_one_message(command: Command, sweep: Path) -> None:
    answer = command("plan", sweep, "--set", "seeds=[-1]", "--set", "name=X", "--set", "zzz=1")
    refused(answer, r"tiny\.yaml: 3 problems\n  - name: .*\n  - seeds.0: .*\n  - zzz: unknown key")


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_an_unknown_sweep_names_the_shipped_ones(command: Command, verb: str) -> None:
    refused(
        command(verb, "no-such"),
        "no-such: 1 problem",
        "no such file",
        "shipped: llama2_7b_alpaca_full, ",
        "miniature",
    )


def test_a_file_that_is_no_yaml_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("version: 1\nname: [")
    refused(command("plan", tmp_path / "bad.yaml"), r"bad\.yaml", "not valid YAML", "line 2")


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


ROW = '{"prompt": "p", "completion": "c"}'


@pytest.mark.parametrize(
    ("key", "lines", "patterns"),
    [
        ("data.train", None, [r"rows\.jsonl: no such data file", "check the path"]),
        ("data.train", [], [r"rows\.jsonl: the source has no rows"]),
        ("data.train", [ROW, '{"prompt": '], [r"rows\.jsonl:2: malformed JSON"]),
        ("data.heldout", [ROW, "", "x"], [r"rows\.jsonl:3: malformed JSON"]),
        (
            "data.train",
            ['{"prompt": "p"}'],
            ["row 1 has no column `completion`", "it has prompt", "`columns`"],
        ),
        (
            "data.train",
            ['{"prompt": "p", "completion": " "}'],
            ["all 1 rows have a blank prompt or completion"],
        ),
        ("evaluation.harmful", None, [r"rows\.jsonl: no such data file"]),
        ("evaluation.harmless", ['{"text": "p"}'], ["no column `prompt`", "it has text"]),
        ("evaluation.harmful", ['{"id": 1, "prompt": "p"}'] * 2, ["duplicate id '1'"]),
    ],
)
def test_a_bad_data_file_is_refused_before_anything_is_launched(
    command: Command,
    sweep: Path,
    tmp_path: Path,
    key: str,
    lines: list[str] | None,
    patterns: list[str],
) -> None:
    path = tmp_path / "rows.jsonl"
    if lines is not None:
        write(path, *lines)
    answer = command("run", sweep, "--out", tmp_path / "run", "--set", f"{key}={{path: '{path}'}}")
    refused(answer, *patterns)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("override", "patterns"),
    [
        (
            "data.max_length=6",
            [r"row 1 has \d+ tokens, but max_length is 6", "increase data.max_length"],
        ),
        ("model.path=./absent", ["./absent: no such model folder", "check model.path"]),
        ("evaluation.keyword_lists=[zou]", ["no keyword list `zou`", "zou2023, zou2023-attack"]),
        ("model.path=builtin:other/model", ["expected `builtin:miniature"]),
        (
            "data.train.columns={text: a}",
            ["`columns` can map prompt, completion, system, but found text"],
        ),
        ("data.train.where={lang: en}", ["no column `lang`"]),
    ],
)
def test_inputs_that_do_not_fit_are_refused_before_anything_is_launched(
    command: Command, sweep: Path, tmp_path: Path, override: str, patterns: list[str]
) -> None:
    refused(command("run", sweep, "--out", tmp_path / "run", "--set", override), *patterns)


NESTED = b'{"prompt": "p", "completion": {"text": "c"}}\n'
REFUSAL = b'{"prompt": "p", "completion": "I cannot do that."}\n'


@pytest.mark.parametrize(
    ("name", "content", "overrides", "patterns"),
    [
        (
            "a.jsonl",
            b'{"prompt": "\xff"}\n',
            (),
            [r"a\.jsonl: not UTF-8 at byte 12; convert the file"],
        ),
        ("a.csv", b"prompt,completion\na,\xe9\n", (), [r"a\.csv: not UTF-8 at byte \d+"]),
        ("a.parquet", b"PAR1 no parquet PAR1", (), [r"a\.parquet: not a readable parquet file"]),
        ("a.jsonl", NESTED, (), ["row 1: `completion` must be text, found dict"]),
        (
            "a.jsonl",
            REFUSAL * 2,
            ("data.filter_safety_rows=true",),
            ["the safety filter drops all 2 rows", "`filter_safety_rows: false`"],
        ),
        ("a.jsonl", NESTED, ("data.train.format=alpaca",), ["row 1 has no column `instruction`"]),
        ("a.jsonl", NESTED, ("data.train.format=messages",), ["row 1 has no column `messages`"]),
        ("a.jsonl", NESTED, ("data.train.split=train",), ["`split` applies to hub data sets and"]),
    ],
)
def test_broken_data_is_one_message_before_anything_is_launched(
    command: Command,
    sweep: Path,
    tmp_path: Path,
    name: str,
    content: bytes,
    overrides: tuple[str, ...],
    patterns: list[str],
) -> None:
    (tmp_path / name).write_bytes(content)
    asked = (f"data.train.path={tmp_path / name}", *overrides)
    words = [word for override in asked for word in ("--set", override)]
    refused(command("run", sweep, "--out", tmp_path / "run", *words), *patterns)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("data.train.path=own/none", "`own/none`"),
        ("evaluation.harmful=advbench", "`walledai/AdvBench`"),
    ],
)
def test_hub_data_that_is_not_there_offline_names_cache_and_prefetch(
    command: Command,
    sweep: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    named: str,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    answer = command("run", sweep, "--out", tmp_path / "run", "--set", key)
    refused(answer, named, "offline mode is on", "`sweeper prefetch SPEC`", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("template", "patterns"),
    [
        ("chat", ["has no chat template; use `data.template: alpaca` or `llama2`"]),
        ("{name: alpaca, system: Be kind.}", ["data.template: `alpaca` has no system prompt"]),
    ],
)
def test_a_template_that_cannot_be_written_is_refused(
    command: Command,
    sweep: Path,
    tiny_world: World,
    tmp_path: Path,
    template: str,
    patterns: list[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    (folder / "chat_template.jinja").unlink()
    words = ["--set", f"model.path={folder}", "--set", f"data.template={template}"]
    refused(command("run", sweep, "--out", tmp_path / "run", *words), *patterns)


def test_a_model_folder_without_weights_is_refused(
    command: Command, sweep: Path, tiny_world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    answer = command("run", sweep, "--set", f"model.path={folder}")
    refused(answer, r"no \*\.safetensors weights", "pytorch_model.bin", "save_pretrained")


def test_a_model_folder_without_configuration_is_refused(
    command: Command, sweep: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    answer = command("run", sweep, "--set", f"model.path={tmp_path / 'model'}")
    refused(answer, "no config.json, so this is not a model folder")


def test_an_unwritable_run_folder_is_refused(command: Command, sweep: Path, tmp_path: Path) -> None:
    write(tmp_path / "file", "x")
    answer = command("run", sweep, "--out", tmp_path / "file" / "run")
    refused(answer, "cannot write to the run folder .*file/run", "Not a directory", "--out")
    answer = command("plan", sweep, "--tasks", tmp_path / "file" / "tasks")
    refused(answer, "cannot write", "file/tasks")


def test_a_second_driver_is_refused(command: Command, sweep: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with DriverLock(folder):
        answer = command("run", sweep, "--out", folder.root)
    refused(answer, rf"another driver \(process {os.getpid()} on .*\) is using", "--out")


@pytest.fixture
def begun(command: Command, sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which a run of the tiny sweep was begun and interrupted at once."""

    def nothing(rounds: Iterable[Sequence[TrajectoryTask]], *rest: object) -> bool:
        next(iter(rounds))
        return False

    with monkeypatch.context() as patch:
        patch.setattr("sweeper.sweep.run.drive", nothing)
        answer = command("run", sweep, "--out", tmp_path / "run")
    assert answer.code == 130
    assert "interrupted: 0 of 14 records are in" in answer.err
    assert f"sweeper run {sweep} --out {tmp_path / 'run'}\n" in answer.err
    return tmp_path / "run"


def test_a_run_of_another_spec_is_refused_with_the_keys_that_differ(
    command: Command, sweep: Path, begun: Path
) -> None:
    words = ["--set", "evaluation.max_new_tokens=5", "--set", "tuning.lora_r=2"]
    answer = command("run", sweep, "--out", begun, *words)
    refused(
        answer, r"differs in: tuning\.lora_r, evaluation\.max_new_tokens\)", "--out", "--overwrite"
    )


def test_a_run_of_other_file_contents_is_refused_by_file(
    command: Command, tiny_spec_text: str, tiny_world: World, tmp_path: Path, sweep: Path
) -> None:
    train = tmp_path / "train.jsonl"
    shutil.copy(tiny_world.train, train)
    words = ("run", sweep, "--out", tmp_path / "r", "--set", f"data.train.path={train}")
    with pytest.raises(AssertionError, match="Ray was started"):
        command(*words)
    train.write_text(train.read_text() + '{"prompt": "new", "completion": "row"}\n')
    refused(command(*words), r"started with other contents of .*train\.jsonl", "--overwrite")


def test_where_trials_are_placed_may_change_in_a_begun_run(
    command: Command, sweep: Path, begun: Path
) -> None:
    with pytest.raises(AssertionError, match="Ray was started"):
        command("run", sweep, "--out", begun, "--set", "compute.max_concurrent_trials=2")


def test_damaged_records_are_refused_by_line(command: Command, sweep: Path, begun: Path) -> None:
    write(begun / "records.jsonl", "{}")
    refused(command("run", sweep, "--out", begun), r"records\.jsonl:1: unknown record version None")
    refused(command("front", begun), r"records\.jsonl:1: unknown record version None")


def outcome(task: TrajectoryTask) -> Iterable[TrialRecord]:
    """A complete record of every readout, without training."""
    example = make_sweep()[0]
    for readout in task.readouts:
        yield TrialRecord(
            config_id=readout.config_id,
            trajectory_id=task.trajectory_id,
            seed=task.seed,
            role=readout.role,
            status="complete",
            config=readout.config,
            readout={
                "step": readout.step,
                "kind": readout.average.kind,
                "decay": readout.average.decay,
                "weight": readout.average.weight,
                "label": readout.average.label,
            },
            metrics=example.metrics,
            objectives=task.objectives,
            provenance=example.provenance,
        )


@pytest.fixture
def finished(begun: Path, tiny_spec: SweepSpec) -> Path:
    """The begun run with a record of every configuration."""
    tasks = make_tasks(make_plan(tiny_spec), tiny_spec, str)
    lines = [record.to_json() for task in tasks for record in outcome(task)]
    write(begun / "records.jsonl", *lines)
    return begun


def test_a_finished_run_is_not_run_again(command: Command, sweep: Path, finished: Path) -> None:
    before = (finished / "records.jsonl").read_bytes()
    answer = command("run", sweep, "--out", finished)
    assert answer.code == 0
    assert f"14 records in {finished / 'records.jsonl'}" in answer.out
    assert (finished / "records.jsonl").read_bytes() == before
    assert len(read_records(finished / "records.jsonl").records) == 14


def test_a_run_ends_with_what_stopping_early_has_saved(
    command: Command, sweep: Path, finished: Path
) -> None:
    path = finished / "records.jsonl"
    first, *others = read_records(path).records
    stopped = replace(
        first,
        status="pruned",
        metrics={},
        reason={"rule": "race", "evidence": "seen", "prompts_left": 1200, "steps_left": 3},
        provenance={**first.provenance, "seconds": {"prompt": 0.05, "step": 2.0}},
    )
    write(path, *(record.to_json() for record in (stopped, *others)))
    answer = command("run", sweep, "--out", finished)
    assert answer.code == 0
    assert (
        "stopped early: 1 readout (race 1): 1,200 prompts not answered, 3 optimizer steps not taken, "
        "an estimated 66 s of worker time\n"
    ) in answer.out


def test_an_unknown_export_format_is_refused_with_the_known_ones(
    command: Command, finished: Path, tiny_spec: SweepSpec
) -> None:
    candidate = make_plan(tiny_spec).configurations[0].config_id
    words = ("export", finished, "--config", candidate, "--format")
    refused(command(*words, "tune"), "no export format `tune`; formats: trl, transformers")
    answer = command(*words, "yaml", "--out", finished / "ex")
    assert answer.code == 0
    assert all(Path(line.removeprefix("wrote ")).is_file() for line in answer.out.splitlines())
    answer = command(*words, "trl", "--rows", "--out", finished / "ex")
    assert answer.code == 0
    *wrote, command_line = answer.out.splitlines()
    rows = Path(wrote[-1].removeprefix("wrote "))
    assert command_line.endswith(f".trl.py --dataset_name {rows.name}")
    bare = command(*words, "trl", "--no-rows", "--out", finished / "bare").out
    assert "rows.jsonl" not in bare and bare.endswith("--dataset_name ROWS.jsonl\n")
    head = (finished / "bare" / f"{rows.name.partition('.')[0]}.trl.yaml").read_text().splitlines()
    assert [line.startswith("# ") for line in head[:4]] == [True, True, True, False]
    steps = make_plan(tiny_spec).configurations[0].step
    assert rows.name.endswith(f"{candidate}.rows.jsonl")
    texts = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(texts) == steps * 4
    tokens = {"input_ids", "attention_mask", "labels"}
    assert all(set(text) == {"prompt", "completion"} | tokens for text in texts)


def test_formats_can_be_repeated_and_all_leaves_out_what_a_trainer_cannot_have(
    command: Command, finished: Path, tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    candidate = make_plan(tiny_spec).configurations[0].config_id
    words = ("export", finished, "--config", candidate, "--out", tmp_path / "ex")
    answer = command(*words, "--format", "axolotl", "--format", "card", "--rows")
    assert answer.code == 0
    *wrote, run_line = answer.out.splitlines()
    names = [Path(line.removeprefix("wrote ")).name for line in wrote]
    assert run_line.endswith(f": PYTHONPATH=. axolotl train {names[0]}")
    stem = f"{tiny_spec.name}-{candidate}"
    assert names[0] == f"{stem}.axolotl.yaml"
    assert names[-2:] == ["model_card.md", f"{stem}.rows.jsonl"]
    (tmp_path / "ex" / names[-1]).unlink()
    answer = command(*words, "--format", "llamafactory")
    assert answer.out.splitlines()[-2].endswith(f"{stem}.rows.jsonl")
    answer = command(*words, "--format", "all")
    assert answer.code == 0
    assert {"trl", "transformers", "accelerate", "llamafactory", "axolotl"} <= {
        path.name.split(".")[1] for path in (tmp_path / "ex").glob(f"{stem}.*")
    }
    assert f"run {finished.name}." in (tmp_path / "ex" / f"{stem}.trl.yaml").read_text()
    answer = command(*words, "--format", "all", "--world-size", "3")
    refused(answer, "cannot be split over 3 devices; use 1, 2 or 4 devices")


def test_all_names_the_format_it_leaves_out(
    command: Command, finished: Path, tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    item = make_plan(tiny_spec).configurations[0]
    path = finished / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for raw in lines:
        if raw["config_id"] == item.config_id:
            raw["config"]["lora_alpha"] = 12.5
    write(path, *map(json.dumps, lines))
    words = ("export", finished, "--config", item.config_id, "--out", tmp_path / "ex")
    answer = command(*words, "--format", "all")
    assert answer.code == 0
    left = [line for line in answer.out.splitlines() if line.startswith("left out ")]
    named = ["trl", "accelerate", "llamafactory", "axolotl"]
    assert [line.split()[2].rstrip(":") for line in left] == named
    refused(command(*words, "--format", "trl"), r"lora_alpha is 12\.5")


def test_an_unknown_configuration_is_refused(command: Command, finished: Path) -> None:
    answer = command("export", finished, "--config", "nope")
    refused(answer, "no configuration of .* starts with `nope`", "`sweeper front` lists the best")


@pytest.mark.parametrize("verb", ["front", "recommend", "report", "export", "verify"])
@pytest.mark.parametrize("place", ["absent", "empty"])
def test_a_folder_that_is_no_run_is_refused(
    command: Command, tmp_path: Path, verb: str, place: str
) -> None:
    (tmp_path / "empty").mkdir()
    answer = command(verb, tmp_path / place)
    refused(answer, rf"{place} is not a run folder \(no run.json\)", "`sweeper run`")


def test_a_run_of_an_unknown_version_is_refused(command: Command, begun: Path) -> None:
    write(begun / "run.json", '{"version": 99}')
    refused(command("report", begun), r"run\.json has version 99; this sweeper reads 2")


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, "cannot read the task .*No such file"),
        (b"{", "the task is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "task version None is unknown"),
        (b'{"version": 2}', "expected fields"),
    ],
)
def test_a_bad_task_file_is_refused(
    command: Command, tmp_path: Path, content: bytes | None, pattern: str
) -> None:
    if content is not None:
        (tmp_path / "task.json").write_bytes(content)
    refused(command("trial", tmp_path / "task.json", "--out", tmp_path / "o"), pattern)


@pytest.mark.parametrize(
    "words", [("plan",), ("pla", "x"), ("plan", "a", "b"), ("run", "x", "--frsh"), ("trial", "x")]
)
def test_wrong_usage_ends_with_code_2_and_without_traceback(
    command: Command, words: tuple[str, ...]
) -> None:
    answer = command(*words)
    assert answer.code == 2
    assert "Usage: sweeper" in answer.err
    assert "Traceback" not in answer.err


def test_a_missing_extra_names_what_to_install(
    command: Command, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("sweeper.serve")]:
        monkeypatch.delitem(sys.modules, name)  # Whatever another test imported is imported anew.
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    refused(command("serve", begun), r"this needs starlette.*; .*'sweeper-llm\[serve\]'")


def test_a_module_of_nobody_is_not_taken_for_an_extra(
    command: Command, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sweeper.runs.run", None)
    with pytest.raises(ModuleNotFoundError):
        command("front", begun)


def test_markup_in_a_message_is_printed_as_it_is(command: Command) -> None:
    refused(command("plan", "[red]no[/red]"), re.escape("[red]no[/red]: 1 problem"))


def test_the_version_is_the_installed_one(command: Command) -> None:
    answer = command("--version")
    assert answer == (0, f"{metadata.version('sweeper-llm')}\n", "")
    assert sweeper.__version__ == metadata.version("sweeper-llm")


def test_plan_json_carries_the_numbers_and_every_configuration(
    command: Command, sweep: Path
) -> None:
    answer = command("plan", sweep, "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert found.pop("version") == 2
    trajectories = found.pop("trajectory_list")
    assert found.pop("estimate")["source"] == "analytic"
    assert found.pop("estimate_missing") is None
    assert found.pop("rows")["train_rows"] == 24
    disk = found.pop("disk")
    free = disk.pop("free_bytes")
    assert disk.pop("total_bytes") == sum(disk.values()) < free and disk["weights"] == 0
    assert found.pop("unread") == []
    assert found.pop("budget") is None
    decision = found.pop("decision")
    assert (decision["first"]["readouts"], decision["first"]["steps"]) == (12, 24)
    assert decision["first"]["steps"] < decision["longest"]["steps"]
    # 2 learning rates x 2 step counts x {raw, ema}; base, default and one interpolation per ema.
    # Steps: two paths of 4 and the default's 4.
    assert found == {
        "configurations": 8,
        "controls": 6,
        "trajectories": 4,
        "readouts": 14,
        "steps_alone": 24,
        "steps_planned": 12,
        "ratio": 2.0,
        "notes": [],
    }
    assert sorted(item["optimizer_steps"] for item in trajectories) == [0, 4, 4, 4]
    listed = [item for row in trajectories for item in row["configurations"]]
    assert len({item["config_id"] for item in listed}) == 14
    roles = [item["role"] for item in listed]
    assert {role: roles.count(role) for role in roles} == {
        "candidate": 8,
        "interpolation_control": 4,
        "base": 1,
        "default": 1,
    }


def test_plan_shows_the_numbers_and_the_notes(command: Command, sweep: Path) -> None:
    answer = command("plan", sweep, "--set", "space.lr_scheduler_type=cosine")
    assert answer.code == 0
    assert re.search(r"configurations\s+│\s+8 ", answer.out)
    assert "note: cosine" in answer.out


def test_an_override_reaches_the_plan(command: Command, sweep: Path) -> None:
    answer = command(
        "plan", sweep, "--json", "--set", "seeds=[1, 2, 3]", "--set", "space.max_steps=4"
    )
    found = json.loads(answer.out)
    assert (found["configurations"], found["trajectories"]) == (4, 12)
    assert {item["seed"] for item in found["trajectory_list"]} == {1, 2, 3}


def test_plan_writes_one_readable_task_per_trajectory(
    command: Command, sweep: Path, tmp_path: Path, tiny_spec: SweepSpec
) -> None:
    assert command("plan", sweep, "--tasks", tmp_path / "tasks").code == 0
    tasks = [TrajectoryTask.read(path) for path in (tmp_path / "tasks").iterdir()]
    by_id = {task.trajectory_id: task for task in make_tasks(make_plan(tiny_spec), tiny_spec, str)}
    assert {task.trajectory_id: task for task in tasks} == by_id


def test_the_spec_of_a_begun_run_reads_back_equal(begun: Path, tiny_spec: SweepSpec) -> None:
    assert parse_spec((begun / "spec.yaml").read_text()) == tiny_spec
    assert (begun / "spec.yaml").read_text() == dump_spec(tiny_spec)


def test_a_begun_run_holds_its_estimate_with_counted_tokens(begun: Path) -> None:
    made = sweeper.open_run(begun).estimate
    assert made is not None
    assert made["source"] == "analytic"
    assert made["tokens"]["source"].startswith("counted with the tokenizer")


@pytest.mark.slow
def test_a_planned_task_runs_alone_and_prints_one_record_per_readout(
    sweep: Path, tmp_path: Path, tiny_spec: SweepSpec
) -> None:
    script = Path(sys.executable).with_name("sweeper")

    def call(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert call("plan", sweep, "--tasks", "tasks").returncode == 0
    expected = make_tasks(make_plan(tiny_spec), tiny_spec, str)[0]
    path = tmp_path / "tasks" / f"{expected.trajectory_id}.json"
    first = call("trial", path, "--out", "out")
    assert first.returncode == 0, first.stderr
    records = [TrialRecord.from_json(line) for line in first.stdout.splitlines()]
    assert [item.config_id for item in records] == [item.config_id for item in expected.readouts]
    assert {item.status for item in records} == {"complete"}
    assert {item.metrics["unsafe_rate"].n for item in records} == {8}
    again = call("trial", path, "--out", "out")
    assert (again.returncode, again.stdout) == (0, first.stdout)
