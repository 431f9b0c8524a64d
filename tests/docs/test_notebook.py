"""The tutorial's notebook runs from a fresh kernel, and the site shows what it printed."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def notebook() -> ModuleType:
    """docs/notebook.py, which is no part of a package."""
    found = importlib.util.spec_from_file_location("docs_notebook", DOCS / "notebook.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def code_cells(content: Any) -> list[Any]:
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def texts(cell: Any) -> str:
    """The plain text of what a cell returned or printed."""
    shown = [
        item.get("data", {}).get("text/plain", item.get("text", "")) for item in cell["outputs"]
    ]
    return "\n".join("".join(part) for part in shown)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs_from_a_fresh_kernel(notebook: ModuleType, tmp_path: Path) -> None:
    executed = notebook.execute(notebook.MINIATURE, tmp_path, timeout=1500)
    cells = code_cells(executed)
    assert all(cell["execution_count"] for cell in cells)
    by_source = {"".join(cell["source"]).splitlines()[-1]: cell for cell in cells}
    assert "18 configurations and 8 controls" in texts(by_source["plan"])
    assert "26 of 26 records" in texts(by_source["run"])
    assert re.search(r"<Front: [1-9]\d* on the front of 25 compared", texts(by_source["front"]))
    assert re.search(r"P\(unsafe_rate <= 0\.05\) = (0\.9[5-9]|1\.0)", texts(by_source["choice"]))
    records = (tmp_path / "runs" / "notebook" / "records.jsonl").read_text("utf-8").splitlines()
    assert len(records) == 26
    assert (tmp_path / "runs" / "notebook" / "report.html").stat().st_size > 10**6


def test_it_is_saved_with_its_output_and_the_page_shows_it(notebook: ModuleType) -> None:
    content = json.loads(notebook.MINIATURE.read_text("utf-8"))
    cells = code_cells(content)
    assert all(cell["outputs"] for cell in cells)
    assert not [o for cell in cells for o in cell["outputs"] if o["output_type"] == "error"]
    page = notebook.markdown(notebook.MINIATURE)
    assert page.count("```python") == len(cells)
    assert page.count("Plotly.newPlot") == 1 and "26 of 26 records" in page
    assert page.count("records, ") <= 1, "of progress only the last line"
    assert notebook.MINIATURE.stat().st_size < 200_000


def test_output_cannot_leave_its_block(notebook: ModuleType, tmp_path: Path) -> None:
    figure = {"data": [{"name": "</script><b>"}], "layout": {"height": 300}}
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["<i>x</i>"]},
        {"output_type": "display_data", "data": {notebook.FIGURE: figure}},
        {"output_type": "display_data", "data": {"text/plain": ["first"]}},
        {"output_type": "display_data", "data": {"text/plain": ["last"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["1"], "outputs": outputs},
        {"cell_type": "code", "source": [""], "outputs": []},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    page = notebook.markdown(path)
    assert page.startswith("# Title\n\n<script src=")
    assert "&lt;i&gt;x" in page and "<i>" not in page
    assert "<\\/script><b>" in page and "height:300px" in page
    assert "last" in page and "first" not in page
    assert page.count("```python") == 1
