"""What readers come to the page for, by what it takes: clicks, choices, lines typed and screens scrolled.

`pytest -s` prints how often a hand is needed and the seconds of each, the browser's own included.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import Open, Opened
from support.factories import make_spec, make_sweep
from support.viewer_run import PLANTED, SPEC, records_of, viewer_run

from sweeper.report import ReportData, render, report_data
from sweeper.report.samples import gather
from sweeper.store.folder import RunFolder

if TYPE_CHECKING:
    from playwright.sync_api import Locator

RUN = RunFolder(Path("run"))
DESK = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
IN_VIEW = """node => {
  const {top, bottom, width} = node.getBoundingClientRect();
  return width > 0 && top >= 0 && Math.min(bottom, top + 200) <= innerHeight;
}"""

SCROLLED = """node => {
  const before = scrollY;
  node.scrollIntoView({block: 'center', behavior: 'instant'});
  if (node.getBoundingClientRect().top < 0) node.scrollIntoView({behavior: 'instant'});
  return Math.ceil(Math.abs(scrollY - before) / innerHeight);
}"""
"""How many screens it took to bring an element into view."""

STILL = """() => new Promise(done => {
  const look = before => setTimeout(() => scrollY === before ? done() : look(scrollY), 60);
  look(scrollY);
})"""
"""A jump to a section is over."""


class Hand:
    """A reader's hand on a page: `uses` counts what it does."""

    def __init__(self, found: Opened) -> None:
        self.page = found.page
        self.uses = 0

    def look(self, *seen: "Locator") -> None:
        """Scroll, a screen each time, until all of these are seen."""
        for each in seen:
            each.wait_for()
            self.page.evaluate(STILL)
            if not each.evaluate(IN_VIEW):
                self.uses += each.evaluate(SCROLLED)
            assert each.evaluate(IN_VIEW)

    def click(self, found: "Locator") -> None:
        """Click what is in view, or scroll to it first."""
        self.look(found)
        found.click()
        self.page.evaluate(STILL)
        self.uses += 1

    def choose(self, found: "Locator", value: str) -> None:
        """An entry of a list."""
        self.look(found)
        found.select_option(value)
        self.uses += 1

    def enter(self, found: "Locator", text: str) -> None:
        """A line of text, or the place of a slider."""
        self.look(found)
        found.fill(text)
        self.uses += 1

    @contextmanager
    def job(self, name: str, most: int) -> Iterator[None]:
        """A job that takes a hand at most so often."""
        before, begun = self.uses, time.perf_counter()
        yield
        used = self.uses - before
        print(f"\n{name}: {used} uses, {time.perf_counter() - begun:.1f} s", end="")
        assert used <= most


@pytest.fixture(scope="module")
def sweep() -> ReportData:
    return report_data(RUN, make_sweep(), make_spec(), None)


@pytest.fixture(scope="module")
def page_of_sweep(sweep: ReportData) -> str:
    return render(sweep)


def test_the_answer_is_in_view_and_its_files_are_near(
    opened: Open, sweep: ReportData, page_of_sweep: str
) -> None:
    hand = Hand(found := opened(page_of_sweep, **DESK))
    page, chosen = hand.page, sweep.headline.config_id
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with hand.job("the answer", most=0):
        hand.look(page.locator(".answer"), page.locator(".state"), page.locator(".rates"))
        hand.look(*page.locator(".cards .card").all())
    with hand.job("its files for Axolotl, copied", most=3):
        hand.click(page.locator(".use"))
        opened_files = page.locator("#configuration")
        hand.click(opened_files.locator(".tab", has_text="Axolotl"))
        hand.click(opened_files.locator("details .copy").first)
        text = sweep.exports["texts"][sweep.exports["of"][chosen]["axolotl"][0][1]]
        found.wait("navigator.clipboard.readText().then(text => text !== '')")
        assert found.value("navigator.clipboard.readText()") == text


def test_a_word_is_explained_near_where_it_stands(opened: Open, page_of_sweep: str) -> None:
    hand = Hand(opened(page_of_sweep, **DESK))
    with hand.job("what an interval is", most=1):
        hand.click(hand.page.locator(".rates a[href='#words']"))
        hand.look(hand.page.locator("#words dt", has_text="interval"))


def test_another_limit(opened: Open, sweep: ReportData, page_of_sweep: str) -> None:
    hand = Hand(opened(page_of_sweep, **DESK))
    said = hand.page.locator("#what-if-answer")
    assert sweep.choices is not None
    with hand.job("another limit", most=2):
        before = said.inner_text()
        hand.enter(hand.page.locator("#what-if-limit"), "0")
        hand.look(said)
    assert said.inner_text() != before


def test_what_one_setting_does_and_the_trade_off(opened: Open, page_of_sweep: str) -> None:
    hand = Hand(found := opened(page_of_sweep, **DESK))
    page = hand.page
    with hand.job("what the batch size does", most=3):
        hand.click(page.locator("#views [data-view=explore]"))
        hand.click(page.locator("#views a[href='#slices']"))
        hand.choose(page.locator("#slice-setting"), "batch_size")
        found.wait(
            "document.getElementById('slice').layout?.xaxis.title.text.startsWith('batch_size')"
        )
        hand.look(page.locator("#slice"))
    with hand.job("the trade-off, two configurations compared", most=3):
        hand.click(page.locator("#views a[href='#trade-off']"))
        page.wait_for_selector("#front[aria-busy=false]")
        box = page.locator("#front").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.15 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.7 * box["height"], steps=4)
        page.mouse.up()
        hand.uses += 1
        found.wait("page.selection()?.size > 1")
        page.evaluate("page.select([...page.selection()].slice(0, 2), 'test')")
        hand.click(page.locator("#bar-compare"))
        hand.look(page.locator("#tray table").first)


def test_the_rows_that_are_safe_at_a_rate(opened: Open, page_of_sweep: str) -> None:
    hand = Hand(found := opened(page_of_sweep, **DESK))
    with hand.job("rows of a learning rate below a limit", most=2):
        hand.click(hand.page.locator("#views [data-view=table]"))
        hand.enter(hand.page.locator("#filter"), "lr<=1e-3 and unsafe<5%")
        hand.look(hand.page.locator("#all tbody tr").first)
    with hand.job("the view sent to somebody", most=0):
        address = found.value("location.href")
        shown = hand.page.locator("#shown").inner_text()
    sent = opened(address.partition("#")[0], at=address.partition("#")[2], **DESK)
    assert sent.page.locator("#shown").inner_text() == shown
    assert shown.split(" of ")[0] != shown.split(" of ")[1]


def test_the_responses_that_flipped(opened: Open, tmp_path: Path) -> None:
    run = viewer_run(tmp_path / "run")
    records = records_of(run)
    data = report_data(run, records, SPEC, None)
    hand = Hand(opened(render(data, gather(run, records, SPEC, data)), **DESK))
    page = hand.page
    with hand.job("what flipped to unsafe", most=1):
        hand.click(page.locator("#views [data-view=responses]"))
        hand.look(page.locator(".sample").first)
    assert page.locator(".sample").first.get_by_text(PLANTED).count() == 0, (
        "harmful texts are folded"
    )
    with hand.job("one prompt, every configuration, and a text of it", most=3):
        hand.click(page.locator("#sample-matrix summary"))
        hand.click(page.locator("#sample-matrix td button.bad").first)
        hand.look(page.locator(".sample").first)


def test_a_phone_shows_the_answer_first(opened: Open, page_of_sweep: str) -> None:
    hand = Hand(opened(page_of_sweep, **PHONE))
    with hand.job("the answer, on a phone", most=0):
        hand.look(hand.page.locator(".answer"))
    with hand.job("its cards, on a phone", most=2):
        hand.look(*hand.page.locator(".cards .card").all())
