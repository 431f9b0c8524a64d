"""Text that a tokenizer reads as a control token is refused, dropped or kept, and counted."""

from pathlib import Path
from typing import Any

import pytest
from support.data_samples import (
    SHARED,
    byte_level_tokenizer,
    llama3_tokenizer,
    needs_real_rows,
    pairs,
    settings_of,
    source,
)
from support.raising import raises
from support.world import World, spec_text, write_jsonl
from tokenizers import AddedToken

from sweeper.data.encode import Encoder, load_training_data
from sweeper.data.load import Example, Turn
from sweeper.estimate.epochs import count_epoch_rows
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs, preflight
from sweeper.spec import SweepSpec, parse_spec
from sweeper.task import TrajectoryTask
from sweeper.trial.texts import ordered_rows

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml_tokenizer() -> Any:
    """`<|im_start|>` is added without being special, as in some ChatML models; so are tags."""
    tokenizer = byte_level_tokenizer(
        CHATML, ["<|im_end|>", "<|endoftext|>", "<filename>"], eos_token="<|im_end|>"
    )
    added = ["<|im_start|>", "<think>", "</think>", "<tool_call>", "  "]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    tokenizer.add_tokens([AddedToken("<whole>", special=True, single_word=True)])
    return tokenizer


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Red.<|im_end|>\n<|im_start|>user\nMore", ("<|im_end|>", "<|im_start|>")),
        ("cp <filename> here<|im_end|><|im_end|>", ("<filename>", "<|im_end|>")),
        ("<|endoftext|>", ("<|endoftext|>",)),
        ("a <whole> word", ("<whole>",)),
        ("no<whole>word", ()),
        ("<think>Dust.</think>  <tool_call> Red.", ()),
        ("<|im_end |> |im_end|> [INST] <s> <|IM_END|> <|eot_id|>", ()),
    ],
)
def test_control_tokens_are_what_the_tokenizer_reads_as_such(
    text: str, tokens: tuple[str, ...]
) -> None:
    encoder = Encoder(chatml_tokenizer(), "chat", 64)
    assert encoder.control_tokens(text) == tokens
    assert encoder.control_tokens(Example("q", text)) == tokens
    assert encoder.control_tokens(Example("q", "a", (Turn("assistant", text),))) == tokens
    system = Encoder(chatml_tokenizer(), "chat", 64, text)
    assert system.control_tokens("q") == tokens


def test_a_tokenizer_that_splits_special_tokens_has_none() -> None:
    tokenizer = llama3_tokenizer()
    assert Encoder(tokenizer, "chat", 64).control_tokens("Red.<|eot_id|>") == ("<|eot_id|>",)
    tokenizer.split_special_tokens = True
    assert Encoder(tokenizer, "chat", 64).control_tokens("Red.<|eot_id|>") == ()


def rows_with_tokens(folder: Path) -> Path:
    rows = pairs(9)
    rows[4]["completion"] = "c4<|eot_id|>"
    rows[6]["prompt"] = "<|start_header_id|>p6"
    return write_jsonl(folder / "rows.jsonl", rows)


def test_rows_with_control_tokens_are_refused_at_once(tmp_path: Path) -> None:
    held = source(write_jsonl(tmp_path / "h.jsonl", [{"prompt": "q", "completion": "<|eot_id|>"}]))
    settings = settings_of(rows_with_tokens(tmp_path), heldout=held, heldout_rows=None)
    tokens = ["<|eot_id|>", "<|start_header_id|>"]
    with raises("data.control_tokens", row="training row 5", count=3, tokens=tokens) as caught:
        load_training_data(settings, Encoder(llama3_tokenizer(), "chat", 64))
    assert "3 of 10 rows" in str(caught.value)
    assert "`data.control_tokens: drop`" in str(caught.value)


def test_rows_with_control_tokens_are_dropped_or_kept_and_counted(tmp_path: Path) -> None:
    held = source(write_jsonl(tmp_path / "h.jsonl", [{"prompt": "q", "completion": "r"}]))
    encoder = Encoder(llama3_tokenizer(), "chat", 64)
    found = {
        choice: load_training_data(
            settings_of(
                rows_with_tokens(tmp_path), heldout=held, heldout_rows=None, control_tokens=choice
            ),
            encoder,
        )
        for choice in ("drop", "keep")
    }
    assert [len(found[choice].train) for choice in ("drop", "keep")] == [7, 9]
    assert found["drop"].counts["dropped_control_tokens"] == 2
    assert found["keep"].counts["rows_with_control_tokens"] == 2
    end = encoder.end_token
    assert [row.completion.count(end) for row in found["drop"].train] == [1] * 7
    assert [row.completion.count(end) for row in found["keep"].train] == [1] * 4 + [2] + [1] * 4


def test_rows_that_all_hold_control_tokens_leave_nothing_to_train_on(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": "<|eot_id|>"} for i in range(5)]
    settings = settings_of(write_jsonl(tmp_path / "a.jsonl", rows), control_tokens="drop")
    with raises("data.empty", path=tmp_path / "a.jsonl"):
        load_training_data(settings, Encoder(llama3_tokenizer(), "chat", 64))


def sweep_with(world: World, *settings: str) -> tuple[SweepSpec, TrajectoryTask]:
    spec = parse_spec(spec_text(world), overrides=settings)
    return spec, make_tasks(make_plan(spec), spec, str, device="cpu")[0]


def test_prompts_of_a_suite_are_refused_with_its_name(tiny_world: World, tmp_path: Path) -> None:
    prompts = [{"id": "a", "prompt": "Where?"}, {"id": "b", "prompt": "</s>Where?"}]
    suite = write_jsonl(tmp_path / "mine.jsonl", prompts)
    change = f"evaluation.harmless={{path: {suite}, prompt_split: all}}"
    _, task = sweep_with(tiny_world, change)
    with raises("data.control_tokens", row="prompt b", count=1, tokens=["</s>"]) as caught:
        preflight(task)
    assert f"1 of 2 harmless prompts ({suite})" in str(caught.value)
    with raises("data.control_tokens", row="prompt b"):
        preflight(sweep_with(tiny_world, change, "data.control_tokens=drop")[1])
    assert preflight(sweep_with(tiny_world, change, "data.control_tokens=keep")[1])["train_rows"]


def test_dropped_rows_are_in_no_count_of_epochs_and_no_export(
    tiny_world: World, tmp_path: Path
) -> None:
    rows = [*pairs(8), {"prompt": "p8", "completion": "<s>"}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    changes = [f"data.train.path={train}", "data.control_tokens=drop", "space.num_epochs=1"]
    _, task = sweep_with(tiny_world, *changes[:2])
    data = load_inputs(task).data
    assert data.counts["dropped_control_tokens"] == 1
    epochs = parse_spec(spec_text(tiny_world), overrides=[*changes, "space.max_steps=null"])
    assert count_epoch_rows(epochs).rows_per_epoch == len(data.train) == 8
    exported = ordered_rows(task, steps=8)
    assert {(row.prompt_ids, row.completion_ids) for row in exported} == set(data.train)


def test_the_setting_is_in_an_id_only_where_it_is_not_the_default(tiny_world: World) -> None:
    plans = {
        choice: make_plan(sweep_with(tiny_world, f"data.control_tokens={choice}")[0])
        for choice in ("error", "drop", "keep")
    }
    plain = make_plan(parse_spec(spec_text(tiny_world)))
    ids = {choice: plan.trajectories[-1].trajectory_id for choice, plan in plans.items()}
    assert ids["error"] == plain.trajectories[-1].trajectory_id
    assert len(set(ids.values())) == 3


@needs_real_rows
@pytest.mark.parametrize(
    ("name", "format"), [("alpaca_1k.json", "alpaca"), ("dolly_387.jsonl", "dolly")]
)
def test_published_rows_hold_no_control_tokens(name: str, format: str) -> None:
    settings = settings_of(source(SHARED / name, format), max_length=9999)
    for tokenizer in (llama3_tokenizer(), chatml_tokenizer()):
        counts = load_training_data(settings, Encoder(tokenizer, "chat", 9999)).counts
        assert "rows_with_control_tokens" not in counts
