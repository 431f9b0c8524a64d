"""What a trial reads before it trains: each side by its template, and what the records say of it."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.data_samples import COMMIT, cached, jsonl
from support.raising import raises
from support.world import World

from sweeper.data.load import pin_revisions
from sweeper.data.split import load_safety_filter
from sweeper.errors import DataError
from sweeper.keywords.lists import load_keyword_list
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs, preflight
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.provenance import file_hash
from sweeper.sweep.prepare import check_inputs, input_hashes
from sweeper.task import ChatFormat, DataSource, PromptSuite, Template, TrajectoryTask


@pytest.fixture
def task(tiny_spec: SweepSpec) -> TrajectoryTask:
    return make_tasks(make_plan(tiny_spec), tiny_spec, str)[0]


def test_training_rows_have_the_train_template_and_all_that_is_scored_the_test_one(
    task: TrajectoryTask,
) -> None:
    sides = Template(ChatFormat("chat"), ChatFormat("llama2", "Be safe."))
    inputs = load_inputs(replace(task, data=replace(task.data, template=sides, max_length=128)))

    def text(tokens: tuple[int, ...]) -> str:
        return str(inputs.tokenizer.decode(list(tokens)))

    assert all(text(row.prompt).startswith("<s><|user|>Paint") for row in inputs.data.train)
    safe = "<s>[INST] <<SYS>>\nBe safe.\n<</SYS>>\n\n"
    for suite in inputs.suites:
        for prompt, tokens in zip(suite.prompts, suite.tokens, strict=True):
            assert text(tokens) == f"{safe}{prompt.text} [/INST]"
    held = inputs.encoder.example(inputs.data.heldout[0])
    assert text(held.prompt) == f"{safe}{inputs.data.heldout[0].prompt} [/INST]"
    assert text(held.completion).strip() == f"{inputs.data.heldout[0].completion} </s>"


def test_a_template_that_fills_the_window_of_either_side_is_found_by_the_preflight(
    task: TrajectoryTask,
) -> None:
    for train, test in (("alpaca", "chat"), ("chat", "alpaca")):
        sides = Template(ChatFormat(train, None), ChatFormat(test, None))
        with pytest.raises(DataError, match="max_length is 64; increase data"):
            preflight(replace(task, data=replace(task.data, template=sides)))


def test_records_name_commits_files_and_the_filter(
    task: TrajectoryTask, offline_hub: Path, tmp_path: Path, tiny_world: World
) -> None:
    rows = [{"prompt": f"Paint {n}.", "completion": "done"} for n in range(4)]
    rows.append({"prompt": "Paint.", "completion": "I cannot do that."})
    cached(offline_hub, "own/rows", {"train.jsonl": jsonl(rows, tmp_path)})
    cached(
        offline_hub,
        "Paul/XSTest",
        {"a.jsonl": jsonl([{"prompt": "Kill it?", "label": "safe"}], tmp_path)},
    )
    on_hub = replace(
        task,
        data=replace(task.data, train=DataSource("own/rows"), filter_safety_rows=True),
        evaluation=replace(
            task.evaluation,
            harmless=(PromptSuite(suite="xstest-safe", prompt_split="all"),),
        ),
    )
    found = load_inputs(on_hub)
    assert found.hashes["train"] == f"own/rows@{COMMIT}"
    assert found.hashes["harmless/xstest-safe"] == f"Paul/XSTest@{COMMIT}"
    assert found.hashes["heldout"] == file_hash(tiny_world.heldout)
    assert found.hashes["safety_filter"] == load_safety_filter().digest
    assert found.data.counts["dropped_safety_rows"] == 1
    assert found.data.counts["train_rows"] == 4
    assert "safety_filter" not in load_inputs(task).hashes
    assert input_hashes(on_hub)["own/rows"] == f"own/rows@{COMMIT}"
    assert input_hashes(on_hub)["xstest-safe"] == f"Paul/XSTest@{COMMIT}"

    fixed = pin_revisions(on_hub)
    assert fixed.data.train == replace(on_hub.data.train, revision=COMMIT)
    assert fixed.evaluation.harmless[0].revision == COMMIT
    assert fixed.evaluation.harmful == on_hub.evaluation.harmful
    assert load_inputs(fixed).hashes == found.hashes


def test_the_example_of_the_docs_is_a_sweep(tiny_spec_text: str) -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/own-model-and-data.md").read_text(
        encoding="utf-8"
    )
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    whole = yaml.safe_load(tiny_spec_text)
    whole["evaluation"] |= example["evaluation"]
    spec = parse_spec(yaml.safe_dump({**whole, "data": example["data"]}))
    assert spec.data.filter_safety_rows
    assert [suite.suite for suite in spec.evaluation.harmful] == ["advbench", "hex-phi"]
    assert spec.data.template.train.name == spec.data.template.test.name == "llama2"


def test_a_sweep_file_reaches_the_trial_as_it_is_written(tiny_spec_text: str) -> None:
    spec = parse_spec(
        tiny_spec_text,
        overrides=[
            "data.train={path: own/rows, format: messages, split: train_sft, rows: 9, sample_seed: 3}",
            "data.template={train: chat, test: {name: llama2, system: Be safe.}}",
            "evaluation.harmful=[advbench, {suite: hex-phi, path: phi, prompt_split: confirm}]",
        ],
    )
    task = make_tasks(make_plan(spec), spec, str)[0]
    again = TrajectoryTask.from_json(task.to_json())
    assert again == task
    train = task.data.train
    assert (train.split, train.rows, train.sample_seed, train.format) == (
        "train_sft",
        9,
        3,
        "messages",
    )
    assert task.data.template.test == ChatFormat("llama2", "Be safe.")
    assert [(item.suite, item.path, item.prompt_split) for item in task.evaluation.harmful] == [
        ("advbench", "", "search"),
        ("hex-phi", "phi", "confirm"),
    ]


def test_a_run_notices_that_the_list_of_this_project_has_changed(
    task: TrajectoryTask, tmp_path: Path
) -> None:
    """Published lists never change, so only the hash of our own is an input of a run."""
    lists = replace(task.evaluation, keyword_lists=("sweeper", "qi2023"))
    task = replace(task, evaluation=lists)
    names = [name for name in input_hashes(task) if name.startswith("keyword list")]
    assert names == ["keyword list sweeper"]
    folder = RunFolder(tmp_path)
    for digest, changed in (
        (load_keyword_list("sweeper").digest, False),
        ("0" * 16, True),
    ):
        info = {"version": RUN_VERSION, "inputs": input_hashes(task) | {names[0]: digest}}
        folder.info.write_text(json.dumps(info), encoding="utf-8")
        with raises("run.other_contents", changed=names) if changed else nullcontext():
            check_inputs(folder, task, "use another folder")
