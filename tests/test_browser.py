"""The report's page in a real browser: what is clicked, brushed, typed and taken away."""

from pathlib import Path

from browser import Open
from factories import make_spec, make_sweep

from sweeper.folder import RunFolder
from sweeper.report import render, report_data


def page_of() -> str:
    return render(report_data(RunFolder(Path("run-1")), make_sweep(), make_spec(), None))


def test_the_page_loads_without_an_error_and_asks_for_nothing(opened: Open) -> None:
    found = opened(page_of())
    assert found.value("document.querySelectorAll('.js-plotly-plot').length") > 3
    found.check()
