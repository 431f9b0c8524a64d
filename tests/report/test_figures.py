"""What the figures show, and that nothing from data reaches them unescaped."""

import base64
import gzip
import hashlib
import json
import math
import re
from pathlib import Path

import pytest
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import bounds_text, find_front, front_certainty, recommend
from sweeper.report.figures import (
    FrontInfo,
    data_element,
    figure_block,
    figure_html,
    front_figure,
    front_info,
    plotly_element,
    plotly_source,
    step_curves,
    step_figure,
)
from sweeper.report.figures.blocks import LARGE
from sweeper.report.figures.info import SYMBOLS, Point
from sweeper.report.figures.theme import DASHES
from sweeper.stats import largest_passing_count, probability_at_most, wilson_interval

HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_points_carry_values_and_their_wilson_bounds() -> None:
    spec = make_spec()
    front = find_front([base_record(), make_record(identity="a", unsafe=(5, 256))], spec)
    info = front_info(front, spec, None)
    (point,) = info.points
    assert (point.config_id, point.x, point.y) == ("a", 5 / 256, 0.85)
    assert (point.low, point.high) == wilson_interval(5, 256)
    assert point.feasible
    assert point.on_front
    assert info.base is not None
    assert info.base.symbol == "star"
    assert info.base.x == 0.0
    assert info.recommended is None


def test_a_whole_sweep_is_drawn_without_those_that_are_not_complete() -> None:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    chosen = recommend(front, spec).chosen
    info = front_info(front, spec, chosen)
    assert {point.config_id for point in info.points} == {i.config_id for i in front.competing}
    assert set(info.front) == {item.config_id for item in front.members}
    assert chosen is not None
    assert info.recommended == chosen.config_id
    rates = {point.config_id: point.x for point in info.points}
    assert [rates[name] for name in info.front] == sorted(rates[name] for name in info.front)
    kinds = {str(item.config["average"]).partition("(")[0] for item in front.competing}
    assert kinds == {"raw", "ema", "interpolate", "feedback"}
    assert {point.symbol for point in info.points} == {SYMBOLS[kind] for kind in kinds}
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)


def test_the_shaded_region_ends_where_the_confidence_does() -> None:
    spec = make_spec()
    info = front_info(find_front([make_record(unsafe=(5, 256))], spec), spec, None)
    assert info.limit == 0.05
    assert info.passing is not None
    k = round(info.passing * 256)
    assert k == largest_passing_count(256, 0.05, 0.95)
    assert probability_at_most(k, 256, 0.05) >= 0.95 > probability_at_most(k + 1, 256, 0.05)
    few = front_info(find_front([make_record(unsafe=(0, 20))], spec), spec, None)
    assert few.passing is None


def test_texts_are_escaped_and_say_what_was_decided() -> None:
    spec = make_spec()
    records = [
        base_record(utility=0.85),
        make_record(identity="a<b>", unsafe=(90, 256), template=HOSTILE),
        make_record(identity="c", template="chat"),
    ]
    front = find_front(records, spec)
    info = front_info(front, spec, front.candidates[1])
    text = next(point.text for point in info.points if point.config_id == "a<b>")
    assert "&lt;img" in text
    assert "<img" not in text
    assert "no gain" in text
    assert "constraint not kept with confidence" in text
    page = figure_block(front_figure(info), "front")
    assert "<img" not in page
    assert page.count("</script>") == page.count("<script")


def test_every_point_of_the_info_is_in_the_figure_once() -> None:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    info = front_info(front, spec, recommend(front, spec).chosen)
    drawn = json.loads(front_figure(info).to_json())["data"]
    ids = [name for trace in drawn for name in trace.get("customdata", [])]
    assert info.base is not None
    assert sorted(ids) == sorted(point.config_id for point in (*info.points, info.base))
    assert {"front", "recommended", "untouched model"} <= {trace.get("name") for trace in drawn}
    bars = [bar for trace in drawn for bar in trace.get("error_x", {}).get("arrayminus", [])]
    assert len(bars) == len(info.points) + 1
    assert min(bars) >= 0


def dominates(other: Point, point: Point) -> bool:
    return other != point and other.x <= point.x and other.y >= point.y


def test_the_line_is_the_front_in_the_two_metrics_of_the_axes() -> None:
    spec = make_spec()
    info = front_info(find_front(make_sweep(), spec), spec, None)
    line = json.loads(front_figure(info).to_json())["data"][0]
    members = [point for point in info.points if point.on_front]
    wanted = [p for p in members if not any(dominates(o, p) for o in members)]
    assert len(wanted) > 1
    assert (line["name"], line["line"]["shape"]) == ("front", "hv")
    assert line["y"] == sorted({point.y for point in wanted})
    assert line["x"] == sorted({point.x**0.5 for point in wanted})
    dominated = min(members, key=lambda point: point.y)._replace(config_id="third", y=0.0, x=0.9)
    third = info._replace(points=(*info.points, dominated), front=(*info.front, "third"))
    assert json.loads(front_figure(third).to_json())["data"][0] == line


def test_controls_wait_in_the_legend_and_set_neither_colours_nor_axes() -> None:
    spec = make_spec()
    info = front_info(find_front(make_sweep(), spec), spec, None)
    searched = tuple(p for p in info.points if p.role == "candidate")
    ids = {point.config_id for point in searched}
    plain = info._replace(points=searched, front=tuple(n for n in info.front if n in ids))
    far = plain.points[0]._replace(
        config_id="far", role="learning_rate_control", learning_rate=1e3, y=-50.0, on_front=False
    )
    before, after = (
        json.loads(front_figure(each).to_json())
        for each in (plain, plain._replace(points=(*plain.points, far)))
    )
    assert after["layout"]["yaxis"]["range"] == before["layout"]["yaxis"]["range"]
    low, high = after["layout"]["yaxis"]["range"]
    inside = [point for point in plain.points if low <= point.y <= high]
    assert 0.8 * len(plain.points) <= len(inside)
    hidden = [trace for trace in after["data"] if trace.get("visible") == "legendonly"]
    assert [trace["name"] for trace in hidden][-1] == "controls (1)"
    assert {name for trace in hidden for name in trace.get("customdata", [])} == {"far"}
    assert max(t["marker"]["cmax"] for t in after["data"] if "cmax" in t.get("marker", {})) < 0


@pytest.mark.parametrize("rates", [(2e-4,), (0.0,)])
def test_one_learning_rate_needs_no_scale(rates: tuple[float]) -> None:
    spec = make_spec()
    front = find_front([make_record(learning_rate=rate) for rate in rates], spec)
    drawn = front_figure(front_info(front, spec, None)).to_json()
    assert "colorbar" not in drawn


def test_no_points_is_still_a_figure() -> None:
    spec = make_spec()
    info = front_info(find_front([make_record(status="failed")], spec), spec, None)
    assert info.points == ()
    assert info.passing is None
    assert "front" in front_figure(info).to_json()


def test_curves_share_everything_but_steps_and_average() -> None:
    spec = make_spec()
    records = [base_record()] + [
        make_record(max_steps=steps, average=average, utility=steps / 400, batch_size=batch)
        for steps in (320, 40, 80)
        for average in ("ema(0.99)", "raw")
        for batch in (8, 16)
    ]
    front = find_front(records, spec)
    centre = next(i for i in front.competing if i.config["batch_size"] == 16)
    info = step_curves(front, spec, centre, "rouge_l")
    assert info is not None
    assert [curve.label for curve in info.curves] == ["raw", "ema(0.99)"]
    assert info.curves[0].steps == (40, 80, 320)
    assert info.curves[0].values == (0.1, 0.2, 0.8)
    assert info.base == 0.31
    assert info.limit is None
    assert info.fixed == "batch_size 16"
    drawn = json.loads(step_figure(info).to_json())["data"]
    assert [trace["line"]["dash"] for trace in drawn] == [DASHES["raw"], DASHES["ema"]]
    unsafe = step_curves(front, spec, centre, "unsafe_rate")
    assert unsafe is not None
    assert unsafe.limit == 0.05
    assert unsafe.curves[0].low[0] == wilson_interval(2, 256).low


def test_curves_of_a_loss_have_no_bars_and_one_step_count_no_curve() -> None:
    spec = make_spec()
    front = find_front([make_record(max_steps=40), make_record(max_steps=80)], spec)
    info = step_curves(front, spec, front.competing[0], "heldout_loss")
    assert info is not None
    assert info.curves[0].low == (None, None)
    assert step_curves(front, spec, None, "rouge_l") is None
    alone = find_front([make_record()], spec)
    assert step_curves(alone, spec, alone.competing[0], "rouge_l") is None


def test_a_figure_of_the_report_is_data_and_one_that_stands_alone_carries_the_library() -> None:
    front = find_front([make_record()], make_spec())
    figure = front_figure(front_info(front, make_spec(), None))
    alone = figure_html(figure, "a")
    block = figure_block(figure, "a")
    assert len(alone) > 1_000_000 > len(block)
    assert "cdn.plot.ly" not in block
    assert f"height:{figure.layout.height}px" in block
    text = block.partition('<script type="application/json" id="a-data">')[2]
    assert json.loads(text.removesuffix("</script>")) == json.loads(figure.to_json())


def test_plotly_is_the_committed_build_and_comes_compressed() -> None:
    digest = hashlib.sha256(plotly_source().encode()).hexdigest()
    assert digest == "21e47909e39e2a27805ff4fcdfd7e22713afa21d1533e32eeabda85858e21770"
    assert "plotly.js 4.1.1: scatter, bar, heatmap, parcoords" in plotly_source()[:200]
    packed = plotly_element().partition(">")[2].removesuffix("</script>")
    assert gzip.decompress(base64.b64decode(packed)).decode() == plotly_source()
    assert len(packed) < 0.5 * len(plotly_source())


def test_every_trace_that_is_drawn_is_in_the_build() -> None:
    folder = Path(__file__).parents[2] / "sweeper" / "report" / "figures"
    drawn = {
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"go\.([A-Z]\w+)\(", path.read_text("utf-8"))
    }
    assert drawn - {"Figure"} == {"Bar", "Heatmap", "Parcoords", "Scatter"}


@pytest.mark.parametrize("length", [LARGE, LARGE + 1])
def test_large_data_is_compressed_and_small_data_is_not(length: int) -> None:
    text = json.dumps("<" * (length - 2))
    element = data_element("a", text, packed=True)
    assert ("application/gzip" in element) == (length > LARGE)
    inside = element.partition(">")[2].removesuffix("</script>")
    found = gzip.decompress(base64.b64decode(inside)).decode() if length > LARGE else inside
    assert json.loads(found) == "<" * (length - 2)
    assert "application/json" in data_element("a", text)


def test_colours_span_the_learning_rates_that_were_swept() -> None:
    spec = make_spec()
    info = front_info(find_front(make_sweep(), spec), spec, None)
    points = [p for p in info.points if p.role == "candidate"]
    low = points[0]._replace(config_id="default", role="default", learning_rate=1e-9)
    figure = front_figure(info._replace(points=(*info.points, low)))
    ends = {(t.marker.cmin, t.marker.cmax) for t in figure.data if t.marker.cmin is not None}
    rates = [p.learning_rate for p in points]
    assert ends == {(math.log10(min(rates)), math.log10(max(rates)))}


def test_the_word_beside_the_recommended_point_covers_no_other() -> None:
    spec = make_spec()
    records = make_sweep()
    front = find_front(records, spec)
    info = front_info(front, spec, recommend(front, spec).chosen)
    chosen = next(p for p in info.points if p.config_id == info.recommended)
    far = [
        chosen._replace(config_id=f"p{i}", x=0.9, y=chosen.y + i / 50, on_front=False)
        for i in range(-9, 10)
    ]
    alone = info._replace(points=(*far, chosen), front=(chosen.config_id,), x_range=(0.0, 1.0))

    def word(given: FrontInfo) -> list[tuple[float, float]]:
        notes = front_figure(given).layout.annotations
        return [(n.xshift, n.yshift) for n in notes if n.text == "recommended"]

    assert word(alone) == [(0, 24)]
    above = chosen._replace(config_id="above", y=chosen.y + 0.02)
    assert word(alone._replace(points=(*alone.points, above))) != [(0, 24)]
    around = [
        chosen._replace(config_id=f"a{i}-{j}", x=max(0.0, chosen.x + i / 400), y=chosen.y + j / 100)
        for i in range(-40, 41) for j in range(-9, 10)
    ]  # fmt: skip
    assert word(alone._replace(points=(*alone.points, *around))) == []


def test_a_place_that_is_not_sure_is_drawn_hollow() -> None:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    certainty = front_certainty(front, spec)
    info = front_info(front, spec, None, certainty)
    for point in info.points:
        membership = certainty.memberships[point.config_id]
        assert (point.p_front, point.membership) == (membership.p_front, membership.label)
        between = bounds_text(*membership[:2])
        assert f"P(on front), these weights, {between}: {membership.label}" in point.text
    drawn = {
        identity: symbol
        for trace in front_figure(info).data
        if trace.customdata is not None and trace.name != "untouched model"
        for identity, symbol in zip(trace.customdata, trace.marker.symbol, strict=True)
    }
    assert drawn == {
        p.config_id: SYMBOLS[p.kind] + ("-open" if p.membership == "uncertain" else "")
        for p in info.points
    }
    assert {p.membership for p in info.points} == {"uncertain", "off"}
