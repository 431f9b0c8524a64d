"""Consoles for untrusted text: terminal control sequences in it have no effect."""

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_ORDERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that move the cursor, reorder or hide text, or cannot be encoded.

C0 except tab and line end, DEL, C1, marks and overrides of writing direction,
invisible characters, lone surrogates, tags."""


def safe(text: str) -> str:
    """The text with control characters escaped: ESC becomes `x1b` after a backslash."""
    return _ORDERS.sub(lambda found: _written(ord(found[0])), text)


def _written(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Terminal(Console):
    """A console that applies `safe` to everything it prints.

    Strings are escaped before layout, so that columns stay aligned; other renderables once they are
    segments. Rich's own control codes, for colours and progress bars, are kept.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console`."""
        return super().render_str(safe(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """See `rich.console.Console`."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else safe(text), style, control)

    def plain(self, text: str) -> None:
        """One plain line: nothing in it is read as markup."""
        self.print(text, markup=False, soft_wrap=True)
