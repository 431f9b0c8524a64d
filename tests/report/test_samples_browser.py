"""The sample viewer in a real browser: filters, marks, paging, and that hostile text stays text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import wait_until
from support.judged_run import standard_run, write_list
from support.viewer_run import (
    HARMLESS_TEXT,
    PLANTED,
    PLANTED_PROMPT,
    SPEC,
    records_of,
    responses,
    viewer_run,
)

from sweeper.judges import KeywordJudge, rescore
from sweeper.report import render, report_data
from sweeper.report.samples import gather
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return viewer_run(tmp_path_factory.mktemp("viewer"))


def write_page(run: RunFolder, name: str, redact: bool = False) -> Path:
    records = records_of(run)
    data = report_data(run, records, SPEC, None)
    samples = gather(run, records, SPEC, data, redact=redact)
    text = render(data, samples)
    path = run.root / name
    path.write_text(text, encoding="utf-8")
    return path


def complaints(said: Any) -> list[str]:
    """What a console message complains of; how fast a software WebGL is does not count."""
    bad = said.type in ("error", "warning") and "GL Driver Message" not in said.text
    return [said.text] if bad else []


@pytest.fixture(scope="module")
def watched(chromium: Any, run: RunFolder) -> Iterator[Any]:
    """One page for all tests of this file: opening takes longer than any of them."""
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.problems = []
    page.requests = []
    page.on("console", lambda said: page.problems.extend(complaints(said)))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(f"{write_page(run, 'report.html').as_uri()}#responses")
    page.select_option("#sample-order", "stored")
    yield page
    page.close()


@pytest.fixture
def viewer(watched: Any) -> Any:
    """The page as it is when opened: the recommended configuration, no filter."""
    watched.select_option("#sample-configuration", "open")
    watched.select_option("#sample-seed", "0")
    watched.select_option("#sample-suite", "")
    watched.select_option("#sample-column", "0")
    watched.fill("#sample-search", "")
    for box in watched.locator("#viewer input[type=checkbox]").all():
        box.set_checked(False)
    return watched


def stored(run: RunFolder, config_id: str, seed: int = 0) -> list[dict[str, Any]]:
    record = next(item for item in records_of(run) if item.key == (config_id, seed))
    text = responses(run, record).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def ids(page: Any) -> list[str]:
    """The ids on all pages, in order."""
    found: list[str] = []
    while True:
        found += page.locator(".sample h3 bdi").all_text_contents()
        later = page.get_by_role("button", name="Next")
        if later.is_disabled():
            return found
        later.click()


def refused(line: dict[str, Any], name: str) -> bool | None:
    return line["verdicts"][name]["refusal"] if "verdicts" in line else None


def oracle(run: RunFolder, config_id: str, name: str) -> dict[str, list[str]]:
    """Which ids each filter must keep, from the files alone."""
    base = {line["id"]: line for line in stored(run, "base")}
    lines = stored(run, config_id)
    judged = [line for line in lines if "verdicts" in line]
    return {
        "unsafe": [x["id"] for x in judged if x["suite"] == "harmful" and not refused(x, name)],
        "refused": [x["id"] for x in judged if x["suite"] == "harmless" and refused(x, name)],
        "disagree": [x["id"] for x in judged if refused(x, "sweeper") != refused(x, "zou2023")],
        "flipped": [x["id"] for x in judged if refused(x, name) != refused(base[x["id"]], name)],
    }


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("config_id", ["open", "hostile", "stopped"])
def test_filters_keep_what_the_files_say(
    viewer: Any, run: RunFolder, config_id: str, column: int
) -> None:
    viewer.select_option("#sample-configuration", config_id)
    viewer.select_option("#sample-column", str(column))
    wanted = oracle(run, config_id, ("sweeper", "zou2023")[column])
    assert any(wanted.values())
    for name, expected in wanted.items():
        viewer.check(f"#sample-{name}")
        assert ids(viewer) == expected, name
        label = viewer.locator("label", has=viewer.locator(f"#sample-{name}"))
        assert label.text_content().endswith(f"({len(expected)})")
        viewer.uncheck(f"#sample-{name}")
    viewer.check("#sample-unsafe")
    viewer.check("#sample-disagree")
    both = [each for each in wanted["unsafe"] if each in wanted["disagree"]]
    assert ids(viewer) == both


def test_the_table_counts_the_stored_verdicts(viewer: Any, run: RunFolder) -> None:
    rows = [
        row.locator("td").all_text_contents() for row in viewer.locator(".counts tbody tr").all()
    ]
    for cells, name in zip(rows, ("sweeper", "zou2023"), strict=True):
        wanted = oracle(run, "open", name)
        assert cells[0] == f"{len(wanted['unsafe'])}/103"
        assert cells[1] == f"{len(wanted['refused'])}/12"
        assert cells[2].startswith(f"{len(wanted['flipped'])} (")


def test_pages_suites_seeds_and_words(viewer: Any, run: RunFolder) -> None:
    everything = [line["id"] for line in stored(run, "open")]
    count = viewer.locator("#sample-count")
    assert count.text_content() == "showing 1 to 25 of 117"
    assert viewer.locator(".sample").count() == 25
    assert ids(viewer) == everything
    assert count.text_content() == "showing 101 to 117 of 117"
    viewer.select_option("#sample-suite", label="harmless")
    assert count.text_content() == "showing 1 to 12 of 12 (filtered from 117)"
    viewer.select_option("#sample-suite", "")
    viewer.fill("#sample-search", PLANTED_PROMPT.upper())
    assert ids(viewer) == ["harmful-005"]
    viewer.fill("#sample-search", "no such words")
    assert count.text_content() == "no prompt of 117 passes these filters"
    viewer.fill("#sample-search", "")
    viewer.select_option("#sample-seed", "1")
    viewer.check("#sample-unsafe")
    assert ids(viewer) == []


def test_a_turned_page_is_shown_from_its_first_prompt(viewer: Any) -> None:
    viewer.locator(".sample").nth(24).scroll_into_view_if_needed()
    viewer.get_by_role("button", name="Next").click()
    first = "document.querySelector('.sample').getBoundingClientRect().top"
    wait_until(viewer, f"{first} > 40 && {first} < 120")
    assert viewer.locator(".sample h3 bdi").first.text_content() == "harmful-025"
    pager = viewer.locator(".sample-pager").bounding_box()
    assert pager["y"] < 10


def test_harmful_texts_are_collapsed_and_harmless_ones_are_not(viewer: Any) -> None:
    assert PLANTED not in viewer.locator("#viewer").inner_text()
    assert viewer.locator(".sample details[open]").count() == 0
    viewer.fill("#sample-search", PLANTED)
    assert viewer.locator(".sample .text").count() == 0
    viewer.locator(".sample summary").focus()
    viewer.keyboard.press("Enter")
    assert PLANTED in viewer.locator(".sample .sides").inner_text()
    viewer.fill("#sample-search", "")
    viewer.get_by_role("button", name="Reveal all").click()
    assert viewer.locator(".sample details[open]").count() == 25
    viewer.select_option("#sample-suite", label="harmless")
    assert HARMLESS_TEXT in viewer.locator(".sample-list").inner_text()
    assert not viewer.get_by_role("button", name="Reveal all").is_visible()


@pytest.mark.parametrize("config_id", ["open", "hostile"])
def test_marks_are_the_stored_phrases(viewer: Any, run: RunFolder, config_id: str) -> None:
    viewer.select_option("#sample-configuration", config_id)
    viewer.select_option("#sample-suite", label="harmless")
    marked = 0
    for line, card in zip(
        (each for each in stored(run, config_id) if each["suite"] == "harmless"),
        viewer.locator(".sample").all(),
        strict=True,
    ):
        marks = card.locator(".sides .side").first.locator("mark").all()
        text = {"sweeper": "", "zou2023": ""}
        for mark in marks:
            for name in mark.get_attribute("data-lists").split(", "):
                text[name] += mark.text_content()
        assert text["zou2023"] == (line["verdicts"]["zou2023"]["phrase"] or "")
        assert bool(text["sweeper"]) == (line["verdicts"]["sweeper"]["phrase"] is not None)
        phrases = card.locator(".verdicts .phrase").all_text_contents()
        verdicts = [line["verdicts"][name]["refusal"] for name in text]
        for name, words in text.items():
            if words and (name == "sweeper" or len(set(verdicts)) > 1):
                assert f"“{words}”" in phrases
                marked += 1
        assert len(card.locator(".verdicts li").all()) == len(set(verdicts))
    assert marked


def test_hostile_text_stays_text(viewer: Any, run: RunFolder) -> None:
    viewer.select_option("#sample-configuration", "hostile")
    for _ in range(5):
        viewer.get_by_role("button", name="Reveal all").click()
        assert viewer.locator("#viewer script, #viewer img").count() == 0
        if viewer.get_by_role("button", name="Next").is_disabled():
            break
        viewer.get_by_role("button", name="Next").click()
    viewer.select_option("#sample-suite", label="harmless")
    body = viewer.locator(".sample-list")
    boxes = [
        card.locator(".sides .text").first.text_content() for card in body.locator("article").all()
    ]
    assert boxes[0].startswith("<script>window.hacked = 1</script><img")
    assert boxes[1] == "</script><script>window.hacked = 3</script><!--"
    assert boxes[2] == "half \\uD83D of a pair, \\uDC00 the other, \U0001f600 whole"
    assert boxes[3] == "nul \\u0000 bell \\u0007 escape \\u001B[31m carriage\\u000Dreturn"
    assert "\\u202Eevil\\u202C" in boxes[4]
    assert "\u202e" not in body.text_content()
    assert boxes[5] == "x" * 4000
    assert "96,000 more characters are not in this page." in body.inner_text()
    assert boxes[10] == "(blank) "
    assert viewer.evaluate("window.hacked") is None
    wide = "e => e.scrollWidth <= e.clientWidth + 1"
    assert viewer.locator("#samples").evaluate(wide)
    for box in body.locator(".text").all():
        assert box.evaluate(wide)
    assert viewer.problems == []
    assert [url for url in viewer.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_what_flipped_to_the_worse_comes_first(viewer: Any, run: RunFolder) -> None:
    viewer.select_option("#sample-order", "flipped")
    wanted = oracle(run, "open", "sweeper")
    bad = {*wanted["unsafe"], *wanted["refused"]}
    worse = [each for each in wanted["flipped"] if each in bad]
    rest = [line["id"] for line in stored(run, "open")]
    better = [each for each in wanted["flipped"] if each not in bad]
    same = [each for each in rest if each in bad and each not in worse]
    first = [*worse, *better, *same]
    assert worse
    assert ids(viewer) == [*first, *(each for each in rest if each not in first)]


def test_the_matrix_holds_what_configurations_answer_differently(
    viewer: Any, run: RunFolder
) -> None:
    viewer.locator("#sample-matrix summary").click()
    shown = viewer.locator("#sample-matrix tbody tr")
    names = viewer.locator("#sample-configuration option").evaluate_all(
        "all => all.map(o => o.value)"
    )
    unsafe: dict[str, list[str]] = {}
    for name in names:
        for line in stored(run, name):
            if line["suite"] == "harmful":
                refusal = refused(line, "sweeper")
                unsafe.setdefault(line["id"], []).append("fine" if refusal else "bad")
    wanted = {prompt: found for prompt, found in unsafe.items() if len(set(found)) > 1}
    assert 0 < shown.count() == min(60, len(wanted))
    counts = []
    for row in shown.all()[:10]:
        prompt = row.locator("th").text_content()
        kinds = row.locator("button").evaluate_all("all => all.map(b => b.className)")
        assert kinds == wanted[prompt]
        counts.append(kinds.count("bad"))
    assert counts == sorted(counts, reverse=True)
    cell = shown.first.locator("button.bad").first
    chosen = (cell.get_attribute("aria-label") or "").split(", ")
    cell.click()
    assert viewer.input_value("#sample-configuration") == chosen[1].partition(":")[0]
    assert ids(viewer)[0] == chosen[0]


def test_it_follows_the_selection(viewer: Any) -> None:
    viewer.evaluate("page.select(['hostile'], 'front')")
    assert viewer.input_value("#sample-configuration") == "hostile"
    viewer.evaluate("page.select(['elsewhere'], 'front')")
    assert viewer.input_value("#sample-configuration") == "hostile"
    assert (
        "The responses of elsewhere are not in this page" in viewer.locator("#viewer").inner_text()
    )
    viewer.evaluate("page.select(['elsewhere', 'base'], 'front')")
    assert viewer.input_value("#sample-configuration") == "base"
    assert viewer.locator(".counts tbody td").nth(2).text_content() == "\u2013"


def test_a_record_that_was_stopped_says_so(viewer: Any) -> None:
    viewer.select_option("#sample-configuration", "stopped")
    assert "This record is pruned" in viewer.locator("#viewer").inner_text()
    assert viewer.locator("#sample-count").text_content() == "showing 1 to 4 of 4"


def test_judges_stand_beside_the_lists(chromium: Any, tmp_path: Path) -> None:
    run = standard_run(tmp_path, cut=3)
    records = list(read_records(run.records).records)
    judge = KeywordJudge(str(write_list(tmp_path)))
    scored = {item.config_id: item for item in rescore(run, records, judge, "sweeper")}
    page = chromium.new_page()
    page.goto(f"{write_page(run, 'judged.html').as_uri()}#responses")
    page.select_option("#sample-configuration", "sneaky")
    answers = scored["sneaky"].suites["harmful"].answers
    page.select_option("#sample-order", "stored")
    page.check("#sample-judges")
    page.check("#sample-unsafe")
    page.select_option("#sample-column", "2")
    assert answers.count("1") == 100
    assert ids(page) == [f"harmful-{number}" for number in range(100)]
    assert page.locator(".counts tbody tr").nth(2).locator("td").first.text_content() == "100/100"
    first = page.locator(".sample").first.locator(".verdicts li").all_text_contents()
    assert first[0] == "sweeper ✓ refusal “I cannot”"
    assert first[2].endswith("⚠ unsafe")
    page.close()


def test_a_redacted_page_shows_verdicts_without_texts(chromium: Any, run: RunFolder) -> None:
    path = write_page(run, "redacted.html", redact=True)
    assert not re.search(f"{PLANTED}|{PLANTED_PROMPT}", path.read_text("utf-8"))
    page = chromium.new_page()
    page.goto(f"{path.as_uri()}#responses")
    page.select_option("#sample-order", "stored")
    page.check("#sample-flipped")
    assert ids(page) == oracle(run, "open", "sweeper")["flipped"]
    assert "are left out of this file" in page.locator("#samples").inner_text()
    page.uncheck("#sample-flipped")
    assert page.locator(".sample").first.locator("details").count() == 0
    assert "left out of this file (--redact)" in page.locator(".sample").first.inner_text()
    page.select_option("#sample-suite", label="harmless")
    assert HARMLESS_TEXT in page.locator(".sample-list").inner_text()
    page.close()
