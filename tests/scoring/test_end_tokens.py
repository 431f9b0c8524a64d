"""Which tokens end a response: those that the model names, and the tokenizer's."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sweeper.scoring.generate import end_tokens


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


def test_a_model_without_a_generation_config_leaves_it_to_the_tokenizer() -> None:
    named = SimpleNamespace(generation_config=None)
    reads = SimpleNamespace(eos_token_id=5)
    found = end_tokens(cast(PreTrainedModel, named), cast(PreTrainedTokenizerBase, reads))
    assert found == {5}
