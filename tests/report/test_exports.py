"""The files of other trainers that a page shows."""

import json
from pathlib import Path
from typing import Any

from support.browser import Open
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import find_front, recommend
from sweeper.export import Origin, export
from sweeper.report import render, report_data
from sweeper.report.exports import MOST, TITLES, export_block
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

RUN = RunFolder(Path("my run"))


def block(records: list[TrialRecord], *overrides: str) -> dict[str, Any]:
    spec = make_spec(*overrides)
    front = find_front(records, spec)
    return export_block(front, recommend(front, spec), spec, "my run")


def test_they_are_what_export_writes(tmp_path: Path) -> None:
    spec, records = make_spec(), make_sweep()
    front = find_front(records, spec)
    found = recommend(front, spec)
    made = export_block(front, found, spec, "my run")
    chosen = found.chosen
    assert chosen is not None and next(iter(made["of"])) == chosen.config_id
    assert 1 < len(made["of"]) <= MOST
    origin = Origin("my run", found.compared, True, found.base)
    for name, title in made["formats"]:
        assert TITLES[name] == title
        files = made["of"][chosen.config_id][name]
        written = export(chosen, spec, name, tmp_path / name, origin=origin)
        assert [path.name for path in written] == [file for file, _ in files]
        assert [path.read_text("utf-8") for path in written] == [made["texts"][i] for _, i in files]
    assert len(set(made["texts"])) == len(made["texts"])


def test_what_a_trainer_cannot_do_is_said_and_folders_are_not_shown() -> None:
    records = [
        base_record(identity="base"),
        make_record(identity="avg", average="ema(0.99)", model="/home/somebody/models/mine"),
    ]
    made = block(records)
    refused = [files for files in made["of"]["avg"].values() if isinstance(files, str)]
    assert all("avg" in text or "averag" in text for text in refused)
    assert "somebody" not in json.dumps(made)
    assert any(".../models/mine" in text for text in made["texts"])
    assert block([base_record(identity="base")])["of"] == {}


def test_a_configuration_opens_with_its_files_and_what_can_be_done(opened: Open) -> None:
    data = report_data(RUN, make_sweep(), make_spec(), None)
    found = opened(render(data))
    shown = found.page.locator("#configuration")
    chosen = data.headline.config_id
    found.page.locator(".use").click()
    assert chosen in shown.locator("h2").inner_text()
    shown.locator(".tab", has_text="Axolotl").click()
    files = data.exports["of"][chosen]["axolotl"]
    assert (
        shown.locator("pre").first.inner_text().strip()
        == data.exports["texts"][files[0][1]].strip()
    )
    assert f"--format axolotl --config {chosen}" in shown.locator(".commands").inner_text()
    found.page.keyboard.press("Escape")
    assert shown.is_hidden()
    found.page.locator(".use").click()
    shown.get_by_role("button", name="compare").click()
    assert found.value("[...page.tray()]") == [chosen]
    assert found.page.locator("#compare").is_visible()
    other = data.rows[-1].config_id
    found.value("page.select(null, 'test')")
    found.value("id => { document.getElementById('filter').value = `id=${id}`; }", other)
    found.page.locator("#filter").dispatch_event("input")
    found.page.locator(f"[aria-label='open {other}']").click()
    assert "not in the page" in shown.inner_text()
    shown.get_by_role("button", name="select in every chart").click()
    assert found.value("[...page.selection()]") == [other]
    others = [row.config_id for row in data.rows if row.config_id not in (chosen, other)][:3]
    found.value("ids => ids.forEach(id => page.toggle(id, 'test'))", others)
    found.page.locator(f"[aria-label='open {other}']").click()
    compare = shown.get_by_role("button", name="compare")
    assert compare.is_disabled()
    assert "holds 4 already" in (compare.get_attribute("title") or "")
