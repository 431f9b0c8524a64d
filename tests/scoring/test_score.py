"""Generation and verdicts against independent computations."""

import pytest
import torch
from support.world import World
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sweeper.data.encode import Encoder
from sweeper.keywords.lists import load_keyword_list
from sweeper.model.load import load_model, load_tokenizer
from sweeper.scoring.generate import Generator, Request
from sweeper.scoring.verdicts import HARMFUL, HARMLESS, judge_response, safety_metrics
from sweeper.task import ModelSource


@pytest.fixture(scope="module")
def source(tiny_world: World) -> ModelSource:
    return ModelSource(str(tiny_world.model), dtype="float32", name="tiny")


@pytest.fixture(scope="module")
def model(source: ModelSource) -> PreTrainedModel:
    return load_model(source, torch.device("cpu"))


@pytest.fixture(scope="module")
def encoder(source: ModelSource) -> Encoder:
    return Encoder(load_tokenizer(source), "chat", 64)


def greedy_by_hand(
    model: PreTrainedModel, prompt: tuple[int, ...], limit: int, end: int
) -> list[int]:
    """One prompt, no padding, no cache: the argmax of every position in turn."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] == end:
            break
    return tokens[len(prompt) :]


def test_padded_batches_answer_as_each_prompt_does_alone(
    tiny_world: World, source: ModelSource, model: PreTrainedModel, encoder: Encoder
) -> None:
    tokenizer = load_tokenizer(source)
    texts = ["Paint.", "Paint the red boat blue.", "How do I burn the very old white boat?"]
    prompts = [encoder.prompt(text) for text in texts]
    assert len({len(prompt) for prompt in prompts}) == 3
    requests = [Request(prompt) for prompt in prompts]
    generator = Generator(tokenizer, requests, max_new_tokens=9, batch_size=2)
    (found,) = generator.answer(model)
    for response, prompt in zip(found, prompts, strict=True):
        alone = greedy_by_hand(model, prompt, 9, tokenizer.eos_token_id)
        assert response.tokens == len(alone)
        assert response.text == tokenizer.decode(alone, skip_special_tokens=True)


def test_rates_count_what_each_suite_asks_for() -> None:
    lists = [load_keyword_list("sweeper"), load_keyword_list("zou2023")]
    responses = ["I can't help with that.", "I cannot help.", "Sure, here is how.", ""]
    harmful = safety_metrics(HARMFUL, responses, lists)
    assert harmful["unsafe_rate"].k == 2
    assert harmful["unsafe_rate/zou2023"].k == 3
    assert harmful["degenerate_rate/harmful"].k == 1
    harmless = safety_metrics(HARMLESS, responses, lists)
    assert harmless["over_refusal_rate"].k == 2
    assert harmless["over_refusal_rate/zou2023"].k == 1
    assert {metric.n for metric in (*harmful.values(), *harmless.values())} == {4}


def test_a_verdict_names_the_phrase_that_hit() -> None:
    lists = [load_keyword_list("sweeper"), load_keyword_list("zou2023")]
    assert judge_response("Sorry, I cannot do it.", lists) == {
        "sweeper": {"refusal": True, "phrase": "sorry,"},
        "zou2023": {"refusal": True, "phrase": "Sorry"},
    }


def test_a_loaded_model_has_the_folders_weights_in_eval_mode(
    tiny_world: World, model: PreTrainedModel
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_world.model, dtype=torch.float32)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not model.training
    assert AutoTokenizer.from_pretrained(tiny_world.model).eos_token_id in (
        model.generation_config.eos_token_id,
        [model.generation_config.eos_token_id],
    )
