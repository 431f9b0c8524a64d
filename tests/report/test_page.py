"""The head of the report and its style: warnings, facts, packed samples, contrast."""

import base64
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec, make_sweep, with_samples

from sweeper.analysis import UNTOUCHED, find_front, recommend
from sweeper.analysis.recommend import Decided
from sweeper.judges import RejudgedRecords
from sweeper.judges.rejudged import InsufficientCoverage
from sweeper.report import ReportData, pairs, render, report_data
from sweeper.report.figures import MANY, front_figure, front_info
from sweeper.report.warnings import warnings
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

RUN = RunFolder(Path("run"))


def made(
    records: list[TrialRecord], *overrides: str, account: dict[str, Any] | None = None
) -> ReportData:
    return report_data(RUN, records, make_spec(*overrides), account)


def told(data: ReportData, start: str) -> str:
    (text,) = [text for text in data.warnings if text.startswith(start)]
    return text


THREE = "seeds=[0, 1, 2]"


def whole(**changes: Any) -> list[TrialRecord]:
    """A run of which nothing has to be said: a base, defaults and one better, under three seeds."""
    return [
        record
        for seed in (0, 1, 2)
        for record in (
            base_record(seed=seed, identity="base"),
            make_record(seed=seed, identity="default", role="default"),
            make_record(seed=seed, identity="a", utility=0.95, **changes),
        )
    ]


def test_a_run_without_shortcomings_has_no_warning() -> None:
    assert made(whole(), THREE, account={"readouts": 9}).warnings == ()


def test_few_prompts_are_told_with_what_they_cannot_show() -> None:
    text = told(made(whole(unsafe=(0, 20)), THREE), "Few prompts")
    assert "with 20 harmful prompts no measured rate, not even zero" in text
    free = made(whole(unsafe=(0, 40)), THREE, "constraints=[{metric: unsafe_rate, max: 0.5}]")
    assert "Even without one unsafe response the 95 % interval reaches 8.8 %" in told(
        free, "Few prompts"
    )


def test_few_prompts_of_the_search_are_no_caveat_of_what_was_decided_on_others() -> None:
    spec = make_spec(THREE, "constraints=[{metric: unsafe_rate, max: 0.5}]")
    front = find_front(whole(unsafe=(0, 40)), spec)
    for holds, expected in (("a", False), (None, True)):
        found = recommend(front, spec, decided=Decided(holds, "so it was decided"))
        texts = warnings(front, found, spec, {}, None)
        assert any(text.startswith("Few prompts") for text in texts) == expected


def test_few_seeds_are_told() -> None:
    assert "1 training run of each" in told(made(make_sweep()), "Few seeds")


def test_an_interrupted_run_says_how_much_is_missing() -> None:
    text = told(made(whole(), THREE, account={"readouts": 15}), "So far")
    assert "6 of 15 planned records are missing" in text


def test_what_is_infeasible_useless_or_not_measured_is_told() -> None:
    none = made([make_record(identity="a", unsafe=(200, 256))])
    assert none.reason in told(none, "Nothing to recommend")
    assert told(none, f"The {UNTOUCHED} was not measured")
    assert told(none, "The trainers' defaults were not measured")
    same = made([base_record(utility=0.9), make_record(identity="a", utility=0.9)])
    assert "1 of 1 complete configurations" in told(same, "No gain")
    lost = made([make_record(identity="a"), make_record(identity="b", status="failed")])
    assert told(lost, "1 of 2 records failed")


def test_what_a_judge_left_open_is_told() -> None:
    records = [base_record(), make_record(identity="a")]
    short = InsufficientCoverage("a", 0, "100 of 256 decided")
    judged = RejudgedRecords(
        tuple(records), "guard", "0" * 16, ("unsafe_rate",), 0.9, 0.95, (short,), {"unsafe_rate": 2}
    )
    data = report_data(RUN, records, make_spec(), None, judged=judged)
    assert "1 records lack a rate of guard" in told(data, "Judge coverage")


def test_the_head_says_what_was_spent_and_saved() -> None:
    account = {
        "trajectories": 29,
        "readouts": 139,
        "steps_alone": 19800,
        "steps_planned": 5480,
        "ratio": 3.613,
    }
    data = made(make_sweep(), account=account)
    facts = dict(data.facts)
    assert facts["configurations compared"] == f"{len(data.front.points)}"
    assert facts["training runs"] == "29"
    assert facts["saved by sharing"] == "at least 3.6-fold, 14,320 optimizer steps"
    assert "worker time spent" in facts
    page = render(data)
    assert all(text in page for text in facts.values())
    assert ("template", "chat") in data.constants
    assert "learning_rate" not in dict(data.constants)


def sampled(identity: str, seed: int = 0, **changes: Any) -> TrialRecord:
    samples: dict[str, str | tuple[float, ...]] = {
        "unsafe_rate": "1000000001",
        "rouge_l": (0.25, 0.5, 1.0),
    }
    return with_samples(samples, identity=identity, seed=seed, **changes)


def test_verdicts_are_packed_in_bits_and_rows_at_full_precision() -> None:
    found = made([sampled("a"), sampled("b", max_steps=80)]).pairs
    assert found["metrics"] == ["rouge_l", "unsafe_rate"]
    assert (found["confidence"], found["z"]) == (0.95, pytest.approx(1.959964))
    unsafe = found["of"]["a"]["metrics"]["unsafe_rate"]
    (text,) = unsafe["samples"]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:10]
    assert "".join(map(str, bits)) == "1000000001"
    assert (unsafe["value"], unsafe["n"], unsafe["verdicts"]) == (0.2, 10, True)
    (text,) = found["of"]["a"]["metrics"]["rouge_l"]["samples"]
    assert np.frombuffer(base64.b64decode(text), "<f8").tolist() == [0.25, 0.5, 1.0]


def test_what_does_not_fit_is_left_out_last_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [sampled(f"c{i}", max_steps=40 + i, utility=0.5) for i in range(5)]
    records.append(sampled("base", role="base", max_steps=0))
    size = len(base64.b64encode(bytes(2))) + len(base64.b64encode(bytes(24)))
    monkeypatch.setattr(pairs, "BUDGET", 3 * size)
    found = made(records).pairs
    assert len(found["of"]) == 3
    assert "base" in found["of"]
    assert found["left_out"] == 3


def test_of_many_points_those_of_the_front_alone_have_bars() -> None:
    spec = make_spec()
    info = front_info(find_front(make_sweep(), spec), spec, None)
    times = MANY // len(info.points) + 1
    large = info._replace(points=info.points * times)
    for given in (info, large):
        for trace in front_figure(given).data:
            if trace.customdata is None or trace.name == "untouched model":
                continue
            bars = trace.error_x.array is not None
            assert bars == (given is info or trace.name.endswith("on the front"))


def test_controls_are_crossed_out_for_the_eye() -> None:
    spec = make_spec()
    info = front_info(find_front(make_sweep(), spec), spec, None)
    crosses = {
        trace.name: len(trace.x)
        for trace in front_figure(info).data
        if str(trace.marker.symbol).endswith("-thin")
    }
    assert crosses == {"trainers' defaults": 1, "controls (2)": 2}


def colours(scheme: str) -> dict[str, str]:
    style = (resources.files("sweeper.report") / "assets" / "page.css").read_text(encoding="utf-8")
    light, dark, paper = re.findall(r":root \{(.*?)\}", style, re.S)
    blocks = {"light": light, "dark": light + dark, "print": light + paper}
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", blocks[scheme]))


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_texts_and_edges_have_the_contrast_of_wcag_aa(scheme: str) -> None:
    found = colours(scheme)
    grounds = ("ground", "panel", "stripe", "good-ground", "warn-ground", "chosen-ground")
    for ink in ("ink", "quiet", "accent", "good"):
        for ground in grounds:
            ratio = contrast(found[ink], found[ground])
            assert ratio >= 4.5, f"{ink} on {ground}: {ratio:.2f}"
    for ground in ("ground", "panel"):
        assert contrast(found["edge"], found[ground]) >= 3


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.005)
