"""What the sample viewer is given: whose responses, which texts, and where the phrases stand."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_record
from support.judged_run import standard_run
from support.viewer_run import (
    HARMLESS_TEXT,
    HOSTILE,
    PLANTED,
    PLANTED_PROMPT,
    SPEC,
    lines_of,
    records_of,
    responses,
    viewer_run,
    write_responses,
)
from typer.testing import CliRunner

from sweeper.cli.commands import app
from sweeper.judges import KeywordJudge, overlay, rescore
from sweeper.keywords.lists import KeywordList, keyword_list_names, load_keyword_list
from sweeper.planning import make_plan, make_tasks, short_hash
from sweeper.report import report_data
from sweeper.report.answers import BEYOND, DIFFERS, NOT_SHOWN, TEXT_LIMIT, cost, units
from sweeper.report.page import json_block
from sweeper.report.samples import BUDGET, FULL, SampleData, gather
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records


def gathered(
    run: RunFolder,
    records: list[TrialRecord] | None = None,
    budget: int = BUDGET,
    redact: bool = False,
) -> SampleData:
    records = records_of(run) if records is None else records
    return gather(run, records, SPEC, report_data(run, records, SPEC, None), budget, redact)


def block(found: SampleData) -> dict[str, Any]:
    assert found.block is not None
    return dict(json.loads(json_block(found.block)))


def unit_slice(text: str, start: int, end: int) -> str:
    """A part of a text by UTF-16 units, as a browser cuts it."""
    data = text.encode("utf-16-le", "surrogatepass")
    return data[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")


def test_every_response_and_verdict_is_what_was_stored(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    data = block(gathered(run))
    assert data["lists"] == ["sweeper", "zou2023"]
    assert data["base"] == "base"
    assert data["suites"] == [["harmful", "harmful"], ["harmless", "harmless"], ["utility", "text"]]
    by_key = {record.key: record for record in records_of(run)}
    assert (data["sets"][0]["id"], data["sets"][0]["seed"]) == ("base", 0)
    assert {(each["id"], each["seed"]) for each in data["sets"]} == set(by_key)
    for each in data["sets"]:
        path = responses(run, by_key[each["id"], each["seed"]])
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert len(lines) == len(each["answers"]) == len(data["orders"][each["order"]])
        for line, p, a in zip(lines, data["orders"][each["order"]], each["answers"], strict=True):
            suite, identity, prompt, left, *reference = data["prompts"][p]
            assert data["suites"][suite][0] == line["suite"]
            assert (identity, prompt, left) == (line["id"], line["prompt"], 0)
            assert reference == ([line["reference"]] if "reference" in line else [])
            text, more, flags, *entries = data["answers"][a]
            assert text == line["response"][:TEXT_LIMIT]
            assert more == max(0, len(line["response"]) - TEXT_LIMIT)
            assert bool(flags & 1) == line.get("cut", False)
            if "verdicts" not in line:
                assert entries == [0, 0]
                continue
            for name, (refusal, phrase, start, end) in zip(data["lists"], entries, strict=True):
                stored = line["verdicts"][name]
                assert bool(refusal) == stored["refusal"]
                assert (None if phrase < 0 else data["phrases"][phrase]) == stored["phrase"]
                if start >= 0 and name == "zou2023":
                    assert unit_slice(text, start, end) == stored["phrase"]
                assert (start >= 0) == (stored["phrase"] is not None)


def test_texts_are_stored_once(tmp_path: Path) -> None:
    data = block(gathered(viewer_run(tmp_path)))
    assert len(data["prompts"]) == 103 + 12 + 2
    texts = [(answer[0], answer[2]) for answer in data["answers"]]
    assert max(texts.count(item) for item in texts) <= 2  # Once as harmful, once as harmless.
    assert len(data["orders"]) == 2


def test_degenerate_answers_are_those_the_rate_counts(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    data = block(gathered(run))
    hostile = next(each for each in data["sets"] if each["id"] == "hostile")
    flagged = {
        data["answers"][number][0]
        for number in hostile["answers"]
        if data["answers"][number][2] & 2
    }
    assert {text[:3] for text in flagged} == {" ", "go ", "xxx", "Z\u0310\u0311"}


SPAN_CASES = [
    ("sweeper", "I\u2019m sorry, but no.", "sorry,"[:-1]),
    ("sweeper", '"Quote" \u201cagain\u201d  well,\n\n I\tcannot do that', "I\tcannot"),
    ("sweeper", "\u0130\u0130 \U0001f600 I can't.", "I can't"),
    ("zou2023", "\u0130 \U0001f600 I'm sorry", "I'm sorry"),
]


@pytest.mark.parametrize(("name", "text", "marked"), SPAN_CASES)
def test_the_place_of_a_phrase(name: str, text: str, marked: str) -> None:
    span = load_keyword_list(name).span(text)
    assert span is not None
    assert text[slice(*span)] == marked
    assert unit_slice(text, *(units(text, place) for place in span)) == marked


def test_a_place_is_there_exactly_where_a_phrase_is() -> None:
    draw = random.Random(5)
    words = [
        *(
            "I",
            "i\u2019m",
            "sorry,",
            "cannot",
            "can't",
            "As an",
            "AI,",
            '"no"',
            "\u0130",
            "\U0001f600",
        ),
        *(
            "unfortunately",
            "\n\n",
            "\u00a0",
            "but",
            "here is how",
            "illegal",
            "Apologies",
            "\u201cI\u201d",
        ),
    ]
    lists = [load_keyword_list(name) for name in keyword_list_names()]
    lists.append(KeywordList("own", "", "prefix", ("\u00ef am", "i"), case_sensitive=False))
    hits = 0
    for _ in range(400):
        text = " ".join(draw.choices(words, k=draw.randrange(1, 12)))
        text = draw.choice(["", "  ", "\n"]) + text
        for item in lists:
            phrase, span = item.verdict(text).phrase, item.span(text)
            assert (span is None) == (phrase is None)
            if span is None or phrase is None:
                continue
            hits += 1
            part = text[slice(*span)]
            assert part == part.strip()
            if item.matching == "opening":
                # What is marked alone holds words of the pattern: first and last, at least.
                first = phrase.removeprefix("^").split()[0].removesuffix(",").split("|")
                start = part.lower().replace("\u2019", "'")
                assert any(start.startswith((word, "can't", "i'm")) for word in first)
            else:
                prepared = item._prepared(part)
                # One capital that is two small letters is marked whole.
                assert prepared == phrase or ("\u0130" in part and prepared.startswith(phrase))
    assert hits > 500


def test_a_verdict_other_than_the_list_s_is_shown_as_stored(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    record = records_of(run)[1]
    path = responses(run, record)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[0]["verdicts"]["sweeper"] = {"refusal": False, "phrase": None}
    lines[1]["verdicts"]["sweeper"] = {"refusal": True, "phrase": "i will not"}
    write_responses(path, lines)
    data = block(gathered(run, [record]))
    answers = [data["answers"][number] for number in data["sets"][0]["answers"][:2]]
    assert [answer[3][:1] + answer[3][2:] for answer in answers] == [
        [0, DIFFERS, 0],
        [1, DIFFERS, 0],
    ]
    assert data["phrases"][answers[1][3][1]] == "i will not"


def test_a_phrase_in_what_is_cut_off_is_not_marked(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    record = records_of(run)[1]
    text = "a " * TEXT_LIMIT + "I'm sorry"
    write_responses(responses(run, record), lines_of("harmful", [text], ["How?"]))
    data = block(gathered(run, [record]))
    (answer,) = data["answers"]
    assert answer[1] == len(text) - TEXT_LIMIT
    assert answer[4] == [1, 0, BEYOND, 0]


def test_a_list_that_is_not_the_shipped_one_marks_nothing(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    lists = {"sweeper": "feedfeedfeedfeed"}
    records = [
        replace(item, provenance={**item.provenance, "keyword_lists": lists})
        for item in records_of(run)
    ]
    found = gathered(run, records)
    assert "the list sweeper of this run is not the one shipped" in found.notes[0]
    entries = [answer[3] for answer in block(found)["answers"] if answer[3]]
    assert {entry[2] for entry in entries} == {NOT_SHOWN}
    assert {entry[0] for entry in entries} == {0, 1}


def many(root: Path, count: int) -> tuple[RunFolder, list[TrialRecord]]:
    run = viewer_run(root)
    records = records_of(run)[:2]
    for number in range(count):
        record = make_record(identity=f"c{number:04}", utility=0.5, unsafe=(200, 256), seed=0)
        texts = [f"Here is answer {number}-{i}: " + "step " * 40 for i in range(20)]
        write_responses(responses(run, record), lines_of("harmful", texts, ["How?"] * 20))
        records.append(record)
    return run, records


def test_the_budget_holds_and_the_rest_is_named(tmp_path: Path) -> None:
    run, records = many(tmp_path, 40)
    whole = gathered(run, records)
    assert not whole.left_out
    size = len(json_block(whole.block))
    for budget in (20_000, 60_000, 100_000):
        found = gathered(run, records, budget)
        assert found.block is not None
        assert budget / 2 < len(json_block(found.block)) <= budget < size
        names = [item.config_id for item in found.shown]
        assert names[:2] == ["base", "open"]
        assert found.shown[1].names == ("recommended", "front")
        left = {part.why: part.items for part in found.left_out}
        assert set(left) == {FULL}
        assert sorted([*names, *left[FULL]]) == sorted(item.config_id for item in records)
        assert gathered(run, records, budget) == found


def test_files_behind_the_budget_are_not_read(tmp_path: Path) -> None:
    run, records = many(tmp_path, 10)
    found = gathered(run, records, 20_000)
    (left,) = found.left_out
    for config_id in left.items[1:]:
        path = next(responses(run, r) for r in records if r.config_id == config_id)
        path.unlink()
        path.mkdir()
    assert gathered(run, records, 20_000) == found
    assert gathered(run, records, 0).block is None


def test_damaged_and_missing_files_are_notes(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    records = [
        *records_of(run),
        make_record(identity="gone", max_steps=40),
        make_record(identity="broken", status="failed", max_steps=20),
    ]
    responses(run, records[2]).write_bytes(b'{"suite": "harmful", "id": "1"}\n')
    path = responses(run, records[1])
    path.write_bytes(path.read_bytes() + b'{"suite": "harmful", "id": "\xff')
    found = gathered(run, records)
    left = {part.why: part.items for part in found.left_out}
    assert left == {
        "open-0.jsonl:118: not a stored response": ("open",),
        "hostile-0.jsonl:1: not a stored response": ("hostile",),
        "no stored responses (complete)": ("gone",),
        "no stored responses (failed)": ("broken",),
    }
    assert {item.config_id for item in found.shown} == {"base", "open", "stopped"}
    assert next(item for item in found.shown if item.config_id == "open").seeds == (1,)
    # Nothing of a damaged file stays behind.
    assert PLANTED not in json.dumps(found.block)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        "null",
        "{",
        '{"suite": 1, "id": "", "prompt": "", "response": ""}',
        '{"suite": "harmful", "id": "", "prompt": "", "response": "", "verdicts": {"sweeper": 1}}',
        '{"suite": "harmful", "id": "", "prompt": "", "response": "", "verdicts": []}',
        "[" * 100_000,
    ],
)
def test_no_line_is_a_crash(tmp_path: Path, line: str) -> None:
    run = viewer_run(tmp_path)
    record = records_of(run)[1]
    responses(run, record).write_text(line + "\n", encoding="utf-8")
    found = gathered(run, [record])
    assert found.block is None
    assert found.left_out[0].why == "open-0.jsonl:1: not a stored response"


def test_redacted_data_holds_no_harmful_text(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    found = gathered(run, redact=True)
    data = block(found)
    text = json.dumps(data)
    assert PLANTED not in text
    assert PLANTED_PROMPT not in text
    assert "Harmful question" not in text
    assert HARMLESS_TEXT in text
    assert "harmful-005" in text
    assert data["redacted"] is True
    plain = block(gathered(run))
    assert [each["answers"] for each in data["sets"]] == [each["answers"] for each in plain["sets"]]
    assert [[e and e[:2] for e in a[3:]] for a in data["answers"]] == [
        [e and e[:2] for e in a[3:]] for a in plain["answers"]
    ]


@pytest.mark.parametrize(
    ("identity", "prompt", "told"),
    [
        (PLANTED_PROMPT, PLANTED_PROMPT, True),
        (f"17: {PLANTED_PROMPT}", PLANTED_PROMPT, True),
        ("PLANTED-question", PLANTED_PROMPT, True),
        ("planted_question_99", PLANTED_PROMPT, True),
        ("7-planted-question-9942-and", f"{PLANTED_PROMPT} and much more than this", True),
        ("7", "7 ways to plant", False),
        ("harmful-005", PLANTED_PROMPT, False),
        ("advbench-12", "Write an advbench of twelve", False),
    ],
)
def test_a_redacted_id_that_tells_the_prompt_becomes_a_hash(
    tmp_path: Path, identity: str, prompt: str, told: bool
) -> None:
    run = viewer_run(tmp_path)
    record = records_of(run)[1]
    lines = lines_of("harmful", ["No.", "No."], [prompt, "Where?"])
    lines[0]["id"] = identity
    write_responses(responses(run, record), lines)
    plain, redacted = (block(gathered(run, [record], redact=flag)) for flag in (False, True))
    assert plain["prompts"][0][1] == identity
    assert redacted["prompts"][0][1:4] == [short_hash(identity) if told else identity, None, 0]
    assert redacted["prompts"][1][1] == "harmful-001"


def test_a_suite_nobody_knows_is_taken_to_be_harmful(tmp_path: Path) -> None:
    run = viewer_run(tmp_path)
    record = records_of(run)[1]
    write_responses(responses(run, record), lines_of("__proto__", [PLANTED], ["How?"]))
    data = block(gathered(run, [record], redact=True))
    assert data["suites"] == [["__proto__", "harmful"]]
    assert PLANTED not in json.dumps(data)


def test_the_command_writes_and_leaves_out(tmp_path: Path) -> None:
    run = viewer_run(tmp_path / "run")
    pages = {}
    for name, options in {
        "all": [],
        "redacted": ["--redact"],
        "none": ["--max-response-mib", "0"],
    }.items():
        path = tmp_path / f"{name}.html"
        result = CliRunner().invoke(app, ["report", str(run.root), "--out", str(path), *options])
        assert result.exit_code == 0, result.output
        pages[name] = path.read_text("utf-8")
    for planted in (PLANTED, PLANTED_PROMPT):
        assert [planted in page for page in pages.values()] == [True, False, False]
    assert [HARMLESS_TEXT in page for page in pages.values()] == [True, True, False]
    assert "are left out of this file" in pages["redacted"]
    assert "No response is in this page." in pages["none"]
    assert "--max-response-mib 0" in pages["none"]


def test_what_judges_said_stands_beside_the_lists(tmp_path: Path) -> None:
    run = standard_run(tmp_path, cut=3)
    records = list(read_records(run.records).records)
    scored = rescore(run, records, KeywordJudge("qi2023"), "sweeper")
    found = gathered(run, records)
    data = block(found)
    (name,) = data["judges"]
    assert name.startswith("keyword:qi2023@")
    by_key = {(item.config_id, item.seed): item for item in scored}
    for each in data["sets"]:
        counts = by_key[each["id"], each["seed"]].suites
        assert {data["suites"][suite][0]: answers for _, suite, answers in each["judged"]} == {
            suite: item.answers for suite, item in counts.items()
        }
    # Under that judge the records are changed in memory; they are still the ones that were judged.
    over = overlay(run, records, SPEC, "keyword:qi2023")
    data_over = block(gathered(run, list(over.records)))
    assert {each["id"]: each["judged"] for each in data_over["sets"]} == {
        each["id"]: each["judged"] for each in data["sets"]
    }
    changed = [replace(item, provenance={**item.provenance, "device": "new"}) for item in records]
    stale = gathered(run, changed)
    assert [each["judged"] for each in block(stale)["sets"]] == [[]] * 4
    assert "measured again since" in stale.notes[0]
    run.judgements.write_text("{}\n")
    damaged = gathered(run, records)
    assert damaged.notes[0].startswith("judge verdicts are not shown: judgements.jsonl:1: version")
    assert block(damaged)["judges"] == []


def test_a_trained_run_reads_as_its_records_count(tiny_spec: SweepSpec, tmp_path: Path) -> None:
    from sweeper.trial.run import run_trajectory

    run = RunFolder(tmp_path)
    tasks = make_tasks(make_plan(tiny_spec), tiny_spec, lambda path: path, device="cpu")[:2]
    records = [r for t in tasks for r in run_trajectory(t, run.trial(t.trajectory_id))]
    assert len(records) >= 3
    data = block(gather(run, records, tiny_spec, report_data(run, records, tiny_spec, None)))
    by_key = {record.key: record for record in records}
    assert {(each["id"], each["seed"]) for each in data["sets"]} == set(by_key)
    names = {"harmful": "unsafe_rate", "harmless": "over_refusal_rate"}
    for each in data["sets"]:
        metrics = by_key[each["id"], each["seed"]].metrics
        for number, (suite, kind) in enumerate(data["suites"]):
            rows = [
                data["answers"][answer]
                for prompt, answer in zip(
                    data["orders"][each["order"]], each["answers"], strict=True
                )
                if data["prompts"][prompt][0] == number
            ]
            if kind == "text":
                continue
            for index, name in enumerate(data["lists"]):
                metric = names[suite] if index == 0 else f"{names[suite]}/{name}"
                bad = sum(bool(row[3 + index][0]) == (suite == "harmless") for row in rows)
                assert (bad, len(rows)) == (metrics[metric].k, metrics[metric].n)
            assert sum(bool(row[2] & 2) for row in rows) == metrics[f"degenerate_rate/{suite}"].k
            assert all(entry[2] != DIFFERS for row in rows for entry in row[3:])


def test_cost_is_what_the_block_takes() -> None:
    for value in ("<script>&", ["a", 1, None], {"id": "\u202e\ud83d"}, list(HOSTILE)):
        assert cost(value) == len(json_block(value)) + 1
