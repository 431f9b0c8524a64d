"""Consoles for text that a model or a name may have made: nothing in it is obeyed by a terminal."""

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
"""What moves the cursor, reorders, hides or cannot be encoded: C0 but tab and line end, DEL, C1, marks and
overrides of writing direction, invisible characters, lone surrogates, tags."""


def safe(text: str) -> str:
    """The text with everything a terminal would obey written out: ESC becomes `x1b` after a backslash."""
    return _ORDERS.sub(lambda found: _written(ord(found[0])), text)


def _written(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Terminal(Console):
    """A console that shows text and obeys none: `safe` is applied to whatever it is given.

    Strings are made safe before they are laid out, so that columns stay straight; other renderables when
    they have become segments. What rich itself adds, colours and the movement of bars, is no text.
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
