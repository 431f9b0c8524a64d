"""The page has no violation that axe finds of WCAG 2.1, levels A and AA."""

from typing import TYPE_CHECKING, Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from support.factories import make_spec, make_sweep

from sweeper.report import render, report_data
from sweeper.store.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(
    chromium: "Browser", tmp_path: "Path", scheme: Literal["light", "dark"], width: int
) -> None:
    path = tmp_path / "report.html"
    data = report_data(RunFolder(tmp_path / "run"), make_sweep(), make_spec(), None)
    path.write_text(render(data), encoding="utf-8")
    # The policy of the page keeps axe out, too.
    context = chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    found: dict[str, list[Any]] = {}
    for view in ("answer", "explore", "table", "details"):
        page = context.new_page()
        page.goto(f"{path.as_uri()}#{view}")
        page.wait_for_selector(".view:not([hidden])")
        result = Axe().run(page, options=RULES)
        found[view] = [
            (item["id"], item["nodes"][0]["html"]) for item in result.response["violations"]
        ]
        page.close()
    context.close()
    assert found == {"answer": [], "explore": [], "table": [], "details": []}
