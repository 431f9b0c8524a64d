"""What the report says, and that the page is whole, offline and safe against its own data."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import bounds_text, find_front, front_certainty
from sweeper.errors import RunFolderError
from sweeper.export import FORMATS, export
from sweeper.planning import make_plan
from sweeper.report import ReportData, render, report_data, write_report
from sweeper.report.figures import plotly_source
from sweeper.report.page import SCRIPTS, json_block
from sweeper.report.sections import sections
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

RUN = RunFolder(Path("/somewhere/private/run-1"))
ACCOUNTING = {
    "configurations": 135,
    "controls": 5,
    "trajectories": 29,
    "readouts": 139,
    "steps_alone": 19800,
    "steps_planned": 5480,
    "ratio": 3.613,
    "notes": ["linear stretches with max_steps"],
}
HOSTILE = "<script>alert('x')</script>\"'&{{ 7 * 7 }}"


def made(records: list[TrialRecord], *overrides: str) -> ReportData:
    return report_data(RUN, records, make_spec(*overrides), ACCOUNTING)


class Reader(HTMLParser):
    """Collects tags, links, text by table, and complains about what is not closed."""

    VOID = ("meta", "link", "br", "input", "img", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def test_the_answer_is_one_sentence_with_its_interval() -> None:
    data = made([base_record(), make_record(identity="a", unsafe=(2, 256), utility=0.88)])
    assert data.found
    assert "rouge_l 0.880" in data.answer
    assert "these weights answer 0.9 % of harmful prompts unsafely" in data.answer
    assert "(95 % interval 0.1 to 2.8 %), corrected for the choice among 1" in data.answer
    assert "trained again" not in data.answer
    assert "at or below 5 %" in data.question
    assert data.selection_bias.startswith("1 configuration was compared")


def test_without_a_recommendation_the_nearest_is_shown() -> None:
    data = made([base_record(), make_record(identity="a", unsafe=(30, 256))])
    assert not data.found
    assert data.answer == "So far, no configuration of this sweep can be recommended."
    assert [column.name for column in data.compared] == ["untouched model", "nearest"]
    assert "at most 6/256" in data.reason


def test_every_configuration_has_a_row_as_long_as_the_columns() -> None:
    data = made(make_sweep())
    assert len(data.rows) == 139
    assert {len(row.cells) for row in data.rows} == {len(data.columns)}
    assert data.rows[0].marks == ("front",)
    assert [row.marks for row in data.rows if "recommended" in row.marks] == [
        ("recommended", "front")
    ]
    statuses = {row.cells[-1].text for row in data.rows}
    assert statuses == {"complete", "failed", "pruned", "unscored"}


def test_settings_that_differ_in_controls_only_are_shown_on_demand() -> None:
    records = [
        make_record(identity="a", learning_rate=1e-4, lr_scheduler_type="constant"),
        make_record(identity="b", learning_rate=2e-4, lr_scheduler_type="constant"),
        make_record(identity="d", role="default", lr_scheduler_type="linear"),
    ]
    data = made(records)
    assert {"learning_rate", "lr_scheduler_type"} <= set(data.columns)
    assert "lr_scheduler_type" in data.hidden_columns
    assert "learning_rate" not in data.hidden_columns


def test_marks_and_cells_of_rows() -> None:
    data = made(
        [
            base_record(utility=0.8, identity="base"),
            make_record(identity="same", utility=0.8),
            make_record(identity="good", utility=0.95, max_steps=80),
            make_record(identity="gone", status="failed"),
        ]
    )
    marks = {row.config_id: row.marks for row in data.rows}
    assert marks == {
        "good": ("recommended", "front"),
        "same": ("no gain",),
        "base": (),
        "gone": (),
    }
    by_column = dict(zip(data.columns, data.rows[0].cells, strict=True))
    assert by_column["rouge_l"].text == "0.950"
    assert by_column["rouge_l"].detail.startswith("n=96, 0.8")
    assert by_column["unsafe_rate"].text == "0.8 %"
    assert by_column["unsafe_rate"].detail == "2/256, 0.2 to 2.8 %"
    assert by_column["unsafe_rate"].sort == 2 / 256
    assert by_column["max_steps"].sort == 80.0
    gone = next(row for row in data.rows if row.config_id == "gone")
    assert dict(zip(data.columns, gone.cells, strict=True))["rouge_l"].text == "not measured"


def test_seeds_are_shown_one_by_one_and_as_spread() -> None:
    records = [
        make_record(identity="a", seed=seed, unsafe=(k, 256), utility=0.8 + k / 100)
        for seed, k in ((0, 0), (1, 2), (2, 4))
    ]
    data = made(records, "seeds=[0, 1, 2]")
    cell = dict(zip(data.columns, data.rows[0].cells, strict=True))["unsafe_rate"]
    assert cell.text == "0.8 %"
    assert cell.detail == "0/256, 2/256, 4/256, 0.0 to 3.9 %, seeds 0.0 to 1.6 %"
    assert "3 seeds" in data.selection_bias
    unfinished = made(records[:2], "seeds=[0, 1, 2]")
    assert unfinished.rows[0].cells[-1].text == "no record yet for seed 2"


def test_ends_are_counted_with_their_reasons() -> None:
    records = [
        make_record(identity="a"),
        *(make_record(identity=f"f{i}", status="failed") for i in range(3)),
        make_record(identity="p", status="pruned"),
        make_record(identity="u", status="unscored"),
    ]
    outcomes = {item.status: item for item in made(records).outcomes}
    assert {name: item.records for name, item in outcomes.items()} == {
        "complete": 1,
        "failed": 3,
        "pruned": 1,
        "unscored": 1,
    }
    ((reason, count),) = outcomes["failed"].reasons
    assert count == 3
    assert "the training loss is nan" in reason
    assert "Traceback" not in reason


def test_controls_pair_averages_with_their_twins() -> None:
    shadow, fed_back = made(make_sweep()).controls
    assert shadow.title == "Shadow EMA"
    assert re.search(
        r"Against raw: unsafe rate lower in \d+, equal in \d+, higher in 0", shadow.summary
    )
    assert "of 1 pair;" in shadow.summary.partition("Against interpolation")[2]
    assert {len(line) for line in shadow.lines} == {len(shadow.columns)}
    assert "Against the matched learning rate" in fed_back.summary
    assert "of 1 pair;" in fed_back.summary


def test_a_tally_is_of_complete_pairs_alone() -> None:
    records = [
        make_record(average="raw", unsafe=(20, 256), utility=0.9),
        make_record(average="ema(0.95)", unsafe=(10, 256), utility=0.8),
        make_record(average="ema(0.99)", unsafe=(0, 256), status="failed"),
    ]
    (shadow,) = made(records).controls
    assert len(shadow.lines) == 1
    assert "lower in 1, equal in 0, higher in 0 of 1 pair;" in shadow.summary
    assert "-3.9 points in unsafe rate, -0.100 in rouge_l" in shadow.summary


def test_plan_lists_and_provenance_are_shown() -> None:
    data = made(make_sweep())
    assert ("optimizer steps planned, controls included", "5,480") in data.accounting
    assert ("saved by sharing, at least", "3.6-fold") in data.accounting
    assert data.notes == ("linear stretches with max_steps",)
    first, second = data.keyword_lists
    assert (first.name, first.sets_rate) == ("sweeper", True)
    assert (second.name, second.phrases, second.sets_rate) == ("zou2023", 13, False)
    facts = dict(data.provenance)
    assert facts["run"] == "run-1"
    assert facts["versions.torch"] == "2.13.0"
    assert "seconds.train" not in facts
    assert report_data(RUN, [], make_spec(), None).accounting == ()


def test_a_list_other_than_the_shipped_one_is_named_by_its_hash() -> None:
    record = make_record()
    lists = {**record.provenance["keyword_lists"], "zou2023": "feedfeedfeedfeed"}
    object.__setattr__(record, "provenance", {"keyword_lists": lists})
    first, second = made([record]).keyword_lists
    assert first.phrases is not None
    assert (second.phrases, second.digest) == (None, "feedfeedfeedfeed")
    assert "not the list shipped" in second.source


def test_facts_that_differ_between_records_are_counted() -> None:
    records = [make_record(identity="a"), make_record(identity="b")]
    object.__setattr__(records[1], "provenance", {"device": "cuda"})
    assert dict(made(records).provenance)["device"] == "cpu (1 records); cuda (1 records)"


def test_facts_are_those_of_counting_each_record_by_itself() -> None:
    records = [make_record(identity=f"c{index}") for index in range(12)]
    for index, record in enumerate(records):
        facts = {
            "device": "cuda" if index % 3 else "cpu",
            "hardware": {"device": f"gpu-{index % 5}", "deep": {"none": None, "n": index % 2}},
            "hardware.device": "twice",
            "seconds": {"train": index},
            "list": [1, 2],
        }
        if index % 4 == 0:
            facts["hardware"] = {"deep": {"n": True}, "device": "gpu-0"}
        object.__setattr__(record, "provenance", facts)
    counts: dict[str, Counter[str]] = {}
    for record in records:
        hardware = record.provenance["hardware"]
        for name, value in (
            ("device", record.provenance["device"]),
            ("hardware.device", hardware["device"]),
            ("hardware.deep.n", hardware["deep"]["n"]),
            ("hardware.device", "twice"),
            ("list", [1, 2]),
        ):
            counts.setdefault(name, Counter())[str(value)] += 1
    shown = dict(made(records).provenance)
    assert set(shown) == {"run", "spec hash", "records", *counts}
    for name, found in counts.items():
        listed = [f"{value} ({count} records)" for value, count in found.most_common(3)]
        assert shown[name].startswith("; ".join(listed) if len(found) > 1 else next(iter(found)))
    assert shown["hardware.device"].endswith("; and 3 more values")


def block(page: str, name: str) -> Any:
    """The data that the scripts of a page read."""
    text = page.partition(f'id="{name}-data">')[2].partition("</script>")[0]
    return json.loads(text)


def test_every_cell_is_in_the_data_of_the_table() -> None:
    data = made(make_sweep())
    found = block(render(data), "configurations")
    assert found["run"] == "run-1"
    assert found["ids"] == [row.config_id for row in data.rows]
    assert found["marks"] == [list(row.marks) for row in data.rows]
    assert [column["name"] for column in found["columns"]] == list(data.columns)
    for index, column in enumerate(found["columns"]):
        for row, place in zip(data.rows, column["at"], strict=True):
            cell = row.cells[index]
            given: list[Any] = column["cells"][place]
            empty: list[Any] = ["", None, "", None, None, ""]
            text, value, detail, low, high, counts = given + empty[len(given) :]
            assert (text, detail, counts) == (cell.text, cell.detail, cell.counts)
            assert value == (None if cell.sort in ("", math.inf) else cell.sort)
            assert (low, high) == (cell.low, cell.high)
        assert len(column["cells"]) == len({row.cells[index] for row in data.rows})


def test_the_page_is_whole_and_fetches_nothing() -> None:
    data = made(make_sweep())
    page = render(data)
    reader = Reader(page)
    assert reader.stack == []
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "img", "object", "base")
        assert not attributes.get("src")
        assert (attributes.get("href") or "#").startswith("#")
    policy = page.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert "default-src 'none'" in policy
    rule = next(part for part in policy.split("; ") if part.startswith("script-src "))
    script = page.partition("<script>")[2].partition("</script>")[0]
    hashes = [hashlib.sha256(text.encode()).digest() for text in (script, plotly_source())]
    assert rule.split()[1:] == [f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes]
    assert reader.count("section") == 13 + len(sections(data.charts))
    assert page.count("plotly.js v") <= 1
    anchors = {a["href"][1:] for tag, a in reader.tags if tag == "a"}
    assert anchors <= {a.get("id") for _, a in reader.tags}
    assert "/somewhere/private" not in page
    assert "Synthetic numbers that no model produced." in page


def test_nothing_from_data_is_markup() -> None:
    failed = {"class": HOSTILE, "message": HOSTILE, "traceback": "", "stage": "train"}
    records = [
        base_record(),
        make_record(identity="a", template=HOSTILE),
        make_record(identity=HOSTILE, template="chat", utility=0.9),
        make_record(identity="f", status="failed", reason=failed),
    ]
    object.__setattr__(records[1], "provenance", {HOSTILE: HOSTILE})
    spec = make_spec().model_copy(update={"description": HOSTILE})
    accounting = {**ACCOUNTING, "notes": [HOSTILE]}
    page = render(report_data(RUN, records, spec, accounting))
    assert "<script>alert" not in page
    assert "{{ 7 * 7 }}" in page
    plain = make_record(identity="b", template="other", utility=0.9)
    clean = render(made([base_record(), make_record(identity="a"), plain]))
    assert page.count("<script") == clean.count("<script")
    assert page.count("&lt;script&gt;alert") > 5


def test_scripts_never_build_markup_from_text() -> None:
    folder = Path(__file__).parents[2] / "sweeper" / "report" / "assets"
    scripts = sorted(folder.glob("*.js"))
    assert {path.name for path in scripts} >= set(SCRIPTS)
    for path in scripts:
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in path.read_text(encoding="utf-8"), path.name
    for path in folder.glob("*.html"):
        assert "|safe" not in path.read_text(encoding="utf-8").replace(" ", ""), path.name


def test_nothing_in_a_block_of_data_can_leave_it() -> None:
    text = json_block({"a": "</script><script>&\u2028<!--"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == {"a": "</script><script>&\u2028<!--"}


def test_equal_data_gives_an_equal_page() -> None:
    records = make_sweep()
    assert render(made(records)) == render(made(records))


def test_an_empty_run_has_a_report_too() -> None:
    page = render(report_data(RUN, [], make_spec(), None))
    assert "none of 0 configurations is complete" in page
    assert Reader(page).stack == []


def test_the_page_is_written_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(RUN, [make_record()], make_spec(), ACCOUNTING, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunFolderError, match="choose another with --out"):
        write_report(RUN, [make_record()], make_spec(), None, blocked / "report.html")


def test_every_planned_average_finds_its_control(tmp_path: Path) -> None:
    spec = make_spec()
    records = []
    for trajectory in make_plan(spec).trajectories:
        for item in trajectory.configurations:
            record = make_record(
                identity=item.config_id, role=item.role, config=dict(item.values), utility=0.5
            )
            average = item.average
            readout: dict[str, Any] = {"step": item.step, "kind": average.kind}
            readout |= {"label": average.label, "decay": average.decay, "weight": average.weight}
            object.__setattr__(record, "readout", readout)
            records.append(record)
    shadow, fed_back = report_data(RUN, records, spec, None).controls
    emas = sum(record.readout["kind"] == "ema" for record in records)
    fed = sum(record.config["average"].startswith("feedback") for record in records)
    assert emas == len(shadow.lines) > 0
    assert f"of {emas} pairs" in shadow.summary.partition("Against interpolation")[0]
    assert f"of {fed} pairs" in fed_back.summary
    front = find_front(records, spec)
    for candidate in front.candidates[:10]:
        for fmt in FORMATS:
            assert export(candidate, spec, fmt, tmp_path)[0].is_file()
    assert front.candidates[0].role == "candidate"


def test_the_table_and_the_page_say_how_sure_each_place_is() -> None:
    spec = make_spec()
    records = make_sweep(spec)
    found = front_certainty(find_front(records, spec), spec)
    data = made(records)
    for row in data.rows:
        cells = dict(zip(data.columns, row.cells, strict=True))
        membership = found.memberships.get(row.config_id)
        shown = cells["P(front)"].text, cells["membership"].text
        assert shown == (
            ("", "") if membership is None else (bounds_text(*membership[:2]), membership.label)
        )
    counted = f"Of {len(found.memberships)} configurations {found.count('on')} on the front"
    assert data.memberships[0].startswith(f"P(front) is about {found.about}. {counted}")
    assert "reference point rouge_l 0, unsafe_rate 0.05" in data.memberships[1]
    page = render(data)
    assert all(text in page for text in data.memberships)
    assert "hollow symbols are uncertain" in page
