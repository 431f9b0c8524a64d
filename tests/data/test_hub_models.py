"""Models of the hub: fetched from a real server on the loopback device, pinned, refused in one message."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from support.data_samples import COMMIT as CACHED
from support.fake_hub import ABSENT, COMMIT, GATED, GATED_UNKNOWN, FakeHub, fake_hub
from support.hub_cache import use_cache, use_hub
from support.world import World

from sweeper.data import hub as model_hub
from sweeper.data.load import pin_revisions
from sweeper.errors import DataError, ModelError
from sweeper.model.files import check_model
from sweeper.model.load import load_model, load_tokenizer, model_commit, model_folder
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs, preflight
from sweeper.spec import SweepSpec
from sweeper.store.folder import TrialStorage
from sweeper.sweep.prepare import input_hashes
from sweeper.task import ModelSource, TrajectoryTask
from sweeper.trial.run import run_trajectory

CPU = torch.device("cpu")
OWN = ModelSource("own/llama", dtype="float32")
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return use_cache(monkeypatch, tmp_path / "hub", offline=False)


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that is reached, with the tiny model in it."""
    with fake_hub() as hub:
        use_hub(monkeypatch, hub)
        yield hub


@pytest.fixture
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture
def repository(tiny_world: World, tmp_path: Path) -> Path:
    """The tiny model as a repository, with files beside it that nobody needs."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny_world.model, folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    (folder / "consolidated.safetensors").write_bytes(b"again")
    return folder


def hub_task(spec: SweepSpec) -> TrajectoryTask:
    task = make_tasks(make_plan(spec), spec, str, device="cpu")[0]
    return replace(task, model=replace(task.model, name="own/llama", path="own/llama"))


def test_a_model_is_fetched_at_its_commit_and_scored_from_the_cache_alone(
    server: FakeHub,
    cache: Path,
    repository: Path,
    tiny_spec: SweepSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.repositories["models/own/llama"] = repository
    asked = hub_task(tiny_spec)
    task = pin_revisions(asked)
    assert task.model == replace(asked.model, revision=COMMIT)
    preflight(task)
    folder = cache / "models--own--llama" / "snapshots" / COMMIT
    assert model_folder(task.model) == folder
    fetched = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    skipped = ("pytorch_model.bin", "modeling_own.py", "original", "consolidated.safetensors")
    assert fetched.isdisjoint(skipped)
    assert not [line for line in server.asked if line.endswith(skipped)]
    assert input_hashes(task)["own/llama"] == f"own/llama@{COMMIT}"
    assert load_inputs(task).hashes["model"] == f"own/llama@{COMMIT}"

    monkeypatch.setattr(model_hub, "snapshots", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    (record,) = run_trajectory(task, TrialStorage(tmp_path / "run", task.trajectory_id))
    assert (record.status, record.reason) == ("complete", None)
    assert record.provenance["model"] == {
        "name": "own/llama",
        "revision": COMMIT,
        "commit": COMMIT,
        "dtype": "float32",
        "attention": "sdpa",
    }
    assert server.asked == []
    assert TOKEN not in record.to_json()


def test_a_hub_model_is_the_local_one_weight_for_weight(
    server: FakeHub, repository: Path, tiny_world: World
) -> None:
    server.repositories["models/own/llama"] = repository
    theirs = load_model(OWN, CPU).state_dict()
    ours = load_model(ModelSource(str(tiny_world.model), dtype="float32"), CPU).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    server.asked.clear()
    load_tokenizer(OWN)
    load_model(OWN, CPU)
    assert server.asked == []  # From the cache, without looking whether the hub has moved on.
    assert model_commit(OWN) == COMMIT
    assert model_commit(ModelSource(str(tiny_world.model), dtype="float32")) is None


def test_a_run_keeps_its_commit_when_the_hub_moves_on(
    server: FakeHub, repository: Path, tiny_spec: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["models/own/llama"] = repository
    task = pin_revisions(hub_task(tiny_spec))
    server.commit = "d" * 40
    monkeypatch.setattr(model_hub, "snapshots", {})
    assert model_commit(task.model) == COMMIT
    assert model_commit(OWN) == "d" * 40


def message(source: ModelSource) -> str:
    with pytest.raises(ModelError) as caught:
        check_model(source)
    text = str(caught.value)
    assert "\n" not in text and TOKEN not in text and source.path in text
    return text


PREFETCH = "run `sweeper prefetch SPEC` on a machine with network access"


@pytest.mark.parametrize("refusal", [GATED, GATED_UNKNOWN])
def test_a_gated_model_names_the_page_and_the_way_in(
    server: FakeHub, cache: Path, repository: Path, refusal: object
) -> None:
    server.repositories["models/own/llama"] = refusal  # type: ignore[assignment]
    listed = replace(OWN, path="own/listed")
    server.repositories["models/own/listed"] = repository
    server.gated.add("models/own/listed")
    for source in (OWN, listed):
        text = message(source)
        assert f"the model `{source.path}` is gated" in text
        assert f"accept its terms at https://huggingface.co/{source.path}, then" in text
        assert "`hf auth login` or set HF_TOKEN" in text
        assert "then repeat this command" in text and f"the cache is {cache}" in text


def test_a_wrong_id_and_a_wrong_revision_are_told_apart(
    server: FakeHub, cache: Path, repository: Path
) -> None:
    server.repositories["models/own/llama"] = repository
    server.repositories["models/own/other"] = ABSENT
    text = message(replace(OWN, path="own/other"))
    assert "the hub has no model with this id that you can access: correct the id" in text
    assert f"the cache is {cache}" in text
    text = message(replace(OWN, revision="v9"))
    assert "the model `own/llama` has no revision `v9`: correct `revision`" in text


def test_without_network_or_cache_the_line_to_run_is_named(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = message(OWN)
    assert "the model of this id on the hub is not in the cache (offline mode is on)" in text
    assert PREFETCH in text and f"the cache is {offline} (under HF_HOME)" in text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # The discard port: refused.
    assert "(the hub could not be reached)" in message(replace(OWN, revision="v1"))


def test_a_cache_filled_by_hand_is_enough(
    offline: Path, tiny_world: World, tiny_spec: SweepSpec
) -> None:
    snapshot = offline / "models--own--llama" / "snapshots" / CACHED
    shutil.copytree(tiny_world.model, snapshot)
    (offline / "models--own--llama" / "refs").mkdir()
    (offline / "models--own--llama" / "refs" / "main").write_text(CACHED)
    task = pin_revisions(hub_task(tiny_spec))
    assert task.model.revision == CACHED
    assert preflight(task)["train_rows"] == 24


def test_a_model_without_safetensors_or_without_a_part_of_them_is_refused(
    server: FakeHub, cache: Path, repository: Path
) -> None:
    server.repositories["models/own/llama"] = repository
    for name in ("model.safetensors", "consolidated.safetensors"):
        (repository / name).unlink()
    text = message(OWN)
    folder = cache / "models--own--llama" / "snapshots" / COMMIT
    assert f"own/llama ({folder}): no *.safetensors weights (found " in text
    assert "pickled weights are not loaded" in text and PREFETCH in text

    sharded = ModelSource(str(repository), dtype="float32")
    (repository / "model-00001-of-00002.safetensors").touch()
    index = repository / "model.safetensors.index.json"
    names = {f"w{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    index.write_text(json.dumps({"weight_map": names}))
    text = message(sharded)
    assert "1 weights files are missing" in text
    assert "for example model-00002-of-00002.safetensors" in text
    index.write_text("{}")
    with pytest.raises(ModelError, match="not a valid index of weights files"):
        check_model(sharded)
    (repository / "config.json").unlink()
    assert "no config.json, so this" in message(sharded)


def test_a_model_without_a_chat_template_names_id_folder_and_remedy(
    server: FakeHub, cache: Path, repository: Path, tiny_spec: SweepSpec
) -> None:
    (repository / "chat_template.jinja").unlink()
    server.repositories["models/own/llama"] = repository
    with pytest.raises(DataError) as caught:
        preflight(hub_task(tiny_spec))
    folder = cache / "models--own--llama" / "snapshots" / COMMIT
    assert f"the tokenizer own/llama ({folder}) has no chat template" in str(caught.value)
    assert "use `data.template: alpaca` or `llama2`" in str(caught.value)


def test_code_of_a_repository_is_never_run(server: FakeHub, repository: Path) -> None:
    config = json.loads((repository / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.Own"}}
    (repository / "config.json").write_text(json.dumps(config))
    server.repositories["models/own/llama"] = repository
    with pytest.raises(ModelError, match="custom code, but `trust_remote_code` is always off"):
        load_model(OWN, CPU)


def test_a_model_without_a_tokenizer_is_refused(server: FakeHub, repository: Path) -> None:
    for path in repository.glob("tokenizer*"):
        path.unlink()
    server.repositories["models/own/llama"] = repository
    with pytest.raises(ModelError, match="cannot load the tokenizer of `own/llama` from "):
        load_tokenizer(OWN)


def test_a_revision_of_a_local_folder_is_refused(tiny_world: World) -> None:
    text = message(ModelSource(str(tiny_world.model), revision="main"))
    assert "`model.revision` applies to hub models" in text


def test_a_data_set_comes_the_same_way(
    server: FakeHub, cache: Path, tmp_path: Path, tiny_spec: SweepSpec
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "train.jsonl").write_text('{"prompt": "Paint it.", "completion": "Done."}\n' * 3)
    server.repositories["datasets/own/llama"] = rows
    task = hub_task(tiny_spec)
    train = replace(task.data.train, name="own/llama", path="own/llama")
    data = replace(task.data, train=train)
    server.repositories["models/own/llama"] = rows  # Models and data sets of one id do not meet.
    fixed = pin_revisions(replace(task, data=data))
    assert fixed.data.train.revision == fixed.model.revision == COMMIT
    assert (cache / "datasets--own--llama" / "snapshots" / COMMIT / "train.jsonl").is_file()
