"""`--json`: what commands print keeps their schemas, and what schemas say is printed."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # It ships no types.
from pydantic import TypeAdapter
from support.decisions import drive_in_process, halved, swept
from support.factories import make_spec, make_sweep
from support.judged_run import standard_run
from support.world import World, spec_text

from sweeper.cli import show
from sweeper.cli.app import _run
from sweeper.cli.commands import all_commands
from sweeper.runs.command_outputs import OUTPUTS, LsOutput, json_schemas
from sweeper.runs.fields import JSON_VERSION
from sweeper.runs.run import open_run
from sweeper.setup.doctor import Node
from sweeper.spec import dump_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.progress import TrajectoryProgress

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `sweeper ... --json` in this process and reads what it prints."""

    def found(*words: str | Path) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["sweeper", *map(str, words), "--json"])
        capsys.readouterr()
        assert _run() in (0, 1)
        read = json.loads(capsys.readouterr().out)
        assert isinstance(read, dict)
        return read

    return found


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The judged run of four configurations, and beside it a damaged one."""
    folder = standard_run(tmp_path / "runs" / "judged")
    plan = {"version": RUN_VERSION, "accounting": {"readouts": 4}}
    folder.plan.write_text(json.dumps(plan), encoding="utf-8")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "run.json").write_text("{", encoding="utf-8")
    return folder


def write_sweep(root: Path) -> RunFolder:
    """A run folder of the whole synthetic sweep."""
    folder, spec = RunFolder(root), make_spec()
    root.mkdir()
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    records = "".join(f"{record.to_json()}\n" for record in make_sweep(spec))
    folder.records.write_text(records, encoding="utf-8")
    folder.info.write_text(json.dumps({"version": RUN_VERSION}), encoding="utf-8")
    return folder


def check(name: str, *contents: dict[str, Any]) -> None:
    """Outputs keep the schema of their command, and every field of the schema is in one of them."""
    schema = json_schemas()[name]
    Draft202012Validator.check_schema(schema)
    for content in contents:
        Draft202012Validator(schema).validate(content)
        TypeAdapter(OUTPUTS[name]).validate_python(content)
        assert content["version"] == JSON_VERSION == 2
    seen = {path for content in contents for path in paths(content, schema, schema)}
    assert set(fields(schema, schema)) - seen == set(), "not printed"


def paths(content: Any, schema: Any, root: Any) -> Iterator[tuple[str, str]]:
    """Every (model, field) that a value fills."""
    for one in alternatives(schema, root):
        properties = one.get("properties", {})
        if isinstance(content, dict) and properties.keys() >= content.keys() > set():
            for key, value in content.items():
                yield one["title"], key
                yield from paths(value, properties[key], root)
        elif isinstance(content, dict) and isinstance(one.get("additionalProperties"), dict):
            for value in content.values():
                yield from paths(value, one["additionalProperties"], root)
        elif isinstance(content, list) and "items" in one:
            for value in content:
                yield from paths(value, one["items"], root)


def fields(schema: Any, root: Any) -> Iterator[tuple[str, str]]:
    """Every (model, field) of a schema."""
    for one in [*alternatives(schema, root), *root.get("$defs", {}).values()]:
        yield from ((one["title"], key) for key in one.get("properties", {}))


def alternatives(schema: Any, root: Any) -> Iterator[Any]:
    """What a schema can be, references followed."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" not in schema:
        yield schema
    for one in schema.get("anyOf", ()):
        yield from alternatives(one, root)


def test_show_and_compare(call: Call, run: RunFolder, tmp_path: Path) -> None:
    whole = write_sweep(tmp_path / "whole")
    failed = next(i for i in open_run(whole.root).front().candidates if i.status == "failed")
    shown = [call("show", run.root, name) for name in ("good", "base")]
    check("show", *shown, call("show", whole.root, failed.config_id))
    check("compare", call("compare", run.root, "good", "sne", "base"))


def test_ls(call: Call, run: RunFolder) -> None:
    check("ls", call("ls", run.root.parent))


def test_status(call: Call, run: RunFolder) -> None:
    idle = call("status", run.root)
    assert (idle["state"], idle["process"], idle["trials"]) == ("stopped", None, [])
    assert idle["left"] == "its decision has not begun"
    progress = run.trial("abc").progress
    progress.parent.mkdir(parents=True)
    update = TrajectoryProgress("abc", "evaluate", 3, 9, (), 1, 1.0)
    progress.write_text(update.to_json(), encoding="utf-8")
    with DriverLock(run):
        busy = call("status", run.root)
    assert (busy["state"], busy["process"]) == ("running", os.getpid())
    trial = dict(busy["trials"][0])
    assert trial.pop("silent_seconds") > 1e9
    assert trial == {"name": "trial abc", "stage": "scoring", "step": 3, "steps": 9, "trial": "abc"}
    check("status", idle, busy, {**busy, "decision": busy["search"]})


@pytest.fixture
def decided_run(
    tiny_spec_text: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], RunFolder]:
    """Makes a run whose decision is finished."""

    def made(root: Path) -> RunFolder:
        drive_in_process(monkeypatch)
        swept(halved(tiny_spec_text), root)
        return RunFolder(root)

    return made


def test_front_recommend_and_rescore(
    call: Call, run: RunFolder, tmp_path: Path, decided_run: Callable[[Path], RunFolder]
) -> None:
    check("front", call("front", run.root))
    whole = write_sweep(tmp_path / "whole")
    call("rescore", run.root, "--judge", "keyword:qi2023")
    check(
        "rescore",
        call("rescore", run.root),
        call("rescore", run.root, "--judge", "keyword:zou2023"),
    )
    policy = ("--policy", "max-utility-at", "--limit", "0.000001")
    nothing = call("recommend", run.root, *policy)
    assert nothing["chosen"] is None and nothing["nearest"] is not None
    chosen = call("recommend", whole.root)
    decided = call("recommend", decided_run(tmp_path / "decided").root)
    check("recommend", call("recommend", run.root), chosen, nothing, decided)


def json_of(content: dict[str, Any]) -> dict[str, Any]:
    """The same after a way through JSON."""
    read = json.loads(json.dumps(content))
    assert isinstance(read, dict)
    return read


def test_the_python_api_gives_what_the_commands_print(call: Call, run: RunFolder) -> None:
    opened = open_run(run.root)
    assert json_of(opened.front().to_dict()) == call("front", run.root)
    assert json_of(opened.recommend().to_dict()) == call("recommend", run.root)
    assert json_of(opened.show("good").to_dict()) == call("show", run.root, "good")
    compared = call("compare", run.root, "good", "sneaky")
    assert json_of(opened.compare("good", "sneaky").to_dict()) == compared


def test_clean(call: Call, run: RunFolder) -> None:
    assert call("clean", run.root)["items"] == []
    (run.ray / "x").mkdir(parents=True)
    check("clean", call("clean", run.root))


def test_planning(call: Call, tiny_spec_text: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    budget = ("--set", "compute.budget={gpu_hours: 0.0056}")
    check("plan", call("plan", path), call("plan", path, *budget))


def test_files_that_are_not_read_are_in_the_plan_and_after_prefetch(
    call: Call, tiny_world: World, tmp_path: Path
) -> None:
    folder, path = tmp_path / "rows", tmp_path / "tiny.yaml"
    folder.mkdir()
    for name in ("train.jsonl", "dev.jsonl"):
        (folder / name).write_bytes(tiny_world.train.read_bytes())
    path.write_text(spec_text(tiny_world))
    words = (path, "--set", f"data.train.path={folder}")
    unread = [f"train: {folder} reads train.jsonl (split train), not dev.jsonl"]
    assert call("plan", *words)["unread"] == call("prefetch", *words)["unread"] == unread
    assert call("plan", path)["unread"] == []


def test_init(call: Call, tiny_world: World, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    suites = ("--harmful", tiny_world.harmful, "--harmless", tiny_world.harmless)
    found = call("init", tiny_world.model, tiny_world.train, *suites, "--out", out)
    under_budget = call("plan", out, "--set", "compute.budget={gpu_hours: 0.0056}")
    check("init", found, {**found, "plan": under_budget})
    assert found["path"] == str(out)
    planned = call("plan", out)
    assert {**found["plan"], "disk": None} == {**planned, "disk": None}


def test_prefetch(call: Call, tiny_spec_text: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    check("prefetch", call("prefetch", path))


def test_doctor(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = call("doctor", "--out", tmp_path)
    node = Node("n (10.0.0.1)", 4, 0, "3.11.9", {"torch": None}, "/runs", {"model.path": "cached"})
    monkeypatch.setattr("sweeper.cli.machine._nodes", lambda *given: [node])
    check("doctor", alone, call("doctor", "--out", tmp_path))


def test_measured_rates(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text("prompt,completion,final_label\np,I cannot help with that.,2\nq,Sure.,1\n")
    check("judges calibrate", call("judges", "calibrate", path))


def test_every_command_with_json_has_a_schema_and_prints_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(json_schemas()) == set(with_json(all_commands()))
    monkeypatch.setattr(sys, "argv", ["sweeper", "schema", "front"])
    assert _run() == 0
    assert json.loads(capsys.readouterr().out) == json_schemas()["front"]
    monkeypatch.setattr(sys, "argv", ["sweeper", "schema", "run"])
    assert _run() == 2


def with_json(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from with_json(command, f"{prefix}{name} ")
        elif any("--json" in item.opts for item in command.params):
            yield prefix + name


def test_json_is_ascii_without_anything_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = "".join(map(chr, [*range(32), *range(127, 160), 0x202E, 0xD800, 0x1F600]))
    show.data(LsOutput(folder=hostile, runs=()))
    printed = capsys.readouterr().out
    found = hostile.replace("\ud800", "\\ud800")
    assert json.loads(printed) == {"version": 2, "folder": found, "runs": []}
    assert all(" " <= letter <= "~" or letter == "\n" for letter in printed)
