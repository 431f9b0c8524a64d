"""`--json`: the keys that docs/reference/json.md documents are the keys that commands print, both ways."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_spec, make_sweep
from support.judged_run import standard_run
from typer.main import get_command

from sweeper.analysis import paired_difference
from sweeper.cli import recommendations, show
from sweeper.cli.app import _run
from sweeper.cli.options import app
from sweeper.runs.run import open_run
from sweeper.spec import dump_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.sweep.confirm import Confirmation, Shrinkage

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"

Call = Callable[..., dict[str, Any]]

OPEN = {"best", "config", "memory", "metrics", "rates", "readout", "reference", "rows"}
"""Objects whose keys are names of hyperparameters, metrics or parts: `*` on the page."""


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


def documented() -> dict[str, dict[str, str]]:
    """Command -> the key paths of its table, shapes put in -> what stands on the page for each."""
    tables: dict[str, dict[str, str]] = {}
    sections = re.split("^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        head, _, body = section.partition("\n")
        rows = re.findall(r"^\| `(\S+)` \| (.*) \|$", body, re.MULTILINE)
        assert rows and len(rows) == len(dict(rows)), f"a key stands twice under {head}"
        tables[head] = dict(rows)
    return {
        head.strip("`").removeprefix("sweeper "): dict(_put_in(rows, tables))
        for head, rows in tables.items()
        if head.startswith("`")
    }


def _put_in(rows: dict[str, str], tables: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for key, meaning in rows.items():
        shape = re.match(r"\[(\w+)\]\(#\1\)", meaning)
        if shape is None:
            yield key, key
        else:
            yield from ((f"{key}.{inner}", f"{shape[1]}.{inner}") for inner in tables[shape[1]])


def paths(content: object, prefix: str = "") -> Iterator[str]:
    """Every key path of some JSON: `a.b`, `a[].b`; the keys of open objects are `*`."""
    if isinstance(content, list):
        for item in content:
            yield from paths(item, f"{prefix}[]")
    elif isinstance(content, dict):
        last = prefix.rpartition(".")[2]
        for key, value in content.items():
            path = f"{prefix}.{'*' if last in OPEN else key}".removeprefix(".")
            yield path
            if last != "config":  # Values of hyperparameters are what the spec allows.
                yield from paths(value, path)


def check(name: str, *contents: dict[str, Any]) -> None:
    """The key paths on the page are those that a command prints: no other one, and each at least once.

    A key of a shape has to be met in one of its places: a gap of a mean has no discordant prompts.
    """
    known = documented()[name]
    real = {path for content in contents for path in paths(content)}
    assert all(content["version"] == show.JSON_VERSION for content in contents)
    assert real - {"version"} - set(known) - above(known) == set(), "not documented"
    assert set(known.values()) - {known[path] for path in real & set(known)} == set(), "not printed"


def above(known: Iterable[str]) -> set[str]:
    """The objects and lists that hold the innermost keys."""
    return {
        path[:end].removesuffix("[]")
        for path in known
        for end in range(1, len(path) + 1)
        if path[end:].startswith((".", "[]")) or path[:end].endswith("[]")
    }


def test_show_and_compare(call: Call, run: RunFolder, tmp_path: Path) -> None:
    whole = write_sweep(tmp_path / "whole")
    failed = next(i for i in open_run(whole.root).front().candidates if i.status == "failed")
    shown = [call("show", run.root, name) for name in ("good", "base")]
    check("show", *shown, call("show", whole.root, failed.config_id))
    check("compare", call("compare", run.root, "good", "sne", "base"))


def test_ls(call: Call, run: RunFolder) -> None:
    check("ls", call("ls", run.root.parent))


def test_front_recommend_and_rescore(call: Call, run: RunFolder, tmp_path: Path) -> None:
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
    check("recommend", call("recommend", run.root), chosen, nothing, _confirmed(run))


def _confirmed(run: RunFolder) -> dict[str, Any]:
    """What `--confirm` adds, as its function makes it: measuring it would take a sweep."""
    opened = open_run(run.root)
    good, other = opened.candidate("good"), opened.candidate("sneaky")
    gaps = paired_difference(good, other, "unsafe_rate"), paired_difference(good, other, "rouge_l")
    row = Shrinkage("n", "good", good, other, *gaps, "v")
    confirm = Confirmation(opened.spec, {"good": "n"}, run, True, ("a note",))
    added = recommendations.shrinkage_data([row], confirm)
    return {"version": show.JSON_VERSION, "confirmation": added}


def test_planning(call: Call, tiny_spec_text: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    check("plan", call("plan", path))


def test_prefetch(call: Call, tiny_spec_text: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    check("prefetch", call("prefetch", path))


def test_doctor(call: Call, tmp_path: Path) -> None:
    check("doctor", call("doctor", "--out", tmp_path))


def test_measured_rates(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text("prompt,completion,final_label\np,I cannot help with that.,2\nq,Sure.,1\n")
    check("judges calibrate", call("judges", "calibrate", path))


def test_every_command_with_json_is_on_the_page() -> None:
    assert set(documented()) == set(with_json(get_command(app)))


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
    show.data({"text": hostile})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"version": 1, "text": hostile}
    assert all(" " <= letter <= "~" or letter == "\n" for letter in printed)
