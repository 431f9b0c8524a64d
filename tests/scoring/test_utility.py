"""Likelihood and text metrics against naive recomputation with plain transformers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.world import World, spec_text, write_jsonl
from transformers import AutoModelForCausalLM, PreTrainedModel

from sweeper.data.encode import Encoded, Encoder
from sweeper.data.load import Example
from sweeper.errors import DataError
from sweeper.metrics import TEXT_METRICS, UTILITY_METRICS
from sweeper.model.adapters import Adapter, AdapterStack, new_adapter
from sweeper.model.batches import collate
from sweeper.model.load import load_model, load_tokenizer
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring import utility
from sweeper.scoring.inputs import load_inputs, preflight
from sweeper.scoring.score import Scorer
from sweeper.scoring.utility import (
    RowSums,
    extract_answer,
    likelihood_samples,
    reference_answers,
    row_sums,
    text_metrics,
)
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import Metric, TrialRecord, metrics_from_samples
from sweeper.task import ModelSource, TrajectoryTask, Tuning
from sweeper.trial.run import run_trajectory

CPU = torch.device("cpu")
LIKELIHOODS = ("heldout_loss", "perplexity", "token_accuracy")


@pytest.fixture(scope="module")
def source(tiny_world: World) -> ModelSource:
    return ModelSource(str(tiny_world.model), dtype="float32", name="tiny")


@pytest.fixture(scope="module")
def rows(source: ModelSource) -> list[Encoded]:
    encoder = Encoder(load_tokenizer(source), "chat", 64)
    texts = [("Paint the boat red.", "The boat is red."), ("Paint it.", "It is a long answer.")]
    return [encoder.example(Example(*pair)) for pair in texts]


def naive(model: torch.nn.Module, rows: Sequence[Encoded]) -> tuple[float, int, int]:
    """Summed loss, right predictions and targets, a row at a time, with labels as transformers has them."""
    loss, correct, count = 0.0, 0, 0
    for row in rows:
        ids = torch.tensor([row.prompt + row.completion])
        labels = ids.clone()
        labels[0, : len(row.prompt)] = -100
        with torch.no_grad():
            out = model(input_ids=ids, labels=labels)
        guesses = out.logits[0, len(row.prompt) - 1 : -1].argmax(dim=-1)
        loss += float(out.loss) * len(row.completion)
        correct += int((guesses == ids[0, len(row.prompt) :]).sum())
        count += len(row.completion)
    return loss, correct, count


def towards(model: PreTrainedModel, rows: Sequence[Encoded]) -> PreTrainedModel:
    """The model after a few steps on the rows, so that some of its predictions are right."""
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(6):
        for row in rows:
            ids = torch.tensor([row.prompt + row.completion])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.requires_grad_(False)


@pytest.mark.parametrize("pieces", [4096, 3])
def test_sums_over_target_tokens_are_those_of_a_plain_forward_pass(
    tiny_world: World,
    source: ModelSource,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    pieces: int,
) -> None:
    monkeypatch.setattr(utility, "LOGIT_ROWS", pieces)
    model = towards(load_model(source, CPU), rows)
    plain = AutoModelForCausalLM.from_pretrained(tiny_world.model, dtype=torch.float32).eval()
    plain.load_state_dict(model.state_dict())
    loss, correct, count = naive(plain, rows)
    assert 0 < correct < count
    batch = collate([rows], 0)
    (sums,) = row_sums(model, batch, count_correct=True)
    assert batch.counts == (count,)
    assert sum(sums.loss) == pytest.approx(loss, rel=1e-5)
    assert sum(sums.correct) == correct
    for number, row in enumerate(rows):
        own, right, _ = naive(plain, [row])
        assert sums.loss[number] == pytest.approx(own, rel=1e-5)
        assert sums.correct[number] == right
    (uncounted,) = row_sums(model, batch)
    assert uncounted == RowSums(sums.loss, (0,) * len(rows))


def shaken(model: PreTrainedModel, seed: int) -> Adapter:
    tuning = Tuning("lora", lora_r=4, lora_alpha=8, lora_target_modules=("q_proj", "down_proj"))
    adapter = new_adapter(model, tuning, seed)
    generator = torch.Generator().manual_seed(seed)
    for value in adapter.parameters().values():
        value.data += 0.3 * torch.randn(value.shape, generator=generator)
    return adapter


def test_several_adapters_at_once_are_each_as_alone(
    source: ModelSource, rows: list[Encoded]
) -> None:
    model = towards(load_model(source, CPU), rows)
    adapters = [shaken(model, seed) for seed in (1, 2, 3)]
    slots = AdapterStack(model, adapters[0].factors)
    slots.load(adapters)
    batch = collate([rows], 0)
    together = row_sums(model, batch.repeated(3), count_correct=True)
    for number, found in enumerate(together):
        slots.arrange([number])
        (alone,) = row_sums(model, batch, count_correct=True)
        assert found.loss == pytest.approx(alone.loss, rel=1e-5)
        assert len(found.loss) == len(rows)
        assert found.correct == alone.correct
    assert len({found.loss for found in together}) == 3
    slots.remove()


def likelihoods(sums: Sequence[RowSums], tokens: Sequence[int]) -> dict[str, Metric]:
    return metrics_from_samples(LIKELIHOODS, likelihood_samples(LIKELIHOODS, sums, tokens))


def test_likelihood_metrics_are_functions_of_the_sums_of_rows() -> None:
    sums = [RowSums((4.0, 2.0), (2, 1)), RowSums((2.0,), (1,))]
    assert likelihoods(sums, [9, 4, 3]) == {
        "heldout_loss": Metric(0.5, 16),
        "perplexity": Metric(math.exp(0.5), 16),
        "token_accuracy": Metric(0.25, 16, 4),
    }
    assert likelihood_samples(LIKELIHOODS, sums, [9, 4, 3]) == {
        "heldout/loss": (4.0, 2.0, 2.0),
        "heldout/tokens": (9, 4, 3),
        "heldout/correct": (2, 1, 1),
    }
    assert "heldout/correct" not in likelihood_samples(["perplexity"], sums, [9, 4, 3])


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_nothing_to_read(loss: float) -> None:
    sums = [RowSums((loss,), (2,)), RowSums((1.0,), (1,))]
    assert likelihood_samples(LIKELIHOODS, sums, [2, 1]) == {}


def test_a_perplexity_beyond_all_floats_is_not_measured() -> None:
    assert set(likelihoods([RowSums((2000.0,), (0,))], [2])) == {"heldout_loss", "token_accuracy"}


def test_rouge_and_exact_match_by_hand() -> None:
    found = text_metrics(
        ["rouge_l", "exact_match"],
        ["the cat sat", " the dog ran ", ""],
        ["the cat sat down", "the dog ran", "a bird"],
    )
    assert found["rouge_l"].value == pytest.approx((2 * 1 * 0.75 / 1.75 + 1 + 0) / 3)
    assert (found["rouge_l"].n, found["rouge_l"].k) == (3, None)
    assert (found["exact_match"].k, found["exact_match"].n) == (1, 3)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 3 + 4 = 7.\n#### 7", "7"),
        ("#### 1,234", "1234"),
        ("#### $1,234.50", "1234.50"),
        ("####18.", "18"),
        ("#### -3 ...\nIs there more?", "-3"),
        ("#### 5\n#### 6", "6"),
        ("####\n\n  9 ", "9"),
        ("#### two dogs", "two dogs"),
        ("The answer is 7.", None),
        ("### 7", None),
        ("#### ", None),
        ("#### $.", None),
        ("#### 5 ####", None),
        ("", None),
    ],
)
def test_the_answer_of_a_gsm8k_text(text: str, answer: str | None) -> None:
    assert extract_answer(text, "gsm8k") == answer


def test_no_extractor_takes_the_whole_text_and_an_unknown_one_is_refused() -> None:
    assert extract_answer(" #### 7 ", "none") == "#### 7"
    with pytest.raises(ValueError, match="none or gsm8k, but got 'boxed'"):
        extract_answer("7", "boxed")


def test_exact_match_compares_answers() -> None:
    responses = ["3 * 4\n#### 12", "#### $12.", "it is 12", "#### 13"]
    found = text_metrics(["exact_match"], responses, ["... #### 12"] * 4, "gsm8k")
    assert found == {"exact_match": Metric(0.5, 4, 2)}


def test_a_reference_without_an_answer_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match=r"held-out row 2 has no answer after `####`: 'seven'"):
        reference_answers(["#### 7", "seven"], "gsm8k")


def task_of(world: World, *overrides: str, role: str = "candidate") -> TrajectoryTask:
    spec = parse_spec(spec_text(world), overrides=["space.learning_rate=0.01", *overrides])
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return next(task for task in tasks if task.readouts[0].role == role)


def records_of(task: TrajectoryTask, root: Path) -> list[TrialRecord]:
    records = list(run_trajectory(task, TrialStorage(root, task.trajectory_id)))
    assert {record.status for record in records} == {"complete"}, records[0].reason
    return records


def test_a_reference_without_an_answer_stops_a_sweep_before_it_starts(
    tiny_world: World, tmp_path: Path
) -> None:
    heldout = [{"prompt": f"{i} + 1?", "completion": f"#### {i + 1}"} for i in range(3)]
    good = write_jsonl(tmp_path / "good.jsonl", heldout)
    heldout[1]["completion"] = "two"
    bad = write_jsonl(tmp_path / "bad.jsonl", heldout)
    options = ("evaluation.answer_extractor=gsm8k", "evaluation.max_new_tokens=2")
    assert preflight(task_of(tiny_world, *options, f"data.heldout={{path: {good}}}"))
    with pytest.raises(DataError, match=r"held-out row 2 has no answer .*: 'two'"):
        preflight(task_of(tiny_world, *options, f"data.heldout={{path: {bad}}}"))


ASKED = [
    (("perplexity", "unsafe_rate"), "[perplexity]", {"perplexity"}),
    (("token_accuracy", "unsafe_rate"), "[token_accuracy]", {"token_accuracy"}),
    (("exact_match", "unsafe_rate"), "[exact_match]", {"exact_match"}),
    (("perplexity", "unsafe_rate"), f"[{', '.join(UTILITY_METRICS)}]", set(UTILITY_METRICS)),
]


@pytest.mark.parametrize(
    ("objectives", "names", "expected"), ASKED, ids=["loss", "tokens", "answers", "all"]
)
def test_only_what_is_asked_is_measured_and_answered(
    tiny_world: World,
    tmp_path: Path,
    objectives: tuple[str, str],
    names: str,
    expected: set[str],
) -> None:
    overrides = (
        f"objectives=[{', '.join(objectives)}]",
        f"evaluation.utility_metrics={names}",
        "space.max_steps=2",
    )
    for role in ("base", "candidate"):  # The untouched model always has them all.
        task = task_of(tiny_world, *overrides, role=role)
        for record in records_of(task, tmp_path / role):
            assert set(record.metrics) & set(UTILITY_METRICS) == expected
            assert record.provenance["decoding"]["answer_extractor"] == "none"
            storage = TrialStorage(tmp_path / role, task.trajectory_id)
            text = storage.generations(record.config_id, task.seed).read_text(encoding="utf-8")
            answered = '"suite": "utility"' in text
            assert answered == bool(expected & TEXT_METRICS)
            if len(expected) > 1:
                loss, perplexity = (record.metrics[n] for n in ("heldout_loss", "perplexity"))
                assert perplexity == Metric(math.exp(loss.value), loss.n)
                assert record.metrics["token_accuracy"].n == loss.n


def scores_of(task: TrajectoryTask, model: Any, *given: Any) -> list[dict[str, Metric]]:
    scorer = Scorer(load_inputs(task), task.evaluation, CPU)
    return [scores.metrics for scores in scorer.score(model, *given)]


@pytest.mark.parametrize("counted", [True, False])
def test_correct_tokens_are_counted_where_the_accuracy_is_asked(
    tiny_world: World, source: ModelSource, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    asked = []

    def watched(model: Any, batch: Any, *, count_correct: bool) -> list[RowSums]:
        asked.append(count_correct)
        return row_sums(model, batch, count_correct=count_correct)

    monkeypatch.setattr("sweeper.scoring.score.row_sums", watched)
    task = task_of(tiny_world)
    names = ("heldout_loss", "token_accuracy") if counted else ("heldout_loss",)
    task = replace(task, evaluation=replace(task.evaluation, utility_metrics=names))
    (found,) = scores_of(task, load_model(source, CPU))
    assert ("token_accuracy" in found) is counted
    assert asked and set(asked) == {counted}


def test_a_scorer_gives_each_adapter_what_it_gives_it_alone(
    tiny_world: World, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.scoring.score.HELDOUT_TOKENS", 200)  # Two at once, then the third.
    task = task_of(tiny_world)
    evaluation = replace(task.evaluation, utility_metrics=UTILITY_METRICS)
    task = replace(task, evaluation=evaluation)
    model = load_model(source, CPU).requires_grad_(False)
    adapters = [shaken(model, seed) for seed in (1, 2, 3)]
    slots = AdapterStack(model, adapters[0].factors)
    slots.load(adapters)
    together = scores_of(task, model, slots, 3)
    for adapter, found in zip(adapters, together, strict=True):
        slots.load([adapter])
        (alone,) = scores_of(task, model, slots, 1)
        assert set(found) == set(alone) > set(UTILITY_METRICS)
        for name, metric in found.items():
            assert (metric.k, metric.n) == (alone[name].k, alone[name].n)
            assert metric.value == pytest.approx(alone[name].value, rel=1e-5)
    slots.remove()
