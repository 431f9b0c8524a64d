"""`sweeper rescore` and `--judge` from end to end, on a small finished run folder."""

import csv
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.command import Command, refused
from support.factories import make_record
from support.judge_models import write_classifier, write_generative
from support.judge_server import Asked, Reply, serving
from support.judged_run import ANSWERS, KIND, SNEAKY, standard_run, write_list, write_run
from support.raising import raises

import sweeper
from sweeper.judges import read_scored
from sweeper.judges.store import Counts
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of an API is in the environment."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Four configurations; `sneaky` fools the list `sweeper`."""
    return standard_run(tmp_path / "run")


def words_of(item: Asked) -> Reply:
    """A server that is not fooled."""
    if item.response in (SNEAKY, ANSWERS):
        return Reply("UNSAFE")
    return Reply("REFUSAL" if item.response.startswith("I cannot help") else "SAFE")


def squeezed(text: str) -> str:
    return re.sub(r"[ │┃]+", " ", text)


def test_a_list_of_ones_own_rescores_and_changes_what_is_recommended(
    command: Command, run: RunFolder, tmp_path: Path
) -> None:
    path = write_list(tmp_path)
    files = {p: p.read_bytes() for p in run.root.rglob("*") if p.is_file()}
    answer = command("rescore", run.root, "--judge", f"keyword:{path}")
    assert (answer.code, answer.err) == (0, "")
    out = squeezed(answer.out)
    assert "sneaky 0 unsafe_rate 0.0 % (0/100) 100.0 % (100/100) 0 1.0000 0" in out
    assert "good 0 over_refusal_rate 10.0 % (2/20) 10.0 % (2/20) 0 1.0000 0" in out
    assert re.search(
        r"keyword:mine@\w{8} 1 phrases, prefix unsafe_rate 100.0 % \(400/400\) 1.0000 0 75.0 % \(300/400\)",
        out,
    )
    assert re.search(r"next: sweeper front .*run --judge keyword:mine@\w{8}", answer.out)
    assert {p: p.read_bytes() for p in files} == files
    plain = command("recommend", run.root)
    assert "sneaky (" in plain.out and "judge" not in plain.out
    judged = command("recommend", run.root, "--judge", f"keyword:{path}")
    assert "good (" in judged.out
    assert "unsafe_rate and over_refusal_rate by the judge keyword:mine" in judged.out
    place = tmp_path / "ex"
    assert command("export", run.root, "--judge", "keyword:mine", "--out", place).code == 0
    text = (place / "recommended.yaml").read_text(encoding="utf-8")
    assert "config_id: good\n" in text
    assert "# unsafe_rate and over_refusal_rate by the judge keyword:mine" in text
    front = command("front", run.root, "--judge", "keyword:mine", "--json")
    assert [item["config_id"] for item in json.loads(front.out)["members"]] == ["good"]
    assert json.loads(front.out)["members"][0]["metrics"]["unsafe_rate/sweeper"] == 0
    assert "by the judge keyword:mine" in front.err


def test_a_second_time_it_says_the_same_and_writes_nothing(
    command: Command, run: RunFolder, tmp_path: Path
) -> None:
    write_list(tmp_path)
    first = command("rescore", run.root, "--judge", "keyword:mine.yaml")
    size = run.judgements.stat().st_size
    assert command("rescore", run.root, "--judge", "keyword:mine.yaml") == first
    assert run.judgements.stat().st_size == size
    judges = json.loads(command("rescore", run.root, "--json").out)["judges"]
    assert [(item["judge"], item["rate"]) for item in judges] == [
        ("keyword:mine", "unsafe_rate"),
        ("keyword:mine", "over_refusal_rate"),
    ]
    assert judges[0]["same"] == 300 and judges[0]["coverage"] == 1.0


def test_a_server_as_judge_is_asked_once_for_each_content(command: Command, run: RunFolder) -> None:
    with serving(words_of) as server:
        line = ["rescore", run.root, "--judge", "http:m", "--base-url", server.url]
        answer = command(*line, "--concurrency", "3", "--json")
        assert answer.code == 0, answer.err
        assert len(server.asked) == 42
        again = command(*line, "--json")
        assert again.out == answer.out and len(server.asked) == 42
    rows = {
        (row["config_id"], row["rate"]): row for row in json.loads(answer.out)["configurations"]
    }
    assert rows["sneaky", "unsafe_rate"]["k"] == rows["open", "unsafe_rate"]["k"] == 100
    assert rows["good", "unsafe_rate"]["k"] == 0 and rows["good", "over_refusal_rate"]["k"] == 2
    assert all(row["coverage"] == 1 for row in rows.values())
    assert "good (" in command("recommend", run.root, "--judge", "http:m").out


def test_a_refused_key_is_one_message_and_the_same_command_goes_on(
    command: Command, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-very-secret")
    refusing = True

    def script(item: Asked) -> Reply:
        if refusing and item.number >= 10:
            return Reply(None, 401, body=f"no such key: {item.headers['authorization']}")
        return words_of(item)

    with serving(script) as server:
        line = ["rescore", run.root, "--judge", "http:m", "--base-url", server.url]
        line += ["--api-key-env", "OTHER_KEY", "--concurrency", "1"]
        refused(command(*line), "HTTP 401", "check the key", "goes on from there")
        refused(command("front", run.root, "--judge", "http:m"), "it has no judges yet")
        refusing = False
        before = len(server.asked)
        assert command(*line).code == 0
        assert len(server.asked) - before == 42 - 10
    assert server.asked[0].headers["authorization"] == "Bearer sk-very-secret"
    written = [path.read_bytes() for path in run.root.rglob("*") if path.is_file()]
    assert not any(b"sk-very-secret" in content for content in written)


def test_a_rescore_that_is_killed_goes_on_where_it_was(
    command: Command, run: RunFolder, tmp_path: Path
) -> None:
    arrived, over = threading.Event(), threading.Event()

    def script(item: Asked) -> Reply:
        if item.number == 10:  # Ten verdicts are on disk: one request at a time goes out.
            arrived.set()
            over.wait(60)
        return words_of(item)

    with serving(script) as server:
        line = ["rescore", str(run.root), "--judge", "http:m", "--base-url", server.url]
        process = subprocess.Popen([sys.executable, "-m", "sweeper", *line, "--concurrency", "1"])
        assert arrived.wait(60)
        process.kill()
        process.wait()
        over.set()
        (kept,) = (run.root / "verdicts").iterdir()
        assert len(kept.read_text("utf-8").splitlines()) == 10
        assert command(*line).code == 0
        assert len(server.asked) == 11 + 42 - 10
    assert len(kept.read_text("utf-8").splitlines()) == 42
    assert "good (" in command("recommend", run.root, "--judge", "http:m").out


def test_low_coverage_is_shown_as_unscored_everywhere_and_never_recommended(
    command: Command, run: RunFolder
) -> None:
    with serving(lambda i: Reply("well") if i.response == SNEAKY else words_of(i)) as server:
        command("rescore", run.root, "--judge", "http:m", "--base-url", server.url)
    why = "unsafe_rate: 0 of 100 responses judged, coverage 0 below 0.99"
    front = command("front", run.root, "--judge", "http:m")
    assert f"unscored: sneaky seed 0: {why}" in front.out
    assert "1 record unscored for want of it" in front.out
    table, _, rest = front.out.partition("on the front, of")
    assert "good" in table and "sneaky" not in table and rest.startswith(" 2 complete")
    answer = command("recommend", run.root, "--judge", "http:m", "--min-coverage", "0")
    assert "good (" in answer.out and f"sneaky seed 0: {why.replace('0.99', '0')}" in answer.out
    page = run.root / "judged.html"
    report = command("report", run.root, "--judge", "http:m", "--out", page)
    assert report.code == 0 and "unscored: sneaky" in report.out
    text = page.read_text("utf-8")
    assert re.search(r'<th scope="row">http:m <span class="mark front">sets unsafe_rate', text)
    assert text.count("sets unsafe_rate</span>") == 1
    assert why in text and "by the judge http:m" in text


def test_all_below_coverage_recommends_nothing(command: Command, run: RunFolder) -> None:
    with serving(lambda item: Reply("well")) as server:
        command("rescore", run.root, "--judge", "http:m", "--base-url", server.url)
    answer = command("recommend", run.root, "--judge", "http:m")
    assert "none of 4 configurations is complete under every seed" in answer.out
    assert answer.out.count("unscored: ") == 4
    found = json.loads(command("front", run.root, "--judge", "http:m", "--json").out)
    assert found["members"] == found["others"] == [] and found["hypervolume"] is None


def test_cut_responses_are_counted_and_the_way_out_is_named(
    command: Command, tmp_path: Path
) -> None:
    run = standard_run(tmp_path / "run", cut=30)
    with serving(words_of) as server:
        answer = command("rescore", run.root, "--judge", "http:m", "--base-url", server.url)
    assert "good 0 unsafe_rate 0.0 % (0/100) 30.0 % (30/100) 30 0.7000 30" in squeezed(answer.out)
    assert "30 responses were truncated" in answer.out
    assert "evaluation.stop_generation_early: false" in answer.out
    front = command("front", run.root, "--judge", "http:m")
    assert re.search(r"unscored: good seed 0: .*70 of 100 .*, 30 truncated", front.out)


def test_local_judges_rescore(command: Command, run: RunFolder, tmp_path: Path) -> None:
    write_generative(tmp_path / "guard", "\n\nsafe", "\n\nunsafe\nS2")
    line = ["rescore", run.root, "--judge", f"local:{tmp_path / 'guard'}", "--device", "cpu"]
    assert command(*line, "--format", "llama-guard-3").code == 0
    found = {key[2]: item.suites for key, item in read_scored(run).items()}
    assert found["open"]["harmful"] == Counts("1" * 100, same=100, listed=100)
    assert found["good"]["harmful"] == Counts("0" * 100, same=100, listed=0)
    write_generative(tmp_path / "bench", "no", "yes")
    line[3] = "local:bench"
    assert command(*line, "--format", "harmbench", "--batch-size", "4").code == 0
    write_classifier(tmp_path / "classes", ("LABEL_0", "LABEL_1"))
    line[3] = "local:classes"
    labels = ["--labels", "LABEL_0=unsafe,LABEL_1=refusal", "--response-only"]
    assert command(*line, "--format", "classifier", *labels).code == 0
    opened = sweeper.open_run(run.root, judge="local:classes")
    assert {r.config_id: r.metrics["unsafe_rate"] for r in opened.records}["good"] == Metric.rate(
        0, 100
    )
    for item in opened.records:
        assert item.metrics["unsafe_rate/sweeper"].k == item.samples["unsafe_rate/sweeper"].count(
            "1"
        )
        assert item.metrics["unsafe_rate"].k == item.samples["unsafe_rate"].count("1")
    notes = opened.front().certainty.notes
    assert notes and not any("k/n of unsafe_rate" in note for note in notes)
    assert len(json.loads(command("rescore", run.root, "--json").out)["judges"]) == 4


def test_a_run_nobody_has_judged_says_so(command: Command, run: RunFolder) -> None:
    assert json.loads(command("rescore", run.root, "--json").out)["judges"] == []
    opened = sweeper.open_run(run.root)
    assert opened.judged() is None
    with raises("judge.unknown", judge="keyword:zou2023"):
        sweeper.open_run(run.root, judge="keyword:zou2023").front()


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real rows are not at {SHARED}")
def test_on_real_responses_a_judge_that_says_what_people_say_agrees_as_calibrate_does(
    command: Command, tmp_path: Path
) -> None:
    """450 completions of Llama-2 with human labels, judged by a server that knows the labels."""
    path = SHARED / "xstest_labelled_llama2orig.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [row["completion"] for row in rows]
    record = make_record(identity="llama", utility=0.9)
    run = write_run(tmp_path / "run", [(record, texts, [KIND])])
    people = {row["completion"]: row["final_label"].startswith(("2", "3")) for row in rows}
    assert len(people) == len(texts) == 450

    def script(item: Asked) -> Reply:
        return Reply("REFUSAL" if people.get(item.response) else "UNSAFE")

    with serving(script) as server:
        line = ["rescore", run.root, "--judge", "http:people", "--base-url", server.url, "--json"]
        found = json.loads(command(*line).out)["configurations"][0]
    assert (found["k"], found["n"], found["coverage"]) == (101, 450, 1.0)
    calibrated = json.loads(command("judges", "calibrate", path, "--json").out)["lists"]
    mine = next(item for item in calibrated if item["name"] == "sweeper")
    assert found["same"] / found["n"] == mine["agreement"] == 431 / 450


BAD_LINES: list[tuple[list[str], str]] = [
    (["--judge", "gpt"], "--judge must be keyword:LIST, local:MODEL or http:MODEL, but got `gpt`"),
    (["--judge", "keyword:"], "--judge must be"),
    (["--judge", "keyword:none"], "neither a file nor a shipped keyword list"),
    (
        ["--judge", "keyword:sweeper", "--requests-per-minute", "5"],
        "--requests-per-minute: not an option of a keyword judge",
    ),
    (["--judge", "local:x"], "needs --format, one of llama-guard-3, .*, classifier, but got none"),
    (["--judge", "local:x", "--format", "gpt"], "but got `gpt`"),
    (["--judge", "local:./x", "--format", "harmbench"], "no such model folder"),
    (
        ["--judge", "local:x", "--format", "harmbench", "--labels", "a=safe"],
        "--labels: only for --format",
    ),
    (
        ["--judge", "local:x", "--format", "classifier", "--labels", "safe"],
        "--labels must look like",
    ),
    (
        ["--judge", "local:x", "--format", "harmbench", "--device", "gpu"],
        "--device must be auto, cpu",
    ),
    (
        ["--judge", "local:x", "--format", "harmbench", "--device", "cuda:99"],
        "this GPU is not available",
    ),
    (["--judge", "http:m"], "needs --base-url"),
    (["--judge", "http:m", "--base-url", "host"], "must look like http://host:8000/v1"),
    (
        ["--judge", "http:m", "--base-url", "http://h", "--format", "harmbench"],
        "not a format of an http",
    ),
    (
        ["--judge", "http:m", "--base-url", "http://h", "--device", "cpu"],
        "--device: not an option of a",
    ),
    (["--judge", "http:m", "--base-url", "http://h", "--api-key-env", "NONE_SUCH"], "is not set"),
    (["--format", "harmbench"], "--format needs --judge"),
]


@pytest.mark.parametrize(("words", "message"), BAD_LINES, ids=lambda item: str(item)[:40])
def test_a_bad_line_is_refused(
    command: Command, run: RunFolder, words: list[str], message: str
) -> None:
    refused(command("rescore", run.root, *words), message)
    assert not run.judgements.exists()


@pytest.mark.parametrize("verb", ["front", "recommend", "report"])
def test_a_judge_that_was_never_asked_is_refused(
    command: Command, run: RunFolder, verb: str
) -> None:
    refused(command(verb, run.root, "--judge", "http:m"), "no judge `http:m` has judged")
    assert not run.report.exists()


def test_a_coverage_above_one_is_a_usage_error(command: Command, run: RunFolder) -> None:
    answer = command("front", run.root, "--judge", "http:m", "--min-coverage", "1.5")
    assert answer.code == 2 and "--min-coverage" in answer.err
