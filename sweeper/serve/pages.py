"""The pages of the server. Every value from data is escaped by the template engine."""

import re
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sweeper.estimate import duration_text
from sweeper.report.figures import figure_html, fronts_figure
from sweeper.report.measures import measure
from sweeper.serve.compare import RunComparison
from sweeper.serve.state import Page, RunSnapshot
from sweeper.task import configuration_name

_ENVIRONMENT = Environment(
    loader=PackageLoader("sweeper", "serve"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)

STATIC = {
    "serve.css": "text/css",
    "frames.js": "text/javascript",
    "live.js": "text/javascript",
    "index.js": "text/javascript",
}
"""The files of the pages themselves."""

_META_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">\n?')

FRAMED_POLICY = {
    "form-action": "'none'",
    "frame-ancestors": "'self'",
    "base-uri": "'none'",
}
"""Additional directives of the policy of a report inside its live page."""

FRAMED_MESSAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; frame-ancestors 'self'"
)
"""Of a message in the place of such a report."""

LIVE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


STATES = {"running": "running", "finished": "complete", "stopped": "stopped"}
"""The states of `RunView.state` in the words of the pages."""


class IndexRow(NamedTuple):
    """A run in the index, as texts; with a `problem` only its name is known."""

    name: str
    problem: str = ""
    link: str = ""
    state: str = ""
    share: str = "0"
    records: str = ""
    left: str = ""
    recommended: str = ""
    config_id: str = ""
    unsafe: str = ""
    changed: str = ""


def static_file(name: str) -> str:
    """One of STATIC."""
    return (resources.files("sweeper.serve") / name).read_text(encoding="utf-8")


def run_link(name: str) -> str:
    """The address of a run."""
    return f"/runs/{quote(name, safe='')}/"


class Summary(NamedTuple):
    """What the index stores about a run."""

    records: int
    planned: int | None
    config_id: str
    recommended: str
    unsafe: str


def summary(found: RunSnapshot) -> Summary:
    """The part of a snapshot that the index shows."""
    chosen = found.recommendation.chosen
    unsafe = None if chosen is None else measure(chosen, "unsafe_rate")
    return Summary(
        records=len(found.records),
        planned=found.planned,
        config_id="" if chosen is None else chosen.config_id,
        recommended="none"
        if chosen is None
        else configuration_name(chosen.config, found.names) or chosen.config_id,
        unsafe="" if unsafe is None else f"{unsafe.text} ({unsafe.counts})",
    )


def index_row(
    name: str, found: Summary, records: int, state: str, left: float | None, quiet_seconds: float
) -> IndexRow:
    """The row of a run.

    Args:
        name: Of its folder.
        found: Its last analysis.
        records: Those there are now.
        state: See `RunView.state`.
        left: Seconds that it still takes; None while that is not known, and where it does not run.
        quiet_seconds: Since its last activity.
    """
    planned = found.planned
    part = "" if state == "finished" or not found.config_id else " (so far)"
    return IndexRow(
        name=name,
        link=run_link(name),
        state=STATES.get(state, state),
        share=f"{min(1.0, records / planned):.3f}" if planned else "0",
        records=f"{records} of {planned}" if planned and records <= planned else str(records),
        left="" if left is None else f"about {duration_text(left)}",
        recommended=f"{found.recommended}{part}",
        config_id=found.config_id,
        unsafe=found.unsafe,
        changed=ago(quiet_seconds),
    )


def ago(seconds: float) -> str:
    """A time span as text, such as `5 min ago`."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s ago"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} d ago"


def index_page(root: str, rows: Iterable[IndexRow]) -> str:
    """All runs of a folder."""
    rows = tuple(rows)
    names = [row.name for row in rows if not row.problem]
    return _ENVIRONMENT.get_template("index.html").render(root=root, rows=rows, names=names)


def message_page(title: str, text: str) -> str:
    """A page with an error message."""
    return _ENVIRONMENT.get_template("message.html").render(title=title, text=text)


def live_page(name: str, files: Iterable[str], token: str) -> str:
    """The page around a report: progress, workers, failures and controls.

    Args:
        name: Of the run.
        files: What it offers, as addresses below that of the run.
        token: Without it, there are no controls; see `Guard`.
    """
    made = _ENVIRONMENT.get_template("live.html")
    return made.render(name=name, files=tuple(files), token=token, states=STATES)


def framed_report(page: Page) -> tuple[str, str]:
    """A report to be shown inside its live page, and the content security policy to send with it.

    The page's own policy moves to the response header, because a page can only be restricted further. Its
    state has a name in the page, by which the live page knows a newer one.
    """
    found = _META_POLICY.search(page.html)
    policy = _directives(found[1] if found else "default-src 'none'") | FRAMED_POLICY
    html = _META_POLICY.sub("", page.html, count=1)
    mark = f'<meta name="report-version" content="{page.version}" data-records="{page.records}">'
    html = html.replace("</head>", f"{mark}\n</head>", 1)
    return html, "; ".join(f"{name} {value}" for name, value in policy.items())


def _directives(policy: str) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: value for name, _, value in parts if name}


def compare_page(data: RunComparison) -> str:
    """Two runs side by side."""
    figure = None
    if data.a.utility == data.b.utility:
        drawn = fronts_figure(data.a.info, data.b.info, (data.a.name, data.b.name))
        figure = _ours(figure_html(drawn, "fronts-figure"))
    return _ENVIRONMENT.get_template("compare.html").render(data=data, figure=figure)


COMPARE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""plotly is inside the page, as in a report."""


def _ours(text: str) -> Markup:
    """Text written by this package and not from data."""
    return Markup(text)  # noqa: S704 - figures escape what comes from data
