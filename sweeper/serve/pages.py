"""The pages of the server. Every value from data is escaped by the template engine."""

import re
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sweeper.report.figures import figure_html, fronts_figure
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
    "live.js": "text/javascript",
    "index.js": "text/javascript",
}
"""The files of the pages themselves."""

_META_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">\n?')

LIVE_POLICY = {
    "connect-src": "'self'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
"""Additional directives of the policy of a live report."""


class IndexRow(NamedTuple):
    """A run in the index, as texts; with a `problem` only its name is known."""

    name: str
    problem: str = ""
    link: str = ""
    state: str = ""
    share: str = "0"
    records: str = ""
    front: str = ""
    recommended: str = ""
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
    front: int
    recommended: str


def summary(found: RunSnapshot) -> Summary:
    """The part of a snapshot that the index shows."""
    chosen = found.recommendation.chosen
    return Summary(
        records=len(found.records),
        planned=found.planned,
        front=len(found.front.members),
        recommended="none"
        if chosen is None
        else f"{chosen.config_id}: {configuration_name(chosen.config, found.names)}",
    )


def index_row(name: str, found: Summary, state: str, quiet_seconds: float) -> IndexRow:
    """The row of a run whose last activity was `quiet_seconds` ago."""
    done, planned = found.records, found.planned
    return IndexRow(
        name=name,
        link=run_link(name),
        state=state,
        share=f"{min(1.0, done / planned):.3f}" if planned else "0",
        records=f"{done} of {planned}" if planned and done <= planned else str(done),
        front=str(found.front),
        recommended=found.recommended,
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


def live_page(page: Page, files: Iterable[str]) -> tuple[str, str]:
    """A report with the live panel in its head, and the content security policy to send with it.

    The page's own policy moves to the response header, because a page can only be restricted further; only
    requests to the same server are added.
    """
    panel = _ENVIRONMENT.get_template("live.html").render(records=page.records, files=tuple(files))
    found = _META_POLICY.search(page.html)
    policy = _directives(found[1] if found else "default-src 'none'")
    for name, value in LIVE_POLICY.items():
        policy[name] = value
    for name in ("script-src", "style-src"):
        policy[name] = f"{policy.get(name, '')} 'self'".strip()
    html = _META_POLICY.sub("", page.html, count=1)
    style = '<link rel="stylesheet" href="/static/serve.css">\n</head>'
    html = html.replace("</head>", style, 1)
    script = '<script src="/static/live.js"></script>\n</header>'
    html = html.replace("</header>", panel + script, 1)
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
