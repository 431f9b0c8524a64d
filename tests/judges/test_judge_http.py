"""Judges behind an HTTP API: what they are asked, and every way a server can fail."""

import json
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from support.judge_server import Asked, FakeClock, Reply, serving
from support.raising import raises

from sweeper.errors import JudgeError
from sweeper.judges import Judgement, Sample
from sweeper.judges.formats import RUBRIC
from sweeper.judges.pace import RequestPacer, retry_after
from sweeper.judges.remote import ATTEMPTS, DOWN_AFTER, GARBAGE_ATTEMPTS, HttpJudge

KEY = "sk-very-secret-key"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def samples(*texts: str) -> list[Sample]:
    return [Sample("harmful", f"Question {i}?", text) for i, text in enumerate(texts)]


def ask(
    script: Callable[[Asked], Reply],
    items: list[Sample],
    *,
    concurrency: int = 1,
    clock: FakeClock | None = None,
    timeout: float = 10.0,
    **options: str,
) -> tuple[list[Judgement], list[Asked]]:
    """The judgements in the order of the samples, and what the server saw."""
    with serving(script) as server:
        judge = HttpJudge(
            "m",
            server.url,
            concurrency=concurrency,
            timeout=timeout,
            clock=clock or FakeClock(),
            **options,  # type: ignore[arg-type]
        )
        found = dict(judge.judge(items))
        return [found[number] for number in range(len(items))], server.asked


def test_good_answers_are_verdicts_and_the_request_holds_all_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    words = {"a": "REFUSAL", "b": " unsafe.\n", 'c"}': "Safe"}
    found, asked = ask(lambda item: Reply(words[item.response]), samples(*words))
    assert found == [
        Judgement(False, True, "REFUSAL"),
        Judgement(True, False, "unsafe."),
        Judgement(False, False, "Safe"),
    ]
    first = asked[0]
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert (first.body["model"], first.body["temperature"]) == ("m", 0)
    system, user = first.body["messages"]
    assert system == {"role": "system", "content": RUBRIC}
    assert json.loads(user["content"]) == {"request": "Question 0?", "response": "a"}


def test_without_a_key_none_is_sent_not_even_one_of_a_netrc_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    _, asked = ask(lambda item: Reply("SAFE"), samples("a"))
    assert "authorization" not in asked[0].headers


def test_llama_guard_behind_an_api_gets_the_dialogue_alone() -> None:
    found, asked = ask(
        lambda item: Reply("\n\nunsafe\nS2" if item.response == "a" else "safe"),
        samples("a", "b"),
        format_="llama-guard-3",
    )
    assert [(item.unsafe, item.refusal) for item in found] == [(True, None), (False, None)]
    assert asked[0].body["messages"] == [
        {"role": "user", "content": "Question 0?"},
        {"role": "assistant", "content": "a"},
    ]


def test_requests_go_out_so_many_at_once() -> None:
    together = threading.Barrier(4, timeout=30)

    def script(item: Asked) -> Reply:
        together.wait()  # Broken, and an error, unless four are here at once.
        return Reply(item.response)

    words = ["SAFE", "UNSAFE", "REFUSAL", "SAFE"] * 3
    found, _ = ask(script, samples(*words), concurrency=4)
    assert [item.evidence for item in found] == words


def test_a_429_is_retried_after_what_the_server_asks_for() -> None:
    clock = FakeClock()
    limited = Reply(None, 429, (("Retry-After", "7"),), "slow down")
    found, asked = ask(
        lambda item: limited if item.number < 2 else Reply("UNSAFE"), samples("a"), clock=clock
    )
    assert found[0].unsafe is True and len(asked) == 3
    assert clock.sleeps == [7.0, 7.0]


def test_errors_of_the_server_are_retried_with_growing_pauses() -> None:
    clock = FakeClock()
    statuses = [500, 502, 503, 408, 529]

    def script(item: Asked) -> Reply:
        return Reply("SAFE") if item.number == 5 else Reply(None, statuses[item.number], body="")

    found, asked = ask(script, samples("a"), clock=clock)
    assert found == [Judgement(False, False, "SAFE")] and len(asked) == ATTEMPTS
    assert clock.sleeps == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_one_sample_that_always_fails_is_nobodys_verdict_and_the_others_are_judged() -> None:
    def script(item: Asked) -> Reply:
        return Reply(None, 500, body="boom") if item.response == "b" else Reply("SAFE")

    found, asked = ask(script, samples("a", "b", "c"))
    assert [item.unsafe for item in found] == [False, None, False]
    assert found[1] == Judgement(None, None, "HTTP 500: boom", final=False)
    assert len(asked) == 2 + ATTEMPTS


def test_a_server_that_only_fails_is_one_error() -> None:
    with raises("judge.unreachable", failed=5) as e:
        ask(lambda item: Reply(None, 503, body="busy"), samples(*"abcdefgh"))
    assert "what has been judged is kept" in str(e.value)
    with raises("judge.unreachable", failed=2):
        ask(lambda item: Reply(None, 500, body=""), samples("a", "b"))


def test_a_server_that_stops_answering_loses_nothing_it_has_said() -> None:
    with serving(lambda item: Reply("SAFE")) as server:
        judge = HttpJudge("m", server.url, concurrency=2, clock=FakeClock())
        found = []
        with raises("judge.unreachable"):
            for number, judgement in judge.judge(samples(*"abcdefgh")):
                assert judgement.unsafe is (False if judgement.final else None)
                found += [number] if judgement.final else []
                if len(found) == 3:
                    server.close()
    assert len(found) == len(set(found)) == len(server.asked)
    assert 3 <= len(found) < 8


def test_a_port_nobody_listens_on_is_one_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        clock = FakeClock()
        judge = HttpJudge("m", url, concurrency=1, clock=clock)
        with raises("judge.unreachable", failed=1) as e:
            list(judge.judge(samples("a", "b")))
    assert url in str(e.value) and len(clock.sleeps) == ATTEMPTS - 1


def test_garbage_is_asked_again_and_then_an_abstention_for_good() -> None:
    def script(item: Asked) -> Reply:
        return Reply("I would say it is safe") if item.response == "b" else Reply("UNSAFE")

    found, asked = ask(script, samples("a", "b"))
    assert found[0].unsafe is True
    assert found[1] == Judgement(
        None, None, "unreadable output: 'I would say it is safe'", final=True
    )
    assert sum(item.response == "b" for item in asked) == GARBAGE_ATTEMPTS


def test_garbage_that_gives_way_to_an_answer_is_that_answer() -> None:
    found, _ = ask(lambda item: Reply("??" if item.number < 2 else "REFUSAL"), samples("a"))
    assert found == [Judgement(False, True, "REFUSAL")]


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", "{}", '{"choices": []}', "[1]", '{"choices": [{"message": 3}]}']
)
def test_what_is_no_chat_completion_is_a_failure_of_the_server(body: str) -> None:
    with pytest.raises(JudgeError, match="sent an invalid chat completion"):
        ask(lambda item: Reply(body=body), samples("a"))


def test_an_answer_without_words_is_garbage() -> None:
    found, _ = ask(lambda item: Reply(None if item.response == "b" else "SAFE"), samples("a", "b"))
    assert found[1] == Judgement(None, None, "unreadable output: ''")


def test_a_server_that_says_nothing_is_asked_again() -> None:
    over = threading.Event()

    def script(item: Asked) -> Reply:
        if item.number == 0:
            over.wait(30)
        else:
            over.set()
        return Reply("SAFE")

    found, asked = ask(script, samples("a"), timeout=0.2)
    assert found == [Judgement(False, False, "SAFE")] and len(asked) >= 2


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "check the key in $OPENAI_API_KEY"),
        (403, "may do"),
        (404, "check the model's name and --base-url"),
        (405, "check --base-url"),
        (302, "check --base-url"),
    ],
)
def test_what_every_request_would_get_is_one_error_at_once(
    status: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    headers = (("Location", "http://127.0.0.1:9/elsewhere"),) if status == 302 else ()
    asked: list[Asked] = []

    def script(item: Asked) -> Reply:
        asked.append(item)
        return Reply(None, status, headers, f"bad key {KEY}") if item.number else Reply("SAFE")

    with serving(script) as server:
        judge = HttpJudge("m", server.url, concurrency=1, clock=FakeClock())
        answers = judge.judge(samples("a", "b", "c"))
        assert next(answers) == (0, Judgement(False, False, "SAFE"))
        with pytest.raises(JudgeError) as caught:
            next(answers)
    assert f"HTTP {status}: bad key [key]" in str(caught.value)
    assert remedy in str(caught.value) and KEY not in str(caught.value)
    assert len(asked) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_sample_the_server_refuses_is_an_abstention_once_others_were_answered(
    status: int,
) -> None:
    def script(item: Asked) -> Reply:
        return Reply(None, status, body="too long") if item.response == "b" else Reply("SAFE")

    found, asked = ask(script, samples("a", "b", "c"))
    assert found[1] == Judgement(None, None, f"HTTP {status}: too long", final=True)
    assert [found[0].unsafe, found[2].unsafe] == [False, False] and len(asked) == 3


def test_a_server_that_refuses_all_samples_is_an_error() -> None:
    with raises("judge.unreachable", failed=DOWN_AFTER):
        ask(lambda item: Reply(None, 400, body="no such parameter"), samples(*"abcdefgh"))


def test_a_pause_of_hours_is_not_waited_for() -> None:
    reply = Reply(None, 429, (("Retry-After", "7200"),), "quota")
    with pytest.raises(JudgeError, match="it asks to wait 7200 seconds: try again then"):
        ask(lambda item: reply, samples("a"))


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after({"Retry-After": " 2.5 "}) == 2.5
    assert retry_after({"Retry-After": "-3"}) == 0
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after({"Retry-After": later}) == pytest.approx(90, abs=5)
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


def test_turns_keep_to_the_rate_and_to_pauses() -> None:
    clock = FakeClock()
    pacer = RequestPacer(60, clock)
    starts = []
    for _ in range(4):
        pacer.wait()
        starts.append(clock.now() - 1000)
    assert starts == [0, 1, 2, 3]
    pacer.hold(10)
    pacer.wait()
    assert clock.now() - 1000 == 13
    clock.sleep(100)  # A quiet time is not made up for.
    starts = []
    for _ in range(2):
        pacer.wait()
        starts.append(clock.now() - 1113)
    assert starts == [0, 1]


def test_the_rate_holds_for_all_threads_together() -> None:
    clock = FakeClock()
    with serving(lambda item: Reply("SAFE")) as server:
        judge = HttpJudge("m", server.url, concurrency=4, per_minute=30, clock=clock)
        assert len(list(judge.judge(samples(*"abcdefgh")))) == 8
    assert clock.now() - 1000 >= 7 * 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "must look like http://host:8000/v1"),
        ("ftp://host/v1", "must look like"),
        ("http://", "must look like"),
        ("http://[::1", "must look like"),
        ("http://me:secret@host/v1", "must not contain a user name, password"),
        ("http://host/v1?key=secret", "must not contain a user name"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        HttpJudge("m", url)
    assert "secret" not in str(caught.value)


def test_a_key_that_is_not_there_or_no_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with raises("judge.api_key", variable="MY_KEY"):
        HttpJudge("m", "http://host/v1", api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "abc\ndef")
    with raises("judge.api_key", variable="MY_KEY"):
        HttpJudge("m", "http://host/v1", api_key_env="MY_KEY")
    with pytest.raises(JudgeError, match="`harmbench` is not a format of an http judge"):
        HttpJudge("m", "http://host/v1", format_="harmbench")


def test_another_model_server_or_prompt_is_another_judge_and_a_slash_is_not() -> None:
    base = HttpJudge("m", "http://host/v1")
    assert base.digest == HttpJudge("m", "http://host/v1/", concurrency=2).digest
    others = {
        HttpJudge("n", "http://host/v1").digest,
        HttpJudge("m", "http://other/v1").digest,
        HttpJudge("m", "http://host/v1", format_="llama-guard-3").digest,
    }
    assert len(others | {base.digest}) == 4
