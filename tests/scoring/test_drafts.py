"""Drafts change how many forward passes responses take, and never a response."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.world import World
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.load import load_model, load_tokenizer
from sweeper.scoring.decode import Draft, Row
from sweeper.scoring.drafts import LEAD, can_check, choose
from sweeper.scoring.generate import Generator, Request, Response
from sweeper.task import ModelSource, Tuning

NEW = 12
TUNING = Tuning("lora", 4, 8, 0.0, ("q_proj", "v_proj", "up_proj"))


@pytest.fixture(scope="module")
def source(tiny_world: World) -> ModelSource:
    return ModelSource(str(tiny_world.model), dtype="float32", name="tiny")


@pytest.fixture(scope="module")
def model(source: ModelSource) -> PreTrainedModel:
    """With larger logits than a new model has, so that its responses vary."""
    loaded = load_model(source, torch.device("cpu"))
    loaded.get_output_embeddings().weight.data *= 20
    return loaded


@pytest.fixture(scope="module")
def tokenizer(source: ModelSource) -> PreTrainedTokenizerFast:
    loaded = load_tokenizer(source)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


@pytest.fixture(scope="module")
def plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[Response]:
    return generator_of(tokenizer).answer(model)[0]


@pytest.fixture
def passes(model: PreTrainedModel) -> Iterator[list[int]]:
    """The rows of every forward pass."""
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, inputs, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    yield rows
    hook.remove()


def generator_of(
    tokenizer: PreTrainedTokenizerFast, batch_size: int = 8, stop: bool = False
) -> Generator:
    draw = random.Random(5)
    prompts = [tuple(draw.choices(range(5, 300), k=draw.randint(2, 15))) for _ in range(37)]
    rule = stop_at_vowels if stop else None
    return Generator(
        tokenizer,
        [Request(tokens, rule) for tokens in prompts],
        max_new_tokens=NEW,
        batch_size=batch_size,
        ends=[draw.randrange(300) for _ in range(20)],
    )


def stop_at_vowels(text: str) -> bool:
    return sum(text.count(letter) for letter in "aeiou") >= 3


def changed(responses: Sequence[Response], seed: int, share: float) -> list[Draft]:
    """Drafts that equal the responses but for some tokens, and for their lengths."""
    draw = random.Random(seed)
    drafts = []
    for response in responses:
        tokens = [draw.randrange(300) if draw.random() < share else token for token in response.ids]
        drafts.append((*tokens, *draw.choices(range(300), k=9))[: draw.randint(0, NEW + 9)])
    return drafts


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    batch_size=st.sampled_from([5, 64]),
    stop=st.booleans(),
)
def test_responses_from_any_draft_are_those_without(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    plain: list[Response],
    seed: int,
    share: float,
    batch_size: int,
    stop: bool,
) -> None:
    generator = generator_of(tokenizer, batch_size, stop)
    (found,) = generator.answer(model, drafts=changed(plain, seed, share))
    assert found == generator.answer(model)[0]


def test_one_adapter_of_several_answers_from_drafts_as_without(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, source: ModelSource
) -> None:
    adapters = [new_adapter(model, TUNING, seed) for seed in range(3)]
    for seed, adapter in enumerate(adapters):
        torch.manual_seed(seed)
        for _, up in adapter.factors.values():
            up.data.normal_(0, 0.3)
    stack = AdapterStack(model, adapters[0].factors)
    generator = generator_of(tokenizer)
    with stack.loaded(adapters, [None] * 3):
        (first,), (last,) = (generator.answer(model, stack, [i]) for i in (0, 2))
        drafts = [response.ids for response in first]
        assert generator.answer(model, stack, [2], drafts) == [last]
    stack.remove()
    assert first != last


def test_right_drafts_take_one_pass_for_each_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    plain: list[Response],
    passes: list[int],
) -> None:
    generator = generator_of(tokenizer)
    assert generator.answer(model, drafts=[item.ids for item in plain]) == [plain]
    assert passes == [8, 8, 8, 8, 5]


def test_what_rounding_may_decide_is_decoded_without_a_draft(
    source: ModelSource,
    tokenizer: PreTrainedTokenizerFast,
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tied = load_model(source, torch.device("cpu"))
    weight = tied.get_output_embeddings().weight.data
    weight *= 20
    weight[150:] = weight[: len(weight) - 150] * (1 + 1e-7)  # Nearly every token has a twin.
    generator = generator_of(tokenizer)
    (expected,) = generator.answer(tied)
    again: list[int] = []
    restart = Row.restart

    def counted(row: Row) -> None:
        again.append(row.index)
        restart(row)

    monkeypatch.setattr(Row, "restart", counted)
    assert generator.answer(tied, drafts=[item.ids for item in expected]) == [expected]
    assert len(again) - 37 > 30  # Each row starts once.


def test_a_token_is_certain_that_leads_by_more_than_rounding() -> None:
    size = 50.0
    logits = torch.tensor([[[0.0, 10 + 1.01 * LEAD * size, 10, -size]]])
    assert choose(logits).certain.tolist() == [[True]]
    assert choose(logits).tokens.tolist() == [[1]]
    logits[0, 0, 1] = 10 + 0.9 * LEAD * size
    assert choose(logits).certain.tolist() == [[False]]
    for bad in (torch.nan, torch.inf):
        logits[0, 0, 1] = bad
        assert choose(logits).certain.tolist() == [[False]]


def test_drafts_are_checked_in_fp32_only(model: PreTrainedModel, source: ModelSource) -> None:
    assert can_check(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not can_check(model)
    assert not can_check(load_model(replace(source, dtype="pure_bf16"), torch.device("cpu")))
