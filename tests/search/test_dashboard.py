"""The page of optuna-dashboard in a real browser: its best trials are the feasible front."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.dashboard import best_ids, served, shown_study
from support.factories import make_spec, make_sweep

from sweeper.analysis import find_front
from sweeper.search.live_study import LiveStudy

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.slow
def test_the_page_lists_the_front_as_best_trials(chromium: "Browser", tmp_path: Path) -> None:
    spec = make_spec("space.batch_size={values: [8, 16, 32]}")
    records = make_sweep(spec)
    front = find_front(records, spec)
    # Without the constraints others would be the best: the page must not show them.
    assert len(front.members) >= 2
    assert {item.config_id for item in front.trade_off} - {i.config_id for i in front.members}
    path = tmp_path / "study.journal"
    with LiveStudy(spec, path) as live:
        for record in records:
            live.on_record(record)
    number, detail = shown_study(path, spec.name)
    assert best_ids(detail) == {item.config_id for item in front.members}

    errors: list[str] = []
    outside: list[str] = []
    page = chromium.new_page(viewport={"width": 1500, "height": 2600})
    page.on("pageerror", lambda error: errors.append(str(error)))
    with served(path) as address:
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(address) else outside.append(request.url)
            ),
        )
        page.goto(f"{address}/dashboard/studies/{number}")
        card = page.locator(".MuiCard-root", has_text="Best Trials").last
        card.get_by_text(re.compile(r"^Trial \d+$")).first.wait_for()
        listed = card.get_by_text(re.compile(r"^Trial \d+$")).all_inner_texts()
        values = card.get_by_text(re.compile("^Objective Values")).all_inner_texts()
        page.wait_for_load_state("networkidle")
        if picture := os.environ.get("SWEEPER_DASHBOARD_PICTURE"):
            page.screenshot(path=picture)
    page.close()
    assert [int(text.removeprefix("Trial ")) for text in listed] == sorted(
        trial["number"] for trial in detail["best_trials"]
    )
    assert len(listed) == len(front.members)
    shown = sorted(tuple(map(float, text.split("[")[1].rstrip("]").split(","))) for text in values)
    names = [objective.metric for objective in spec.objectives]
    assert shown == sorted(tuple(item.values[name] for name in names) for item in front.members)
    assert errors == []
    assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []
