"""The heat maps of two settings, in a browser."""

from pathlib import Path
from typing import Any

import pytest
from support.browser import Open, Opened
from support.factories import make_record, make_spec

from sweeper.report import render, report_data
from sweeper.report.slices import PANELS
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

RUN = RunFolder(Path("run-1"))
PLOT = "document.getElementById('heat')"
NOTE = "document.getElementById('heat-note').textContent"


def grid(steps: tuple[int, ...] = (20, 40), name: str = "", **fixed: Any) -> list[TrialRecord]:
    return [
        make_record(
            learning_rate=rate, batch_size=batch, max_steps=count, unsafe=(batch, 256),
            utility=0.8 + rate * count / 100, identity=f"{rate:g}-{batch}-{count}{name}",
            **fixed,
        )
        for count in steps for rate in (1e-4, 1e-3) for batch in (8, 16)
    ]  # fmt: skip


def drawn(opened: Open, records: list[TrialRecord]) -> Opened:
    found = opened(render(report_data(RUN, records, make_spec(), None)), at="heat-maps")
    found.wait(f"{PLOT}.data?.length > 0")
    return found


def test_what_can_be_chosen() -> None:
    data = report_data(RUN, grid(), make_spec(), None)
    assert data.slices is not None
    maps = data.slices["maps"]
    assert (maps["y"], maps["x"], maps["facet"]) == ("learning_rate", "batch_size", "max_steps")
    assert (maps["centre"], maps["which"]) == ("0.001-8-40", "nearest")
    many = report_data(RUN, grid(tuple(range(10, 10 * PANELS + 20, 10))), make_spec(), None)
    few = report_data(RUN, grid(tuple(range(10, 10 * PANELS + 10, 10))), make_spec(), None)
    assert many.slices is not None and few.slices is not None
    assert "max_steps" in few.slices["maps"]["facets"]
    assert "max_steps" not in many.slices["maps"]["facets"] and many.slices["maps"]["facet"] == ""
    one = report_data(RUN, [make_record(), make_record(learning_rate=1e-3)], make_spec(), None)
    assert one.slices is not None and one.slices["maps"] is None
    assert 'id="heat-maps"' not in render(one)


def test_a_cell_is_the_configuration_that_is_like_the_recommended_one_otherwise(
    opened: Open,
) -> None:
    records = [*grid(name="-0"), *grid(name="-1", weight_decay=0.1)]
    data = report_data(RUN, records, make_spec(), None)
    assert data.slices is not None
    centre = data.slices["maps"]["centre"]
    found = drawn(opened, records)
    got = found.value("heat.panels('batch_size', 'learning_rate', 'max_steps')")
    ids = found.value(
        "panels => panels.map(([, rows]) => rows.flat().map(row => cells.ids[row])).flat()",
        got["panels"],
    )
    expected = [
        f"{rate:g}-{batch}-{count}{centre[-2:]}"
        for count in (20, 40) for rate in (1e-4, 1e-3) for batch in (8, 16)
    ]  # fmt: skip
    assert ids == expected
    assert [name for name, _ in got["panels"]] == ["max_steps 20", "max_steps 40"]
    assert "weight_decay" in found.value(NOTE)
    shown = found.value(f"{PLOT}.data.filter(t => t.type === 'heatmap').map(t => t.z.flat())")
    assert shown == [[8 / 256, 16 / 256] * 2] * 2


def test_colours_meet_at_the_limit_and_one_value_is_told_instead_of_drawn(opened: Open) -> None:
    found = drawn(opened, grid())
    scale = found.value(f"{PLOT}.layout.coloraxis.colorscale")
    assert scale[1][0] == pytest.approx(0.05 / (16 / 256))
    assert scale[0][1] != scale[2][1]
    assert "Colours meet at the limit" in found.value(NOTE)
    found.page.locator("#heat-metric").select_option("over_refusal_rate")
    found.wait(f"{NOTE}.startsWith('No map of over_refusal_rate')")
    assert "in all 8 cells" in found.value(NOTE)
    assert not found.page.locator("#heat").is_visible()
    found.page.locator("#heat-metric").select_option("rouge_l")
    found.page.locator("#heat").wait_for(state="visible")
    assert len(found.value("heat.scale('rouge_l', [0.5, 0.8]).colorscale")) == 3
    assert found.value("heat.scale('unsafe_rate', [0.01, 0.02])") == {
        "cmin": 0, "cmax": 0.05, "colorscale": [[0, "#6baed6"], [1, "#f1f1ee"]]
    }  # fmt: skip


def test_axes_differ_and_what_is_not_selected_is_dimmed(opened: Open) -> None:
    found = drawn(opened, grid())
    found.page.locator("#heat-x").select_option("learning_rate")
    assert found.value("document.getElementById('heat-y').value") == "batch_size"
    found.wait(f"{PLOT}.layout.xaxis.title?.text === 'learning_rate'")
    chosen = "0.0001-8-20"
    found.value("id => page.select([id], 'test')", chosen)
    found.wait(f"{PLOT}.data.some(t => t.opacity === 0.25)")
    bright = (
        f"{PLOT}.data.filter(t => t.opacity === 1).flatMap(t => "
        "t.customdata.flat().filter((_, i) => t.z.flat()[i] !== null))"
    )
    assert found.value(bright) == [chosen]
