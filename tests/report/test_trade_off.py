"""The trade-off of three metrics: axes and colours are chosen, and the front is that of the chosen axes."""

from pathlib import Path

import numpy as np
import pytest
from support.browser import Open
from support.factories import make_record, make_spec, make_sweep

from sweeper.report import ReportData, render, report_data
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, TrialRecord

RUN = RunFolder(Path("run-1"))
SPEC = make_spec("objectives=[rouge_l, unsafe_rate, over_refusal_rate]")
PLOT = "document.getElementById('front')"
SAID = "document.getElementById('trade-off-said').textContent"


def made() -> tuple[ReportData, list[TrialRecord]]:
    rng = np.random.default_rng(0)
    records = [
        make_record(
            identity=f"c{i:02}", learning_rate=1e-4 * (1 + i % 4), unsafe=(int(rng.integers(0, 9)), 256),
            utility=float(rng.integers(50, 80)) / 100,
        )
        for i in range(60)
    ]  # fmt: skip
    for record in records:
        assert isinstance(record.metrics, dict)
        record.metrics["over_refusal_rate"] = Metric.rate(int(rng.integers(0, 20)), 128)
    return report_data(RUN, records, SPEC, None), records


def best(records: list[TrialRecord], eligible: set[str], x: str, y: str) -> set[tuple[float, ...]]:
    """The non-dominated pairs of losses, by comparing all with all."""
    sign = {"rouge_l": -1.0}
    points = {
        tuple(sign.get(name, 1.0) * r.metrics[name].value for name in (x, y))
        for r in records if r.config_id in eligible
    }  # fmt: skip
    return {
        p for p in points
        if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
    }  # fmt: skip


def test_two_metrics_leave_nothing_to_choose() -> None:
    two = report_data(RUN, make_sweep(), make_spec("objectives=[rouge_l, unsafe_rate]"), None)
    assert two.axes is None and 'id="axis-x"' not in render(two)
    assert "The line is the front." in render(two)
    three, _ = made()
    assert three.axes is not None
    assert three.axes["metrics"] == [
        ["unsafe_rate", False, 0.05], ["rouge_l", True, None], ["over_refusal_rate", False, None]
    ]  # fmt: skip
    assert 0 < len(three.axes["eligible"]) < 60
    assert set(three.axes["members"]) <= set(three.axes["eligible"])


def test_the_line_is_the_front_of_the_chosen_axes_and_the_caption_counts_the_rest(
    opened: Open,
) -> None:
    data, records = made()
    assert data.axes is not None
    found = opened(render(data), at="trade-off")
    values = {r.config_id: r.metrics for r in records}
    for x, y in (
        ("unsafe_rate", "rouge_l"), ("over_refusal_rate", "rouge_l"), ("unsafe_rate", "over_refusal_rate"),
        ("rouge_l", "unsafe_rate"),
    ):  # fmt: skip
        line = found.value("([x, y]) => tradeOff.front(x, y).map(row => cells.ids[row])", [x, y])
        sign = {"rouge_l": -1.0}
        got = {tuple(sign.get(n, 1.0) * values[i][n].value for n in (x, y)) for i in line}
        assert got == best(records, set(data.axes["eligible"]), x, y)
        assert len(got) == len(line)
    first = found.value("tradeOff.front('unsafe_rate', 'rouge_l').map(row => cells.ids[row])")
    beside = len(set(data.axes["members"]) - set(first))
    assert f"{beside} of its {len(data.axes['members'])} members" in found.value(SAID)
    assert "all 3 objectives (rouge_l, unsafe_rate, over_refusal_rate)" in found.value(SAID)


def test_other_axes_keep_the_selection_and_the_way_back(opened: Open) -> None:
    data, _ = made()
    found = opened(render(data), at="trade-off")
    found.draw("front")
    found.value("page.select(['c01', 'c02', 'c03'], 'test')")
    found.draw("front")
    found.page.locator("#axis-x").select_option("over_refusal_rate")
    found.wait(f"{PLOT}.layout.xaxis.title.text.startsWith('over_refusal_rate')")
    assert "in over_refusal_rate and rouge_l alone" in found.value(SAID)
    dots = f"{PLOT}.data.find(t => t.customdata)"
    assert found.value(f"{dots}.selectedpoints.length") == 3
    assert found.value(f"[{dots}.marker.cmin, {dots}.marker.cmax]") == pytest.approx(
        [-4, np.log10(4e-4)]
    )
    found.page.locator("#axis-y").select_option("over_refusal_rate")
    assert found.value("document.getElementById('axis-x').value") == "rouge_l"
    found.page.locator("#axis-colour").select_option("unsafe_rate")
    found.wait(f"{dots}.marker.colorbar.title.text === 'unsafe_rate'")
    found.value("page.select(['c05'], 'test')")
    found.draw("front")
    assert found.value(f"{dots}.selectedpoints.length") == 1
    for name, value in (("y", "rouge_l"), ("x", "unsafe_rate"), ("colour", "learning_rate")):
        found.page.locator(f"#axis-{name}").select_option(value)
    found.wait(f"{PLOT}.layout.xaxis.title.text === 'unsafe rate (square-root scale)'")
    chosen = f"{PLOT}.data.flatMap(t => (t.selectedpoints ?? []).map(i => t.customdata?.[i]))"
    assert found.value(f"{chosen}.filter(Boolean)") == ["c05"]
