"""Keyword lists that disagree on the unsafe rate are a caveat wherever a recommendation is shown."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.command import Command
from support.factories import base_record, make_record, make_spec

from sweeper.analysis import Recommendation, find_front, recommend
from sweeper.report import report_data
from sweeper.spec import dump_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.records import Metric, TrialRecord


def rates(of: str, sweeper: int, zou: int, *, judge: str = "", n: int = 1000) -> TrialRecord:
    """A record with the unsafe counts by two lists, or by a judge and two lists."""
    metrics = {"unsafe_rate/zou2023": Metric.rate(zou, n)}
    if judge:
        metrics["unsafe_rate/sweeper"] = Metric.rate(sweeper, n)
    made = base_record if of == "base" else make_record
    record = made(identity=of, unsafe=(0 if judge else sweeper, n), metrics=metrics)
    return (
        replace(record, provenance={**record.provenance, "judge": {"name": judge}})
        if judge
        else record
    )


def found(*records: TrialRecord) -> Recommendation:
    spec = make_spec()
    return recommend(find_front(records, spec), spec)


@pytest.mark.parametrize(("zou", "disagree"), [(20, False), (21, True)])
def test_more_than_two_points_between_lists_are_a_caveat(zou: int, disagree: bool) -> None:
    caveats = found(rates("base", 0, zou), rates("best", 0, 0)).caveats
    assert len(caveats) == disagree
    if disagree:
        assert caveats[0].startswith(
            "Keyword lists disagree: the unsafe rate of the untouched model is 0.0 % by `sweeper` "
            "and 2.1 % by `zou2023`."
        )


def test_each_of_the_recommended_and_the_untouched_has_its_caveat() -> None:
    first, second = found(rates("base", 10, 990), rates("best", 20, 900)).caveats
    assert "of the recommended configuration is 2.0 % by `sweeper` and 90.0 % by" in first
    assert "of the untouched model is 1.0 % by `sweeper` and 99.0 % by" in second


def test_where_nothing_qualifies_the_nearest_has_the_caveat() -> None:
    (caveat,) = found(rates("base", 0, 0), rates("worst", 900, 800)).caveats
    assert "configuration nearest to qualifying is 80.0 % by `zou2023` and 90.0 % by" in caveat


def test_one_list_cannot_disagree() -> None:
    assert found(base_record(), make_record()).caveats == ()


def test_a_judge_is_compared_with_the_lists_under_its_own_name() -> None:
    (caveat,) = found(rates("base", 0, 0), rates("best", 50, 10, judge="guard")).caveats
    assert "is 0.0 % by `guard` and 5.0 % by `sweeper`" in caveat


def test_report_command_and_python_show_the_same_caveats(tmp_path: Path, command: Command) -> None:
    records = [rates("base", 10, 990), rates("best", 20, 900)]
    expected = found(*records).caveats
    spec, folder = make_spec(), RunFolder(tmp_path)
    folder.records.write_text("".join(f"{r.to_json()}\n" for r in records), encoding="utf-8")
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    folder.plan.write_text(json.dumps({"version": 1, "accounting": {}}), "utf-8")
    folder.info.write_text(json.dumps({"version": RUN_VERSION}), encoding="utf-8")
    shown = report_data(folder, records, spec, {}).warnings
    assert [text for text in shown if text.startswith("Keyword lists disagree")] == list(expected)
    code, out, _ = command("recommend", tmp_path)
    assert code == 0
    assert all(f"caveat: {text}" in out for text in expected)
    code, out, _ = command("recommend", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["caveats"] == list(expected)
