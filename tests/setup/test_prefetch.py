"""`sweeper prefetch`: all that a sweep reads comes into the cache, and a run needs no network after it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command
from support.fake_hub import COMMIT, GATED, FakeHub, fake_hub
from support.hub_cache import use_cache, use_hub
from support.world import World

from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import preflight
from sweeper.spec import SweepSpec, load_spec


@pytest.fixture
def server(tiny_world: World, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with the tiny model, a data set and a published suite."""
    rows = tmp_path / "served" / "rows"
    rows.mkdir(parents=True)
    shutil.copy(tiny_world.train, rows / "train.jsonl")
    safe = tmp_path / "served" / "xstest"
    safe.mkdir()
    prompts = [{"id": i, "prompt": f"Where is lamp {i}?", "label": "safe"} for i in range(8)]
    (safe / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in prompts))
    with fake_hub() as hub:
        hub.repositories = {
            "models/own/llama": tiny_world.model,
            "datasets/own/rows": rows,
            "datasets/Paul/XSTest": safe,
        }
        yield hub


OVERRIDES = (
    "model.path=own/llama",
    "data.train.path=own/rows",
    "evaluation.harmless={suite: xstest-safe, prompt_split: all}",
)


def on_hub(spec: Path) -> SweepSpec:
    return load_spec(str(spec), OVERRIDES)


def test_local_files_are_checked_and_named(
    command: Command, sweep: Path, tiny_world: World
) -> None:
    code, out, err = command("prefetch", sweep, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [item["what"] for item in found["items"]] == [
        "model",
        "train",
        "heldout",
        "harmful",
        "harmless",
    ]
    model, train = found["items"][:2]
    assert (model["place"], model["commit"]) == (str(tiny_world.model), None)
    assert model["size_bytes"] == sum(path.stat().st_size for path in tiny_world.model.iterdir())
    assert train["sha256"] == hashlib.sha256(tiny_world.train.read_bytes()).hexdigest()
    assert train["size_bytes"] == tiny_world.train.stat().st_size
    assert found["rows"]["train_rows"] == 24
    assert found["run"].endswith(f"HF_HUB_OFFLINE=1 sweeper run {sweep}")


def test_what_would_stop_a_trial_stops_here(command: Command, sweep: Path) -> None:
    for override, problem in (
        ("model.path=./absent", "./absent: no such model folder"),
        ("data.train.path=absent.jsonl", "absent.jsonl: no such data file"),
        ("data.max_length=2", "data.max_length"),
        ("data.train.columns={prompt: q}", "no column `q`"),
    ):
        code, out, err = command("prefetch", sweep, "--set", override)
        assert (code, out) == (2, "")
        assert problem in err and err.count("error: ") == 1


def test_a_sweep_of_the_hub_is_fetched_and_then_needs_no_network(
    server: FakeHub, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hf"
    words = [word for override in OVERRIDES for word in ("--set", override)]
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(home)}
    environment["HF_TOKEN"] = "hf_secretsecretsecret"
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "sweeper", "prefetch", str(sweep), *words],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(COMMIT) >= 3
    assert "own/llama" in done.stdout and "own/rows" in done.stdout
    assert "xstest-safe" in done.stdout
    line = f"on a node without network: HF_HOME={home} HF_HUB_OFFLINE=1 sweeper run {sweep}"
    assert line in done.stdout
    assert "hf_secret" not in done.stdout + done.stderr

    server.asked.clear()
    use_cache(monkeypatch, home / "hub")
    spec = on_hub(sweep)
    task = pin_revisions(make_tasks(make_plan(spec), spec, resolve)[0])
    assert preflight(task)["train_rows"] == 24
    assert task.model.revision == task.data.train.revision == COMMIT
    assert task.evaluation.harmless[0].revision == COMMIT
    assert server.asked == []


def test_a_gated_model_is_one_message(
    server: FakeHub, command: Command, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repositories["models/own/llama"] = GATED
    use_cache(monkeypatch, tmp_path / "hub", offline=False)
    use_hub(monkeypatch, server)
    code, out, err = command("prefetch", sweep, "--set", "model.path=own/llama")
    assert (code, out) == (2, "")
    for text in ("is gated: accept its terms at https://huggingface.co/own/llama", "hf auth login"):
        assert text in err
    assert "Traceback" not in err
