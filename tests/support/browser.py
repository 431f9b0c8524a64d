"""A real browser for tests of the report: Chromium of the system, driven by Playwright.

Every page is watched: what its console says, what it throws, and every request it makes.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "SWEEPER_REQUIRE_BROWSER"
"""Where this variable is 1, a missing browser is a failure and no skip."""


@dataclass
class Opened:
    """A page and what it did: `errors` of console and script, `requests` beyond its own file."""

    page: "Page"
    address: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def value(self, script: str, argument: Any = None) -> Any:
        """What a JavaScript expression, or a function of the argument, gives in the page."""
        return self.page.evaluate(script, argument)

    def wait(self, script: str) -> None:
        """Until a JavaScript expression holds."""
        wait_until(self.page, script)

    def draw(self, identity: str) -> None:
        """Bring a figure into view, and wait until it is drawn and shows the selection."""
        self.page.evaluate(
            "id => { const figure = document.getElementById(id); views.open(figure);"
            "figure.scrollIntoView({block: 'center', behavior: 'instant'}); }",
            identity,
        )
        self.page.wait_for_selector(f"#{identity}[aria-busy=false]")

    def check(self) -> None:
        """No error, and no request that leaves the file (`data:` and `blob:` are inside it)."""
        assert self.errors == []
        outside = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert outside == []


Open = Callable[..., Opened]


def wait_until(page: "Page", script: str) -> None:
    """Until a JavaScript expression holds; the policy forbids the `eval` of `Page.wait_for_function`."""
    deadline = time.monotonic() + 30
    while not page.evaluate(script):
        assert time.monotonic() < deadline, f"this did not come true within 30 seconds: {script}"
        page.wait_for_timeout(20)


def missing() -> str | None:
    """Why there is no browser, or None where there is one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install 'sweeper-llm[dev]'"
    if not any(map(shutil.which, NAMES)):
        return f"none of {', '.join(NAMES)} is installed: apt-get install chromium"
    return None


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """Headless Chromium. Without one the test is skipped, or fails where one is required."""
    if reason := missing():
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but {reason}")
        pytest.skip(f"THE PAGE IS NOT TESTED IN A BROWSER: {reason}")
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: "Browser", tmp_path: Path) -> Iterator[Open]:
    """Opens a page, given as text, a path or a URL, in a context of its own; checks it at the end.

    `at` is the fragment of its address: a view, a section. `before` is a script that runs first.
    Further keyword arguments are those of `Browser.new_context`: `viewport`, `color_scheme`, ...
    """
    contexts = []
    pages: list[Opened] = []

    def open_page(source: str | Path, *, at: str = "", before: str = "", **options: Any) -> Opened:
        address = str(source)
        if isinstance(source, Path) or not address.startswith(("http:", "file:")):
            path = source if isinstance(source, Path) else tmp_path / f"page-{len(pages)}.html"
            if not isinstance(source, Path):
                path.write_text(source, encoding="utf-8")
            address = path.resolve().as_uri()
        context = chromium.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        contexts.append(context)
        if before:
            context.add_init_script(before)
        page = context.new_page()
        found = Opened(page, address)
        pages.append(found)

        def said(message: Any) -> None:
            # A driver that draws in software complains of its own speed.
            driver = "GL Driver Message" in message.text
            if message.type in ("error", "warning") and not driver:
                found.errors.append(message.text)

        def requested(request: Any) -> None:
            if request.url.partition("#")[0] != address.partition("#")[0]:
                found.requests.append(request.url)

        page.on("console", said)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", requested)
        page.goto(f"{address}#{at}" if at else address)
        return found

    yield open_page
    for found in pages:
        found.check()
    for context in contexts:
        context.close()
