"""Which tokens end a response: those of the model, of the tokenizer, and of the chat template."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.world import World, spec_text
from tokenizers import AddedToken
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sweeper.model.load import end_tokens
from sweeper.model.saved import save_weights
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory


@pytest.mark.parametrize(
    ("model", "tokenizer", "expected"),
    [
        ([1, 2], 3, {1, 2, 3}),
        (1, 1, {1}),
        (7, None, {7}),
        (None, 5, {5}),
        (None, None, set()),
    ],
)
def test_either_may_name_none_one_or_several(
    model: Any, tokenizer: Any, expected: set[int]
) -> None:
    named = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=model))
    reads = SimpleNamespace(eos_token_id=tokenizer)
    found = end_tokens(cast(PreTrainedModel, named), cast(PreTrainedTokenizerBase, reads))
    assert found == expected
    found = end_tokens(cast(PreTrainedModel, named), cast(PreTrainedTokenizerBase, reads), (9, 1))
    assert found == expected | {9, 1}


def test_a_model_without_a_generation_config_leaves_it_to_the_tokenizer() -> None:
    named = SimpleNamespace(generation_config=None)
    reads = SimpleNamespace(eos_token_id=5)
    found = end_tokens(cast(PreTrainedModel, named), cast(PreTrainedTokenizerBase, reads))
    assert found == {5}


@pytest.fixture(params=[True, False], ids=["special", "plain"])
def late_world(request: pytest.FixtureRequest, tiny_world: World, tmp_path: Path) -> World:
    """Llama 3's first release in small: the template ends a turn with a token that nothing else names."""
    folder = shutil.copytree(tiny_world.model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token = AddedToken("<|eot|>", special=request.param, normalized=False)
    tokenizer.add_tokens([token], special_tokens=request.param)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ eos_token }}", "<|eot|>\n")
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    return replace(tiny_world, model=folder)


def task_of(world: World, *overrides: str) -> TrajectoryTask:
    spec = parse_spec(spec_text(world), overrides=list(overrides))
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return next(task for task in tasks if task.readouts[0].role == "candidate")


def test_generation_stops_where_the_template_ends_a_turn(late_world: World, tmp_path: Path) -> None:
    """The model learns sentences of one form; an answer must be one of them and nothing behind it."""
    task = task_of(
        late_world,
        "tuning={method: full}",
        "space={learning_rate: 0.01, batch_size: 24, max_steps: 100}",
        f"data.train={{path: {late_world.train}}}",
        f"data.heldout={{path: {late_world.train}, rows: 4}}",
        "evaluation.max_new_tokens=24",
        "evaluation.utility_metrics=[exact_match, rouge_l]",
        "compute.keep_weights=all",
    )
    storage = TrialStorage(tmp_path / "trial", task.trajectory_id)
    records = list(run_trajectory(task, storage))
    last = max(records, key=lambda record: record.readout["step"])
    assert last.status == "complete", last.reason
    lines = storage.generations(last.config_id, 0).read_text(encoding="utf-8").splitlines()
    answers = [line["response"] for line in map(json.loads, lines) if line["suite"] == "utility"]
    assert len(answers) == 4
    assert all(re.fullmatch(r"The \w+ is \w+\.", answer) for answer in answers), answers
    assert last.provenance["tokens"]["generated"] < 24 * 12
    stops = last.provenance["decoding"]["end_tokens"]
    assert list(stops) == ["</s>", "<|eot|>"]
    saved = tmp_path / "saved"
    saved.mkdir()
    save_weights(task, storage.weights(last.config_id), saved)
    written = json.loads((saved / "generation_config.json").read_text(encoding="utf-8"))
    assert written["eos_token_id"] == sorted(stops.values())


def test_a_model_that_names_its_end_keeps_its_settings(tiny_world: World) -> None:
    inputs = load_inputs(task_of(tiny_world))
    assert inputs.end_tokens == (inputs.tokenizer.eos_token_id,)
