"""The chart of one setting against one metric, in a browser."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from support.browser import Open
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.report import render, report_data
from sweeper.store.folder import RunFolder

RUN = RunFolder(Path("my run"))
PLOT = "document.getElementById('slice')"


def test_what_can_be_chosen() -> None:
    data = report_data(RUN, make_sweep(), make_spec(), None)
    assert data.slices is not None
    assert data.slices["settings"][0] == "learning_rate"
    assert data.slices["metrics"][0] == "unsafe_rate"
    assert "batch_size" in data.slices["facets"] and "average" not in data.slices["facets"]
    assert data.slices["limits"] == {"unsafe_rate": 0.05}
    alone = report_data(RUN, [base_record(), make_record()], make_spec(), None)
    assert alone.slices is None
    assert 'id="slices"' not in render(alone)


@pytest.mark.parametrize("facet", ["", "batch_size"])
def test_points_medians_and_quartiles_are_those_of_the_records(opened: Open, facet: str) -> None:
    records = [r for r in make_sweep() if r.role == "candidate" and r.status == "complete"]
    found = opened(render(report_data(RUN, records, make_spec(), None)), at="slices")
    found.wait(f"{PLOT}.data?.length > 0")
    here = found.value(
        "facet => [...slices.facets('max_steps', 'rouge_l', facet)].map(([name, points]) => "
        "[name, points.map(({x, y, id}) => [x, y, id]), slices.summary(points)])",
        facet,
    )
    groups: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    for record in records:
        name = f"{facet} {record.config[facet]}" if facet else ""
        groups[name][record.config_id] = (
            record.config["max_steps"], record.metrics["rouge_l"].value
        )  # fmt: skip
    assert {name for name, _, _ in here} == set(groups)
    assert (len(here) == 1) == (facet == "")
    for name, points, summary in here:
        assert {identity: (x, y) for x, y, identity in points} == groups[name]
        for x, low, middle, high in summary:
            values = [y for steps, y in groups[name].values() if steps == x]
            assert [low, middle, high] == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]))


def test_many_values_are_put_into_bins_and_a_selection_is_marked(opened: Open) -> None:
    records = [
        make_record(identity=f"c{i}", learning_rate=1e-5 * 1.2**i, utility=0.5 + i / 100)
        for i in range(40)
    ]
    found = opened(render(report_data(RUN, records, make_spec(), None)), at="slices")
    found.wait(f"{PLOT}.data?.length > 0")
    line = "slices.summary(slices.facets('learning_rate', 'rouge_l', '').get(''))"
    assert len(found.value(line)) == 8
    assert found.value(f"{PLOT}.layout.xaxis.type") == "log"
    found.value("page.select(['c3', 'c7'], 'test')")
    found.wait(f"{PLOT}.data[2].selectedpoints?.length === 2")
    chosen = f"{PLOT}.data[2].selectedpoints.map(i => {PLOT}.data[2].customdata[i]).sort()"
    assert found.value(chosen) == ["c3", "c7"]
    found.page.locator("#slice-metric").select_option("rouge_l")
    found.wait(f"{PLOT}.layout.yaxis.title.text === 'rouge_l'")
    assert found.value(f"{PLOT}.layout.shapes.length") == 0
