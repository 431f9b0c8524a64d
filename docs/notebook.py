"""A notebook as a page: its Markdown, its code, and the output it was saved with.

`python docs/notebook.py` executes docs/tutorials/miniature.ipynb in a fresh kernel and saves its output.
"""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

MINIATURE = Path(__file__).parent / "tutorials" / "miniature.ipynb"
FIGURE = "application/vnd.plotly.v1+json"
CONFIG = {"displaylogo": False, "responsive": True}


def execute(path: Path, folder: Path, timeout: int = 900) -> Any:
    """Run every cell of a notebook in a fresh kernel that works in `folder`; the notebook with its output.

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell took longer than `timeout` seconds.
    """
    content = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(content, timeout=timeout, kernel_name="python3", resources=where).execute()
    return content


def markdown(path: Path) -> str:
    """The notebook at `path` as Markdown with HTML for its output."""
    content = json.loads(path.read_text(encoding="utf-8"))
    parts: list[str] = []
    figures = 0
    for cell in content["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif text:
            parts.append(f"```python\n{text}\n```")
            for output in _lasting(cell["outputs"]):
                shown = list(_output(output, f"figure-{figures}"))
                figures += any("Plotly.newPlot" in item for item in shown)
                parts += shown
    if figures:
        parts.insert(1, '<script src="../assets/plotly.min.js"></script>')
    parts.append(
        "*This page is the notebook `docs/tutorials/miniature.ipynb`, which the test suite executes. Times "
        "and numbers are those of the machine it was saved on.*"
    )
    return "\n\n".join(parts) + "\n"


def _lasting(outputs: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The outputs of a cell; of progress, which is displayed again and again, only the last."""
    displayed = [output for output in outputs if output["output_type"] == "display_data"]
    for output in outputs:
        if (
            output["output_type"] != "display_data"
            or FIGURE in output["data"]
            or output is displayed[-1]
        ):
            yield output


def _output(output: Mapping[str, Any], name: str) -> Iterator[str]:
    """One output as HTML: the richest form that a page can show."""
    if output["output_type"] == "stream":
        yield _plain("".join(output["text"]))
        return
    data = output.get("data", {})
    if FIGURE in data:
        figure = json.dumps(data[FIGURE]).replace("</", "<\\/")
        height = data[FIGURE].get("layout", {}).get("height", 450)
        yield (
            f'<div id="{name}" style="height:{height}px"></div>\n<script>(() => {{ const f = {figure}; '
            f'Plotly.newPlot("{name}", f.data, f.layout, {json.dumps(CONFIG)}); }})();</script>'
        )
    elif "text/html" in data:
        yield f'<div class="output">\n{"".join(data["text/html"]).strip()}\n</div>'
    elif "text/plain" in data:
        yield _plain("".join(data["text/plain"]))


def _plain(text: str) -> str:
    return f'<div class="output"><pre><code>{html.escape(text.rstrip())}</code></pre></div>'


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        executed = execute(MINIATURE, Path(scratch))
    for cell in executed.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(executed, MINIATURE)
