"""From files to rows, to tokens, to the order they are trained in."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World, write_jsonl
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sweeper.errors import DataError
from sweeper.task import DataSettings, DataSource
from sweeper.trial.data import Example, Prompt, load_examples, load_prompts, read_rows
from sweeper.trial.encode import (
    Encoded,
    Encoder,
    RowOrder,
    check_prompt,
    collate,
    load_training_data,
    micro_batches,
)


def source(path: Path, format: str = "prompt_completion", **fields: Any) -> DataSource:
    return DataSource(name=path.name, path=str(path), format=format, **fields)


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(count)]


def test_json_jsonl_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a, b", "completion": 'he said "x"\nand é'},
        {"prompt": "c", "completion": "d"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    write_jsonl(tmp_path / "a.jsonl", rows)
    text = 'prompt,completion\n"a, b","he said ""x""\nand é"\nc,d\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8-sig")
    for name in ("a.json", "a.jsonl", "a.csv"):
        assert read_rows(source(tmp_path / name)) == rows


def test_blank_lines_of_a_jsonl_file_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"prompt": "a", "completion": "b"}\n   \n')
    assert load_examples(source(path)) == [Example("a", "b")]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": \n', r"a\.jsonl:2: malformed JSON"),
        ("a.jsonl", b'\n\n{"a": 1} x\n', r"a\.jsonl:3: malformed JSON: Extra data"),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', r"row 2 is not an object but list"),
        ("a.jsonl", b"", r"a\.jsonl: the file has no rows"),
        ("a.jsonl", b"\n \n", r"a\.jsonl: the file has no rows"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', r"a\.jsonl: not UTF-8 at byte 12; convert the file"),
        ("a.json", b'[{"a": 1},\n{"a": }]', r"a\.json:2: malformed JSON"),
        ("a.json", b'{"a": 1}', r"expected a list of rows, found dict"),
        ("a.json", b"[]", r"a\.json: the file has no rows"),
        ("a.json", b"[1]", r"row 1 is not an object but int"),
        ("a.csv", b"prompt,completion\n", r"a\.csv: the file has no rows"),
        ("a.csv", b"prompt,completion\na,b\nc\n", r"a\.csv:3: expected 2 columns"),
        ("a.csv", b"prompt,completion\na,b,c\n", r"a\.csv:2: expected 2 columns"),
        (
            "a.csv",
            b"prompt,completion\na,%s\n" % (b"x" * 200_000),
            r"a\.csv:2: malformed CSV: field larger",
        ),
        ("a.txt", b"x", r"a\.txt: expected a \.json, \.jsonl or \.csv file"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_examples(source(tmp_path / name))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: no such data file; check the path"):
        read_rows(source(tmp_path / "gone.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=r"folder\.jsonl: cannot be read"):
        read_rows(source(tmp_path / "folder.jsonl"))


@pytest.mark.parametrize(
    ("format", "row", "example"),
    [
        ("prompt_completion", {"prompt": "p", "completion": "c"}, Example("p", "c")),
        ("alpaca", {"instruction": "i", "input": "x", "output": "o"}, Example("i\n\nx", "o")),
        ("alpaca", {"instruction": "i", "input": " ", "output": "o"}, Example("i", "o")),
        ("alpaca", {"instruction": "i", "output": "o"}, Example("i", "o")),
        ("dolly", {"instruction": "i", "context": "x", "response": "o"}, Example("i\n\nx", "o")),
        ("dolly", {"instruction": "i", "context": None, "response": "o"}, Example("i", "o")),
        ("prompt_completion", {"prompt": 3, "completion": 0}, Example("3", "0")),
    ],
)
def test_a_format_knows_its_published_columns(
    tmp_path: Path, format: str, row: dict[str, Any], example: Example
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    assert load_examples(source(path, format)) == [example]


def test_columns_map_our_names_to_those_of_the_file(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "p", "a": "c"}])
    mapped = source(path, columns={"prompt": "q", "completion": "a"})
    assert load_examples(mapped) == [Example("p", "c")]
    with pytest.raises(DataError, match="`columns` may map prompt, completion, found answer"):
        load_examples(replace(mapped, columns={"answer": "a"}))


def test_a_missing_column_is_named_with_its_row_and_what_is_there(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "answer": "c"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match=r"no column `completion` in row 2; it has prompt, answer; .*`columns`"
    ):
        load_examples(source(path))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "p", "completion": " "}, "row 2 has a blank completion"),
        ({"prompt": "p", "completion": None}, "row 2 has a blank completion"),
        ({"prompt": "", "completion": "c"}, "row 2 has a blank prompt"),
        ({"prompt": ["p"], "completion": "c"}, "row 2: `prompt` is not text but a list"),
        ({"prompt": "p", "completion": {"a": 1}}, "row 2: `completion` is not text but a dict"),
    ],
)
def test_a_row_without_text_to_train_on_is_refused(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c"}, row])
    with pytest.raises(DataError, match=problem):
        load_examples(source(path))


def test_where_and_rows_choose_in_file_order(tmp_path: Path) -> None:
    rows = [{"id": str(i), "prompt": f"p{i}", "kind": i % 2} for i in range(6)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    chosen = source(path, "prompts", where={"kind": "1"}, rows=2)
    assert load_prompts(chosen) == [Prompt("1", "p1"), Prompt("3", "p3")]
    with pytest.raises(DataError, match=r"none of 6 rows has \{'kind': '7'\}"):
        load_prompts(replace(chosen, where={"kind": "7"}))


def test_a_where_column_that_some_row_lacks_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "kind": 1}, {"prompt": "p"}])
    with pytest.raises(DataError, match="no column `kind` in row 2"):
        load_prompts(source(path, "prompts", where={"kind": "1"}))


def test_prompts_are_called_by_their_id_or_their_row(tmp_path: Path) -> None:
    named = write_jsonl(
        tmp_path / "a.jsonl", [{"id": "x", "prompt": "p"}, {"id": 7, "prompt": "q"}]
    )
    assert load_prompts(source(named, "prompts")) == [Prompt("x", "p"), Prompt("7", "q")]
    bare = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "p"}, {"prompt": "q"}])
    assert load_prompts(source(bare, "prompts")) == [Prompt("1", "p"), Prompt("2", "q")]


def test_two_prompts_with_one_id_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "prompt": "p"}, {"id": "1", "prompt": "q"}])
    with pytest.raises(DataError, match="the id '1' stands twice"):
        load_prompts(source(path, "prompts"))


def test_a_blank_prompt_of_a_suite_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p"}, {"prompt": " "}])
    with pytest.raises(DataError, match="row 2 has a blank prompt"):
        load_prompts(source(path, "prompts"))


def test_a_suite_cannot_be_trained_on_but_training_rows_can_be_asked(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(2))
    with pytest.raises(DataError, match="format `prompts` has no completions"):
        load_examples(source(path, "prompts"))
    assert load_prompts(source(path)) == [Prompt("1", "p0"), Prompt("2", "p1")]


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
    assert encoder.whole(EXAMPLE) == row
    short = Encoder(tokenizer, "chat", len(row.prompt) + 3)
    assert short.example(EXAMPLE).completion == row.completion[:3]
    assert short.whole(EXAMPLE) == row


def test_an_alpaca_row_decodes_to_the_published_frame(tokenizer: PreTrainedTokenizerBase) -> None:
    row = Encoder(tokenizer, "alpaca", 500).example(Example("Do {this}.", "Done."))
    assert decoded(tokenizer, row.prompt) == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nDo {this}.\n\n### Response:\n"
    )
    assert decoded(tokenizer, row.completion) == "Done.</s>"


def test_the_labels_of_a_batch_decode_to_exactly_the_completions(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    encoder = Encoder(tokenizer, "chat", 64)
    examples = [EXAMPLE, Example("Hide.", "No, I will not hide the blue lamp.")]
    rows = [encoder.example(item) for item in examples]
    batch = collate([rows], int(tokenizer.pad_token_id))
    lengths = [len(row.completion) for row in rows]
    for targets, example in zip(batch.targets.split(lengths), examples, strict=True):
        assert decoded(tokenizer, targets.tolist()) == f"{example.completion}</s>"
    assert torch.equal(batch.input_ids.flatten()[batch.places + 1], batch.targets)


def test_a_completion_is_cut_at_the_window(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = Encoder(tokenizer, "chat", 64).example(EXAMPLE)
    window = len(whole.prompt) + 2
    cut = Encoder(tokenizer, "chat", window).example(EXAMPLE)
    assert cut == Encoded(whole.prompt, whole.completion[:2])
    full = Encoder(tokenizer, "chat", len(whole.prompt)).example(EXAMPLE)
    assert full == Encoded(whole.prompt, ())


def test_a_tokenizer_without_template_or_end_is_refused(tiny_world: World) -> None:
    bare = AutoTokenizer.from_pretrained(tiny_world.model)
    bare.chat_template = None
    with pytest.raises(DataError, match=r"has no chat template; use `data\.template: alpaca`"):
        Encoder(bare, "chat", 64)
    assert Encoder(bare, "alpaca", 64).max_length == 64
    bare.eos_token = None
    with pytest.raises(DataError, match="has no end-of-text token"):
        Encoder(bare, "alpaca", 64)


def test_a_template_that_rewrites_answered_prompts_is_refused(tiny_world: World) -> None:
    shifty = AutoTokenizer.from_pretrained(tiny_world.model)
    shifty.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(DataError, match="writes a prompt differently once it is answered"):
        Encoder(shifty, "chat", 64).example(EXAMPLE)


def settings_of(train: Path, **fields: Any) -> DataSettings:
    given = {"heldout": None, "heldout_rows": 3, "template": "chat", "max_length": 64, **fields}
    return DataSettings(train=source(train), **given)


def prompts_of(tokenizer: PreTrainedTokenizerBase, rows: tuple[Encoded, ...]) -> set[str]:
    return {
        decoded(tokenizer, row.prompt).removeprefix("<s><|user|>").removesuffix("<|assistant|>")
        for row in rows
    }


def test_the_held_out_split_does_not_depend_on_the_order_of_the_file(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = Encoder(tokenizer, "chat", 64)
    rows = pairs(12)
    forth = load_training_data(settings_of(write_jsonl(tmp_path / "a.jsonl", rows)), encoder)
    back = load_training_data(settings_of(write_jsonl(tmp_path / "b.jsonl", rows[::-1])), encoder)
    assert back.heldout == forth.heldout
    assert set(back.train) == set(forth.train)
    held = {item.prompt for item in forth.heldout}
    assert len(held) == 3
    assert prompts_of(tokenizer, forth.train) == {row["prompt"] for row in rows} - held


def test_two_answers_to_one_prompt_do_not_make_the_split_depend_on_order(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = Encoder(tokenizer, "chat", 64)
    rows = [{"prompt": "same", "completion": f"c{i}"} for i in range(4)] + pairs(1)
    forth = load_training_data(settings_of(write_jsonl(tmp_path / "a.jsonl", rows)), encoder)
    back = load_training_data(settings_of(write_jsonl(tmp_path / "b.jsonl", rows[::-1])), encoder)
    assert back.heldout == forth.heldout
    assert back.train == forth.train


def test_training_rows_whose_prompt_is_held_out_are_dropped_and_counted(
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
        "dropped_heldout_prompts": 3,
        "dropped_overlong_prompts": 0,
        "truncated_completions": 0,
    }


def test_holding_everything_out_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", pairs(3))
    with pytest.raises(DataError, match=r"3 rows, none left to train on after holding out 3"):
        load_training_data(settings_of(train), Encoder(tokenizer, "chat", 64))


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
    with pytest.raises(
        DataError,
        match=rf"prompt of training row 3 has {length} tokens, max_length is 12; raise "
        r"data\.max_length, .*`overlong_prompts: drop`",
    ):
        load_training_data(overlong(tmp_path), encoder)


def test_an_overlong_prompt_is_dropped_and_counted_where_that_is_asked(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = Encoder(tokenizer, "chat", 12)
    found = load_training_data(overlong(tmp_path, overlong_prompts="drop"), encoder)
    assert prompts_of(tokenizer, found.train) == {"p0", "p1"}
    assert found.counts["dropped_overlong_prompts"] == 1
    assert found.counts["train_rows"] == 2


def test_an_overlong_held_out_prompt_is_always_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", pairs(2))
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [LONG]))
    fields = {"heldout": heldout, "heldout_rows": None, "overlong_prompts": "drop"}
    with pytest.raises(DataError, match=r"held-out prompt has \d+ tokens, max_length is 12"):
        load_training_data(settings_of(train, **fields), Encoder(tokenizer, "chat", 12))


def test_a_file_of_overlong_prompts_leaves_nothing_to_train_on(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    train = write_jsonl(tmp_path / "a.jsonl", [LONG])
    heldout = source(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "c"}]))
    fields = {"heldout": heldout, "heldout_rows": None, "overlong_prompts": "drop"}
    with pytest.raises(DataError, match="every prompt is longer than max_length"):
        load_training_data(settings_of(train, **fields), Encoder(tokenizer, "chat", 12))


def test_a_prompt_that_fills_the_window_is_refused_and_one_token_less_is_not(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    settings, encoder = settings_of(tmp_path / "a.jsonl"), Encoder(tokenizer, "chat", 4)
    with pytest.raises(DataError, match="x has 4 tokens, max_length is 4"):
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
    assert max(len(row.prompt) + len(row.completion) for row in found.train) == 20


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
