"""A model folder that cannot be trained is one message of `prefetch`, before anything is loaded."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command import Command
from support.raising import raises
from support.world import World

from sweeper.model.architecture import check_architecture
from sweeper.model.files import check_model
from sweeper.model.load import load_model
from sweeper.task import ModelSource, Tuning

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
BLOCK = "model.layers.1.mlp.up_proj.weight"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def both(*damages: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for damage in damages:
            damage(folder)

    return apply


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(folder: Path, lacks: str = "", absent: str = "", pointer: bool = False) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(sorted(state))}
    for file in set(names.values()):
        part = {n: v for n, v in state.items() if names[n] == file and n != lacks}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if absent:
        (folder / absent).unlink()
    if pointer:
        (folder / "part-1.safetensors").write_text(POINTER)


def padded(token: str, number: int) -> Callable[[Path], None]:
    """A token that was added to the tokenizer, while the embeddings were never resized."""

    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        entry = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        found["added_tokens"].append({"id": number, "content": token, "special": True, **entry})
        path.write_text(json.dumps(found))

    return apply


def pad_token(folder: Path) -> None:
    padded("[PAD]", 343)(folder)
    edit(folder / "tokenizer_config.json", pad_token="[PAD]")


def template_token(folder: Path) -> None:
    padded("<|turn|>", 343)(folder)
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|user|>", "<|turn|>"))


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an adapter beside weights": (
        text("adapter_config.json", '{"base_model_name_or_path": "own/base"}'),
        "found adapter_config.json; .* adapter of `own/base` .* copy of the folder without",
    ),
    "an unreadable adapter": (text("adapter_config.json", "["), "found adapter_config.json"),
    "an adapter alone": (
        both(text("adapter_config.json", "{}"), removed("config.json")),
        "not a model: merge it once",
    ),
    "quantised": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        r"`quantization_config` \(gptq\).* quantised .* use the model that they were quantised from",
    ),
    "quantised text model": (
        config(text_config={"quantization_config": {"quant_method": "awq"}}),
        r"quantised",
    ),
    "int8 weights": (weights(lambda w: w.update({BLOCK: w[BLOCK].to(torch.int8)})), "of type I8"),
    "fp8 weights": (
        weights(lambda w: w.update({BLOCK: w[BLOCK].to(torch.float8_e4m3fn)})),
        "of type F8_E4M3",
    ),
    "pickled weights": (pickled, "pickled weights are not loaded"),
    "no weights": (removed("model.safetensors"), r"no \*.safetensors weights"),
    "other name": (
        lambda f: (f / "model.safetensors").rename(f / "weights.safetensors"),
        "model.safetensors",
    ),
    "a pointer": (text("model.safetensors", POINTER), "Git LFS pointer.*git lfs pull"),
    "a tokenizer pointer": (text("tokenizer.json", POINTER), "tokenizer.json is a Git LFS pointer"),
    "a configuration pointer": (text("config.json", POINTER), "config.json is a Git LFS pointer"),
    "a shard pointer": (lambda f: sharded(f, pointer=True), "part-1.safetensors is a Git LFS"),
    "truncated": (cut, "not a complete safetensors file"),
    "empty": (text("model.safetensors", ""), "not a complete safetensors file"),
    "no safetensors": (text("model.safetensors", "weights " * 99), "not a complete safetensors"),
    "a missing shard": (
        lambda f: sharded(f, absent="part-0.safetensors"),
        "1 weights files are missing, for example part-0",
    ),
    "a shard without its weight": (lambda f: sharded(f, lacks=BLOCK), f"does not have.*{BLOCK}"),
    "an index that is no index": (
        both(sharded, text("model.safetensors.index.json", "{}")),
        "not a valid index",
    ),
    "a missing weight": (weights(lambda w: w.pop(BLOCK)), f"lacks 1 weights .* {BLOCK}"),
    "vocabulary of the configuration": (
        config(vocab_size=360),
        r"has shape \(343, 32\) in the weights, but \(360, 32\) by config.json",
    ),
    "width of the configuration": (config(intermediate_size=80), "do not belong together"),
    "fewer blocks than weights": (config(num_hidden_layers=1), r"leaves out 9 .*layers\.1\."),
    "a bias without a place": (
        weights(lambda w: w.update({BLOCK.replace(".weight", ".bias"): w[BLOCK][0].clone()})),
        r"config.json leaves out 1 of the weights, for example .*\.bias",
    ),
    "an adapter among the weights": (
        weights(lambda w: w.update({BLOCK.replace("weight", "lora_A.weight"): w[BLOCK].clone()})),
        r"leaves out 1 .*lora_A.* merge the adapter that it holds",
    ),
    "more blocks than weights": (config(num_hidden_layers=3), "lacks 9 weights"),
    "no configuration": (removed("config.json"), "no config.json"),
    "a broken configuration": (text("config.json", "{"), "not valid JSON"),
    "a list as configuration": (text("config.json", "[]"), "a JSON object is expected"),
    "no model type": (config(model_type=None), "model_type|model type"),
    "an unknown model type": (config(model_type="zzz"), "zzz"),
    "a size that is a text": (config(hidden_size="wide"), "cannot load the configuration"),
    "no heads": (config(num_attention_heads=0), "cannot load the configuration"),
    "an encoder": (config(model_type="bert"), "`bert` is an encoder, but only decoder-only"),
    "an encoder with a decoder": (config(model_type="t5"), "`t5` is an encoder with a decoder"),
    "no tokenizer": (
        both(removed("tokenizer.json"), removed("tokenizer_config.json")),
        "cannot load the tokenizer",
    ),
    "a broken tokenizer": (text("tokenizer.json", "{}"), "cannot load the tokenizer"),
    "no chat template": (
        removed("chat_template.jinja"),
        "no chat template; use `data.template: alpaca`",
    ),
    "a pad token beyond the embeddings": (pad_token, r"beyond the 343 rows.*`\[PAD\]` \(343\)"),
    "a template token beyond the embeddings": (template_token, r"beyond .*`<\|turn\|>` \(343\)"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_prefetch_ends_in_one_message(
    tiny_world: World, sweep: Path, command: Command, tmp_path: Path, name: str
) -> None:
    damage, message = FOLDERS[name]
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    damage(folder)
    code, out, err = command("prefetch", sweep, "--set", f"model.path={folder}")
    assert (code, out) == (2, ""), err
    assert err.count("error: ") == 1 and "Traceback" not in err
    assert re.search(message, " ".join(err.split())), err


@pytest.mark.parametrize("name", ["an adapter beside weights", "truncated", "an encoder"])
def test_plan_run_and_trial_end_in_the_same_message(
    tiny_world: World, sweep: Path, command: Command, tmp_path: Path, name: str
) -> None:
    damage, message = FOLDERS[name]
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    options = ("--set", f"model.path={folder}")
    assert command("plan", sweep, *options, "--tasks", tmp_path / "tasks")[0] == 0
    damage(folder)
    task = min((tmp_path / "tasks").glob("*.json"))
    for words in (
        ("plan", sweep, *options),
        ("run", sweep, *options, "--out", tmp_path / "run"),
        ("trial", task, "--out", tmp_path / "trial"),
    ):
        code, _, err = command(*words)
        assert (code, err.count("error: ")) == (2, 1), (words, err)
        assert re.search(message, " ".join(err.split())), err
        assert "Traceback" not in err
    assert not (tmp_path / "run" / "records.jsonl").exists()


@pytest.mark.parametrize(
    "targets", ["[lm_head]", "[q_proj, lm_head]", "[all-linear, v_proj]", "[mlp.q_proj]"]
)
def test_targets_are_checked_by_prefetch_and_plan(
    sweep: Path, command: Command, targets: str
) -> None:
    for word in ("prefetch", "plan"):
        code, out, err = command(word, sweep, "--set", f"tuning.lora_target_modules={targets}")
        assert (code, out) == (2, "")
        assert err.startswith("error: tuning.lora_target_modules: ")


def test_what_is_only_unused_is_accepted(
    tiny_world: World, sweep: Path, command: Command, tmp_path: Path
) -> None:
    """An added token that no text has, shards, other weights beside, and a buffer that is no weight."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    padded("<image>", 343)(folder)
    sharded(folder)
    (folder / "consolidated.safetensors").write_text(POINTER)
    (folder / "README.md").write_text(POINTER)
    code, _, err = command("prefetch", sweep, "--set", f"model.path={folder}")
    assert (code, err) == (0, "")


def test_the_adapter_is_refused_wherever_the_model_is_loaded(
    tiny_world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    source = ModelSource(str(folder), dtype="float32")
    load_model(source, torch.device("cpu"))
    text("adapter_config.json", '{"base_model_name_or_path": "own/base"}')(folder)
    with raises("model.adapter", base="own/base"):
        load_model(source, torch.device("cpu"))


def test_the_headers_and_the_architecture_of_a_folder(tiny_world: World) -> None:
    headers = check_model(ModelSource(str(tiny_world.model)))
    assert headers[BLOCK] == ((64, 32), "F32")
    state = load_file(tiny_world.model / "model.safetensors")
    assert headers.keys() == state.keys()
    found = check_architecture(ModelSource(str(tiny_world.model)), Tuning("full"), headers)
    assert found == (128, 343)
