"""What a redacted report shows of the paths of a machine."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from support.factories import base_record, make_record, make_spec

from sweeper.report import render, report_data
from sweeper.report.local_paths import without_folders
from sweeper.report.samples import gather
from sweeper.store.folder import RunFolder


class Shown(NamedTuple):
    title: str
    rows: tuple[tuple[str, int], ...]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/work/rows/tune.json", ".../rows/tune.json"),
        ("/home/me/work/rows/", ".../work/rows"),
        ("/home/me/tune.json", ".../tune.json"),
        ("/data/tune.json", ".../tune.json"),
        ("~/work/project/rows/tune.json", ".../rows/tune.json"),
        (r"C:\Users\me\rows\tune.json", ".../rows/tune.json"),
        ("file:///home/me/work/rows/tune.json", ".../rows/tune.json"),
        ("/home/my name/work/rows/tune.json", ".../rows/tune.json"),
        ("{'path': '/home/my name/a/b.json', 'rows': 3}", "{'path': '.../a/b.json', 'rows': 3}"),
        ("harmful//home/my name/data/bad.csv", "harmful/.../data/bad.csv"),
        ("/home/me/a/b.json: damaged (/tmp/x/y/z)", ".../a/b.json: damaged (.../y/z)"),
    ],
)  # fmt: skip
def test_a_local_path_keeps_its_last_names(text: str, expected: str) -> None:
    assert without_folders(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "rows/tune.json",
        "../rows/tune.json",
        "https://example.org/a/b/c",
        "s3://bucket/a/b/c",
        "degenerate_rate/harmful",
        "3 / 64 of 5e-4/s, and/or",
        "<a href='#a'>/</a>",
    ],
)
def test_what_is_no_local_path_stays(text: str) -> None:
    assert without_folders(text) == text


def test_a_path_is_cut_in_every_place_and_nothing_else_changes() -> None:
    shown = Shown("tuning /home/my name/m on rows", (("/home/my name/m", 3), ("m", 4)))
    found = without_folders((shown, {"a/b": [1.5, None, "/x/y/z/t"]}))
    assert found == (
        Shown("tuning .../m on rows", ((".../m", 3), ("m", 4))),
        {"a/b": [1.5, None, ".../z/t"]},
    )
    assert isinstance(found[0], Shown)


def test_a_redacted_page_shows_no_folder(tmp_path: Path) -> None:
    home = "/home/someone"
    model = f"{home}/secret project/models/tuned"
    spec = make_spec(f"model.path={model}", f"description='rows of {home}/secret/rows/a.json'")
    failure = {
        "class": "DataError",
        "message": f"{home}/secret/rows/a.json: no such file",
        "traceback": "",
        "stage": "load",
    }
    told = {"data_sha256": {f"harmful/{home}/secret project/prompts/bad.csv": "12ab"}}
    records = [
        replace(record, provenance={**record.provenance, **told})
        for record in (
            base_record(model=model),
            make_record(identity="a", model=model),
            make_record(identity="b", model=model, status="failed", reason=failure),
        )
    ]
    run = RunFolder(tmp_path / "run")
    data = report_data(run, records, spec, None)
    openly, redacted = (
        render(data, gather(run, records, spec, data, redact=redact)) for redact in (False, True)
    )
    assert openly.count(home) >= 5
    assert home not in redacted and "secret" not in redacted
    for kept in (".../models/tuned", ".../prompts/bad.csv", ".../rows/a.json"):
        assert kept in redacted
