"""A figure, the table of what it shows, and the sections that hold them."""

from typing import NamedTuple

from markupsafe import Markup

Entry = str | float | int | None


class Chart(NamedTuple):
    """One figure of the page. Its table is also its CSV; without columns there is no table.

    Points that are configurations carry their `config_id` as `customdata`, which is what links the
    views. `identity` is unique on the page and stable.
    """

    identity: str
    title: str
    meaning: str
    figure: Markup
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Entry, ...], ...] = ()


class Section(NamedTuple):
    """Charts under one head, which says what they show and how to read them."""

    identity: str
    title: str
    meaning: str
    charts: tuple[Chart, ...]
