"""Other trainers train on the sweep's tokens, whatever a tokenizer and a template add by themselves."""

import json
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from support.factories import make_record, make_spec
from support.world import CHAT_TEMPLATE, make_world, spec_text

from sweeper.analysis import Candidate, find_front
from sweeper.errors import ExportError
from sweeper.export import export
from sweeper.export.rows import check_llamafactory, export_rows
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, parse_spec
from sweeper.trial.texts import TrainingRow

trl = pytest.importorskip("trl")

BOS, EOS = ({"SpecialToken": {"id": text, "type_id": 0}} for text in ("<s>", "</s>"))
TEXT = {"Sequence": {"id": "A", "type_id": 0}}


def adds(*pieces: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.json whose tokenizer puts special tokens around every text by itself."""
    named = {
        text: {"id": text, "ids": [i], "tokens": [text]} for text, i in (("<s>", 1), ("</s>", 2))
    }
    pair = [*pieces, {"Sequence": {"id": "B", "type_id": 1}}]
    post = {
        "type": "TemplateProcessing",
        "single": [*pieces],
        "pair": pair,
        "special_tokens": named,
    }
    return {"post_processor": post}


PREFIXED = {
    "pre_tokenizer": {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
}
"""As Llama 2's tokenizer: a text by itself begins with a space that it does not have after another."""

MODELS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "plain": ({}, CHAT_TEMPLATE, ()),
    "adds a begin token": (adds(BOS, TEXT), CHAT_TEMPLATE, ()),
    "adds a begin and an end token": (adds(BOS, TEXT, EOS), CHAT_TEMPLATE, ()),
    "a line break after the end of turn": (
        adds(BOS, TEXT),
        CHAT_TEMPLATE.replace("{{ eos_token }}", "{{ eos_token }}\n"),
        (),
    ),
    "an end of turn that is no end token": (
        adds(BOS, TEXT),
        CHAT_TEMPLATE.replace("{{ eos_token }}", "<|user|>"),
        (),
    ),
    "prefix space": (
        PREFIXED | adds(BOS, TEXT),
        CHAT_TEMPLATE.replace("<|assistant|>", "Answer:"),
        (),
    ),
    "truncated": (adds(BOS, TEXT), CHAT_TEMPLATE, ("data.max_length=11",)),
}


def case(name: str, root: Path) -> tuple[SweepSpec, Candidate]:
    """The spec of a tiny sweep over such a model, and a configuration it plans."""
    tokenizer, template, overrides = MODELS[name]
    world = make_world(root)
    path = world.model / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | tokenizer))
    (world.model / "chat_template.jinja").write_text(template)
    spec = parse_spec(spec_text(world), overrides=[*overrides, "space.max_steps=3"])
    planned = make_plan(spec).configurations[0]
    record = make_record(identity=planned.config_id, config=planned.values)
    return spec, find_front([record], make_spec()).candidates[0]


def trained_on(spec: SweepSpec) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of every row of three steps, as the sweep's own batches have them."""
    from sweeper.model.batches import RowOrder
    from sweeper.scoring.inputs import load_inputs

    task = next(t for t in make_tasks(make_plan(spec), spec, str) if t.segments[0].stop)
    rows = load_inputs(task).data.train
    order = RowOrder(len(rows), 4, seed=0)
    batches = [rows[i] for step in range(3) for i in order.batch(step)]
    return [
        ([*row.prompt, *row.completion], [-100] * len(row.prompt) + [*row.completion])
        for row in batches
    ]


@pytest.fixture(params=["script", "trl sft"])
def prepared(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, Path], Any]:
    """What TRL makes of exported rows before it trains: by the script, and by `trl sft`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    made: list[Any] = []
    monkeypatch.setattr(trl.SFTTrainer, "train", lambda self, **_: made.append(self))
    monkeypatch.setattr(trl.SFTTrainer, "save_model", lambda *_: None)

    def prepare(config: Path, rows: Path) -> Any:
        words = ["--use_cpu", "true", "--output_dir", str(tmp_path / "out")]
        if request.param == "script":
            names = runpy.run_path(str(config.with_suffix(".py")))
            names["main"](["--dataset_name", str(rows), *words])
        else:
            alone = tmp_path / "rows"
            alone.mkdir()
            rows.rename(alone / rows.name)
            sft = runpy.run_module("trl.scripts.sft")
            words = ["--config", str(config), "--dataset_name", str(alone), *words]
            sft["main"](*sft["make_parser"]().parse_args_and_config(words))
        return made[0].train_dataset

    return prepare


@pytest.mark.parametrize("name", list(MODELS))
def test_trl_trains_on_the_tokens_of_the_sweep(
    name: str, prepared: Callable[[Path, Path], Any], tmp_path: Path
) -> None:
    spec, item = case(name, tmp_path)
    config, *_ = export(item, spec, "trl", tmp_path / "ex")
    (rows,) = export_rows(item, spec, tmp_path / "ex")
    found = prepared(config, rows)
    assert [(row["input_ids"], row["labels"]) for row in found] == trained_on(spec)


@pytest.mark.parametrize("name", list(MODELS))
def test_llama_factory_is_refused_where_it_would_make_other_tokens(
    name: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    spec, item = case(name, tmp_path)
    if name in ("prefix space", "truncated"):
        with pytest.raises(
            ExportError, match=r"other tokens of \d+ of 12 rows.*--format trl or axolotl"
        ):
            export_rows(item, spec, tmp_path, ["llamafactory"])
        return
    (rows,) = export_rows(item, spec, tmp_path, ["llamafactory"])
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "model"))
    for line, (tokens, _) in zip(rows.read_text().splitlines(), trained_on(spec), strict=True):
        row = json.loads(line)
        texts = [row["prompt"], row["completion"]]
        apart = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        assert [*apart[0], *apart[1]] == tokens


@pytest.mark.parametrize(
    ("prompt", "completion", "kept", "equal"),
    [(9, 7, 7, True), (7, 20, 9, True), (8, 20, 8, False), (10, 7, 6, False), (7, 10, 9, True)],
)
def test_llama_factory_truncates_as_the_sweep_only_behind_a_short_prompt(
    prompt: int, completion: int, kept: int, equal: bool
) -> None:
    """Of 16 tokens; what `infer_seqlen` of LLaMA-Factory 0.9.5 answers for these lengths."""
    alone = tuple(range(completion))
    rows = [TrainingRow("p", "c", (0,) * prompt, alone[:kept], alone)]
    if equal:
        check_llamafactory(rows, 16)
    else:
        with pytest.raises(ExportError, match="other tokens of 1 of 1 rows"):
            check_llamafactory(rows, 16)


def test_a_file_of_an_averaged_configuration_is_no_file_for_a_command_without_callbacks(
    tmp_path: Path,
) -> None:
    item = find_front([make_record(identity="abc", average="ema(0.99)")], make_spec()).candidates[0]
    for fmt, script in (("trl", "trl.py"), ("llamafactory", "llamafactory.py")):
        paths = export(item, make_spec(), fmt, tmp_path)
        text = paths[0].read_text()
        assert f"python synthetic-abc.{script}" in text.splitlines()[0]
        assert yaml.safe_load(text)["requires_callback"] == "ema_callback.WeightAveraging"
    sft = runpy.run_module("trl.scripts.sft")["make_parser"]()
    with pytest.raises(ValueError, match="requires_callback"):
        sft.parse_args_and_config(["--config", str(tmp_path / "synthetic-abc.trl.yaml")])


@pytest.mark.parametrize("fmt", ["trl", "transformers", "accelerate", "llamafactory", "axolotl"])
def test_without_the_average_only_as_asked_for_and_said(tmp_path: Path, fmt: str) -> None:
    records = [make_record(identity="abc", average="ema(0.99)")]
    item = find_front(records, make_spec()).candidates[0]
    paths = export(item, make_spec(), fmt, tmp_path, allow_unaveraged=True)
    for path in paths:
        if path.name != "dataset_info.json":
            assert (
                "NOT AVERAGED: the sweep measured weights averaged by ema(0.99)" in path.read_text()
            )
        assert "WeightAveraging" not in path.read_text()
    assert not (tmp_path / "ema_callback.py").exists()
    (raw,) = find_front([make_record(identity="raw")], make_spec()).candidates
    same = [export(raw, make_spec(), fmt, tmp_path, allow_unaveraged=a) for a in (False, True)]
    assert same[0] == same[1]
    assert "NOT AVERAGED" not in same[1][0].read_text()


def test_an_average_that_no_callback_has_is_refused(tmp_path: Path) -> None:
    readout = {"kind": "unheard-of", "steps": 320}
    record = make_record(identity="abc", average="unheard-of(3)", readout=readout)
    item = find_front([record], make_spec()).candidates[0]
    with pytest.raises(ExportError, match="no trainer's export can average as `unheard-of"):
        export(item, make_spec(), "trl", tmp_path)
    export(item, make_spec(), "trl", tmp_path, allow_unaveraged=True)
