"""`sweeper init`: what is found out about a model and rows, and the file that is written from it."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.architectures import model_folder
from support.command import Command, in_process
from support.world import World, write_jsonl

from sweeper.cli.machine import COLUMNS
from sweeper.errors import DataError, ModelError, SweeperError
from sweeper.estimate import preflight
from sweeper.memory import ModelShape
from sweeper.planning import make_plan
from sweeper.setup import init as written
from sweeper.setup.data_facts import Lengths, suggested_length, suite_source
from sweeper.setup.init import Initialized, init, steps
from sweeper.spec import load_spec

PAIRS = [(f"Name the {i}th colour.", f"The colour number {i} is red.") for i in range(40)]
SUITES = ("harmful", "harmless")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `sweeper init ...` in this process."""
    return in_process(monkeypatch, capsys, "init")


def write_csv(path: Path, *names: str) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [names, *([str(i), *pair][-len(names) :] for i, pair in enumerate(PAIRS))]
        )
    return path


def write_parquet(path: Path) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"prompt": p, "response": c, "system": "Be kind."} for p, c in PAIRS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def turns(role: str, content: str, names: tuple[str, str]) -> list[list[dict[str, str]]]:
    return [[{role: names[0], content: p}, {role: names[1], content: c}] for p, c in PAIRS]


def alpaca(path: Path) -> Path:
    rows = [{"instruction": p, "input": "", "output": c} for p, c in PAIRS]
    path.write_text(json.dumps(rows))
    return path


DATA: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "alpaca.json": (alpaca, {"format": "alpaca"}),
    "dolly.jsonl": (
        lambda path: write_jsonl(
            path,
            [{"instruction": p, "context": "", "response": c, "category": "qa"} for p, c in PAIRS],
        ),
        {"format": "dolly"},
    ),
    "sharegpt.jsonl": (
        lambda path: write_jsonl(
            path, [{"conversations": t} for t in turns("from", "value", ("human", "gpt"))]
        ),
        {"format": "orca"},
    ),
    "messages.jsonl": (
        lambda path: write_jsonl(
            path, [{"messages": t} for t in turns("role", "content", ("user", "assistant"))]
        ),
        {"format": "messages"},
    ),
    "renamed.jsonl": (
        lambda path: write_jsonl(
            path, [{"conversation": t} for t in turns("role", "content", ("user", "assistant"))]
        ),
        {"format": "messages", "columns": {"messages": "conversation"}},
    ),
    "qa.csv": (
        lambda path: write_csv(path, "Question", "Answer"),
        {"columns": {"prompt": "Question", "completion": "Answer"}},
    ),
    "rows.parquet": (write_parquet, {"columns": {"completion": "response", "system": "system"}}),
}


def begin(world: World, data: Path, out: Path, **options: Any) -> Initialized:
    suites = {name: str(getattr(world, name)) for name in SUITES}
    return init(str(options.pop("model", world.model)), str(data), out, **{**suites, **options})


@pytest.mark.parametrize("name", list(DATA))
def test_rows_are_recognised(tiny_world: World, tmp_path: Path, name: str) -> None:
    write, expected = DATA[name]
    data = write(tmp_path / name)
    made = begin(tiny_world, data, tmp_path / "mine.yaml")
    raw = yaml.safe_load(made.path.read_text())
    assert raw["data"]["train"] == {"path": str(data), **expected}
    assert raw["data"]["heldout_rows"] == 8
    assert load_spec(made.path) == made.spec
    assert make_plan(made.spec).accounting.configurations >= 6
    assert made.spec.data.max_length == 96
    assert made.spec.evaluation.max_new_tokens == 32
    assert made.spec.model.dtype == "float32"


@pytest.mark.parametrize(
    ("kind", "changes", "template", "window"),
    [
        ("llama", {}, "chat", 96),
        ("qwen3", {}, "chat", 96),
        ("gemma3_text", {}, "chat", 72),
        ("llama", {"no template": True}, "alpaca", 512 - 128),
    ],
)
def test_models_of_several_kinds(
    tiny_world: World,
    tmp_path: Path,
    kind: str,
    changes: dict[str, Any],
    template: str,
    window: int,
) -> None:
    wide = {"max_position_embeddings": 512} if changes else {}
    model = model_folder(tiny_world, tmp_path / "model", kind, **wide)
    if changes:
        (model / "chat_template.jinja").unlink()
    made = begin(tiny_world, alpaca(tmp_path / "a.json"), tmp_path / "mine.yaml", model=model)
    assert made.spec.data.template.train.name == template
    assert made.spec.data.max_length <= window
    assert made.spec.tuning.lora_target_modules == ("q_proj", "v_proj")
    assert any("no chat template" in note for note in made.notes) is bool(changes)


def test_it_is_sized_for_the_named_gpu(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = alpaca(tmp_path / "a.json")
    made = begin(tiny_world, data, tmp_path / "g.yaml", gpu="a100")
    assert made.spec.model.dtype == "mixed_bf16"
    assert "# Sized for: A100 40 GB\n" in made.path.read_text()
    with pytest.raises(
        SweeperError, match="--gpu: found 'Z9', expected the beginning of one of A10 24 GB"
    ):
        begin(tiny_world, data, tmp_path / "z.yaml", gpu="Z9")
    monkeypatch.setattr(
        written,
        "SIZES",
        tuple(size._replace(hours=0) for size in written.SIZES[:3]) + written.SIZES[3:],
    )
    small = begin(tiny_world, data, tmp_path / "s.yaml")
    assert small.spec.space.learning_rate.values == (1e-4, 5e-4)
    assert any("without a GPU this small sweep takes about" in note for note in small.notes)


@pytest.mark.parametrize(("gpu", "method"), [("H100", "lora"), ("A10", "qlora")])
def test_the_base_is_in_4_bits_where_only_that_fits_the_gpu(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, method: str
) -> None:
    """With the memory of a model of 14B: 28 GB in bf16, about 8 GB in 4 bits."""
    shape = ModelShape(40, 5120, 13824, 40, 8, 128, 152064)
    monkeypatch.setattr(preflight, "folder_shape", lambda path: shape)
    made = begin(tiny_world, alpaca(tmp_path / "a.json"), tmp_path / "mine.yaml", gpu=gpu)
    assert made.spec.tuning.method == method
    assert made.spec.tuning.lora_r == 8
    assert any("only in 4 bits" in note for note in made.notes) is (method == "qlora")


def test_an_existing_file_is_kept(tiny_world: World, tmp_path: Path) -> None:
    data, out = alpaca(tmp_path / "a.json"), tmp_path / "mine.yaml"
    out.write_text("mine")
    with pytest.raises(SweeperError, match=r"mine\.yaml exists already; .* --force"):
        begin(tiny_world, data, out)
    assert out.read_text() == "mine"
    begin(tiny_world, data, out, force=True)
    assert load_spec(out).name == "model_a"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("empty", "no config.json, so this is not a model folder"),
        ("no weights", r"no \*\.safetensors weights"),
        ("absent", "is not a local file or folder"),
    ],
)
def test_a_folder_without_a_model(
    tiny_world: World, tmp_path: Path, broken: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    if broken == "empty":
        model.mkdir()
    elif broken == "no weights":
        shutil.copytree(tiny_world.model, model)
        (model / "model.safetensors").unlink()
    else:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        model = Path("nobody/nothing")
    with pytest.raises(ModelError, match=message):
        begin(tiny_world, alpaca(tmp_path / "a.json"), tmp_path / "mine.yaml", model=model)
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.jsonl", "", "has no rows"),
        ("t.jsonl", '{"text": "a"}\n', "its only column is `text`"),
        (
            "f.jsonl",
            '{"prompt": "a", "completion": "b"}\n' * 19,
            "only 19 of 19 rows have a prompt",
        ),
        (
            "o.csv",
            "nr,Frage,Antwort\n1,Welche Farbe hat es?,Es ist rot.\n",
            "among nr, Frage, Antwort; .*`--column prompt=Frage --column completion=Antwort`",
        ),
        ("s.csv", "the question,the answer\nWas ist das?,Ein Haus.\n", "'prompt=the question'"),
        ("gone.csv", None, "no such data file"),
    ],
)
def test_rows_that_cannot_be_used(
    tiny_world: World, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        begin(tiny_world, tmp_path / name, tmp_path / "mine.yaml")


def test_the_command_names_columns_and_prints_a_plan(
    command: Command, tiny_world: World, tmp_path: Path
) -> None:
    data = write_csv(tmp_path / "odd.csv", "nr", "Frage", "Antwort")
    suites = [word for name in SUITES for word in (f"--{name}", getattr(tiny_world, name))]
    words = [tiny_world.model, data, *suites, "--out", tmp_path / "mine.yaml"]
    assert command(*words).code == 2
    answer = command(*words, "--column", "prompt=Frage", "--column", "completion=Antwort")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0] == f"wrote {tmp_path / 'mine.yaml'}"
    assert lines[1].startswith("plan: ")
    assert "configurations and 2 controls" in lines[1]
    assert lines[-1].startswith("next: sweeper prefetch ")
    wrong = command(*words, "--column", "frage=Frage")
    assert wrong.code == 2
    assert f"a NAME of {', '.join(COLUMNS)}" in wrong.err
    absent = command(*words, "--force", "--column", "prompt=Nope", "--column", "completion=Antwort")
    assert "no column `Nope`; it has nr, Frage, Antwort" in absent.err


def test_suites_take_the_rows_they_are_about(tmp_path: Path) -> None:
    marked = tmp_path / "marked.csv"
    marked.write_text("id,prompt,label\n1,a,safe\n2,b,unsafe\n")
    assert suite_source(str(marked), "safe") == {"path": str(marked), "where": {"label": "safe"}}
    goals = write_jsonl(tmp_path / "goals.jsonl", [{"goal": "a", "target": "b"}])
    assert suite_source(str(goals), "unsafe") == {"path": str(goals), "columns": {"prompt": "goal"}}
    assert suite_source("advbench", "unsafe") == "advbench"
    with pytest.raises(DataError, match="neither a file nor a published suite; suites: advbench"):
        suite_source("advbenhc", "unsafe")
    other = write_jsonl(tmp_path / "other.jsonl", [{"id": 1, "x": "b"}])
    with pytest.raises(DataError, match="no column of prompts among id, x"):
        suite_source(str(other), "unsafe")


def test_lengths_and_steps() -> None:
    found = Lengths(tuple(range(1, 101)))
    assert (found.quantile(0.5), found.quantile(0.99), found.quantile(1)) == (51, 100, 100)
    assert found.longer_than(95) == 0.05
    assert suggested_length(found, 0, None) == 256
    assert suggested_length(Lengths((300,)), 0, None) == 320
    assert suggested_length(Lengths((256,)), 256, None) == 320
    assert suggested_length(Lengths((300,)), 0, 300) == 300
    assert steps(32, 8, 400) == [2, 4, 8]
    assert steps(100_000, 64, 400) == [100, 200, 400]
    assert steps(1, 64, 400) == [1, 2, 4]
