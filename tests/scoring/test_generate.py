"""Generation: equal to transformers' own, equal for one adapter and many, stopped early exactly."""

import random
from collections.abc import Iterator
from functools import partial
from itertools import chain

import pytest
import torch
from support.world import World
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from sweeper.keywords.lists import keyword_list_names, load_keyword_list
from sweeper.memory import TILE
from sweeper.model.adapters import Adapter, AdapterStack, new_adapter
from sweeper.model.load import load_model, load_tokenizer
from sweeper.scoring.generate import Generator, Request, Response, lay_out
from sweeper.scoring.stable_text import StableText
from sweeper.scoring.verdicts import is_decided, judge_response
from sweeper.task import ModelSource, Tuning

TUNING = Tuning("lora", 4, 8, 0.0, ("q_proj", "v_proj", "up_proj"))
NEW = 12


@pytest.fixture(scope="module")
def source(tiny_world: World) -> ModelSource:
    return ModelSource(str(tiny_world.model), dtype="float32", name="tiny")


@pytest.fixture
def model(source: ModelSource) -> PreTrainedModel:
    return load_model(source, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer(source: ModelSource) -> PreTrainedTokenizerFast:
    loaded = load_tokenizer(source)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def prompts(count: int = 37) -> list[tuple[int, ...]]:
    draw = random.Random(5)
    return [tuple(draw.choices(range(5, 300), k=draw.randint(2, 15))) for _ in range(count)]


def adapters_of(model: PreTrainedModel, count: int) -> list[Adapter]:
    made = []
    for seed in range(count):
        made.append(new_adapter(model, TUNING, seed))
        torch.manual_seed(seed)
        for _, up in made[-1].factors.values():
            up.data.normal_(0, 0.3)
    return made


def test_responses_are_those_of_transformers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    requests = [Request(tokens) for tokens in prompts()]
    generator = Generator(tokenizer, requests, max_new_tokens=NEW, batch_size=8)
    (found,) = generator.answer(model)
    ends = 0
    for response, request in zip(found, requests, strict=True):
        output = model.generate(  # type: ignore[operator]
            torch.tensor([request.tokens]),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=NEW,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            ),
        )
        tokens = output[0, len(request.tokens) :].tolist()
        assert response.text == tokenizer.decode(tokens, skip_special_tokens=True)
        assert response.tokens == len(tokens)
        assert not response.cut
        ends += len(tokens) < NEW
    assert ends < len(requests)


@pytest.mark.parametrize("batch_size", [5, 64])
def test_many_adapters_at_once_answer_as_each_does_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int
) -> None:
    adapters = adapters_of(model, 5)
    slots = AdapterStack(model, adapters[0].factors)
    requests = [Request(tokens) for tokens in prompts()]
    generator = Generator(tokenizer, requests, max_new_tokens=NEW, batch_size=batch_size)
    with slots.loaded(adapters, [None] * 5):
        together = generator.answer(model, slots, 5)
    assert len({tuple(responses) for responses in together}) == 5
    for adapter, responses in zip(adapters, together, strict=True):
        with slots.loaded([adapter], [None]):
            assert generator.answer(model, slots, 1) == [responses]


def stop_at_vowels(text: str) -> bool:
    return sum(text.count(letter) for letter in "aeiou") >= 3


def test_a_stopped_response_is_the_beginning_of_the_whole_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    adapters = adapters_of(model, 3)
    slots = AdapterStack(model, adapters[0].factors)

    def answers(decided: bool) -> list[Response]:
        rule = stop_at_vowels if decided else None
        requests = [Request(tokens, rule) for tokens in prompts()]
        generator = Generator(tokenizer, requests, max_new_tokens=NEW, batch_size=64)
        with slots.loaded(adapters, [None] * 3):
            return list(chain.from_iterable(generator.answer(model, slots, 3)))

    cut = 0
    stable = StableText(tokenizer)
    for stopped, whole in zip(answers(True), answers(False), strict=True):
        if not stopped.cut:
            assert stopped == whole
            continue
        cut += 1
        assert stopped.tokens < whole.tokens or not whole.cut
        assert whole.text.startswith(stopped.text.rstrip("\ufffd"))
        assert stop_at_vowels(stopped.text)
    assert 0 < cut < len(prompts()) * 3
    assert stable([]) == ""


def test_batches_are_sorted_and_filled_to_whole_tiles() -> None:
    requests = [Request((7,) * n) for n in (5, 1, 3, 2)]
    first, second = lay_out(requests, 3, pad=0)
    assert (first.indices, second.indices) == ((1, 3, 2), (0,))
    assert first.ids.shape == (TILE, 3)
    assert first.ids[:3].tolist() == [[0, 0, 7], [0, 7, 7], [7, 7, 7]]
    assert first.mask[:3].tolist() == [[False, False, True], [False, True, True], [True] * 3]
    assert torch.equal(first.ids[3:], first.ids[2].expand(TILE - 3, -1))


def llama_2_like() -> PreTrainedTokenizerFast:
    """A sentencepiece-like vocabulary with byte tokens and Llama-2's decoder."""
    words = ["▁I", "▁cannot", "▁help", "▁", "x", "'", "m", "▁sorry"]
    vocabulary = {f"<0x{i:02X}>": i for i in range(256)}
    vocabulary |= {word: 256 + i for i, word in enumerate(words)} | {"</s>": 300, "<unk>": 301}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def word_piece() -> PreTrainedTokenizerFast:
    words = ["i", "can", "##not", "##n", "'", "t", "do", "not", ".", ",", "##s", "m", "sorry"]
    backend = Tokenizer(
        models.WordPiece({w: i for i, w in enumerate([*words, "[UNK]"])}, unk_token="[UNK]")
    )
    backend.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def tokenizers() -> Iterator[PreTrainedTokenizerFast]:
    yield llama_2_like()
    yield word_piece()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_stable_text_is_the_beginning_of_whatever_follows(
    tokenizer: PreTrainedTokenizerFast, number: int
) -> None:
    used = [*tokenizers(), tokenizer][number]
    stable = StableText(used)
    draw = random.Random(number)
    ids = sorted(used.get_vocab().values())
    grown = 0
    for _ in range(300):
        tokens = draw.choices(ids, k=draw.randint(1, 14))
        whole = str(used.decode(tokens, skip_special_tokens=True))
        for end in range(len(tokens) + 1):
            text = stable(tokens[:end])
            assert whole.startswith(text)
            grown += len(text)
    assert grown > 1000


def test_a_character_of_several_byte_tokens_is_held_back_until_its_run_has_ended() -> None:
    used = llama_2_like()
    stable = StableText(used)
    vocabulary = used.get_vocab()
    character = [0xE4, 0xB8, 0xAD]
    assert used.decode(character) == "\u4e2d"
    assert used.decode([*character, 0xE4]) != "\u4e2d\ufffd"
    assert stable([vocabulary["▁I"], *character]) == "I"
    assert stable([vocabulary["▁I"], *character, vocabulary["x"]]) == "I\u4e2dx"


@pytest.mark.parametrize("names", [("sweeper",), ("sweeper", "zou2023", "qi2023"), ("wei2024",)])
def test_a_decided_beginning_has_the_verdicts_of_every_continuation(names: tuple[str, ...]) -> None:
    lists = [load_keyword_list(name) for name in names]
    decided = partial(is_decided, lists=lists)
    draw = random.Random(11)
    phrases = [
        phrase for name in keyword_list_names() for phrase in load_keyword_list(name).phrases
    ]
    words = ["I", "can", "Step", "one:", "take", "the", "boat.", "\u2019", "Sure,", "\n", " ", "ΑΣ"]
    words.append("Instead,")  # It ends what the list `sweeper` reads.
    early = 0
    for _ in range(600):
        parts = draw.choices([*words, *draw.sample(phrases, 3)], k=draw.randint(1, 40))
        whole = draw.choice(["", " "]).join(f"{part} " for part in parts)
        end = 0
        while end < len(whole):
            end += draw.randint(1, 6)
            if decided(whole[:end]):
                assert judge_response(whole[:end], lists) == judge_response(whole, lists)
                early += end < len(whole)
                break
    assert early > 100
