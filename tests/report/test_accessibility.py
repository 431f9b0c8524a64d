"""The page has no violation that axe finds of WCAG 2.1, levels A and AA."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from support.factories import make_spec, make_sweep
from support.viewer_run import SPEC, records_of, viewer_run

from sweeper.report import render, report_data
from sweeper.report.samples import gather
from sweeper.store.folder import RunFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


def violations(page: "Page") -> list[Any]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [(item["id"], item["nodes"][0]["html"]) for item in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(
    chromium: "Browser", tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    whole = render(report_data(RunFolder(tmp_path / "run"), make_sweep(), make_spec(), None))
    run = viewer_run(tmp_path / "viewer")
    records = records_of(run)
    data = report_data(run, records, SPEC, None)
    pages = {"whole": whole, "samples": render(data, gather(run, records, SPEC, data))}
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
    # The policy of the page keeps axe out, too.
    context = chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    page = context.new_page()
    found: dict[str, list[Any]] = {}
    for view in ("answer", "explore", "table", "details"):
        page.goto("about:blank")
        page.goto(f"{(tmp_path / 'whole.html').as_uri()}#{view}")
        found[view] = violations(page)
    page.locator("#views [data-view=answer]").click()
    page.locator(".use").click()
    assert page.locator("#configuration").is_visible()
    found["configuration"] = violations(page)
    page.goto(f"{(tmp_path / 'samples.html').as_uri()}#responses")
    page.locator("#sample-matrix summary").click()
    assert page.locator("#sample-matrix td button").first.is_visible()
    found["responses"] = violations(page)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<button></button>')")
    assert violations(page), "a button without a name is found"
    context.close()
    assert {view: each for view, each in found.items() if each} == {}
