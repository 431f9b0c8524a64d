"""A report whose plotly.js is a file beside it draws with that file, and says so without."""

from pathlib import Path

import pytest
from support.browser import Open
from support.factories import make_spec, make_sweep

from sweeper.report import write_report
from sweeper.report.figures import PLOTLY_FILE
from sweeper.store.folder import RunFolder

MISSING = "This figure needs plotly.min.js beside the page; the tables do not."


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "example" / "report.html"
    run = RunFolder(tmp_path / "run")
    write_report(run, make_sweep(), make_spec(), None, path, external_plotly=True)
    return path


def test_the_page_draws_with_the_file_beside_it(opened: Open, page: Path) -> None:
    assert page.stat().st_size < 1_400_000 < page.with_name(PLOTLY_FILE).stat().st_size
    found = opened(page)
    found.draw("front")
    found.draw("parallel")
    assert found.requests == [page.with_name(PLOTLY_FILE).as_uri()]
    found.requests.clear()


def test_without_the_file_it_says_so_and_the_tables_stay(opened: Open, page: Path) -> None:
    page.with_name(PLOTLY_FILE).unlink()
    found = opened(page)
    assert found.value("document.querySelector('#trade-off .figure').textContent") == MISSING
    assert found.value("document.querySelectorAll('#all tbody tr').length") > 10
    assert found.errors
    found.errors.clear()
    found.requests.clear()
