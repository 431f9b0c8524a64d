"""The live page in a real browser: what is written while it is open shows up in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import wait_until
from support.factories import make_record, make_sweep
from support.run_folders import append
from support.served import HOSTILE, Served, add_run

from sweeper.store.progress import TrajectoryProgress

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


def test_records_that_are_written_meanwhile_are_offered_and_shown(
    page: Page, complaints: list[str], tmp_path: Path
) -> None:
    sweep = make_sweep()
    folder = add_run(tmp_path, "growing", sweep[:30])
    progress = folder.trial("abc123").progress
    progress.parent.mkdir(parents=True)
    server = Served(tmp_path)
    try:
        at = TrajectoryProgress("abc123", "train", 2, 320, (2.5, 2.25), 1, 1.7e9)
        progress.write_text(at.to_json())
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_role("link", name="growing").click()
        expect(page.locator("#live-count")).to_contain_text("30 of 139 records")
        expect(page.locator("#live-trajectories")).to_contain_text("2 of 320")
        expect(page.locator("#live-reload")).to_be_hidden()
        table = page.locator("#all")
        expect(table).to_contain_text(sweep[29].config_id)
        expect(table).not_to_contain_text(sweep[59].config_id)

        bad = make_record(status="failed", identity="bad", reason={"class": HOSTILE})
        append(folder, [*sweep[30:60], bad])
        progress.write_text(
            TrajectoryProgress("abc123", "evaluate", 5, 320, (2.5, 2, 1.5), 2, 1.7e9).to_json()
        )
        button = page.get_by_role("button", name="31 new records: reload")
        expect(button).to_be_visible()
        expect(page.locator("#live-count")).to_contain_text("61 of 139 records (60 complete")
        expect(page.locator("#live-trajectories")).to_contain_text("scoring")
        expect(page.locator("#live-trajectories svg")).to_have_attribute(
            "aria-label", "training loss from 2.500 to 1.500"
        )
        expect(page.locator("#live-failures")).to_contain_text(HOSTILE)

        page.evaluate("scrollTo(0, 150)")
        button.click()
        expect(page.locator("#live")).to_have_attribute("data-records", "61")
        expect(page.locator("#live-reload")).to_be_hidden()
        expect(table).to_contain_text(sweep[59].config_id)
        wait_until(page, "scrollY === 150")
        assert complaints == []
    finally:
        server.stop()
    expect(page.locator("#live-state")).to_have_text("no answer")


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
