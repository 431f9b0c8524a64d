"""Which configurations a page lists where there are very many."""

from pathlib import Path

import pytest
from support.factories import make_spec, make_sweep

from sweeper.analysis import find_front, front_certainty, recommend, side_by_side
from sweeper.report import listing, render, report_data
from sweeper.report.figures import parallel
from sweeper.report.listing import Listing, make_listing
from sweeper.runs.results import Report
from sweeper.store.folder import RunFolder

RUN = RunFolder(Path("my run"))


def made(most: int) -> Listing:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    return make_listing(front, recommend(front, spec), spec, front_certainty(front, spec), (), most)


def test_all_are_listed_up_to_the_limit_and_a_note_says_where_they_are_not() -> None:
    whole = len(made(10_000).whole.candidates)
    at_limit, beyond = made(whole), made(whole - 1)
    assert at_limit.listed is at_limit.whole and at_limit.note == ""
    assert len(beyond.listed.candidates) == whole - 1
    assert f"{whole - 1} of {whole} configurations" in beyond.note


@pytest.mark.parametrize("most", [1, 20])
def test_the_front_what_is_named_and_their_raw_twins_come_first_then_the_safest(most: int) -> None:
    found, spec = made(most), make_spec()
    listed = {item.config_id for item in found.listed.candidates}
    named = [item for _, item in side_by_side(recommend(found.whole, spec))]
    first = [*found.whole.members, *named]
    assert {item.config_id for item in first} <= listed
    averaged = [item for item in first if item.config.get("average") != "raw"]
    raws = [i for i in found.whole.candidates if i.config.get("average") == "raw"]
    twins = {
        raw.config_id
        for item in averaged
        for raw in raws
        if all(raw.config.get(k) == v for k, v in item.config.items() if k != "average")
    }
    assert twins and twins <= listed
    kept = {item.config_id for item in first} | twins
    rest = [item for item in found.listed.candidates if item.config_id not in kept]
    assert len(listed) == max(most, len(kept))
    left = [i for i in found.whole.competing if i.config_id not in listed and i.gain is not False]
    worst = max((item.values["unsafe_rate"] for item in rest), default=0.0)
    assert all(item.values["unsafe_rate"] >= worst for item in left)


def test_a_page_of_a_part_says_so_and_counts_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = report_data(RUN, make_sweep(), make_spec(), None)
    assert "beside this page" not in render(whole)
    monkeypatch.setattr(listing, "MOST", 20)
    data = report_data(RUN, make_sweep(), make_spec(), None)
    assert len(data.rows) == 20 < len(whole.rows)
    assert data.facts == whole.facts and data.averaging == whole.averaging
    assert data.headline == whole.headline
    page = render(data)
    assert data.listing.note in page and "beside this page" in page
    written = Report.with_csv(tmp_path / "page.html", data)
    assert written.csv == tmp_path / "page.csv"
    assert len(written.csv.read_text().splitlines()) == 1 + len(whole.rows)
    assert Report.with_csv(tmp_path / "whole.html", whole).csv is None


def test_parallel_coordinates_have_the_most_promising_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = report_data(RUN, make_sweep(), make_spec(), None).charts.parallel
    monkeypatch.setattr(parallel, "MOST_LINES", 5)
    part = report_data(RUN, make_sweep(), make_spec(), None).charts.parallel
    assert whole is not None and part is not None
    assert whole.hidden == 0 and part.hidden == len(whole.config_ids) - 5
    assert part.config_ids == whole.config_ids[-5:]
    assert part.incomplete == whole.incomplete
