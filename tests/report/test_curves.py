"""Training curves, curves along the steps, and the effect of averaging: values and what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec, make_sweep, with_samples

from sweeper.analysis import find_front, recommend
from sweeper.report.averaging import averaging_pairs
from sweeper.report.data import report_data
from sweeper.report.factorial import MOST_AVERAGES, MOST_RANGES, factorial_infos
from sweeper.report.figures import step_figure
from sweeper.report.figures.draw_panels import factorial_figure
from sweeper.report.figures.draw_training import training_figure
from sweeper.report.figures.factorial import FactorialInfo
from sweeper.report.figures.levels import MOST_LEVELS
from sweeper.report.figures.training import (
    MOST_CURVES,
    MOST_POINTS,
    Readout,
    TrainingInfo,
    read_losses,
    training_info,
)
from sweeper.report.page import render
from sweeper.report.sections import sections
from sweeper.stats import wilson_interval
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

HOSTILE = "</script><img src=x onerror=alert(1)>%{x}"


def curves(run: RunFolder, records: list[TrialRecord]) -> TrainingInfo | None:
    spec = make_spec()
    front = find_front(records, spec)
    return training_info(run, front, recommend(front, spec))


def write(run: RunFolder, record: TrialRecord, content: object) -> None:
    storage = run.trial(record.trajectory_id)
    storage.create()
    text = content if isinstance(content, str) else json.dumps(content)
    storage.progress.write_text(text, encoding="utf-8")


# Training curves


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"losses": 3}',
        '{"losses": ["a"]}',
        '{"losses": [true]}',
        "[" * 99999,
    ],
)
def test_a_damaged_file_is_no_curve(tmp_path: Path, content: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(content, encoding="utf-8")
    assert read_losses(path) is None
    assert read_losses(tmp_path / "missing.json") is None
    path.write_bytes(b"\xff\xfe{")
    assert read_losses(path) is None


def test_losses_that_are_not_finite_are_none_and_other_keys_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text('{"step": 4, "losses": [2, 1.5, NaN, Infinity, null]}', encoding="utf-8")
    assert read_losses(path) == (2.0, 1.5, None, None, None)


def test_a_curve_is_thinned_with_its_ends_and_its_readouts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record = make_record(max_steps=777, identity="a")
    early = make_record(max_steps=333, average="ema(0.99)", identity="b", unsafe=(50, 256))
    raw = make_record(max_steps=333, identity="c", unsafe=(60, 256))
    losses = [5.0 / step for step in range(1, 1001)]
    write(run, record, {"losses": losses, "stage": "train"})
    info = curves(run, [base_record(), record, early, raw])
    assert info is not None
    (curve,) = info.curves
    assert curve.group == "recommended"
    assert curve.trained == 1000
    assert len(curve.steps) <= MOST_POINTS
    assert (curve.steps[0], curve.steps[-1]) == (1, 1000)
    assert {333, 777} <= set(curve.steps)
    assert all(
        losses[step - 1] == loss for step, loss in zip(curve.steps, curve.losses, strict=True)
    )
    assert curve.readouts == (Readout(333, 5 / 333, "c"), Readout(777, 5 / 777, "a"))
    assert curve.values == "", (
        "nothing of it differs between its configurations but steps and average"
    )
    assert info._replace(curves=()) == TrainingInfo((), 1, 0, 0, 0)
    line, marks = training_figure(info).data
    assert list(marks.customdata) == ["c", "a"]
    assert np.asarray(line.x).tolist() == list(curve.steps)


def test_missing_damaged_and_divergent_curves_are_counted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rates = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)
    records = [make_record(learning_rate=rate, unsafe=(0, 256)) for rate in rates]
    write(run, records[0], {"losses": [3.0, 2.0]})
    write(run, records[1], "{broken")
    write(run, records[2], {"losses": [3.0, float("nan"), float("inf"), 4.0]})
    write(run, records[3], {"losses": []})
    info = curves(run, records)
    assert info is not None
    assert {curve.losses for curve in info.curves} == {(3.0, 2.0), (3.0, 4.0)}
    assert {curve.steps for curve in info.curves} == {(1, 2), (1, 4)}
    assert (info.trajectories, info.missing, info.unshown, info.gaps) == (5, 3, 0, 2)
    assert curves(RunFolder(tmp_path / "none"), records) is None
    assert curves(run, []) is None


def test_of_many_curves_those_that_matter_and_a_spread_are_shown(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    records = [base_record(), make_record(role="default", learning_rate=9e-9, unsafe=(99, 256))]
    records += [
        make_record(learning_rate=i * 1e-5, unsafe=(i, 256), utility=0.5, identity=f"c{i}")
        for i in range(1, 120)
    ]
    for record in records[1:]:
        write(run, record, {"losses": [2.0, 1.0]})
    info = curves(run, records)
    assert info is not None
    assert len(info.curves) == MOST_CURVES
    assert (info.trajectories, info.missing, info.unshown) == (120, 0, 120 - MOST_CURVES)
    groups = [curve.group for curve in info.curves]
    assert groups[-1] == "recommended"
    assert groups.count("trainers' defaults") == 1
    shown = [curve.values for curve in info.curves if curve.group == "others"]
    assert any("lr 1.19e-3" in text for text in shown), "the ends are kept"
    assert (
        training_figure(info).layout.yaxis.range[0]
        < 1.0
        < 2.0
        < training_figure(info).layout.yaxis.range[1]
    )
    assert sum(trace.showlegend is True for trace in training_figure(info).data) == len(set(groups))


def test_a_readout_behind_a_decay_tail_is_not_on_the_curve(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record = make_record(
        max_steps=2, lr_scheduler_type="warmup_stable_decay", decay_steps=1, identity="tail"
    )
    write(run, record, {"losses": [3.0, 2.0]})
    info = curves(run, [record])
    assert info is not None
    assert info.curves[0].readouts == ()


# Along the steps


def test_the_steps_are_a_chart_with_their_table() -> None:
    spec = make_spec()
    records = [
        make_record(
            max_steps=steps,
            average=average,
            unsafe=(steps // 40, 256),
            identity=f"{average}-{steps}",
        )
        for steps in (40, 80)
        for average in ("raw", "ema(0.99)")
    ]
    data = report_data(RunFolder(Path("run-1")), records, spec, None)
    section = sections(data.charts, data.curves)[0]
    assert section.identity == "steps"
    chart = section.charts[1]
    assert chart.title == "unsafe_rate"
    assert chart.rows == tuple(
        (f"{average}-{steps}", average, steps, k / 256, *wilson_interval(k, 256))
        for average in ("raw", "ema(0.99)")
        for k, steps in ((1, 40), (2, 80))
    )
    drawn = step_figure(data.curves[1]).data
    assert [list(trace.customdata) for trace in drawn] == [
        ["raw-40", "raw-80"],
        ["ema(0.99)-40", "ema(0.99)-80"],
    ]
    page = render(data)
    assert page.count('<section id="steps">') == 1
    assert f"<td>{1 / 256}</td>" in page


# The effect of averaging


def effects(records: list[TrialRecord]) -> tuple[FactorialInfo, ...]:
    spec = make_spec()
    return factorial_infos(averaging_pairs(find_front(records, spec), spec), spec)


def pair(rate: float, *, raw: str, averaged: str, label: str = "ema(0.99)") -> list[TrialRecord]:
    return [
        with_samples({"unsafe_rate": verdicts}, learning_rate=rate, average=average)
        for verdicts, average in ((raw, "raw"), (averaged, label))
    ]


def test_an_effect_is_the_mean_of_pairs_without_an_interval_of_too_few() -> None:
    records = [
        *pair(1e-4, raw="1" * 10 + "0" * 90, averaged="1" * 10 + "0" * 90),
        *pair(1e-3, raw="1" * 60 + "0" * 40, averaged="0" * 100),
    ]
    (info,) = effects(records)
    assert info.against == "without averaging"
    assert info.levels("learning_rate") == ("0.0001", "0.001")
    assert dict(info.maximize) == {"unsafe_rate": False, "rouge_l": True}
    same, better = [p for p in info.points if p.metric == "unsafe_rate"]
    assert {p.factor for p in info.points} == {"learning_rate"}, "the others have one level"
    assert (same.mean, same.wins, same.losses, same.ties) == (0.0, 0, 0, 1)
    assert (same.low, same.high) == (None, None), "one pair of runs says nothing about others"
    assert (better.level, better.mean, better.wins) == ("0.001", -0.6, 1)
    assert (better.low, better.high) == (None, None)
    utility = next(p for p in info.points if p.metric == "rouge_l")
    assert (utility.mean, utility.low, utility.high) == (0.0, None, None), "no rows, no interval"
    drawn = json.loads(factorial_figure(info).to_json())
    assert drawn["data"][0]["y"] == [0.0, -0.6]
    assert drawn["layout"]["yaxis"]["range"][0] < better.mean


def test_the_legend_names_an_average_that_the_first_panel_lacks() -> None:
    (info,) = effects(make_sweep())
    lacking = [p for p in info.points if (p.metric, p.average) != ("unsafe_rate", "ema(0.95)")]
    drawn = json.loads(factorial_figure(info._replace(points=tuple(lacking))).to_json())
    named = [trace["name"] for trace in drawn["data"] if trace["showlegend"]]
    assert sorted(named) == sorted({p.average for p in info.points})


def test_each_control_has_a_figure_where_it_has_several_levels() -> None:
    infos = effects(make_sweep())
    assert [info.against for info in infos] == ["without averaging"], "the others have one pair"
    (info,) = infos
    assert {p.average for p in info.points} == {
        "ema(0.95)",
        "ema(0.99)",
        "interpolate(0.5)",
        "feedback(0.9, every=4)",
    }
    unsafe = [p for p in info.points if p.metric == "unsafe_rate" and p.factor == "max_steps"]
    assert all(p.wins + p.losses + p.ties == p.pairs for p in unsafe)
    assert effects([make_record(), make_record(learning_rate=1e-3)]) == ()


def test_very_many_levels_are_ranges_and_very_many_averages_kinds() -> None:
    rates = np.geomspace(1e-5, 1e-3, MOST_LEVELS + 10).tolist()
    labels = [f"ema(0.{90 + i})" for i in range(MOST_AVERAGES + 1)]
    records = [
        make_record(learning_rate=rate, average=label)
        for rate in rates
        for label in ("raw", *labels)
    ]
    (info,) = effects(records)
    assert {p.average for p in info.points} == {"ema"}
    assert len(info.levels("learning_rate")) == MOST_RANGES
    assert info.levels("learning_rate")[0].startswith("1e-05 to ")
    total = sum(p.pairs for p in info.points if p.metric == "unsafe_rate")
    assert total == len(rates) * len(labels)


# All of them


def test_hostile_texts_stay_text(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    records = [
        make_record(
            learning_rate=rate,
            max_steps=steps,
            average=average,
            template=template,
            identity=f"{HOSTILE}-{rate}-{steps}-{average}-{template}",
        )
        for rate in (1e-4, 1e-3)
        for steps in (40, 80)
        for average in ("raw", f"ema({HOSTILE}=0.5)")
        for template in (HOSTILE, "chat")
    ]
    for record in records:
        write(run, record, {"losses": [3.0, 2.0], HOSTILE: HOSTILE})
    data = report_data(run, records, make_spec(), None)
    found = sections(data.charts, data.curves)
    names = {section.identity for section in found}
    assert {"steps", "averaging-effect", "training"} <= names
    page = render(data)
    assert "<img" not in page
    text = "".join(chart.figure for section in found for chart in section.charts)
    assert text.count("</script>") == text.count("<script")
    training = next(s for s in found if s.identity == "training").charts[0].figure
    assert "%{x}&gt;" not in training and "onerror=alert(1)&gt;%{" not in training


def test_the_head_of_a_chart_of_averaging_is_a_whole_phrase(tmp_path: Path) -> None:
    data = report_data(RunFolder(tmp_path), make_sweep(seed=3), make_spec(), None)
    made = sections(data.charts, data.curves, chosen=data.found)
    section = next(each for each in made if each.identity == "averaging-effect")
    heads = [chart.title for chart in section.charts]
    assert "Compared with training without averaging" in heads
