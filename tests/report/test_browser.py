"""The report's page in a real browser: what is clicked, brushed, typed and taken away."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtr
from support.browser import Open, Opened
from support.factories import base_record, make_record, make_spec, make_sweep, with_samples

from sweeper.analysis import find_front, paired_difference
from sweeper.report import ReportData, render, report_data
from sweeper.report.sections import ChartInfos
from sweeper.stats import DiscordantPairs, mcnemar, paired_difference_interval, t_quantile
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

RUN = RunFolder(Path("my run"))
SELECTION = "[...(page.selection() ?? [])].sort()"
FRONT = "document.getElementById('front')"
BRUSH = """async range => {
  const brush = {"dimensions[0].constraintrange": range};
  await Plotly.restyle("parallel", brush, [0]);
}"""
BRUSH_A_GAP = """async () => {
  const {dimensions} = document.getElementById("parallel")._fullData[0];
  const last = dimensions.length - 1;
  const values = Array.from(dimensions[last].values).sort((a, b) => a - b);
  const gaps = values.slice(1).map((value, i) => [value - values[i], values[i]]);
  const [wide, low] = gaps.sort((a, b) => b[0] - a[0])[0];
  const brush = {[`dimensions[${last}].constraintrange`]: [[low + wide / 3, low + wide / 2]]};
  await Plotly.restyle("parallel", brush, [0]);
}"""
SHOWN = "document.getElementById('shown').textContent"
FOREIGN = """[...document.querySelectorAll("main img, main script:not([type='application/json'])")]
  .map(node => node.outerHTML).filter(text => text.includes("owned") && !text.includes("Plotly"))"""
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
)


def made(records: list[TrialRecord], *overrides: str) -> ReportData:
    return report_data(RUN, records, make_spec(*overrides), None)


@pytest.fixture(scope="module")
def sweep() -> ReportData:
    return made(make_sweep())


def light(data: ReportData) -> str:
    """A page with the front as its one figure."""
    return render(data._replace(charts=ChartInfos(), curves=()))


@pytest.fixture(scope="module")
def light_page(sweep: ReportData) -> str:
    return light(sweep)


@pytest.fixture(scope="module")
def sweep_page(sweep: ReportData) -> str:
    return render(sweep)


CLAIMS = ("these weights", "trained again")


def sampled(
    seeds: tuple[int, ...] = (0,), count: int = 6, *, alone: bool = False
) -> list[TrialRecord]:
    """Configurations with verdicts of 60 prompts and scores of 24 rows, drawn with a fixed seed.

    They are readouts of one trajectory for each seed, or have trajectories of their own (`alone`).
    """
    rng = np.random.default_rng(5)
    records = []
    for index in range(count):
        for seed in seeds:
            tokens = rng.integers(5, 40, 24).astype(float)
            samples: dict[str, str | tuple[float, ...]] = {
                "unsafe_rate": "".join(map(str, (rng.random(60) < 0.05 * index).astype(int))),
                "over_refusal_rate": "".join(map(str, (rng.random(30) < 0.2).astype(int))),
                "rouge_l": tuple(np.clip(rng.normal(0.5 + 0.05 * index, 0.2, 24), 0, 1).tolist()),
                "heldout/loss": tuple((tokens * rng.normal(2 - 0.1 * index, 0.2, 24)).tolist()),
                "heldout/tokens": tuple(tokens.tolist()),
            }
            records.append(
                with_samples(
                    samples,
                    identity=f"c{index}",
                    seed=seed,
                    max_steps=40 + 40 * index,
                    learning_rate=1e-4 * (1 + index * alone),
                    role="base" if alone and index == 4 else "candidate",
                )
            )
    return records


def spot(found: Opened, config_id: str) -> tuple[float, float]:
    """Where a configuration is drawn in the front figure, in pixels of the window."""
    found.draw("front")
    place = found.value(
        """id => {
          const plot = document.getElementById("front");
          const box = plot.getBoundingClientRect();
          const {xaxis, yaxis} = plot._fullLayout;
          for (const trace of plot.data) {
            const index = (trace.customdata ?? []).indexOf(id);
            if (index >= 0)
              return [box.left + xaxis._offset + xaxis.d2p(trace.x[index]),
                      box.top + yaxis._offset + yaxis.d2p(trace.y[index])];
          }
        }""",
        config_id,
    )
    return place[0], place[1]


def marked(found: Opened) -> list[str]:
    """The configurations that the front figure shows as selected."""
    found.draw("front")
    ids: list[str] = found.value(
        f"{FRONT}.data.filter(trace => trace.customdata).flatMap("
        "trace => (trace.selectedpoints ?? []).map(i => trace.customdata[i])).sort()"
    )
    return ids


def rows(found: Opened) -> list[str]:
    """The configurations in the table, in order."""
    ids: list[str] = found.value(
        "[...document.querySelectorAll('#all tbody .pick')].map(button => button.textContent)"
    )
    return ids


def settle(found: Opened) -> None:
    """Until every restyle that is under way is done."""
    found.page.evaluate("() => new Promise(done => setTimeout(done, 150))")


def test_the_page_loads_without_an_error_and_asks_for_nothing(
    opened: Open, sweep_page: str
) -> None:
    found = opened(sweep_page)
    assert found.value(SHOWN) == "139 of 139"
    plots = found.value("[...document.querySelectorAll('.plotly-graph-div')].map(plot => plot.id)")
    assert {"front", "parallel", "importance-bars"} <= set(plots)
    found.draw("front")
    drawn = (
        "[...document.querySelectorAll('.plotly-graph-div.js-plotly-plot')].map(plot => plot.id)"
    )
    assert plots[-1] not in found.value(drawn), "far below the window"
    for plot in plots:
        found.value("id => views.reveal(document.getElementById(id))", plot)
        before = found.value("document.documentElement.scrollHeight")
        found.draw(plot)
        assert found.value("document.documentElement.scrollHeight") == before, "no jump"
    assert found.value(drawn) == plots
    found.check()


def test_a_clicked_point_filters_the_table_and_escape_lets_go(
    opened: Open, sweep: ReportData, sweep_page: str
) -> None:
    found = opened(sweep_page)
    chosen = sweep.front.recommended
    assert chosen is not None
    found.page.mouse.click(*spot(found, chosen))
    found.wait(f"{SELECTION}.length === 1")
    assert found.value(SELECTION) == [chosen]
    assert rows(found) == [chosen]
    assert found.value(SHOWN) == "1 of 139, 1 selected"
    assert found.page.locator("#bar-count").inner_text() == "1 selected"
    assert found.page.locator(f"tr.selected .pick:text-is('{chosen}')").count() == 1
    settle(found)
    assert marked(found) == [chosen]
    found.page.keyboard.press("Escape")
    settle(found)
    assert (found.value(SELECTION), marked(found), len(rows(found))) == ([], [], 100)
    assert found.page.locator("#bar").is_hidden()


def test_a_chosen_row_is_marked_in_the_charts_and_does_not_hide_the_others(
    opened: Open, sweep: ReportData, sweep_page: str
) -> None:
    found = opened(sweep_page, at="table")
    first, second = sweep.rows[0].config_id, sweep.rows[1].config_id
    found.page.locator(f".pick:text-is('{first}')").click()
    found.page.locator(f".pick:text-is('{second}')").click(modifiers=["Shift"])
    settle(found)
    assert found.value(SELECTION) == sorted([first, second]) == marked(found)
    assert len(rows(found)) == 100
    found.draw("parallel")
    lines = "document.querySelector('#parallel').data[0].customdata"
    assert sorted(found.value(lines)) == sorted([first, second])
    found.value("views.reveal(document.getElementById('configurations'))")
    found.page.locator(f".pick:text-is('{first}')").click(modifiers=["Shift"])
    found.page.locator(f".pick:text-is('{second}')").click()
    settle(found)
    assert (found.value(SELECTION), marked(found)) == ([], [])
    found.draw("parallel")
    assert len(found.value(lines)) > 100


def test_a_box_around_points_selects_them(opened: Open, sweep: ReportData, light_page: str) -> None:
    found = opened(light_page)
    found.draw("front")
    found.value(f"Plotly.relayout({FRONT}, {{dragmode: 'select'}})")
    inside = sweep.front.front[:2]
    places = [spot(found, name) for name in inside]
    (left, right), (top, bottom) = (
        (min(values) - 6, max(values) + 6) for values in zip(*places, strict=True)
    )
    found.page.mouse.move(left, top)
    found.page.mouse.down()
    found.page.mouse.move((left + right) / 2, (top + bottom) / 2)
    found.page.mouse.move(right, bottom, steps=4)
    found.page.mouse.up()
    found.wait(f"{SELECTION}.length > 0")
    selected = found.value(SELECTION)
    assert set(inside) <= set(selected)
    settle(found)
    assert marked(found) == selected
    assert sorted(rows(found)) == selected
    found.page.locator("#bar-clear").click()
    settle(found)
    assert (found.value(SELECTION), marked(found)) == ([], [])
    assert found.value(f"({FRONT}.layout.selections ?? []).length") == 0


@pytest.mark.parametrize("ranges", [[[0.5, 2.5]], [[-0.5, 0.5], [2.5, 3.5]]])
def test_brushing_an_axis_filters_the_table(
    opened: Open, sweep_page: str, ranges: list[list[float]]
) -> None:
    found = opened(sweep_page)
    found.draw("parallel")
    wanted = found.value(
        """async ranges => {
          const plot = document.getElementById("parallel");
          const values = Array.from(plot._fullData[0].dimensions[0].values);
          const ids = plot.data[0].customdata.filter((_, i) =>
            ranges.some(([low, high]) => low <= values[i] && values[i] <= high));
          const given = ranges.length === 1 ? ranges[0] : ranges;
          await Plotly.restyle(plot, {"dimensions[0].constraintrange": [given]}, [0]);
          return ids.sort();
        }""",
        ranges,
    )
    assert 0 < len(wanted) < 127
    assert found.value(SELECTION) == wanted
    assert found.value(SHOWN) == f"{len(wanted)} of 139, {len(wanted)} selected"
    assert set(rows(found)) <= set(wanted)
    settle(found)
    assert marked(found) == wanted
    found.draw("parallel")
    found.value(BRUSH, [None])
    assert found.value("page.selection()") is None


def test_a_brush_that_matches_nothing_is_no_lack_of_a_selection(
    opened: Open, sweep_page: str
) -> None:
    found = opened(sweep_page)
    found.draw("parallel")
    found.value(BRUSH_A_GAP)
    assert found.value("page.selection()?.size") == 0
    assert (found.value(SHOWN), rows(found)) == ("0 of 139, 0 selected", [])
    told = "The selection holds no configuration, so no row is shown."
    assert found.page.locator("#none-shown").inner_text() == told
    assert found.page.locator("#bar-count").inner_text() == "0 selected"
    assert found.page.locator("#bar-compare").is_hidden()
    assert marked(found) == []
    assert found.value(f"{FRONT}.data.some(trace => trace.selectedpoints?.length === 0)")
    found.page.keyboard.press("Escape")
    assert found.value("page.selection()") is None
    assert (found.value(SHOWN), len(rows(found))) == ("139 of 139", 100)
    assert found.page.locator("#none-shown").is_hidden()
    found.draw("front")
    assert not found.value(f"{FRONT}.data.some(trace => trace.selectedpoints)")
    found.value("page.select([], 'test')")
    found.draw("parallel")
    found.value("page.select(null, 'test')")
    found.draw("parallel")
    assert len(found.value("document.getElementById('parallel').data[0].customdata")) > 100


def test_a_figure_drawn_late_shows_the_selection_and_paper_gets_all(
    opened: Open, sweep: ReportData, sweep_page: str
) -> None:
    found = opened(sweep_page)
    chosen = sweep.rows[0].config_id
    found.value("id => page.select([id], 'test')", chosen)
    lines = "document.getElementById('parallel').data?.[0].customdata ?? null"
    assert found.value(lines) is None
    found.draw("parallel")
    assert found.value(lines) == [chosen]
    assert found.page.locator(".plotly-graph-div:not(.js-plotly-plot)").count() > 0
    found.value("dispatchEvent(new Event('beforeprint'))")
    found.wait("!document.querySelector('.plotly-graph-div[aria-busy=true]')")
    assert found.page.locator(".plotly-graph-div:not(.js-plotly-plot)").count() == 0


def test_where_nothing_tells_what_is_near_all_figures_are_drawn(
    opened: Open, sweep_page: str
) -> None:
    found = opened(sweep_page, before="delete window.IntersectionObserver")
    found.wait("!document.querySelector('.plotly-graph-div[aria-busy=true]')")
    assert found.page.locator(".plotly-graph-div:not(.js-plotly-plot)").count() == 0


def test_a_brush_of_the_mouse_selects(opened: Open, sweep_page: str) -> None:
    found = opened(sweep_page)
    found.draw("parallel")
    box = found.page.locator("#parallel .axis-brush .background").first.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    found.page.mouse.move(x, box["y"] + 0.95 * box["height"])
    found.page.mouse.down()
    found.page.mouse.move(x, box["y"] + 0.7 * box["height"], steps=5)
    found.page.mouse.move(x, box["y"] + 0.45 * box["height"], steps=5)
    found.page.mouse.up()
    found.wait(f"{SELECTION}.length > 0")
    assert 0 < len(found.value(SELECTION)) < 127
    assert set(rows(found)) <= set(found.value(SELECTION))


def test_heads_sort_and_what_was_not_measured_stays_last(
    opened: Open, sweep: ReportData, light_page: str
) -> None:
    found = opened(light_page, at="table")
    place = sweep.columns.index("rouge_l")
    known = [
        (float(cell.sort), row.config_id)
        for row in sweep.rows
        if (cell := row.cells[place]).sort != math.inf
    ]
    head = found.page.locator("#all thead th", has_text="rouge_l")
    for sign, state in ((1, "ascending"), (-1, "descending")):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == state
        wanted = [name for _, name in sorted(known, key=lambda pair: sign * pair[0])]
        assert rows(found) == wanted[:100]
    found.page.locator("#page-last").click()
    assert rows(found) == [*wanted[100:], *rows(found)[len(wanted) - 100 :]]
    assert found.page.locator("#page-place").inner_text() == "page 2 of 2"


@pytest.mark.parametrize(
    ("line", "keeps"),
    [
        ("unsafe_rate<0.05", lambda row: row["unsafe_rate"] < 0.05),
        ("unsafe_rate > 5% batch_size=8", lambda r: r["unsafe_rate"] > 0.05 and r["batch_size"] == 8),
        ("average=ema(0.95) max_steps>=80", lambda r: r["average"] == "ema(0.95)" and r["max_steps"] >= 80),
        ('average="feedback(0.9, every=4)"', lambda r: r["average"] == "feedback(0.9, every=4)"),
        ("raw FAILED", lambda r: "raw" in r["average"] and r["status"] == "failed"),
        ("status!=complete", lambda r: r["status"] != "complete"),
        ("batch=8 and steps>=80", lambda r: r["batch_size"] == 8 and r["max_steps"] >= 80),
        ("batch=8 or unsafe>20%", lambda r: r["batch_size"] == 8 or r["unsafe_rate"] > 0.2),
        ("raw or batch=8 AND max_st>=80", lambda r: "raw" in r["average"] or
            (r["batch_size"] == 8 and r["max_steps"] >= 80)),
    ],
)  # fmt: skip
def test_a_filter_keeps_what_it_says(
    opened: Open, sweep: ReportData, light_page: str, line: str, keeps: Any
) -> None:
    found = opened(light_page, at="table")
    found.page.locator("#filter").fill(line)
    wanted = []
    for row in sweep.rows:
        cells = dict(zip(sweep.columns, row.cells, strict=True))
        number = {n: math.nan if c.sort in ("", math.inf) else c.sort for n, c in cells.items()}
        values = {n: number[n] if c.numeric else c.text for n, c in cells.items()}
        if keeps(values):
            wanted.append(row.config_id)
    assert 0 < len(wanted) < 139
    assert rows(found) == wanted[:100]
    assert found.value(SHOWN) == f"{len(wanted)} of 139"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nothing<3", "no column nothing"),
        ("average<3", "compares text as a"),
        ("raw or", "missing at the end"),
        ("or raw", "stands between"),
        ("raw and or ema", "stands between"),
        ("batch_size>= 8 or >8", "is no condition"),
        ("batch_size>=", "compares text as a"),
    ],
)
def test_a_filter_that_cannot_be_is_told_and_keeps_nothing(
    opened: Open, light_page: str, line: str, told: str
) -> None:
    found = opened(light_page, at="table")
    found.page.locator("#filter").fill(line)
    assert told in found.page.locator("#filter-error").inner_text()
    assert (found.value(SHOWN), rows(found)) == ("0 of 139", [])
    assert found.page.locator("#none-shown").inner_text().startswith("The filter cannot be read")
    found.page.locator("#filter").fill("")
    assert found.page.locator("#filter-error").is_hidden()
    assert found.value(SHOWN) == "139 of 139"


def test_chips_and_suggestions_of_a_filter(opened: Open, light_page: str) -> None:
    found = opened(light_page, at="table")
    found.page.locator("#filter").fill("lr>1e-4 raw or batch=8")
    chips = found.page.locator("#chips .chip")
    assert [
        text.partition("\N{MULTIPLICATION SIGN}")[0].strip() for text in chips.all_inner_texts()
    ] == [
        "learning_rate > 1e-4",
        "“raw”",
        "batch_size = 8",
    ]
    chips.nth(1).locator("button").click()
    assert found.page.locator("#filter").input_value() == "lr>1e-4 or batch=8"
    options = "[...document.getElementById('filter-names').options].map(each => each.value)"
    found.page.locator("#filter").fill("raw and max")
    assert found.value(options) == ["raw and max_steps="]
    found.page.locator("#filter").fill("average=")
    assert "average=raw" in found.value(options)


def test_a_column_is_shown_on_demand(opened: Open, sweep: ReportData, light_page: str) -> None:
    found = opened(light_page, at="table")
    heads = found.page.locator("#all thead th")
    names = heads.all_inner_texts()
    swept = [name for name in sweep.columns[2:] if name not in sweep.hidden_columns]
    assert names == ["configuration", *swept]
    assert names.index("learning_rate") < names.index("rouge_l") < names.index("unsafe_rate")
    found.page.locator("#columns").locator("..").locator("summary").click()
    box = found.page.locator("#columns label", has_text="P(front)").locator("input")
    box.check()
    assert "P(front)" in heads.all_inner_texts()
    box.uncheck()
    assert heads.all_inner_texts() == names


def test_the_address_holds_view_filter_selection_and_comparison(
    opened: Open, sweep: ReportData, light_page: str
) -> None:
    found = opened(light_page)
    assert found.page.locator("#answer").is_visible()
    assert found.page.locator("#configurations").is_hidden()
    found.page.locator("#views [data-view=table]").click()
    assert found.page.locator("#answer").is_hidden()
    first, second = sweep.rows[0].config_id, sweep.rows[1].config_id
    found.page.locator("#filter").fill("lr>0 or raw")
    found.page.locator(f"[aria-label='compare {second}']").click()
    found.page.locator(f".pick:text-is('{first}')").click()
    where = found.value("location.hash")
    there = opened(light_page, at=where.removeprefix("#"))
    assert there.page.locator("#configurations").is_visible()
    assert there.page.locator("#filter").input_value() == "lr>0 or raw"
    assert there.value(SELECTION) == [first]
    assert there.value("[...page.tray()]") == [second]
    assert there.value("location.hash") == where
    elsewhere = opened(light_page, at="trial-outcomes")
    assert elsewhere.page.locator("#trial-outcomes").is_visible()
    assert elsewhere.page.locator("#views [aria-current]").inner_text() == "Details"
    nowhere = opened(light_page, at="nowhere?selected=unknown&filter=")
    assert nowhere.page.locator("#answer").is_visible()
    assert nowhere.value("page.selection()?.size") == 0


def downloaded(found: Opened, button: str) -> tuple[str, str]:
    with found.page.expect_download() as waiting:
        found.page.locator(button).click()
    path = waiting.value.path()
    return waiting.value.suggested_filename, path.read_bytes().decode("utf-8")


def test_the_csv_holds_the_records_at_full_precision(opened: Open) -> None:
    records = make_sweep()
    found = opened(light(made(records)), at="table")
    name, text = downloaded(found, "#csv-all")
    assert name == "my run-configurations.csv"
    assert text.count("\r\n") == 140
    lines = {row["configuration"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    assert len(lines) == len(records)
    for record in records:
        row = lines[record.config_id]
        for metric in ("rouge_l", "heldout_loss", "unsafe_rate", "over_refusal_rate"):
            there = record.metrics.get(metric)
            assert row[metric] == "" if there is None else float(row[metric]) == there.value
        if record.role != "base":
            assert float(row["learning_rate"]) == record.config["learning_rate"]
            assert int(row["max_steps"]) == record.config["max_steps"]
            assert row["average"] == record.config["average"]
        if (unsafe := record.metrics.get("unsafe_rate")) is not None:
            assert row["unsafe_rate counts"] == f"{unsafe.k}/{unsafe.n}"
            assert float(row["unsafe_rate 95% low"]) <= unsafe.value
        assert row["status"] == record.status
    found.page.locator("#filter").fill("status=complete unsafe_rate<0.02")
    kept = downloaded(found, "#csv-shown")[1]
    assert [row["configuration"] for row in csv.DictReader(io.StringIO(kept))] == rows(found)


def test_a_formula_in_a_text_is_no_formula_in_the_csv(opened: Open) -> None:
    texts = ["=1+1", "+1", "-1", "@a", "\tx", "\rx", 'a "b", c', "two\nlines", "plain", " edge "]
    found = opened(
        light(
            made(
                [
                    make_record(identity=f"c{index}", template=text)
                    for index, text in enumerate(texts)
                ]
            )
        ),
        at="table",
    )
    text = downloaded(found, "#csv-all")[1]
    lines = {row["configuration"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    read = [lines[f"c{index}"]["template"] for index in range(len(texts))]
    assert read == [f"'{t}" if t[0] in "=+-@\t\r" else t for t in texts]
    assert found.value("csv.text(['a'], [[-1.5e-7], [NaN], [null], ['-1']])") == (
        "a\r\n-1.5e-7\r\n\r\n\r\n'-1\r\n"
    )


def test_the_table_of_a_chart_sorts_and_is_its_csv(opened: Open, sweep_page: str) -> None:
    found = opened(sweep_page)
    table = found.page.locator("table.data").last
    identity = table.get_attribute("data-csv")
    found.value("id => views.reveal(document.getElementById(`${id}-chart`))", identity)
    found.page.locator(f"#{identity}-chart summary").click()
    before = [cell.inner_text() for cell in table.locator("tbody td:first-child").all()]
    table.locator("thead button").first.click()
    after = [cell.inner_text() for cell in table.locator("tbody td:first-child").all()]
    assert sorted(before) == sorted(after) == after
    name, text = downloaded(found, f"#{identity}-chart button.csv")
    assert name == f"{identity}.csv"
    assert [row[0] for row in csv.reader(io.StringIO(text))][1:] == after


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3, 4)])
def test_the_tray_tests_pairs_as_the_package_does(
    opened: Open, seeds: tuple[int, ...], alone: bool
) -> None:
    """Of one run, of runs with their own and with the pooled variance, and against the untouched model."""
    records = sampled(seeds, alone=alone)
    overrides = (
        f"seeds={list(seeds)}",
        "objectives=[rouge_l, unsafe_rate, heldout_loss]",
        "constraints=[{metric: unsafe_rate, max: 0.2}]",
    )
    found = opened(light(made(records, *overrides)))
    items = {i.config_id: i for i in find_front(records, make_spec(*overrides)).candidates}
    for first, second in (("c0", "c5"), ("c3", "c2"), ("c1", "c1"), ("c3", "c4")):
        for metric in ("unsafe_rate", "rouge_l", "heldout_loss"):
            here = found.value(
                "([a, b, name]) => paired.difference(page.data('pairs'), a, b, name)",
                [first, second, metric],
            )
            there = paired_difference(
                items[first], items[second], metric, among=list(items.values())
            )
            assert there is not None and there.interval is not None
            assert here["claim"] == there.claim == CLAIMS[len(seeds) > 1]
            assert here["difference"] == pytest.approx(there.difference, abs=1e-12)
            assert here["interval"] == pytest.approx(list(there.interval), abs=1e-9)
            assert here["n"] == there.n
            assert (here["p"] is None) == (there.p_value is None)
            if there.p_value is not None:
                assert here["p"] == pytest.approx(there.p_value, rel=1e-4)
    assert found.value("paired.difference(page.data('pairs'), 'c0', 'c5', 'unsafe_rate').p") < 0.05


def test_one_seed_against_several_is_a_difference_of_these_weights(opened: Open) -> None:
    records = [r for r in sampled((0, 1), alone=True) if r.config_id != "c0" or r.seed == 0]
    found = opened(light(made(records, "seeds=[0, 1]")))
    items = {i.config_id: i for i in find_front(records, make_spec("seeds=[0, 1]")).candidates}
    here = found.value("paired.difference(page.data('pairs'), 'c0', 'c5', 'unsafe_rate')")
    there = paired_difference(items["c0"], items["c5"], "unsafe_rate")
    assert there is not None and there.interval is not None
    assert here["claim"] == there.claim == "these weights"
    assert here["interval"] == pytest.approx(list(there.interval), abs=1e-9)
    assert (here["p"], there.p_value) == (None, None)


def test_students_t_of_the_page_is_that_of_scipy(opened: Open, light_page: str) -> None:
    pairs = [(t, df) for t in (0.0, 0.01, 1.0, 2.5, 30.0) for df in (0.7, 1.0, 2.0, 4.3, 30.0, 5e3)]
    found = opened(light_page)
    here = found.value("pairs => pairs.map(([t, df]) => paired.studentP(t, df))", pairs)
    for (t, df), p in zip(pairs, here, strict=True):
        assert p == pytest.approx(2 * float(stdtr(df, -t)), rel=1e-9)
    ends = found.value(
        "[0.7, 2, 40].map(df => paired.studentQuantile(0.95, df, 1.959963984540054))"
    )
    assert ends == pytest.approx([t_quantile(0.975, df) for df in (0.7, 2, 40)], rel=1e-9)


def test_without_samples_the_pair_is_taken_as_independent(opened: Open) -> None:
    records = [base_record(identity="base"), make_record(identity="a", unsafe=(30, 256))]
    found = opened(light(made(records)))
    items = {i.config_id: i for i in find_front(records, make_spec()).candidates}
    here = found.value("paired.difference(page.data('pairs'), 'a', 'base', 'unsafe_rate')")
    there = paired_difference(items["a"], items["base"], "unsafe_rate")
    assert there is not None and there.interval is not None
    assert here["interval"] == pytest.approx(list(there.interval), abs=1e-12)
    assert (here["p"], there.p_value) == (None, None)
    assert "unpaired" in here["test"]


def test_the_tests_of_the_page_are_those_of_the_package_on_random_tables(
    opened: Open, light_page: str
) -> None:
    rng = np.random.default_rng(11)
    tables = []
    for n in (1, 2, 7, 40, 256, 1000, 5000):
        for _ in range(12):
            first = int(rng.integers(0, n + 1))
            tables.append(DiscordantPairs(first, int(rng.integers(0, n - first + 1)), n))
    found = opened(light_page)
    z = 1.959963984540054
    here = found.value(
        "([tables, z]) => tables.map(t => [paired.tango(t, z), paired.mcnemar(t[0], t[1])])",
        [[list(table) for table in tables], z],
    )
    for table, (interval, p) in zip(tables, here, strict=True):
        assert interval == pytest.approx(list(paired_difference_interval(table)), abs=1e-9)
        assert p == pytest.approx(mcnemar(table), rel=1e-9, abs=1e-300)


def test_the_tray_shows_what_differs_and_gives_the_command(opened: Open) -> None:
    found = opened(
        light(made(sampled(), "constraints=[{metric: unsafe_rate, max: 0.2}]")), at="table"
    )
    for index in range(4):
        found.page.locator(f"[aria-label='compare c{index}']").click()
    found.page.locator("[aria-label='compare c4']").click()
    assert "holds 4 already" in found.page.locator("#filter-error").inner_text()
    assert found.value("[...page.tray()]") == ["c0", "c1", "c2", "c3"]
    for index in (2, 3):
        found.page.locator(f"[aria-label='take c{index} out']").click()
    differing = found.page.locator("#tray .side tr.differs th").all_inner_texts()
    assert "≠ max_steps" in differing
    plain = found.page.locator("#tray .side tr:not(.differs) th[scope=row]").all_inner_texts()
    assert "status" in plain
    assert found.page.locator("#tray .tests tbody tr").count() == 2
    line = found.page.locator("#tray .tests tbody tr", has_text="unsafe_rate").inner_text()
    assert line.startswith("c0 \N{MINUS SIGN} c1")
    assert "exact McNemar" in line and "these weights" in line
    found.page.evaluate(
        "Object.defineProperty(navigator, 'clipboard',"
        "{value: {writeText: async text => { window.copied = text; }}})"
    )
    found.page.locator(".copy").first.click()
    assert found.value("window.copied") == "sweeper export 'my run' --format trl --config c0"
    found.page.locator("#tray-format").select_option("transformers")
    assert "--format transformers --config c1" in found.page.locator(".commands").inner_text()
    found.page.locator("#bar-tray-clear").click()
    assert found.page.locator("#tray-hint").is_visible()


def test_everything_is_reached_by_the_keyboard(
    opened: Open, sweep: ReportData, light_page: str
) -> None:
    found = opened(light_page, at="table")
    press = found.page.keyboard.press
    press("Tab")
    assert found.value("document.activeElement.className") == "skip"
    press("Enter")
    assert found.value("document.activeElement.id") == "main"
    found.page.locator("#all thead button").first.focus()
    for _ in found.page.locator("#all thead button").all():
        press("Tab")
    assert found.value("document.activeElement.className") == "add"
    press("Tab")
    press("ArrowDown")
    press("Space")
    second = sweep.rows[1].config_id
    assert found.value(SELECTION) == [second]
    assert found.value("document.activeElement.textContent") == second
    assert found.value("document.activeElement.getAttribute('aria-pressed')") == "true"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert found.value(outline) == "solid"
    press("Shift+Tab")
    press("Enter")
    assert found.value("[...page.tray()]") == [second]
    assert found.value("document.activeElement.getAttribute('aria-pressed')") == "true"
    press("Escape")
    assert found.value(SELECTION) == []


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_page_does_not_scroll_sideways(opened: Open, sweep_page: str, width: int) -> None:
    found = opened(sweep_page, viewport={"width": width, "height": 740})
    settle(found)
    assert found.value("document.documentElement.scrollWidth") <= width


def test_paper_gets_the_first_rows_and_says_so(opened: Open, light_page: str) -> None:
    found = opened(light_page, at="table")
    found.page.locator("#page-last").click()
    assert found.page.pdf()[:5] == b"%PDF-"
    assert len(rows(found)) == 100
    told = found.value("document.getElementById('printed').textContent")
    assert told.startswith("Printed: the first 100 of 139 configurations of the sweep")
    found.page.emulate_media(media="print")
    assert found.page.locator("#printed").is_visible()
    assert found.page.locator("#configurations .tools").is_hidden()


def test_without_javascript_the_answer_is_there(opened: Open, sweep: ReportData) -> None:
    found = opened(light(sweep), java_script_enabled=False)
    assert sweep.headline.sentence in found.page.locator("#answer").inner_text()
    assert sweep.answer in found.page.locator("#why").inner_text()
    assert "need JavaScript" in found.page.locator("noscript").first.inner_text()


def test_hostile_data_stays_text(opened: Open) -> None:
    texts = [
        HOSTILE,
        "\ud800 lone \udfff halves",
        "\u202eright to left\u2066 isolate",
        "x" * 100_000,
        "--><!-- ]]> \u2028\u2029 \x00",
    ]
    records = [base_record()]
    records += [
        make_record(identity=f"c{i} {text[:40]}", template=text, utility=0.7 + 0.02 * i)
        for i, text in enumerate(texts)
    ]
    failed = {"class": HOSTILE, "message": HOSTILE, "traceback": "", "stage": "train"}
    records.append(make_record(identity="f", status="failed", reason=failed))
    spec = make_spec().model_copy(update={"description": HOSTILE, "name": HOSTILE})
    found = opened(
        render(report_data(RunFolder(Path(HOSTILE.replace("/", "_"))), records, spec, None)),
        at="table",
    )
    title = found.page.title()
    assert title.startswith("<img")
    assert found.value(FOREIGN) == []
    ids = found.value("page.data('configurations').ids")
    found.value("ids => page.select(ids.slice(0, 4), 'test')", ids)
    found.page.locator("#bar-compare").click()
    settle(found)
    assert found.page.locator("#tray .side").is_visible()
    assert found.page.title() == title
    found.page.keyboard.press("Escape")
    shown = found.value("[...document.querySelectorAll('#all td')].map(cell => cell.textContent)")
    assert HOSTILE in shown
    assert "x" * 100_000 in shown
    assert "\ufffd lone \ufffd halves" in shown or "\ud800 lone \udfff halves" in shown
    found.page.mouse.move(*spot(found, ids[0]))
    settle(found)
    assert found.value(FOREIGN) == []
    assert found.page.title() == title


def test_ten_thousand_configurations_load_sort_and_select(opened: Open, sweep: ReportData) -> None:
    times = 10_000 // len(sweep.front.points) + 1
    points = [
        point._replace(
            config_id=f"{point.config_id}-{copy}", y=point.y + copy / 1e4, on_front=False
        )
        for copy in range(times)
        for point in sweep.front.points
    ][:10_000]
    kinds = {row.config_id: row for row in sweep.rows}
    useful = sweep.columns.index("rouge_l")
    lines = []
    for point in points:
        row = kinds[point.config_id.partition("-")[0]]
        cells = list(row.cells)
        cells[1] = cells[1]._replace(text=point.config_id, sort=point.config_id)
        cells[useful] = cells[useful]._replace(sort=point.y, text=f"{point.y:.3f}")
        lines.append(row._replace(config_id=point.config_id, cells=tuple(cells)))
    front = sweep.front._replace(points=tuple(points), front=(), recommended=None)
    page = light(sweep._replace(front=front, rows=tuple(lines), slices=None))  # It names others.
    found = opened(page, at="table")
    assert found.value(SHOWN) == "10000 of 10000"
    assert found.value("document.querySelectorAll('#all tbody tr').length") == 100
    found.draw("front")
    found.value("views.reveal(document.getElementById('configurations'))")
    head = found.page.locator("#all thead th", has_text="rouge_l").locator("button")
    head.click()
    head.click()
    assert rows(found)[0] == max(points, key=lambda point: point.y).config_id
    found.page.locator("#filter").fill("unsafe_rate<0.02")
    below = sum(point.x < 0.02 for point in points)
    assert found.value(SHOWN) == f"{below} of 10000"
    found.value("ids => page.select(ids, 'test')", [point.config_id for point in points[:3000]])
    settle(found)
    assert len(marked(found)) == 3000
