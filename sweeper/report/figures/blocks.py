"""Data and plotly.js as elements of a page; large ones are compressed, and `state.js` unpacks them."""

import base64
import gzip
from functools import cache
from importlib import resources

LARGE = 64 * 1024
"""Characters of JSON above which an element is compressed: what is read at once is smaller."""

PLOTLY_FILE = "plotly.min.js"
"""The file name of plotly.js beside a page."""


@cache
def _build() -> bytes:
    """The committed build of plotly.js, gzip; see assets/plotly/README.md."""
    folder = resources.files("sweeper.report") / "assets" / "plotly"
    return (folder / f"{PLOTLY_FILE}.gz").read_bytes()


@cache
def plotly_source() -> str:
    """The minified plotly.js with the traces in use (1.5 MB)."""
    return gzip.decompress(_build()).decode("utf-8")


def plotly_element() -> str:
    """plotly.js, compressed (0.65 MB); the page runs it before the first figure."""
    text = base64.b64encode(_build()).decode("ascii")
    return f'<script type="application/gzip" id="plotly-source">{text}</script>'


def inert(text: str) -> str:
    """JSON in which no text can end the element: it is safe in a `<script type="application/json">`."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_element(name: str, text: str, *, packed: bool = False) -> str:
    """JSON as a `<script>` with the id `NAME-data`, which no browser runs.

    Args:
        name: Made of letters, digits and `-_`.
        text: The JSON.
        packed: Whether it may be compressed; the page's script reads it with `page.load`, not `page.data`.
    """
    if packed and len(text) > LARGE:
        return f'<script type="application/gzip" id="{name}-data">{_packed(text)}</script>'
    return f'<script type="application/json" id="{name}-data">{inert(text)}</script>'


def _packed(text: str) -> str:
    """Gzip in base64, without a time: equal data gives equal text."""
    data = text.encode("utf-8", "surrogatepass")
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode("ascii")
