"""The live page in a real browser: what is written while it is open shows up in it."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from support.factories import make_record, make_spec, make_sweep
from support.locks import line_of
from support.run_folders import append
from support.served import HOSTILE, Served, add_run

from sweeper.planning import make_plan
from sweeper.store.progress import TrajectoryProgress
from sweeper.store.trial_log import TrialLog

pytestmark = pytest.mark.slow


@pytest.fixture
def complaints() -> list[str]:
    """What the page complains about, and requests that leave the server."""
    return []


@pytest.fixture
def page(chromium: Browser, complaints: list[str]) -> Iterator[Page]:
    opened = chromium.new_page()
    opened.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    opened.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    opened.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://127.0.0.1:", "data:", "blob:"))
            else complaints.append(f"asked {request.url}")
        ),
    )
    yield opened
    opened.close()


def test_the_report_is_renewed_in_place_and_loses_nothing(
    page: Page, complaints: list[str], tmp_path: Path
) -> None:
    sweep = make_sweep()
    folder = add_run(tmp_path, "growing", sweep[:30])
    trial = folder.trial("abc123")
    trial.create()
    server = Served(tmp_path)
    report = page.frame_locator("iframe:not(.next)")
    try:
        at = TrajectoryProgress("abc123", "train", 2, 320, (2.5, 2.25), 1, time.time())
        trial.progress.write_text(at.to_json())
        TrialLog(trial).write("train", step=2, tokens_per_second=1234.4)
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_role("link", name="growing").click()
        expect(page.locator("#live-count")).to_have_text("30 of 139 records")
        page.get_by_text("Workers, failures, files").click()
        expect(page.locator("#live-workers")).to_contain_text("2 of 320")
        expect(page.locator("#live-workers")).to_contain_text("1,234")
        expect(report.locator(".so-far")).to_have_text("so far: 30 of 139 records")
        expect(report.locator(".answer")).to_contain_text("So far, ")

        page.get_by_text("Workers, failures, files").click()
        report.get_by_role("link", name="Table", exact=True).click()
        report.locator("#filter").fill("batch=16")
        report.locator("#all th button", has_text="unsafe_rate").first.click()
        report.locator("#all tbody .pick").nth(2).click()
        report.locator("summary", has_text="Columns").click()
        box = report.locator("#columns label").filter(has_not=page.locator("input:checked")).last
        column = (box.text_content() or "").strip()
        box.locator("input").set_checked(True)
        chosen = report.locator("#all tbody tr.selected .open").get_attribute("data-config")
        before = report.locator("#shown").text_content()
        report.locator("body").evaluate("() => scrollTo(0, 150)")
        page.evaluate("window.same = 1")
        expect(page).to_have_url(re.compile(f"#table\\?filter=batch%3D16&selected={chosen}"))

        bad = make_record(status="failed", identity="bad", reason={"class": HOSTILE})
        bad = replace(bad, trajectory_id="abc123")
        TrialLog(trial).write("failure", message=HOSTILE)
        append(folder, [*sweep[30:60], bad])
        trial.progress.write_text(
            replace(at, stage="evaluate", step=5, losses=(2.5, 2, 1.5)).to_json()
        )
        expect(page.locator("#live-count")).to_have_text("61 of 139 records, 1 failed")
        expect(report.locator(".so-far")).to_have_text("so far: 61 of 139 records", timeout=30_000)
        assert page.evaluate("window.same") == 1  # Only the report is new.
        expect(report.locator("#view-table")).to_be_visible()
        expect(report.locator("#filter")).to_have_value("batch=16")
        expect(report.locator("#all tbody tr.selected .open")).to_have_attribute(
            "data-config", str(chosen)
        )
        assert report.locator("#shown").text_content() != before
        expect(report.locator("#columns")).to_be_visible()
        expect(report.locator("#all th button", has_text=column).first).to_be_visible()
        assert report.locator("#all th[aria-sort=ascending]").inner_text().startswith("unsafe_rate")
        report.locator("body").evaluate("() => new Promise((done) => setTimeout(done, 300))")
        assert report.locator("body").evaluate("() => scrollY") == 150
        expect(page.locator("iframe")).to_have_count(1)

        page.get_by_text("Workers, failures, files").click()
        expect(page.locator("#live-workers svg")).to_have_attribute(
            "aria-label", "training loss from 2.500 to 1.500"
        )
        failure = page.locator("#live-failures details")
        expect(failure.locator("summary")).to_contain_text(HOSTILE)
        expect(failure.locator("pre")).to_be_hidden()
        failure.locator("summary").click()
        expect(failure.locator("pre")).to_contain_text(f"abc123 failure message={HOSTILE[:10]}")
        assert complaints == []
    finally:
        server.stop()
    expect(page.locator("#live-state")).to_have_text("no answer")


def test_a_renewal_waits_for_what_somebody_does(page: Page, tmp_path: Path) -> None:
    sweep = make_sweep()
    folder = add_run(tmp_path, "growing", sweep[:30])
    server = Served(tmp_path)
    report = page.frame_locator("iframe:not(.next)")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/runs/growing/#table")
        report.locator("#all .open").first.click()
        expect(report.locator("#configuration")).to_be_visible()
        append(folder, sweep[30:40])
        expect(page.locator("#live-behind")).to_contain_text("10 records behind")
        expect(page.locator("iframe.next")).to_have_count(1)
        page.wait_for_timeout(4000)
        expect(report.locator("#configuration")).to_be_visible()
        report.get_by_role("button", name="close").click()
        expect(report.locator(".so-far")).to_have_text("so far: 40 of 139 records", timeout=20_000)
        expect(page.locator("#live-behind")).to_have_text("")
    finally:
        server.stop()


def test_index_and_comparison_work_without_a_complaint(
    page: Page, complaints: list[str], tmp_path: Path
) -> None:
    sweep = make_sweep()
    add_run(tmp_path, "one", sweep)
    add_run(tmp_path, "two", sweep[:50])
    server = Served(tmp_path)
    try:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("h1")).to_have_text("one and two")
        expect(page.locator("#fronts .main-svg").first).to_be_visible()
        page.goto(f"http://127.0.0.1:{server.port}/")
        add_run(tmp_path, "three", sweep[:10])
        expect(page.get_by_role("link", name="three")).to_be_visible(timeout=15_000)
        assert complaints == []
    finally:
        server.stop()


def test_a_zoomed_figure_stays_zoomed(page: Page, complaints: list[str], tmp_path: Path) -> None:
    sweep = make_sweep()
    folder = add_run(tmp_path, "growing", sweep[:60])
    server = Served(tmp_path)
    report = page.frame_locator("iframe:not(.next)")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/runs/growing/#explore")
        plot = report.locator(".js-plotly-plot").first
        expect(plot).to_have_attribute("aria-busy", "false", timeout=30_000)
        page.wait_for_timeout(500)  # The page has noticed the figure.
        ranges = {"xaxis.range": [0.1, 0.2]}
        plot.evaluate("(node, to) => window.Plotly.relayout(node, to)", ranges)
        append(folder, sweep[60:80])
        expect(report.locator(".so-far")).to_have_text("so far: 80 of 139 records", timeout=30_000)
        assert plot.evaluate("(node) => node.layout.xaxis.range") == [0.1, 0.2]
        assert complaints == []
    finally:
        server.stop()


def test_one_path_is_stopped_from_its_line(
    page: Page, complaints: list[str], tmp_path: Path
) -> None:
    folder = add_run(tmp_path, "run", make_sweep()[:5])
    first, other = make_plan(make_spec()).trajectories[:2]
    for path in (first, other):
        trial = folder.trial(path.trajectory_id)
        trial.create()
        at = TrajectoryProgress(path.trajectory_id, "train", 2, 320, (2.5,), 1, time.time())
        trial.progress.write_text(at.to_json())
    folder.lock.write_bytes(line_of("elsewhere", 1).line())
    server = Served(tmp_path, token="token")
    try:
        page.goto(f"http://127.0.0.1:{server.port}/runs/run/")
        page.get_by_text("Workers, failures, files").click()
        row = page.locator("#live-workers tr", has=page.locator(f"[title='{first.trajectory_id}']"))
        expect(page.locator("#live-workers tbody button")).to_have_count(2)
        row.get_by_role("button").click()
        expect(page.locator("#live-ask-title")).to_have_text("Stop this path for good?")
        page.locator("#live-ask").get_by_role("button", name="Cancel").click()
        assert not folder.trial(first.trajectory_id).stop_mark.exists()
        row.get_by_role("button").click()
        page.locator("#live-ask-yes").click()
        expect(page.locator("#live-note")).to_contain_text(f"path {first.trajectory_id} ends at")
        expect(row.get_by_role("button")).to_be_hidden()
        expect(page.locator("#live-stop")).to_be_visible()  # The sweep goes on.
    finally:
        server.stop()
    assert folder.trial(first.trajectory_id).stop_mark.exists()
    assert not folder.trial(other.trajectory_id).stop_mark.exists()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_on_live_page_and_index(
    chromium: Browser, tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    bad = replace(make_record(status="failed", identity="bad"), trajectory_id="abc123")
    folder = add_run(tmp_path, "growing", [*make_sweep()[:10], bad])
    trial = folder.trial("abc123")
    trial.create()
    at = TrajectoryProgress("abc123", "train", 2, 320, (2.5, 2.25), 1, time.time())
    trial.progress.write_text(at.to_json())
    folder.lock.write_bytes(line_of("elsewhere", 1).line())
    add_run(tmp_path, "done", make_sweep()[:3])
    server = Served(tmp_path, token="token")
    context = chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    page = context.new_page()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    found = {}
    try:
        page.goto(f"http://127.0.0.1:{server.port}/")
        found["index"] = Axe().run(page, options=rules).response["violations"]
        page.goto(f"http://127.0.0.1:{server.port}/runs/growing/")
        page.get_by_text("Workers, failures, files").click()
        page.locator("#live-records > summary").click()
        page.locator("#live-failures summary").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found["live"] = Axe().run(page, options=rules).response["violations"]
        page.locator("#live-stop").click()
        found["dialog"] = Axe().run(page, options=rules).response["violations"]
    finally:
        context.close()
        server.stop()
    assert {name: each for name, each in found.items() if each} == {}


def test_two_runs_compared_are_drawn_by_the_small_plotly_in_the_page(
    page: Page, complaints: list[str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        add_run(tmp_path, name, make_sweep(seed=len(name)), "decide=false")
    server = Served(tmp_path)
    try:
        answer = page.goto(f"http://127.0.0.1:{server.port}/compare?a=one&b=two")
        assert answer is not None and len(answer.body()) < 2_000_000
        expect(page.locator("#fronts-figure .scatterlayer .trace").first).to_be_visible()
        expect(page.locator("#fronts-figure .legendtext").first).to_contain_text("one")
        page.screenshot(path=tmp_path / "compare.png", full_page=True)
    finally:
        server.stop()
    assert complaints == []
