"""Another limit or confidence: what the page says is what `recommend` would say."""

from pathlib import Path

import numpy as np
import pytest
from support.browser import Open
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import find_front, recommend
from sweeper.report import render, report_data
from sweeper.report.what_if import CONFIDENCES, LIMITS, MOST, choices
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

RUN = RunFolder(Path("my run"))


def random_run(seed: int) -> list[TrialRecord]:
    """Rates and utilities drawn with a fixed seed, a higher rate with more utility."""
    rng = np.random.default_rng(seed)
    rates = np.sort(rng.beta(0.6, 4, 24))
    records = [base_record(identity="base")]
    for index, rate in enumerate(rates):
        utility = 0.5 + 0.3 * float(rate) ** 0.3 + 0.05 * float(rng.random())
        records.append(
            make_record(
                identity=f"c{index}",
                unsafe=(int(rng.binomial(256, rate)), 256),
                utility=utility,
                learning_rate=1e-4 * (1 + index),
            )
        )
    return records


@pytest.mark.parametrize("seed", range(6))
def test_every_choice_is_that_of_recommend(seed: int) -> None:
    records, spec = random_run(seed), make_spec()
    found = choices(records, spec)
    assert len(found) == len(LIMITS) * len(CONFIDENCES)
    for choice in found:
        rule = f"metric: unsafe_rate, max: {choice.limit}, confidence: {choice.confidence}"
        asked = make_spec(f"constraints=[{{{rule}}}]")
        front = find_front(records, asked)
        wanted = recommend(front, asked).chosen
        assert (choice.chosen and choice.chosen.config_id) == (wanted and wanted.config_id)
        assert choice.front == tuple(item.config_id for item in front.members)
    assert len({choice.chosen and choice.chosen.config_id for choice in found}) > 2


def test_a_limit_of_its_own_is_among_them_and_without_one_there_are_none() -> None:
    records = random_run(0)
    own = make_spec("constraints=[{metric: unsafe_rate, max: 0.042, confidence: 0.93}]")
    found = choices(records, own)
    assert len(found) == (len(LIMITS) + 1) * (len(CONFIDENCES) + 1)
    assert {0.042} < {choice.limit for choice in found}
    assert {0.93} < {choice.confidence for choice in found}
    assert choices(records, make_spec("constraints=[]")) == ()
    assert choices(records[1:2] * (MOST + 1), make_spec()) == ()


def test_the_page_says_what_was_worked_out(opened: Open) -> None:
    records, spec = make_sweep(), make_spec()
    data = report_data(RUN, records, spec, None)
    found = opened(render(data))
    page, said = found.page, found.page.locator("#what-if-answer")
    worked_out = {(c.limit, c.confidence): c for c in choices(records, spec)}
    assert data.choices is not None
    for limit in (0, 4, len(LIMITS) - 1):
        for confidence in (0, len(CONFIDENCES) - 1):
            page.locator("#what-if-limit").fill(str(limit))
            page.locator("#what-if-confidence").select_option(str(confidence))
            choice = worked_out[LIMITS[limit], CONFIDENCES[confidence]]
            text = said.inner_text()
            assert f"{len(choice.front)} configuration" in text
            if choice.chosen is None:
                assert "Nothing could be recommended" in text
            else:
                assert said.locator("[data-config]").get_attribute("data-config") == (
                    choice.chosen.config_id
                )
    said.get_by_role("button", name="show this front").click()
    assert found.value("[...page.selection()]") == list(choice.front)
    assert page.locator("#trade-off").is_visible()
