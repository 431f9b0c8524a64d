"""The report as one self-contained HTML file with styles, script and plotly.js.

Its policy runs our scripts by their hash and nothing else. Every value from data is escaped by the
template engine (autoescape is on for the whole template); only our own style sheet, script and figures
are inserted unescaped.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sweeper.errors import RunFolderError
from sweeper.export import FORMATS
from sweeper.judges import RejudgedRecords
from sweeper.report.charts import Section
from sweeper.report.data import ReportData, report_data
from sweeper.report.figures import (
    MANY,
    PLOTLY_FILE,
    data_element,
    figure_block,
    front_figure,
    inert,
    plotly_element,
    plotly_source,
)
from sweeper.report.local_paths import without_folders
from sweeper.report.samples import BUDGET, SampleData, gather
from sweeper.report.sections import sections
from sweeper.report.table import table_block
from sweeper.spec import ResultsSpec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import TrialRecord

SCRIPTS = (
    "state.js",
    "views.js",
    "csv.js",
    "filter.js",
    "paired.js",
    "table.js",
    "tables.js",
    "tray.js",
    "bar.js",
    "dialog.js",
    "what_if.js",
    "charts.js",
    "cells.js",
    "slices.js",
    "trade_off.js",
    "heat.js",
    "samples.js",
)
"""The parts of the page's script, in order. Each part uses only `state.js`, `views.js` and `cells.js`."""


def json_block(value: Any) -> Markup:
    """Data as JSON for a `<script type="application/json">`, in which no text can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return _ours(inert(text))


def render(data: ReportData, samples: SampleData | None = None, beside: bool = False) -> str:
    """The page, with responses if there are any. Equal data gives an equal page.

    With `beside` it loads plotly.js from a file in its folder instead of embedding it. With redacted
    samples it shows of local paths their last names only.
    """
    if samples is not None and samples.redacted:
        data = without_folders(data)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        loader=FunctionLoader(_file),
    )
    parts = sections(data.charts, data.curves, chosen=data.found)
    script = "\n".join(map(_file, SCRIPTS))
    page = environment.get_template("page.html").render(
        data=data,
        views=_views(data, parts, samples),
        style=_ours(_file("page.css") + _file("samples.css")),
        script=_ours(script),
        run_by="'self'" if beside else _hash(plotly_source()),
        script_hash=_hash(script),
        front_figure=_ours(figure_block(front_figure(data.front), "front")),
        many=MANY,
        plotly_file=PLOTLY_FILE if beside else None,
        plotly=_ours("" if beside else plotly_element()),
        sections=parts,
        samples=samples,
        blocks=_blocks(data, samples),
    )
    # A lone surrogate, which a damaged record can contain, cannot be written to a file.
    return page.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _views(
    data: ReportData, parts: Sequence[Section], samples: SampleData | None
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Id and title of each view, with those of its sections."""
    charts = [(part.identity, part.title) for part in parts]
    slices = [("slices", "One setting")] if data.slices else []
    slices += [("heat-maps", "Two settings")] if data.slices and data.slices["maps"] else []
    published = [("published", "Published")] if data.references else []
    views = [
        ("answer", "Answer", [("answer", "At a glance"), ("why", "Why")]),
        ("explore", "Explore", [("trade-off", "Trade-off"), *slices, *charts]),
        ("table", "Table", [("configurations", "Configurations"), ("compare", "Compare")]),
        ("responses", "Responses", []),
        ("details", "Details", [
            ("controls", "Controls"), *published, ("trial-outcomes", "Trial outcomes"),
            ("lists", "Keyword lists"), ("words", "Words"), ("provenance", "Provenance"),
        ]),
    ]  # fmt: skip
    return [view for view in views if samples or view[0] != "responses"]


def _blocks(data: ReportData, samples: SampleData | None) -> tuple[Markup, ...]:
    """The data of the scripts."""
    block = table_block(data.columns, data.rows, data.hidden_columns)
    table = {"run": data.run, "formats": list(FORMATS), **block}
    shown = {"configurations": table, "pairs": data.pairs, "exports": data.exports}
    shown |= {"choices": data.choices} if data.choices else {}
    shown |= {"axes": data.axes} if data.axes else {}
    shown |= {"slices": data.slices} if data.slices else {}
    blocks = [data_element(name, json_block(block)) for name, block in shown.items()]
    if samples is not None and samples.block is not None:
        blocks.append(data_element("samples", json_block(samples.block), packed=True))
    return tuple(map(_ours, blocks))


def write_report(
    run: RunFolder,
    records: Iterable[TrialRecord],
    spec: ResultsSpec,
    accounting: Mapping[str, Any] | None,
    path: Path,
    estimate: Mapping[str, Any] | None = None,
    judged: RejudgedRecords | None = None,
    samples: int = BUDGET,
    redact: bool = False,
    external_plotly: bool = False,
) -> ReportData:
    """Write the report of a run to `path` atomically; see `report_data` and `gather`.

    Of responses it holds at most `samples` bytes, and with `redact` no text of harmful suites and no
    folders of local paths. With `external_plotly`, plotly.js is a file beside the page: many reports in a
    folder share it.

    Returns: The contents of the page.

    Raises:
        RunFolderError: the file cannot be written.
    """
    records = tuple(records)
    data = report_data(run, records, spec, accounting, estimate, judged)
    page = render(data, gather(run, records, spec, data, samples, redact), external_plotly)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if external_plotly:
            write_atomic(path.with_name(PLOTLY_FILE), plotly_source())
        write_atomic(path, page)
    except OSError as error:
        raise RunFolderError(
            f"cannot write the report {path}: {error.strerror}; choose another with --out"
        ) from None
    return data


def _hash(script: str) -> Markup:
    """What the policy of a page calls a script of this text."""
    digest = hashlib.sha256(script.encode()).digest()
    return _ours(f"'sha256-{base64.b64encode(digest).decode()}'")


def _file(name: str) -> str:
    return (resources.files("sweeper.report") / "assets" / name).read_text(encoding="utf-8")


def _ours(text: str) -> Markup:
    """Text written by this package and not from data."""
    return Markup(text)  # noqa: S704 - never called with data; figures escape theirs
