"""The charts over configurations: infos by value, what they leave out, and what figures carry."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.factories import base_record, make_config, make_record, make_spec, make_sweep

from sweeper.analysis import Front, find_front, front_certainty, recommend
from sweeper.report.data import ReportData, report_data
from sweeper.report.figures.draw_bars import importance_figure
from sweeper.report.figures.draw_panels import heat_figure
from sweeper.report.figures.draw_parallel import parallel_figure
from sweeper.report.figures.heat import HeatInfo, heat_infos
from sweeper.report.figures.importance import FEWEST, ImportanceInfo, importance_info
from sweeper.report.figures.levels import is_log, levels, spread, symbols_of, tick_texts
from sweeper.report.figures.parallel import MOST_AXES, P_FRONT, UPPER, ParallelInfo, parallel_info
from sweeper.report.figures.theme import INK, LINE_COLOURS, RING
from sweeper.report.page import render
from sweeper.report.sections import sections
from sweeper.spec import SweepSpec
from sweeper.stats import wilson_interval
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, TrialRecord

HOSTILE = "</script><img src=x onerror=alert(1)>"


def fronted(records: list[TrialRecord], spec: SweepSpec | None = None) -> tuple[Front, SweepSpec]:
    spec = spec or make_spec()
    return find_front(records, spec), spec


def parallel(records: list[TrialRecord]) -> ParallelInfo | None:
    front, spec = fronted(records)
    return parallel_info(front, spec, front_certainty(front, spec))


def heats(records: list[TrialRecord], **centre: Any) -> tuple[HeatInfo, ...]:
    front, spec = fronted(records)
    found = next(
        item
        for item in front.competing
        if all(item.config[name] == value for name, value in centre.items())
    )
    return heat_infos(front, spec, found, True)


def importance(records: list[TrialRecord]) -> ImportanceInfo:
    return importance_info(*fronted(records))


def data_of(records: list[TrialRecord], spec: SweepSpec | None = None) -> ReportData:
    return report_data(RunFolder(Path("run-1")), records, spec or make_spec(), None)


def grid(**fixed: Any) -> list[TrialRecord]:
    return [
        make_record(
            learning_rate=rate,
            batch_size=batch,
            utility=0.5 + batch / 100,
            unsafe=(batch, 256),
            identity=f"{rate:g}-{batch}",
            **fixed,
        )
        for rate in (1e-4, 1e-3)
        for batch in (8, 16)
    ]


# Levels


def test_levels_are_numbers_by_size_averages_by_kind_and_none_last() -> None:
    values = ["ema(0.99)", None, "raw", "feedback(0.9)", "ema(0.95)", "raw"]
    assert levels(values) == ("raw", "ema(0.95)", "ema(0.99)", "feedback(0.9)", None)
    assert levels([32, 8, 16, 8]) == (8, 16, 32)
    spec = make_spec()
    assert is_log("learning_rate", [1e-4], spec) and not is_log("learning_rate", [0.0], spec)
    assert not is_log("batch_size", [8, 16], spec)


def test_ticks_are_short_as_long_as_they_differ() -> None:
    assert tick_texts((0.000123285, 0.001, 8, None, "raw")) == (
        "0.000123",
        "0.001",
        "8",
        "not set",
        "raw",
    )
    assert tick_texts((1.2341e-4, 1.2342e-4)) == ("0.00012341", "0.00012342")


def test_a_spread_keeps_both_ends_and_what_it_is_told_to() -> None:
    assert spread((1, 2, 3), 4, 2) == (1, 2, 3)
    assert spread(tuple(range(10)), 4) == (0, 3, 6, 9)
    assert spread(tuple(range(10)), 4, 5) == (0, 3, 5, 9)
    assert spread(tuple(range(10)), 4, 77) == (0, 3, 6, 9)
    assert spread(tuple(range(10)), 1, 5) == (5,)


def test_averages_of_one_kind_differ_by_more_than_their_colour() -> None:
    labels = ["raw", "ema(0.9)", "ema(0.99)", "interpolate(0.5)", "ema(0.999)", "other"]
    assert symbols_of(labels) == {
        "raw": "circle",
        "ema(0.9)": "diamond",
        "ema(0.99)": "diamond-open",
        "interpolate(0.5)": "square",
        "ema(0.999)": "diamond-open-dot",
        "other": "x",
    }


@pytest.mark.parametrize("colour", [INK, RING, *LINE_COLOURS])
def test_lines_stand_out_on_light_and_dark_pages(colour: str) -> None:
    """WCAG 2.2, 1.4.11: at least 3:1, on the panels of both schemes."""
    for ground in ("#ffffff", "#1c2026"):
        dark, light = sorted((luminance(colour), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 3


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Parallel coordinates


def test_a_line_crosses_each_axis_at_its_value() -> None:
    records = [
        base_record(),
        make_record(identity="a", learning_rate=1e-4, unsafe=(5, 256), utility=0.8),
        make_record(identity="b", learning_rate=1e-3, unsafe=(9, 256), average="ema(0.99)"),
        make_record(identity="c", learning_rate=2e-3, status="failed"),
    ]
    info = parallel(records)
    assert info is not None
    rows = dict(enumerate(info.config_ids))
    axes = {axis.name: {rows[i]: v for i, v in enumerate(axis.values)} for axis in info.axes}
    assert axes["learning_rate"] == {"a": 0.0, "b": 1.0}
    assert axes["average"] == {"a": 0.0, "b": 1.0}
    assert axes["rouge_l"] == {"a": 0.8, "b": 0.85}
    assert axes["unsafe_rate"] == {"a": 5 / 256, "b": 9 / 256}
    assert axes[UPPER] == {"a": wilson_interval(5, 256).high, "b": wilson_interval(9, 256).high}
    assert axes["over_refusal_rate"] == {"a": 3 / 128, "b": 3 / 128}
    ticks = {axis.name: axis.ticks for axis in info.axes}
    assert ticks["learning_rate"] == ((0.0, "0.0001"), (1.0, "0.001"))
    assert (info.controls, info.incomplete, info.unshown) == (0, 1, ())
    labels = {axis.name: axis.label for axis in info.axes}
    assert labels["learning_rate"] == "learning_rate"
    assert [axis.name for axis in info.axes][:2] == ["average", "learning_rate"], "long texts first"


def test_lines_are_coloured_by_the_probability_of_the_front_and_the_surest_drawn_last() -> None:
    front, spec = fronted(make_sweep())
    certainty = front_certainty(front, spec)
    info = parallel_info(front, spec, certainty)
    assert info is not None
    assert info.colour == P_FRONT
    assert list(info.shades) == sorted(info.shades)
    assert list(info.shades) == [certainty.memberships[name].p_front for name in info.config_ids]
    assert info.controls == sum(item.role != "candidate" for item in front.competing) > 0


def test_what_a_line_lacks_has_no_axis_and_no_number() -> None:
    records = [make_record(identity=str(n), learning_rate=n * 1e-4) for n in (1, 2, 3)]
    del records[1].metrics["over_refusal_rate"]  # type: ignore[attr-defined]
    info = parallel(records)
    assert info is not None
    assert len(info.config_ids) == 3
    assert "over_refusal_rate" in info.unshown
    assert "over_refusal_rate" not in {axis.name for axis in info.axes}


def test_many_numbers_get_a_scale_and_many_hyperparameters_no_axis() -> None:
    rates = np.geomspace(1e-5, 1e-3, 20).tolist()
    extra = [f"x{i}" for i in range(MOST_AXES + 2)]
    records = [
        make_record(
            config=make_config(learning_rate=rate, batch_size=i + 1, **dict.fromkeys(extra, i))
        )
        for i, rate in enumerate(rates)
    ]
    info = parallel(records)
    assert info is not None
    axis = next(axis for axis in info.axes if axis.name == "learning_rate")
    assert (axis.label, axis.ticks) == ("log10 learning_rate", ())
    assert sorted(axis.values) == pytest.approx(np.log10(rates).tolist())
    batch = next(axis for axis in info.axes if axis.name == "batch_size")
    assert sorted(batch.values) == list(range(1, 21))
    assert set(extra[MOST_AXES - 2 :]) <= set(info.unshown)


def test_nothing_to_compare_is_no_parallel_chart() -> None:
    assert parallel([]) is None
    assert parallel([make_record()]) is None
    assert parallel([make_record(identity=x) for x in "ab"]) is None
    two = [make_record(learning_rate=r, unsafe=(0, 256)) for r in (1e-4, 1e-3)]
    info = parallel(two)
    assert info is not None and len(info.config_ids) == 2


def test_the_parallel_figure_carries_ids_in_the_order_of_its_values() -> None:
    info = parallel(make_sweep())
    assert info is not None
    (trace,) = parallel_figure(info).data
    assert list(trace.customdata) == list(info.config_ids)
    for dimension, axis in zip(trace.dimensions, info.axes, strict=True):
        assert dimension.name == axis.name
        assert np.asarray(dimension["values"]) == pytest.approx(axis.values, rel=1e-6)


# Heat maps


def test_a_cell_is_one_configuration_with_its_count_and_interval() -> None:
    utility, unsafe = heats(grid(), batch_size=16)  # Over-refusal is the same in all cells.
    assert [info.metric for info in (utility, unsafe)] == ["rouge_l", "unsafe_rate"]
    assert (unsafe.rates, unsafe.batches) == ((1e-4, 1e-3), (8, 16))
    (facet,) = unsafe.facets
    assert (facet.average, facet.steps) == ("raw", 320)
    assert [c.config_id for c in facet.cells] == ["0.0001-8", "0.0001-16", "0.001-8", "0.001-16"]
    assert [c.value for c in facet.cells] == [8 / 256, 16 / 256] * 2
    assert facet.cells[1].counts == "16/256"
    assert (facet.cells[1].low, facet.cells[1].high) == wilson_interval(16, 256)
    assert unsafe.bounds == (8 / 256, 16 / 256)
    assert unsafe.unshown == ()


def test_other_hyperparameters_are_those_of_the_centre() -> None:
    records = [
        *grid(),
        *(
            make_record(learning_rate=r, batch_size=8, weight_decay=0.1, utility=0.8 + r)
            for r in (1e-4, 1e-3)
        ),
        make_record(learning_rate=1e-3, batch_size=16, weight_decay=0.1, identity="centre"),
    ]
    info = heats(records, weight_decay=0.1, batch_size=16)[0]
    (facet,) = info.facets
    assert [cell.config_id is not None for cell in facet.cells] == [True, False, True, True]
    assert info.fixed == "weight_decay 0.1"
    assert info.centre == facet.cells[3].config_id == "centre"


def test_a_cell_without_a_value_says_why() -> None:
    records = grid()[1:]
    records += [
        make_record(learning_rate=1e-2, batch_size=8, status="failed"),
        make_record(learning_rate=1e-2, batch_size=16, status="unscored"),
        make_record(learning_rate=3e-3, batch_size=8, status="pruned"),
        make_record(learning_rate=3e-3, batch_size=16, unsafe=(1, 256)),
        make_record(learning_rate=1e-2, batch_size=32, unsafe=(1, 256)),
    ]
    unsafe = heats(records, learning_rate=1e-3, batch_size=8)[1]
    states = {(c.learning_rate, c.batch_size): c.state for c in unsafe.facets[0].cells}
    assert states[(1e-4, 8)] == "not measured"
    assert states[(3e-3, 8)] == "pruned"
    assert states[(1e-2, 8)] == "failed"
    assert states[(1e-2, 16)] == "unscored"
    assert states[(3e-3, 16)] == "complete"
    blank = [cell for cell in unsafe.facets[0].cells if cell.state != "complete"]
    assert {(cell.value, cell.counts, cell.low) for cell in blank} == {(None, "", None)}
    drawn = json.loads(heat_figure(unsafe).to_json())["data"]
    heat, words, frame = drawn
    assert heat["z"][0][0] is None
    assert heat["customdata"][0] == [None, "0.0001-16", None]
    assert heat["text"][0][1] == "6.2 %<br>16/256"
    assert sorted(words["text"]).count("not<br>measured") == 4
    assert "failed" in words["text"]
    assert (min(frame["x"]), max(frame["x"])) == (-0.47, 0.47)


def test_a_line_of_cells_is_no_heat_map() -> None:
    assert heats(grid()[:2], batch_size=8) == ()
    assert heats([grid()[0], grid()[2]], batch_size=8) == ()
    front, spec = fronted(grid())
    assert heat_infos(front, spec, None, False) == ()


def test_colours_meet_at_the_limit_and_a_map_without_variation_is_none() -> None:
    unsafe = heats(grid(), batch_size=16)[1]
    scale = heat_figure(unsafe).layout.coloraxis
    assert unsafe.limit == 0.05 and (scale.cmin, scale.cmax) == (0, 16 / 256)
    assert [place for place, _ in scale.colorscale] == [0, pytest.approx(0.05 / (16 / 256)), 1]
    below = heat_figure(unsafe._replace(limit=0.2)).layout.coloraxis
    assert below.cmax == 0.2 and len(below.colorscale) == 2
    same = [make_record(learning_rate=r, batch_size=b) for r in (1e-4, 1e-3) for b in (8, 16)]
    assert heats(same, batch_size=16) == ()


def test_of_many_facets_some_are_shown_and_the_rest_is_told() -> None:
    records = [
        make_record(learning_rate=rate, batch_size=batch, max_steps=steps, utility=batch / 100)
        for steps in range(10, 110, 10)
        for rate in (1e-4, 1e-3)
        for batch in (8, 16)
    ]
    info = heats(records, max_steps=60)[0]
    assert info.steps == (10, 60, 100)
    assert info.unshown == ("7 of 10 values of max_steps",)


def test_of_configurations_in_one_cell_the_one_warmed_up_like_the_centre_is_shown() -> None:
    records = [*grid(warmup_steps=0)]
    other = [
        make_record(
            learning_rate=r, batch_size=b, warmup_steps=32, utility=b / 100, identity=f"w{r:g}-{b}"
        )
        for r in (1e-4, 1e-3)
        for b in (8, 16)
    ]
    info = heats([*records, *other], warmup_steps=32, batch_size=8, learning_rate=1e-4)[0]
    assert {cell.config_id for cell in info.facets[0].cells} == {r.config_id for r in other}


# Importance


def random_sweep(n: int) -> list[TrialRecord]:
    """Utility by learning rate alone; safety by the average."""
    rng = np.random.default_rng(3)
    records = []
    for i in range(n):
        average = ["raw", "ema(0.99)"][int(rng.integers(2))]
        rate = float(10 ** rng.uniform(-5, -3))
        records.append(
            make_record(
                identity=f"c{i:03}",
                learning_rate=rate,
                batch_size=int(rng.choice([8, 16, 32])),
                average=average,
                utility=0.8 + 0.02 * np.log10(rate),
                unsafe=(
                    int(rng.integers(60, 90)) if average == "raw" else int(rng.integers(9)),
                    256,
                ),
            )
        )
    return records


def test_importance_finds_what_decides_each_objective_and_in_which_direction() -> None:
    info = importance(random_sweep(120))
    assert info.refusal == ""
    assert info.configurations == 120
    top = {
        metric: max((b for b in info.bars if b.metric == metric), key=lambda b: b.share)
        for metric in ("rouge_l", "unsafe_rate")
    }
    assert top["rouge_l"].hyperparameter == "learning_rate"
    assert top["unsafe_rate"][1] == "average"
    assert top["unsafe_rate"].typical == "ema(0.99)", "the safe end, not the unsafe one"
    assert top["unsafe_rate"].among_best == 1.0
    for metric in top:
        assert sum(bar.share for bar in info.bars if bar.metric == metric) == pytest.approx(1)
    (utility, count, cut), (unsafe, _, limit) = info.best
    assert (utility, count, unsafe) == ("rouge_l", 12, "unsafe_rate")
    best = sorted(r.metrics["rouge_l"].value for r in random_sweep(120))[-12:]
    assert cut == pytest.approx(best[0])
    assert limit < 9 / 256


def test_importance_is_refused_of_few_of_equal_and_of_one_hyperparameter() -> None:
    few = importance(random_sweep(FEWEST - 1))
    assert (few.bars, few.configurations) == ((), FEWEST - 1)
    assert f"fewer than {FEWEST}" in few.refusal
    assert importance(random_sweep(FEWEST)).refusal == ""
    one = [make_record(learning_rate=i * 1e-5) for i in range(1, 80)]
    assert "1 hyperparameter varies" in importance(one).refusal
    equal = [
        make_record(learning_rate=i * 1e-5, batch_size=8 * b) for i in range(1, 40) for b in (1, 2)
    ]
    assert "equal in every objective" in importance(equal).refusal


def test_failed_configurations_take_no_part_in_importance() -> None:
    records = random_sweep(80)
    bad = [make_record(learning_rate=i * 1.0, status="failed") for i in range(1, 20)]
    assert importance([*records, *bad]) == importance(list(reversed(records)))


def test_bars_say_their_share_and_tell_metrics_apart_by_pattern() -> None:
    info = importance(random_sweep(80))
    first, second = json.loads(importance_figure(info).to_json())["data"]
    assert first["marker"]["pattern"] != second["marker"]["pattern"]
    assert first["y"] == second["y"]
    assert first["text"] == [f"{b.share:.0%}" for b in info.bars if b.metric == "rouge_l"]


# The page


def test_the_page_has_a_section_for_each_chart_and_a_table_of_full_precision() -> None:
    data = data_of(make_sweep())
    found = sections(data.charts)
    assert [section.identity for section in found] == [
        "parallel-coordinates",
        "importance",
        "averaging-effect",
    ]
    page = render(data)
    for section in found:
        assert f'<section id="{section.identity}">' in page
        for chart in section.charts:
            assert page.count(f'id="{chart.identity}"') == 1
            assert all(len(row) == len(chart.columns) for row in chart.rows)
    (bar,) = data.charts.importance.bars[:1] if data.charts.importance else ()
    assert f"<td>{bar.share}</td>" in page
    assert sections(data_of(list(reversed(make_sweep()))).charts) == found, (
        "whatever the order of records"
    )


def test_a_sweep_that_can_carry_no_chart_has_no_section() -> None:
    data = data_of([make_record(status="failed")])
    assert sections(data.charts) == ()
    two = data_of([make_record(), make_record(learning_rate=1e-3)])
    assert [s.identity for s in sections(two.charts)] == ["parallel-coordinates", "importance"]
    assert "1 hyperparameter varies" in sections(two.charts)[1].meaning
    assert sections(two.charts)[1].charts == ()


def test_hostile_names_stay_text() -> None:
    records = [
        make_record(
            identity=f"{HOSTILE}{rate}{batch}{scheduler}",
            unsafe=(n, 256),
            metrics={HOSTILE: Metric(0.5, 96)},
            config={
                **make_config(learning_rate=rate, batch_size=batch, lr_scheduler_type=scheduler),
                HOSTILE: n,
            },
        )
        for n, (rate, batch, scheduler) in enumerate(
            (rate, batch, scheduler)
            for rate in (1e-4, 2e-4, 5e-4, 1e-3)
            for batch in (8, 16, 32)
            for scheduler in (HOSTILE, "linear", "cosine", "constant", "x")
        )
    ]
    data = data_of(records)
    page = "".join(chart.figure for s in sections(data.charts) for chart in s.charts)
    assert len(sections(data.charts)) == 2
    assert "<img" not in page
    assert "<img" not in render(data)
    assert page.count("</script>") == page.count("<script")


def test_the_recommended_configuration_is_the_centre_of_the_heat_maps() -> None:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    found = recommend(front, spec)
    data = data_of(make_sweep())
    assert found.chosen is not None
    assert {info.centre for info in data.charts.heat} == {found.chosen.config_id}
