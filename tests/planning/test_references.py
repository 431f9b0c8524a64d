"""Published figures: read from a sweep file, drawn apart, and no part of what is decided."""

import re
from pathlib import Path

import pytest
from support.factories import SPEC, make_record, make_spec, make_sweep

from sweeper.analysis import find_front, recommend
from sweeper.errors import SpecError
from sweeper.export import FORMATS, export
from sweeper.report import ReportData, render, report_data
from sweeper.report.figures import front_figure, front_info
from sweeper.report.figures.info import REFERENCE
from sweeper.spec import ReferencePoint, SweepSpec, dump_spec, parse_spec, spec_hash
from sweeper.store.folder import RunFolder

BLOCK = """
references:
  - name: Others <et al.>
    source: a paper, figure 3
    note: judged by people
    points:
      - params: {learning_rate: 2e-4, batch_size: 8, max_steps: 320, average: raw}
        metrics: {unsafe_rate: 0.46}
      - {params: {learning_rate: 2e-4, batch_size: 16}, metrics: {unsafe_rate: 0.0, rouge_l: 0.99}}
      - {params: {learning_rate: 7e-4}, metrics: {unsafe_rate: 0.9, rouge_l: 0.5}}
"""


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    return parse_spec(SPEC + BLOCK)


def report(spec: SweepSpec) -> ReportData:
    return report_data(RunFolder(Path("run")), make_sweep(), spec, None)


def test_points_are_read_written_and_no_part_of_what_identifies_a_run(spec: SweepSpec) -> None:
    (reference,) = spec.references
    assert [point.metrics["unsafe_rate"] for point in reference.points] == [0.46, 0.0, 0.9]
    assert parse_spec(dump_spec(spec)) == spec
    assert spec_hash(spec) == spec_hash(make_spec())


@pytest.mark.parametrize(
    ("point", "problem"),
    [
        (
            "{params: {learning_rat: 1}, metrics: {unsafe_rate: 0.1}}",
            "got learning_rat .*learning_rate",
        ),
        (
            "{params: {model: x}, metrics: {unsafe_rate: 0.1}}",
            "got model; known: learning_rate",
        ),
        ("{params: {batch_size: 8}, metrics: {unsafe_rates: 0.1}}", "did you mean `unsafe_rate`"),
        ("{params: {batch_size: 8}, metrics: {unsafe_rate: 46}}", "not per cent"),
        ("{params: {batch_size: 8}, metrics: {unsafe_rate: true}}", "boolean"),
        ("{params: {batch_size: 8}, metrics: {}}", "metrics"),
        ("{params: {batch_size: 8}, metrics: {unsafe_rate: 0.1}, n: 3}", "n: unknown key"),
    ],
)
def test_a_point_that_says_nothing_here_is_refused(point: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(f"references=[{{name: a, source: b, points: [{point}]}}]")
    assert re.search(problem, str(caught.value))


def test_two_references_of_one_name_are_refused() -> None:
    one = "{name: a, source: b, points: [{metrics: {unsafe_rate: 0.1}}]}"
    with pytest.raises(SpecError, match="references: a is given twice"):
        make_spec(f"references=[{one}, {one}]")


def test_a_point_matches_by_value_and_by_nothing_it_does_not_name() -> None:
    point = ReferencePoint(
        params={"learning_rate": 2e-4, "average": "raw"}, metrics={"unsafe_rate": 0}
    )
    assert point.matches({"learning_rate": 0.1 * 2e-3, "average": "raw", "batch_size": 3})
    assert not point.matches({"learning_rate": 2.1e-4, "average": "raw"})
    assert not point.matches({"learning_rate": 2e-4, "average": "ema(0.9)"})
    assert not point.matches({"average": "raw"})


def test_front_recommendation_and_exports_are_those_without_references(
    spec: SweepSpec, tmp_path: Path
) -> None:
    plain = make_spec()
    here, there = find_front(make_sweep(), spec), find_front(make_sweep(), plain)
    assert [item.config_id for item in here.members] == [item.config_id for item in there.members]
    chosen = recommend(here, spec).chosen
    assert chosen is not None
    assert chosen.config_id == recommend(there, plain).chosen.config_id  # type: ignore[union-attr]
    info, bare = front_info(here, spec, chosen), front_info(there, plain, chosen)
    assert (info.points, info.front) == (bare.points, bare.front)
    for name in FORMATS:
        for path in export(chosen, spec, name, tmp_path / name):
            assert "Others" not in path.read_text()


def test_marks_are_drawn_apart_and_named_for_what_they_are(spec: SweepSpec) -> None:
    info = front_info(find_front(make_sweep(), spec), spec, None)
    assert [(mark.x, mark.y) for mark in info.marks] == [(0.46, None), (0.0, 0.99), (0.9, 0.5)]
    assert info.x_range[1] > 0.9
    traces = [
        trace for trace in front_figure(info).data if (trace.name or "").startswith(REFERENCE)
    ]
    drawn = {trace.marker.symbol: (len(trace.x), trace.yaxis) for trace in traces}
    assert drawn == {"x-thin": (2, None), "line-ns": (1, "y2")}
    assert all(trace.customdata is None for trace in traces)
    for mark in info.marks:
        assert mark.text.startswith(f"<b>{REFERENCE}</b><br>Others &lt;et al.&gt;")
        assert mark.text.endswith("judged by people")


def test_without_references_nothing_is_marked() -> None:
    spec = make_spec()
    data = report(spec)
    assert data.references == ()
    assert REFERENCE not in render(data)
    assert 'id="published"' not in render(data)


def test_the_table_puts_what_was_measured_beside_what_was_published(spec: SweepSpec) -> None:
    data = report(spec)
    (table,) = data.references
    assert table.columns[:4] == ("learning_rate", "batch_size", "max_steps", "average")
    assert table.columns[4:6] == ("unsafe_rate, published", "unsafe_rate, here")
    one, many, none = table.lines
    front = find_front(make_sweep(), spec)
    (twin,) = [i for i in front.competing if spec.references[0].points[0].matches(i.config)]
    assert one[:5] == ("0.0002", "8", "320", "raw", "46.0 %")
    assert one[5].startswith(f"{100 * twin.values['unsafe_rate']:.1f} %")
    assert one[6] == "not given"
    assert one[7].startswith(f"{twin.values['rouge_l']:.3f}")
    assert re.fullmatch(r"[\d.]+ % to [\d.]+ % \(\d+ configurations\)", many[5])
    assert none[4:6] == ("90.0 %", "not measured")
    assert table.note == "judged by people"


def test_the_trainers_defaults_are_no_twin_of_a_published_point() -> None:
    default = make_record(identity="d", role="default", learning_rate=2e-5, batch_size=8)
    block = "[{name: a, source: b, points: [{params: {learning_rate: 2e-5}, metrics: {unsafe_rate: 0.1}}]}]"
    spec = make_spec(f"references={block}")
    (table,) = report_data(RunFolder(Path("run")), [default], spec, None).references
    assert table.lines == (("2e-05", "10.0 %", "not measured"),)


def test_the_page_says_that_they_were_not_measured_here(spec: SweepSpec) -> None:
    page = render(report(spec))
    assert "Published, not measured here" in page
    assert "Others &lt;et al.&gt;" in page
    assert "Others <et al.>" not in page
    assert "a paper, figure 3" in page
