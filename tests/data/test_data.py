"""From rows to tokens, and to the order and the batches they are trained in."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.data_samples import SHARED, needs_real_rows, pairs, settings_of, source
from support.raising import raises
from support.world import World, write_jsonl
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sweeper.data.encode import Encoded, Encoder, check_prompt, load_training_data
from sweeper.data.load import Example
from sweeper.model.batches import RowOrder, collate, micro_batches
from sweeper.task import ChatFormat, DataSettings, Template


@pytest.fixture(scope="module")
def tokenizer(tiny_world: World) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_world.model)
    return found


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> str:
    return str(tokenizer.decode(list(tokens)))


EXAMPLE = Example("Paint the door red.", "The door is red.")


def test_a_chat_row_decodes_to_the_templates_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = Encoder(tokenizer, "chat", 64)
    row = encoder.example(EXAMPLE)
    assert decoded(tokenizer, row.prompt) == "<s><|user|>Paint the door red.<|assistant|>"
    assert decoded(tokenizer, row.completion) == "The door is red.</s>"
    assert row.completion[-1] == tokenizer.eos_token_id
    assert row.prompt.count(tokenizer.bos_token_id) == 1
    assert encoder.prompt(EXAMPLE.prompt) == row.prompt
    assert encoder.encode_untruncated(EXAMPLE) == row
    short = Encoder(tokenizer, "chat", len(row.prompt) + 3)
    assert short.example(EXAMPLE).completion == row.completion[:3]
    assert short.encode_untruncated(EXAMPLE) == row


def test_a_completion_is_cut_at_the_window(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = Encoder(tokenizer, "chat", 64).example(EXAMPLE)
    window = len(whole.prompt) + 2
    cut = Encoder(tokenizer, "chat", window).example(EXAMPLE)
    assert cut == Encoded(whole.prompt, whole.completion[:2])
    full = Encoder(tokenizer, "chat", len(whole.prompt)).example(EXAMPLE)
    assert full == Encoded(whole.prompt, ())


def prompts_of(tokenizer: PreTrainedTokenizerBase, rows: tuple[Encoded, ...]) -> set[str]:
    return {
        decoded(tokenizer, row.prompt).removeprefix("<s><|user|>").removesuffix("<|assistant|>")
        for row in rows
    }


def test_the_rows_of_the_split_are_encoded_and_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [*pairs(5), *pairs(1)])
    heldout = source(write_jsonl(tmp_path / "heldout.jsonl", pairs(2)))
    found = load_training_data(
        settings_of(train, heldout=heldout, heldout_rows=None), Encoder(tokenizer, "chat", 64)
    )
    assert found.heldout == (Example("p0", "c0"), Example("p1", "c1"))
    assert prompts_of(tokenizer, found.train) == {"p2", "p3", "p4"}
    assert found.counts == {
        "train_rows": 3,
        "heldout_rows": 2,
        "dropped_blank_rows": 0,
        "dropped_blank_heldout": 0,
        "dropped_heldout_duplicates": 0,
        "dropped_near_heldout": 3,
        "dropped_overlong_prompts": 0,
        "dropped_overlong_heldout": 0,
        "truncated_completions": 0,
        "truncated_heldout": 0,
    }


LONG = {"prompt": "Paint the door. " * 9, "completion": "c"}


def overlong(tmp_path: Path, **fields: Any) -> DataSettings:
    train = write_jsonl(tmp_path / "a.jsonl", [*pairs(2), LONG])
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "c"}]))
    return settings_of(train, heldout=heldout, heldout_rows=None, max_length=12, **fields)


def test_an_overlong_prompt_is_an_error_that_names_row_and_remedies(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = Encoder(tokenizer, "chat", 12)
    length = len(encoder.prompt(LONG["prompt"]))
    row = "prompt of training row 3"
    with raises("data.too_long", row=row, tokens=length, limit=12):
        load_training_data(overlong(tmp_path), encoder)


def test_an_overlong_prompt_is_dropped_and_counted_where_that_is_asked(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = Encoder(tokenizer, "chat", 12)
    found = load_training_data(overlong(tmp_path, overlong_prompts="drop"), encoder)
    assert prompts_of(tokenizer, found.train) == {"p0", "p1"}
    assert found.counts["dropped_overlong_prompts"] == 1
    assert found.counts["train_rows"] == 2


def test_overlong_held_out_prompts_are_refused_or_dropped_likewise(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", pairs(2))
    rows = [{"prompt": "q", "completion": "c"}, LONG]
    heldout = source(write_jsonl(tmp_path / "b.jsonl", rows))
    fields: dict[str, Any] = {"heldout": heldout, "heldout_rows": None}
    encoder = Encoder(tokenizer, "chat", 12)
    with raises("data.too_long", row="prompt of held-out row 2", limit=12):
        load_training_data(settings_of(train, **fields), encoder)
    found = load_training_data(settings_of(train, overlong_prompts="drop", **fields), encoder)
    assert found.heldout == (Example("q", "c"),)
    assert (found.counts["heldout_rows"], found.counts["dropped_overlong_heldout"]) == (1, 1)
    assert found.counts["dropped_overlong_prompts"] == 0


def test_a_file_of_overlong_prompts_leaves_nothing_to_train_on(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", [LONG])
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "c"}]))
    fields = {"heldout": heldout, "heldout_rows": None, "overlong_prompts": "drop"}
    with raises("data.empty"):
        load_training_data(settings_of(train, **fields), Encoder(tokenizer, "chat", 12))


def test_a_prompt_that_fills_the_window_is_refused_and_one_token_less_is_not(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    settings, encoder = settings_of(tmp_path / "a.jsonl"), Encoder(tokenizer, "chat", 4)
    with raises("data.too_long", row="x", tokens=4, limit=4):
        check_prompt(settings, encoder, [0] * 4, "x")
    check_prompt(settings, encoder, [0] * 3, "x")


def test_truncated_completions_are_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"prompt": "p", "completion": "The door is red. " * 9}, *pairs(1)]
    train = write_jsonl(tmp_path / "a.jsonl", rows)
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "c"}]))
    found = load_training_data(
        settings_of(train, heldout=heldout, heldout_rows=None, max_length=20),
        Encoder(tokenizer, "chat", 20),
    )
    assert found.counts["truncated_completions"] == 1
    assert found.counts["truncated_heldout"] == 0
    assert max(len(row.prompt) + len(row.completion) for row in found.train) == 20


def test_each_side_is_written_by_its_own_template(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    settings = settings_of(
        write_jsonl(tmp_path / "a.jsonl", pairs(9)),
        template=Template(ChatFormat("chat"), ChatFormat("alpaca")),
        max_length=24,
        overlong_prompts="drop",
    )
    train, test = Encoder(tokenizer, "chat", 24), Encoder(tokenizer, "alpaca", 24)
    with raises("data.empty"):
        load_training_data(settings, train, test)  # Alpaca's frame alone is longer than that.
    found = load_training_data(settings, train)
    assert all(decoded(tokenizer, row.prompt).startswith("<s><|user|>p") for row in found.train)
    assert len(found.heldout) == 3


def test_a_row_that_its_template_has_no_place_for_is_named(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{**row, "system": "" if n < 2 else "Be brief."} for n, row in enumerate(pairs(3))]
    train = source(write_jsonl(tmp_path / "a.jsonl", rows), columns={"system": "system"})
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "c"}]))
    settings = settings_of(train, heldout=heldout, heldout_rows=None)
    row = "prompt of training row 3"
    with raises("data.chat_template", row=row, part="system prompt"):
        load_training_data(settings, Encoder(tokenizer, "alpaca", 500))


@needs_real_rows
def test_real_rows_are_dropped_and_cut_where_they_do_not_fit(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    settings: DataSettings = settings_of(
        source(SHARED / "alpaca_1k.json", "alpaca"), overlong_prompts="drop", heldout_rows=50
    )
    encoder = Encoder(tokenizer, "chat", 200)
    found = load_training_data(settings, encoder)
    counts = found.counts
    assert counts["train_rows"] + counts["dropped_overlong_prompts"] == 950
    assert counts["heldout_rows"] + counts["dropped_overlong_heldout"] == 50
    ends = sum(row.completion[-1] == tokenizer.eos_token_id for row in found.train)
    assert ends == counts["train_rows"] - counts["truncated_completions"]
    assert 0 < counts["truncated_completions"] < 900


@pytest.mark.parametrize(("rows", "batch_size"), [(10, 4), (7, 7), (3, 8), (1, 5), (24, 1)])
def test_every_epoch_sees_every_row_once(rows: int, batch_size: int) -> None:
    order = RowOrder(rows, batch_size, seed=3)
    seen = [row for step in range(4 * rows) for row in order.batch(step)]
    for start in range(0, len(seen) - rows + 1, rows):
        assert sorted(seen[start : start + rows]) == list(range(rows))


def test_the_rows_of_a_step_are_a_pure_function_of_seed_and_step() -> None:
    forward, backward = RowOrder(10, 4, seed=3), RowOrder(10, 4, seed=3)
    walked = [forward.batch(step) for step in range(20)]
    assert [backward.batch(step) for step in reversed(range(20))] == walked[::-1]
    assert RowOrder(10, 4, seed=3).batch(13) == walked[13]
    assert [RowOrder(10, 4, seed=4).batch(step) for step in range(20)] != walked


def test_epochs_are_shuffled_differently() -> None:
    order = RowOrder(12, 12, seed=0)
    assert len({tuple(order.batch(step)) for step in range(5)}) == 5


def test_the_batch_size_cuts_one_and_the_same_stream_of_rows() -> None:
    def stream(batch_size: int) -> list[int]:
        order = RowOrder(10, batch_size, seed=1)
        return [row for step in range(40 // batch_size) for row in order.batch(step)]

    assert stream(4) == stream(8) == stream(20)


def test_the_largest_seed_of_a_spec_is_a_seed() -> None:
    assert sorted(RowOrder(4, 4, seed=2**32 - 1).batch(9)) == [0, 1, 2, 3]


def test_rows_are_padded_on_the_right_without_labels() -> None:
    batch = collate([[Encoded((5, 6), (7,)), Encoded((8,), (9, 10, 11))]], pad_token_id=1)
    assert batch.input_ids.tolist() == [[5, 6, 7, 1], [8, 9, 10, 11]]
    assert batch.places.tolist() == [1, 4, 5, 6]
    assert batch.targets.tolist() == [7, 9, 10, 11]
    assert batch.counts == (4,)
    assert batch.input_ids.dtype == batch.targets.dtype == torch.int64


def test_slots_are_padded_together_and_counted_apart() -> None:
    first, second = [Encoded((5,), (6,))], [Encoded((7, 8), (9, 10))]
    batch = collate([first, second], pad_token_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 0, 0], [7, 8, 9, 10]]
    assert (batch.places.tolist(), batch.targets.tolist()) == ([0, 5, 6], [6, 9, 10])
    assert batch.counts == (1, 2)


def test_a_repeated_batch_is_the_batch_of_equal_slots() -> None:
    rows = [Encoded((5, 6), (7,)), Encoded((8,), (9, 10, 11))]
    repeated, together = collate([rows], 1).repeated(3), collate([rows] * 3, 1)
    for left, right in zip(repeated[:3], together[:3], strict=True):
        assert torch.equal(left, right)
    assert repeated.counts == together.counts == (4, 4, 4)


def test_micro_batches_hold_each_row_once_and_rows_of_similar_length() -> None:
    rows = [Encoded((1,) * n, (2,)) for n in (5, 1, 4, 2, 3)]
    parts = micro_batches(rows, 2)
    assert [[len(row.prompt) for row in part] for part in parts] == [[1, 2], [3, 4], [5]]
    assert micro_batches(rows, 5) == [rows]
