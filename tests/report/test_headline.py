"""The head of the page: its sentence, picture and numbers, and how far the answer is confirmed."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.decisions import drive_in_process, halved, swept
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis.decision import Decision
from sweeper.report import ReportData, render, report_data
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records

RUN = RunFolder(Path("my run"))


def made(records: list[TrialRecord], *overrides: str) -> ReportData:
    return report_data(RUN, records, make_spec(*overrides), None)


def pair(raw: int, averaged: int, average: str, utility: float = 0.7) -> list[TrialRecord]:
    """An averaged configuration and its control without averaging, and the untouched model."""
    settings: dict[str, Any] = {"learning_rate": 4e-3, "max_steps": 200}
    return [
        base_record(identity="base"),
        make_record(identity="raw", average="raw", unsafe=(raw, 256), utility=0.71, **settings),
        make_record(
            identity="avg", average=average, unsafe=(averaged, 256), utility=utility, **settings
        ),
    ]


@pytest.mark.parametrize(
    ("average", "subject"),
    [
        ("interpolate(0.15)", "Mixing 15 % of the original weights back"),
        ("ema(0.99)", "Averaging the weights along the run (EMA 0.99)"),
    ],
)
def test_an_average_is_told_by_what_it_changes(average: str, subject: str) -> None:
    head = made(pair(60, 2, average)).headline
    words = head.sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert words.startswith(f"{subject} cuts unsafe answers from 23.4 % to 0.8 % and costs 0.010 ")
    assert head.config_id == "avg"


def test_a_loss_is_lowered_or_raised() -> None:
    for utility, words in (
        (0.7, "raises heldout_loss by 0.010"),
        (0.8, "lowers heldout_loss by 0.090"),
    ):
        records = pair(60, 2, "ema(0.99)", utility)
        head = made(records, "objectives=[heldout_loss, unsafe_rate]").headline
        assert words in head.sentence


def test_what_the_data_cannot_tell_apart_is_not_significant() -> None:
    near, far = (made(pair(9, k, "ema(0.99)")).headline.sentence for k in (5, 0))
    assert "(not significant)" in near.partition(" and ")[0]
    assert "(not significant)" not in far.partition(" and ")[0]


def test_a_raw_recommendation_is_compared_with_the_defaults_or_told_by_itself() -> None:
    alone = [base_record(identity="base"), make_record(identity="one", unsafe=(1, 256))]
    assert re.match(r"With .*0\.4.% of answers are unsafe, at ", made(alone).headline.sentence)


def test_nothing_safe_enough_is_said() -> None:
    records = [base_record(identity="base"), make_record(identity="bad", unsafe=(200, 256))]
    head = made(records).headline
    assert head.sentence == "No configuration of this sweep is known to be safe enough."
    assert (head.confirmed, head.state, head.command) == (False, "Nothing to confirm.", "")
    assert [card.title for card in head.cards] == ["Cost of the sweep"]


def test_an_answer_of_the_search_alone_says_so_and_what_confirms_it() -> None:
    head = made(pair(60, 2, "ema(0.99)")).headline
    assert not head.confirmed
    assert head.state.startswith("Not confirmed: measured in the search only, under 1 seed,")
    assert head.command == "sweeper recommend 'my run' --confirm"


def test_the_picture_has_one_axis_that_holds_every_interval_and_the_limit() -> None:
    head = made(pair(60, 2, "ema(0.99)")).headline
    bars = {bar.name: bar for bar in head.bars}
    assert list(bars) == ["untouched model", "without averaging", "recommended"]
    assert [bar.chosen for bar in head.bars] == [False, False, True]
    top = float(head.ticks[-1][1].removesuffix(" %")) / 100
    assert head.ticks[0] == (0, "0 %") and head.ticks[-1][0] == pytest.approx(100)
    assert bars["without averaging"].at == pytest.approx(100 * 60 / 256 / top)
    assert all(0 <= bar.low <= bar.at <= bar.high <= 100 for bar in head.bars)
    assert head.limit == pytest.approx(100 * 0.05 / top)
    assert bars["recommended"].text == "0.8 %"
    assert bars["recommended"].detail.startswith("2/256, ")


def test_the_page_shows_the_head_first() -> None:
    data = made(make_sweep())
    page = render(data)
    assert page.index(data.headline.state) < page.index('id="why"')
    assert len(re.findall(r'<div class="card">', page)) == 3
    assert page.count('<svg viewBox="-2 0 104 20"') == len(data.headline.bars)


def test_a_decided_answer_is_confirmed_or_refuted_and_compares_only_what_was_trained_again(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    spec = halved(tiny_spec_text)
    outcome = swept(spec, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    records = list(read_records(folder.records).records)
    head = report_data(folder, records, spec, None).headline
    assert isinstance(outcome.decision, Decision) and outcome.decision.survivor is not None
    assert head.confirmed and head.command == ""
    assert head.state.startswith("Confirmed: it holds when trained again under ")
    bars = {bar.name: bar for bar in head.bars}
    assert bars["recommended"].source == "trained again"
    said = head.sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert bars["recommended"].text in said
    assert all(bar.source == "trained again" for bar in head.bars if f"from {bar.text} to" in said)


def test_an_unfinished_run_says_so_far_wherever_it_answers() -> None:
    records = pair(60, 2, "ema(0.99)")
    part = report_data(RUN, records, make_spec(), {"readouts": 14})
    assert part.headline.so_far == "so far: 3 of 14 records" and part.headline.command == ""
    assert part.headline.sentence.startswith("So far, averaging the weights along the run (EMA")
    assert part.answer.startswith("So far, ")
    assert '<p class="so-far">so far: 3 of 14 records</p>' in render(part)
    nothing = report_data(RUN, records[:1], make_spec(), {"readouts": 14})
    assert nothing.headline.sentence.startswith("So far, no configuration of this sweep")
    assert nothing.headline.state == "Nothing to confirm yet."
    for account in ({"readouts": 3}, None):
        whole = report_data(RUN, records, make_spec(), account)
        assert whole.headline.so_far == "" and not whole.headline.sentence.startswith("So far")
        assert whole.headline.command and 'class="so-far"' not in render(whole)
