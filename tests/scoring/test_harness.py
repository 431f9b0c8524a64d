"""Tasks of lm-evaluation-harness on the model in memory, offline, against plain transformers."""

import builtins
import random
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.world import World, spec_text, write_jsonl
from transformers import PreTrainedModel

from sweeper.errors import DataError, MissingExtraError
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.load import load_model, load_tokenizer
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.harness import Harness, check_harness, load_tasks
from sweeper.scoring.inputs import load_inputs, preflight
from sweeper.scoring.score import Scorer
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import Metric, TrialRecord
from sweeper.task import HarnessSettings, ModelSource, TrajectoryTask, Tuning
from sweeper.trial.run import run_pack, run_trajectory

pytest.importorskip("lm_eval")

CPU = torch.device("cpu")
COLOURS = ("red", "green", "blue")
THINGS = ("door", "boat", "lamp", "coat", "bowl", "house", "cat")
ROWS = [
    {"question": f"What colour is the {thing}?", "choices": list(COLOURS), "answer": i % 3}
    for i, thing in enumerate(THINGS)
]

CHOICES = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
TEXT = """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
"""
TASKS = {
    "colours": CHOICES,
    "colours_fewshot": CHOICES + "fewshot_split: test\nnum_fewshot: 1\n",
    "says": TEXT + "generation_kwargs: {until: ['?'], max_gen_toks: 5}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    "filter_list:\n"
    "  - {name: first, filter: [{function: regex, regex_pattern: '(\\w)'}, {function: take_first}]}\n",
    "rolls": "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
    "doc_to_target: '{{question}}'\nmetric_list: [{metric: word_perplexity}]\n",
    "samples": TEXT + "generation_kwargs: {do_sample: true, temperature: 0.7, max_gen_toks: 5}\n",
    "warm": TEXT + "generation_kwargs: {temperature: 0.7, max_gen_toks: 5}\n",
    "long": TEXT + "generation_kwargs: {until: ['.']}\n",
    "codes": TEXT + "generation_kwargs: {max_gen_toks: 5}\nunsafe_code: true\n",
    "typo": CHOICES.replace("{{question}}", "{{question | nosuch}}"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks on one local file, a task whose file is missing, and a group."""
    root = tmp_path_factory.mktemp("harness")
    rows, cache, tasks = write_jsonl(root / "rows.jsonl", ROWS), root / "cache", root / "tasks"
    tasks.mkdir()
    for name, text in {**TASKS, "lost": CHOICES}.items():
        data = rows if name != "lost" else root / "gone.jsonl"
        head = (
            f"task: {name}\ndataset_path: json\ntest_split: test\n"
            f"dataset_kwargs: {{data_files: {{test: '{data}'}}, cache_dir: '{cache}'}}"
        )
        (tasks / f"{name}.yaml").write_text(f"{head}\n{text}", encoding="utf-8")
    return tasks


def settings_of(folder: Path, *tasks: str, **options: Any) -> HarnessSettings:
    return HarnessSettings(tasks, str(folder), **options)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*address: Any) -> None:
        raise AssertionError(f"something connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def source(tiny_world: World) -> ModelSource:
    return ModelSource(str(tiny_world.model), dtype="float32", name="tiny")


@pytest.fixture
def model(source: ModelSource) -> PreTrainedModel:
    return load_model(source, CPU).requires_grad_(False)


def harness_of(source: ModelSource, settings: HarnessSettings) -> Harness:
    return Harness(settings, load_tokenizer(source), batch_size=4)


def log_likelihood(model: PreTrainedModel, tokenizer: Any, context: str, text: str) -> float:
    """Of a text after a context, summed over its tokens; no batch, no padding."""
    start, ids = tokenizer.encode(context), tokenizer.encode(context + text)
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(len(start), len(ids)))


def test_choices_are_those_of_a_plain_recomputation(
    source: ModelSource, model: PreTrainedModel, folder: Path
) -> None:
    tokenizer = load_tokenizer(source)
    right = []
    for row in ROWS:
        likely = [log_likelihood(model, tokenizer, str(row["question"]), f" {c}") for c in COLOURS]
        right.append(likely.index(max(likely)) == row["answer"])
    correct = sum(right)
    found = harness_of(source, settings_of(folder, "colours")).measure(model)
    assert found.metrics == {"lm_eval/colours/acc": Metric(correct / 7, 7, correct)}
    assert found.samples == {"lm_eval/colours/acc": "".join("01"[item] for item in right)}
    assert 0 < correct < 7


def test_responses_are_greedy_and_filters_have_names(
    source: ModelSource, model: PreTrainedModel, folder: Path
) -> None:
    tokenizer = load_tokenizer(source)
    ids = torch.tensor([tokenizer.encode(str(ROWS[0]["question"]))])
    for _ in range(5):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(dim=-1)], dim=1)
    text = str(tokenizer.decode(ids[0, -5:], skip_special_tokens=True)).partition("?")[0]
    harness = harness_of(source, settings_of(folder, "says", limit=1))
    (task,) = harness._loaded["tasks"].values()
    found = harness.measure(model).metrics
    assert task.instances[0].resps == [text]
    assert list(found) == ["lm_eval/says/exact_match/first"]
    assert found["lm_eval/says/exact_match/first"].n == 1


def test_a_perplexity_is_no_rate(source: ModelSource, model: PreTrainedModel, folder: Path) -> None:
    tokenizer = load_tokenizer(source)
    texts = [str(row["question"]) for row in ROWS]
    total = sum(log_likelihood(model, tokenizer, tokenizer.bos_token, text) for text in texts)
    words = sum(len(text.split()) for text in texts)
    metrics, samples = harness_of(source, settings_of(folder, "rolls")).measure(model)
    (name, found), *others = metrics.items()
    assert name == "lm_eval/rolls/word_perplexity" and not others
    assert found.value == pytest.approx(np.exp(-total / words), rel=1e-5)
    assert (found.n, found.k) == (7, None)
    assert samples == {}


def test_a_group_counts_the_documents_of_its_tasks(
    source: ModelSource,
    model: PreTrainedModel,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = (
        "group: both\ntask: [colours, colours_fewshot]\naggregate_metric_list: [{metric: acc}]\n"
    )
    for path in folder.glob("colours*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "both.yaml").write_text(group, encoding="utf-8")
    from lm_eval.tasks import TaskManager  # Without the ten thousand tasks of the package.

    loaded = TaskManager(include_path=str(tmp_path), include_defaults=False).load(["both"])
    harness = harness_of(source, settings_of(folder, "colours"))
    harness._loaded = dict(loaded)
    found = harness.measure(model).metrics
    one, two = (found[f"lm_eval/{name}/acc"] for name in ("colours", "colours_fewshot"))
    assert one.k is not None and two.k is not None
    assert found["lm_eval/both/acc"] == Metric((one.k + two.k) / 14, 14, one.k + two.k)
    monkeypatch.setattr("sweeper.scoring.harness._manager", own_tasks)
    check_harness(settings_of(tmp_path, "both"), 128, ("lm_eval/both/acc",))
    with pytest.raises(DataError, match="no task measures lm_eval/both/acc_norm"):
        check_harness(settings_of(tmp_path, "both"), 128, ("lm_eval/both/acc_norm",))


def test_measuring_again_gives_the_same_and_disturbs_no_generator(
    source: ModelSource, model: PreTrainedModel, folder: Path
) -> None:
    before = [value.clone() for value in model.state_dict().values()]
    harness = harness_of(source, settings_of(folder, "colours_fewshot", "says", "rolls"))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    drawn = random.random(), float(np.random.random()), float(torch.rand(()))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    first, prompts = harness.measure(model), asked(harness)
    assert drawn == (random.random(), float(np.random.random()), float(torch.rand(())))
    assert (harness.measure(model), asked(harness)) == (first, prompts)
    after = model.state_dict().values()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def asked(harness: Harness) -> list[Any]:
    """The prompts, examples included, and what was to follow them."""
    return [one.args for task in harness._loaded["tasks"].values() for one in task.instances]


def test_limit_and_few_shot_examples_are_those_of_the_settings(folder: Path) -> None:
    def shots(**options: Any) -> list[int | None]:
        tasks = load_tasks(settings_of(folder, "colours", "colours_fewshot", **options))["tasks"]
        return [task.get_config("num_fewshot") for task in tasks.values()]

    assert shots() == [None, 1]
    assert shots(num_fewshot=2) == [2, 2]
    assert shots(num_fewshot=0) == [0, 0]


def test_mixed_precision_is_that_of_the_trial(
    source: ModelSource, model: PreTrainedModel, folder: Path
) -> None:
    seen = []
    model.register_forward_hook(lambda module, given, out: seen.append(out.logits.dtype))
    harness = harness_of(source, settings_of(folder, "colours", "says", limit=2))
    harness.measure(model)
    assert set(seen) == {torch.float32}
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        harness.measure(model)
    assert set(seen) == {torch.bfloat16}


REFUSED = [
    ("colors", r"lm-eval .* has no task `colors`.*did you mean `colours`"),
    ("samples", r"`samples` samples responses \(do_sample\)"),
    ("warm", r"`warm` samples responses"),
    ("codes", r"`codes` executes code generated by the model"),
    ("lost", r"cannot load lost: FileNotFoundError: .*gone.jsonl"),
    ("typo", r"cannot load typo: TemplateAssertionError: No filter named 'nosuch'"),
    ("long", r"`long` generates up to 256 tokens, but the model has a window of 128"),
]


@pytest.mark.parametrize(("task", "message"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_cannot_run_is_refused_before_a_launch(
    folder: Path, task: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.scoring.harness._manager", own_tasks)
    with pytest.raises(DataError, match=message):
        check_harness(settings_of(folder, task), 128, ())


def test_a_response_has_to_leave_room_for_a_prompt_in_the_window(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.scoring.harness._manager", own_tasks)
    check_harness(settings_of(folder, "says"), 6, ())
    with pytest.raises(DataError, match=r"generates up to 5 tokens, but .* a window of 5"):
        check_harness(settings_of(folder, "says"), 5, ())
    check_harness(settings_of(folder, "colours"), 1, ())  # It generates nothing.


def test_more_examples_than_there_are_documents_are_refused(folder: Path) -> None:
    check_harness(settings_of(folder, "colours_fewshot", num_fewshot=6), 128, ())
    with pytest.raises(DataError, match=r"cannot load colours_fewshot: ValueError: Sample larger"):
        check_harness(settings_of(folder, "colours_fewshot", num_fewshot=7), 128, ())


def own_tasks(manager: Any, settings: HarnessSettings) -> Any:
    """The tasks of the folder alone: indexing the package's takes ten seconds."""
    return manager(include_path=settings.include_path, include_defaults=False)


def test_an_objective_that_no_task_measures_is_refused(folder: Path) -> None:
    settings = settings_of(folder, "colours", "says")
    known = ("lm_eval/colours/acc", "lm_eval/says/exact_match/first", "unsafe_rate")
    check_harness(settings, 128, known)
    for name in ("lm_eval/colours/acc_norm", "lm_eval/says/exact_match", "lm_eval/boats/acc"):
        wanted = f"no task measures {name}; .*measure {', '.join(known[:2])}$"
        with pytest.raises(DataError, match=wanted):
            check_harness(settings, None, (name,))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lm_eval.include_path: .*nowhere is not a folder"):
        load_tasks(settings_of(tmp_path / "nowhere", "colours"))


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *given: Any, **options: Any) -> Any:
        if name.startswith("lm_eval"):
            raise ImportError("No module named 'lm_eval'")
        return plain(name, *given, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    load_tasks.cache_clear()
    with pytest.raises(MissingExtraError, match=r"install `sweeper-llm\[eval\]`"):
        load_tasks(settings_of(folder, "colours"))


def tasks_of(world: World, *overrides: str) -> list[TrajectoryTask]:
    given = ["space.learning_rate=0.05", "space.max_steps={values: [1, 3]}", *overrides]
    spec = parse_spec(spec_text(world), overrides=given)
    return list(make_tasks(make_plan(spec), spec, str, device="cpu"))


def asking(folder: Path) -> tuple[str, str]:
    """Overrides: two tasks, one of whose metrics is the utility objective."""
    names = "tasks: [colours, says], limit: 5"
    return (
        f"evaluation.lm_eval={{{names}, include_path: {folder}}}",
        "objectives=[lm_eval/colours/acc, unsafe_rate]",
    )


def outcome(task: TrajectoryTask, root: Path) -> dict[str, TrialRecord]:
    records = run_trajectory(task, TrialStorage(root, task.trajectory_id))
    return {record.config_id: record for record in records}


def role(tasks: list[TrajectoryTask], name: str) -> TrajectoryTask:
    return next(task for task in tasks if task.readouts[0].role == name)


@pytest.mark.parametrize("tuning", ["{method: lora, lora_dropout: 0.2}", "{method: full}"])
def test_a_trajectory_measures_tasks_and_trains_as_without(
    tiny_world: World, tmp_path: Path, folder: Path, tuning: str
) -> None:
    plain = tasks_of(tiny_world, f"tuning={tuning}")
    asked = tasks_of(tiny_world, f"tuning={tuning}", *asking(folder))
    preflight(asked[0])
    for name in ("base", "candidate"):
        without = outcome(role(plain, name), tmp_path / f"plain-{name}")
        found = outcome(role(asked, name), tmp_path / f"asked-{name}")
        assert set(found) == set(without)
        for config_id, record in found.items():
            assert record.status == "complete", record.reason
            added = set(record.metrics) - set(without[config_id].metrics)
            assert added == {"lm_eval/colours/acc", "lm_eval/says/exact_match/first"}
            assert {record.metrics[metric].n for metric in added} == {5}
            kept = {metric: record.metrics[metric] for metric in without[config_id].metrics}
            assert kept == dict(without[config_id].metrics)
            mine, its = record.provenance, without[config_id].provenance
            assert mine["weights_sha256"] == its["weights_sha256"]
            assert mine["versions"]["lm_eval"] and mine["data_sha256"]["lm_eval"]
            assert mine["lm_eval"]["tasks"] == ["colours", "says"]
            assert mine["lm_eval"]["limit"] == 5 and its["lm_eval"] is None


def test_adapters_are_measured_one_after_the_other(
    tiny_world: World, source: ModelSource, model: PreTrainedModel, folder: Path
) -> None:
    task = tasks_of(tiny_world)[0]
    settings = settings_of(folder, "colours", "rolls")
    task = replace(task, evaluation=replace(task.evaluation, lm_eval=settings))
    tuning = Tuning("lora", lora_r=4, lora_alpha=8, lora_target_modules=("q_proj", "down_proj"))
    adapters = [new_adapter(model, tuning, seed) for seed in (1, 2)]
    for adapter in adapters:
        for number, value in enumerate(adapter.parameters().values()):
            generator = torch.Generator().manual_seed(number)
            value.data += 0.3 * torch.randn(value.shape, generator=generator)
    slots = AdapterStack(model, adapters[0].factors)
    slots.load(adapters)
    scores = Scorer(load_inputs(task), task.evaluation, CPU).score(model, slots, 2)
    together = [{n: m for n, m in one.metrics.items() if "lm_eval" in n} for one in scores]
    harness = harness_of(source, settings)
    for adapter, found in zip(adapters, together, strict=True):
        slots.load([adapter])
        assert harness.measure(model).metrics == found
    assert together[0] != together[1]
    slots.remove()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_measure_what_one_does(
    tiny_world: World, tmp_path: Path, folder: Path, method: str
) -> None:
    options = (f"tuning={{method: {method}}}", "evaluation.utility_metrics=[token_accuracy]")
    task = role(tasks_of(tiny_world, *options, *asking(folder)), "candidate")
    alone = outcome(task, tmp_path / "one")
    two = replace(task, compute=replace(task.compute, gpus_per_trial=2))
    parts = run_pack([two], lambda trajectory_id: TrialStorage(tmp_path / "two", trajectory_id))
    spread = {record.config_id: record for part in parts for record in part}
    assert set(spread) == set(alone) and len(spread) > 3
    for record in spread.values():
        assert record.status == "complete", record.reason
        assert record.provenance["processes"] == 2
        assert set(record.metrics) == set(alone[record.config_id].metrics)
        for name, metric in record.metrics.items():
            assert metric == alone[record.config_id].metrics[name], name
