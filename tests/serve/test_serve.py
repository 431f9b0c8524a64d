"""The server: what it shows of runs that come, grow, break and go, and what it never gives away."""

import html
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.factories import make_record, make_spec, make_sweep
from support.locks import line_of
from support.run_folders import append
from support.served import HOSTILE, Answer, Served, add_run

from sweeper.errors import SweeperError
from sweeper.serve.compare import compare, spec_differences
from sweeper.serve.files import open_regular_file
from sweeper.serve.state import RunView
from sweeper.store.records import GrowingRecords, TrialRecord, read_records

SWEEP = make_sweep()
SPEC = make_spec()
SECRET = "not for anybody"


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that end with the test."""
    started: list[Served] = []

    def start(
        root: Path, with_generations: bool = False, redact: bool = False, token: str = ""
    ) -> Served:
        started.append(Served(root, with_generations, redact, token))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs and things that are none; do not change them."""
    root = tmp_path_factory.mktemp("serve") / "runs"
    done = add_run(root, "done", SWEEP, "decide=false")
    done.generations.mkdir()
    (done.generations / "abc-0.jsonl").write_text('{"response": "' + HOSTILE + '"}\n')
    going_on = add_run(root, "going on", SWEEP[:60], "seeds=[0]")
    going_on.lock.write_bytes(line_of("elsewhere", 1).line())
    (root / "notes").mkdir()
    (root / "secret.txt").write_text(SECRET)
    (done.root / "secret.txt").write_text(SECRET)
    (root.parent / "secret.txt").write_text(SECRET)
    return root


@pytest.fixture(scope="module")
def shared(runs: Path) -> Iterator[Served]:
    """One server over `runs` for the tests that only ask."""
    one = Served(runs)
    yield one
    one.stop()


def cells(page: str) -> list[list[str]]:
    """The texts of the rows of a page's tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.split(r"</t[hd]>", row)]
        for row in rows
    ]


def test_the_index_lists_every_run_with_state_front_and_recommendation(shared: Served) -> None:
    page = shared.ask("/").text
    rows = {row[0]: row for row in cells(page)}
    assert set(rows) == {"run", "done", "going on"}
    assert rows["done"][1:4] == ["complete", "139 of 139", ""]
    assert rows["done"][4].startswith("lr ") and "so far" not in rows["done"][4]
    assert 'title="d02da7402c"' in page and rows["done"][5] == "0.8 % (2/256)"
    assert rows["going on"][1:3] == ["running", "60 of 139"]
    assert rows["going on"][4].endswith(" (so far)")
    assert 'href="/runs/going%20on/"' in page and "notes" not in page and SECRET not in page


def test_a_live_page_holds_the_report_in_a_frame_and_may_ask_its_own_server_only(
    shared: Served,
) -> None:
    shell = shared.ask("/runs/going%20on/")
    assert shell.status == 200 and shell.text.count('src="/static/live.js"') == 1
    policy = policy_of(shell)
    assert policy["default-src"] == "'none'" and policy["frame-src"] == "'self'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert shell.headers["x-frame-options"] == "DENY"
    answer = shared.ask("/runs/going%20on/report")
    assert '<meta name="report-version"' in answer.text and 'data-records="60"' in answer.text
    assert "http-equiv" not in answer.text
    policy = policy_of(answer)
    assert policy["default-src"] == "'none'" and "connect-src" not in policy
    assert policy["frame-ancestors"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    download = shared.ask("/runs/going%20on/report.html")
    assert "http-equiv" in download.text and "report-version" not in download.text
    assert download.headers["content-disposition"].startswith("attachment")


def policy_of(answer: Answer) -> dict[str, str]:
    """The directives of the content security policy of an answer."""
    parts = answer.headers["content-security-policy"].split(";")
    return dict(part.strip().split(" ", 1) for part in parts)


def test_one_page_gives_one_answer_and_says_so_far(shared: Served) -> None:
    report = shared.ask("/runs/going%20on/report").text
    assert '<p class="so-far">so far: 60 of 139 records</p>' in report
    data = shared.live("going%20on")
    assert not {"recommended", "front"} & set(data)
    assert "recommend" not in shared.ask("/runs/going%20on/").text
    assert "so far: " not in shared.ask("/runs/done/report").text


def test_every_answer_carries_the_security_headers(shared: Served) -> None:
    for target, status in (
        ("/", 200),
        ("/runs/done/", 200),
        ("/runs/done/report", 200),
        ("/runs/done/live.json", 200),
        ("/runs/done/files/records.jsonl", 200),
        ("/compare?a=done&b=going%20on", 200),
        ("/static/live.js", 200),
        ("/nothing", 404),
        ("/runs/nothing/", 404),
    ):
        answer = shared.ask(target)
        assert answer.status == status, target
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        by = "'self'" if target.endswith("/report") else "'none'"
        assert f"frame-ancestors {by}" in policy and "default-src 'none'" in policy
        assert (
            "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
        )


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:9999", "localhost.", "127.0.0.1:80", "[::1]:8765"]
)
def test_own_names_are_answered(shared: Served, host: str) -> None:
    assert shared.ask("/static/live.js", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:80",
        "127.0.0.1@evil.example",
        "localhost:80:80",
        "localhost:port",
        "[::1",
        "[::2]",
        "0.0.0.0",
        "",
        "localhost/",
        "127.0.0.1#",
    ],
)
def test_other_hosts_are_refused_before_anything_is_looked_at(shared: Served, host: str) -> None:
    answer = shared.ask("/runs/done/live.json", host=host)
    assert answer.status in (400, 421)  # h11 itself refuses what is no header value.
    assert "records" not in answer.text


def test_requests_without_or_with_two_hosts_are_refused(shared: Served) -> None:
    assert shared.ask("/", host=None).status == 400
    assert b" 421 " in shared.raw(b"GET / HTTP/1.0\r\n\r\n").splitlines()[0]
    two = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    assert b" 400 " in shared.raw(two).splitlines()[0]
    forwarded = shared.ask("/", host="evil.example", X_Forwarded_Host="127.0.0.1")
    assert forwarded.status == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_only_get_and_head_are_answered(shared: Served, method: str) -> None:
    answer = shared.ask("/runs/done/files/spec.yaml", method)
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD"
    assert "model" not in answer.text


def test_only_a_page_of_this_server_may_stop_and_resume(tmp_path: Path, serve: Serve) -> None:
    add_run(tmp_path, "run", SWEEP[:5])
    server = serve(tmp_path, token="right")
    page = server.ask("/runs/run/").text
    assert 'data-token="right"' in page and 'id="live-stop"' in page
    own = f"http://127.0.0.1:{server.port}"
    host = own.removeprefix("http://")
    for action, says in (
        ("stop", "no sweep is running"),
        ("stop/abc", "run is, or holds, `abc`"),
        ("resume", ""),
    ):
        target = f"/runs/run/{action}"
        for headers in (
            {},
            {"Origin": own},
            {"X_Sweeper_Token": "right"},
            {"Origin": own, "X_Sweeper_Token": "wrong"},
            {"Origin": own, "X_Sweeper_Token": ""},
            {"Origin": "http://evil.example", "X_Sweeper_Token": "right"},
            {"Origin": "null", "X_Sweeper_Token": "right"},
            {"Origin": f"https://{host}", "X_Sweeper_Token": "right"},
            {"Origin": "http://127.0.0.1:1", "X_Sweeper_Token": "right"},
        ):
            answer = server.ask(target, "POST", host, **headers)
            assert answer.status == 403 and "use its buttons" in answer.text, headers
        given = {"Origin": "http://evil.example", "X_Sweeper_Token": "right"}
        assert server.ask(target, "POST", "evil.example", **given).status == 421
        assert server.ask(target).status == 405
        if says:
            right = server.ask(target, "POST", host, Origin=own, X_Sweeper_Token="right")
            assert right.status == 409 and says in json.loads(right.text)["problem"]
            assert str(tmp_path) not in right.text
    for target in (
        "/runs/run/live.json",
        "/runs/run/",
        "/",
        "/runs/run/stop/",
        "/runs/run/stop/a.b",
    ):
        answer = server.ask(target, "POST", host, Origin=own, X_Sweeper_Token="right")
        assert answer.status == 405, target
    without = serve(tmp_path)
    assert 'id="live-stop"' not in without.ask("/runs/run/").text
    host = f"127.0.0.1:{without.port}"
    given = {"Origin": f"http://{host}", "X_Sweeper_Token": ""}
    assert without.ask("/runs/run/stop", "POST", host, **given).status == 405


def test_head_has_the_headers_of_get_and_no_body(shared: Served) -> None:
    answer = shared.ask("/runs/done/report", "HEAD")
    assert answer.status == 200 and answer.text == ""
    assert int(answer.headers["content-length"]) > 10_000


@pytest.mark.parametrize(
    "target",
    [
        "/runs/../secret.txt",
        "/runs/done/../../secret.txt",
        "/runs/done/files/../../secret.txt",
        "/runs/done/files/..%2f..%2fsecret.txt",
        "/runs/done/files/%2e%2e/%2e%2e/secret.txt",
        "/runs/done/files/%252e%252e%252fsecret.txt",
        "/runs/done/files/secret.txt",
        "/runs/done/files/..%5c..%5csecret.txt",
        "/runs/done/files//etc/passwd",
        "/runs/done/files/%2fetc%2fpasswd",
        "/runs/done/files/spec.yaml%00.txt",
        "/runs/done/files/spec.yaml/",
        "/runs/done/files/run.json",
        "/runs/done/files/.lock",
        "/runs/done/files/",
        "/runs/..%2fruns%2fdone/",
        "/runs/%2e%2e/",
        "/runs/./",
        "/runs/notes/",
        "/runs/notes/live.json",
        "/runs/done/generations/abc-0.jsonl",
        "/static/..%2fapp.py",
        "/static/app.py",
        "/static/base.html",
        "/compare?a=done&b=..%2fruns%2fdone",
        "/compare?a=done",
        "/" + "a/" * 2000,
        "/runs/" + "x" * 5000 + "/",
        "http://evil.example/runs/done/files/spec.yaml",
        "/runs/%ff%fe/",
    ],
)
def test_no_path_leads_out_of_what_is_listed(shared: Served, target: str) -> None:
    answer = shared.ask(target)
    assert answer.status == 404, answer.text[:300]
    assert SECRET not in answer.text and "root:" not in answer.text and "Site" not in answer.text


def test_files_are_sent_as_text_to_save(shared: Served, runs: Path) -> None:
    for name in ("records.jsonl", "spec.yaml", "plan.json"):
        answer = shared.ask(f"/runs/done/files/{name}")
        assert answer.text == (runs / "done" / name).read_text()
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["content-disposition"].startswith("attachment")
    rows = shared.ask("/runs/done/records.csv").text.splitlines()
    assert len(rows) == 140 and rows[0].startswith('"config_id","seed","role","status"')


def test_responses_are_sent_only_where_that_was_asked_for(runs: Path, serve: Serve) -> None:
    answer = serve(runs, with_generations=True).ask("/runs/done/generations/abc-0.jsonl")
    assert answer.status == 200 and HOSTILE in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_redacted_is_redacted_everywhere(tmp_path: Path, serve: Serve) -> None:
    folder = add_run(tmp_path, "run", SWEEP[:1])
    record, told = SWEEP[0], "how to do what nobody should"
    folder.generations.mkdir()
    line = {"suite": "harmful.csv", "id": "1", "prompt": told, "response": told, "verdicts": {}}
    name = f"{record.config_id}-{record.seed}.jsonl"
    (folder.generations / name).write_text(json.dumps(line) + "\n")
    openly, redacted = serve(tmp_path), serve(tmp_path, with_generations=True, redact=True)
    assert told in openly.ask("/runs/run/report").text
    for target in ("/runs/run/report", "/runs/run/report.html", f"/runs/run/generations/{name}"):
        assert told not in redacted.ask(target).text
    assert redacted.ask(f"/runs/run/generations/{name}").status == 404


def test_links_out_of_the_folder_are_named_and_not_followed(tmp_path: Path, serve: Serve) -> None:
    root = tmp_path / "runs"
    outside = add_run(tmp_path / "elsewhere", "outside", SWEEP[:5])
    for name in ("records", "responses", "kept"):
        add_run(root, name, SWEEP[:5])
    (root / "records" / "records.jsonl").unlink()
    (root / "records" / "records.jsonl").symlink_to(outside.records)
    (root / "responses" / "generations").mkdir()
    (root / "responses" / "generations" / "a-0.jsonl").symlink_to("/etc/passwd")
    (root / "outside").symlink_to(outside.root)
    (root / "kept" / "spec.yaml").rename(root / "kept" / "kept.yaml")
    (root / "kept" / "spec.yaml").symlink_to("kept.yaml")
    server = serve(root, with_generations=True)
    rows = {row[0]: row for row in cells(server.ask("/").text)}
    leads = "is a link to a place outside the folder"
    assert rows["records"][1:3] == ["unreadable", f"records.jsonl {leads}"]
    assert rows["responses"][2] == f"generations/a-0.jsonl {leads}"
    assert rows["outside"][2] == f"outside {leads}"
    for target in (
        "/runs/records/",
        "/runs/records/report",
        "/runs/records/logs/abc",
        "/runs/records/files/records.jsonl",
        "/runs/records/live.json",
        "/runs/responses/generations/a-0.jsonl",
        "/runs/outside/",
        "/runs/kept/files/spec.yaml",  # A link within the run: shown, but not sent as a file.
    ):
        assert server.ask(target).status == 404, target
    assert rows["kept"][1] == "stopped"


def test_a_pipe_in_the_place_of_a_file_makes_nobody_wait(tmp_path: Path, serve: Serve) -> None:
    folder = add_run(tmp_path, "run", SWEEP[:5])
    folder.plan.unlink()
    os.mkfifo(folder.plan)
    server = serve(tmp_path)
    assert "plan.json is neither a file nor a folder" in server.ask("/").text
    for target in ("/runs/run/", "/runs/run/live.json", "/runs/run/files/plan.json"):
        assert server.ask(target).status == 404
    with pytest.raises(OSError, match=r"plan\.json is not a regular file"):
        open_regular_file(folder.plan)


def test_hostile_names_and_records_stay_text(tmp_path: Path, serve: Serve) -> None:
    failed = make_record(
        status="failed",
        identity="ff",
        reason={"class": HOSTILE, "message": HOSTILE, "traceback": "", "stage": "train"},
    )
    record = make_record(identity=HOSTILE[:20], average=HOSTILE)
    add_run(tmp_path, "<img src=x onerror=alert(1)>", [*SWEEP[:20], failed, record])
    folder = add_run(tmp_path, "broken", [])
    folder.records.write_text(f'{{"version": "{HOSTILE.replace("/", "")}"}}\n')
    server = serve(tmp_path)
    index = server.ask("/").text
    assert "<img" not in index and "&lt;img src=x" in index
    assert "<script>alert" not in index and "&lt;script&gt;alert" in index
    name = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
    page = server.ask(f"/runs/{name}/report").text
    assert "<img" not in server.ask(f"/runs/{name}/").text
    assert page.count("<script>alert") == 0 and "<img" not in page
    live = server.ask(f"/runs/{name}/live.json")
    assert live.headers["content-type"].startswith("application/json")
    assert HOSTILE in json.loads(live.text)["failures"][0]["reason"]
    missing = server.ask("/runs/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script>alert" not in missing.text


def test_runs_come_grow_break_and_go_while_the_server_stays(tmp_path: Path, serve: Serve) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    server = serve(root)
    assert "No runs yet" in server.ask("/").text
    folder = add_run(root, "new", SWEEP[:20])
    assert server.live("new")["records"] == 20
    first = server.ask("/runs/new/report").text
    append(folder, SWEEP[20:50])
    with folder.records.open("a") as file:
        file.write('{"torn')
    live = server.live("new")
    assert live["records"] == 50 and live["planned"] == 139
    second = server.ask("/runs/new/report").text
    assert 'data-records="20"' in first and 'data-records="50"' in second
    assert SWEEP[49].config_id in second and SWEEP[49].config_id not in first

    kept = folder.records.read_bytes()
    folder.records.write_text("{nonsense}\n")
    assert server.ask("/runs/new/report").status == server.ask("/runs/new/live.json").status == 503
    index = server.ask("/").text
    assert "unreadable" in index and "runs/new/records.jsonl:1: the record is not JSON" in index
    assert str(tmp_path) not in index
    folder.records.write_bytes(kept)
    assert server.live("new")["records"] == 50
    for path, content in (
        (folder.spec, "- nonsense"),
        (folder.plan, "{"),
        (folder.info, "[]"),
        (folder.plan, '{"accounting": 3}'),
    ):
        before = path.read_text()
        path.write_text(content)
        assert "unreadable" in server.ask("/").text
        assert server.ask("/runs/new/report").status == 503
        path.write_text(before)
    shutil.rmtree(folder.root)
    assert server.ask("/runs/new/").status == server.ask("/runs/new/report").status == 404
    assert server.ask("/runs/new/live.json").status == 404
    assert "No runs yet" in server.ask("/").text


def test_a_single_run_folder_is_shown_at_once(tmp_path: Path, serve: Serve) -> None:
    folder = add_run(tmp_path, "only", SWEEP[:8])
    server = serve(folder.root)
    answer = server.ask("/")
    assert (answer.status, answer.headers["location"]) == (302, "/runs/only/")
    assert server.live("only")["records"] == 8
    assert server.ask("/runs/only").headers["location"] == "/runs/only/"
    assert server.ask("/runs/other/").status == server.ask("/runs/other").status == 404


def test_growing_records_equal_a_fresh_reading_whatever_happens_to_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "records.jsonl"
    growing = GrowingRecords(path)
    assert growing.read() == ()
    lines = [record.to_json() + "\n" for record in SWEEP]
    for content in (
        lines[:3],
        lines[:9],
        [*lines[:9], lines[9][:50]],
        lines[:12],
        lines[1:30],  # One line removed and more appended: longer than before, and another file.
        lines[:2],
        [],
        lines,
    ):
        path.write_text("".join(content))
        assert growing.read() == read_records(path).records
    path.write_text("".join([*lines, lines[4]]))
    with pytest.raises(SweeperError, match=r"first in line 5"):
        growing.read()
    path.write_text("".join(lines[:7]))
    assert len(growing.read()) == 7
    path.unlink()
    assert growing.read() == ()


def measured_with(records: list[TrialRecord], **hashes: str) -> list[TrialRecord]:
    """Records that say what they stand on."""
    data = {"harmful/h": "1", "harmless/s": "2", "train": "3", "model": "4", **hashes}
    provenance = {
        "data_sha256": data,
        "keyword_lists": {"sweeper": "a"},
        "decoding": {"strategy": "greedy", "max_new_tokens": 128},
        "model": {"dtype": "float32"},
        "versions": {"torch": "2.13.0"},
    }
    return [replace(record, provenance=provenance) for record in records]


def test_two_runs_of_the_same_data_compare_and_others_are_warned_about(tmp_path: Path) -> None:
    def found(name: str, records: list[TrialRecord], *overrides: str) -> RunView:
        return RunView(add_run(tmp_path, name, records, *overrides))

    a = found("a", measured_with(SWEEP)).found()
    same = found("same", measured_with(SWEEP[:60]), "space.batch_size={values: [8, 16, 64]}")
    data = compare(("a", "same"), a, same.found())
    assert data.warnings == ()
    assert data.differences == (("space.batch_size.values", "[8, 16]", "[8, 16, 64]"),)
    assert [row[0] for row in data.a.front] == ["d593865a14", *[r[0] for r in data.a.front[1:]]]
    assert len(data.a.front) == len(data.a.info.front) == 4
    rows = {name: (one, other) for name, one, other in data.recommended}
    assert rows["records"] == ("139", "60") and rows["configuration"][0] == "d02da7402c"
    assert rows["unsafe_rate"][0] == "0.8 % (2/256, 0.2 to 2.8 %)"

    harmful = found("harmful", measured_with(SWEEP, **{"harmful/h": "9"})).found()
    assert compare(("a", "harmful"), a, harmful).warnings == (
        "Different harmful prompts: unsafe rates are not comparable.",
    )
    split = found("split", measured_with(SWEEP), "data.heldout_rows=32").found()
    (warning,) = compare(("a", "split"), a, split).warnings
    assert warning == "Different held-out rows: utility metrics are not comparable."
    other_half = "evaluation.harmful={path: harmful.csv, prompt_split: search}"
    half = found("half", measured_with(SWEEP), other_half).found()
    assert any("harmful prompts" in text for text in compare(("a", "half"), a, half).warnings)
    limit = found(
        "limit", measured_with(SWEEP), "constraints=[{metric: unsafe_rate, max: 0.2}]"
    ).found()
    (warning,) = compare(("a", "limit"), a, limit).warnings
    assert warning == "Different constraints: the recommendations answer different questions."
    unknown = compare(("a", "unknown"), a, found("unknown", SWEEP).found()).warnings
    assert len(unknown) == 1 and "cannot be checked" in unknown[0]
    failed = found("failed", measured_with([make_record(status="failed")])).found()
    assert compare(("a", "failed"), a, failed).warnings == (
        "The second run has no complete record, so there is nothing to compare.",
    )


def test_specs_differ_by_the_keys_that_matter() -> None:
    a, b = make_spec(), make_spec("seeds=[0, 1]", "model.path=another", "name=else")
    assert spec_differences(a, b) == [
        ("model.path", "example/model", "another"),
        ("seeds", "[0]", "[0, 1]"),
    ]
    assert spec_differences(a, a) == []


def test_the_comparison_page_shows_both_fronts_in_one_figure(shared: Served) -> None:
    page = shared.ask("/compare?a=done&b=going%20on").text
    assert page.count('id="fronts-figure"') == 1
    assert "done: 4 configurations on the front" in page
    assert "going on: " in page and "cannot be checked" in page


@dataclass(frozen=True)
class Process:
    """`sweeper serve` as users start it."""

    process: "subprocess.Popen[str]"
    lines: list[str]

    @property
    def port(self) -> int:
        return int(self.lines[-1].split("http://")[1].split(":")[1].split("/")[0])


def started(*words: str | Path) -> Process:
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeper", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Whoever runs tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("serving "):
        line = process.stdout.readline()
        assert line, f"it ended: {lines}"
        lines.append(line.rstrip("\n"))
    return Process(process, lines)


def test_the_command_prints_its_address_and_ends_on_ctrl_c_even_while_asked(
    tmp_path: Path,
) -> None:
    add_run(tmp_path, "run", SWEEP)
    one = started(tmp_path, "--port", "0")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().read().count(b"/runs/run/") == 1  # And stays open.
        other = subprocess.run(
            [sys.executable, "-m", "sweeper", "serve", tmp_path, "--port", str(one.port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert other.returncode == 2 and other.stdout == ""
        assert f"port {one.port} on 127.0.0.1 is in use" in other.stderr
        assert "Traceback" not in other.stderr and "--port 0" in other.stderr
        asking = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
        asking.request("GET", "/runs/run/report")
        one.process.send_signal(signal.SIGINT)
        out, _ = one.process.communicate(timeout=20)
        assert one.process.returncode == 0
        assert out.strip() == "stopped"
    finally:
        one.process.kill()
        one.process.wait()


def test_an_empty_folder_and_an_open_address_are_said_aloud(tmp_path: Path) -> None:
    one = started(tmp_path, "--port", "0", "--host", "0.0.0.0")
    try:
        text = "\n".join(one.lines)
        assert "no runs in" in text
        assert "warning: 0.0.0.0 is not this machine alone" in text
        assert f"http://127.0.0.1:{one.port}/" in one.lines[-1]
    finally:
        one.process.kill()
        one.process.wait()


def test_what_is_no_folder_and_no_address_is_refused_in_one_message(tmp_path: Path) -> None:
    for words, message in (
        ([tmp_path / "none"], "is not a folder"),
        ([tmp_path, "--host", "nowhere.invalid"], "--host nowhere.invalid is not an address"),
        ([tmp_path, "--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
    ):
        answer = subprocess.run(
            [sys.executable, "-m", "sweeper", "serve", *map(str, words), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert answer.returncode == 2 and message in answer.stderr
        assert "Traceback" not in answer.stderr
