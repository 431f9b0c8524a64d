"""A chat model behind an OpenAI-compatible HTTP API as a judge.

Several requests are sent at a time within a rate limit; transient failures are retried with exponential
backoff or after the pause the server requests. The API key is read from the environment and never written.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DefaultHttpxClient,
    Omit,
    OpenAI,
)

from sweeper.errors import JudgeError
from sweeper.judges.base import (
    Judgement,
    Question,
    Sample,
    abstention,
    content_hash,
    judge_name,
)
from sweeper.judges.formats import (
    LLAMA_GUARD_3,
    RUBRIC,
    parse_llama_guard,
    parse_word,
    shortened,
)
from sweeper.judges.pace import Clock, RequestPacer, retry_after

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

API_KEY = "OPENAI_API_KEY"

ATTEMPTS = 6
"""The most attempts of a request."""

GARBAGE_ATTEMPTS = 3
"""The number of unreadable answers to one request after which it is an abstention."""

LONGEST_PAUSE_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0

DOWN_AFTER = 5
"""After this many failed requests in a row, each tried ATTEMPTS times, the server counts as down."""

ANSWER_TOKENS = 32

_RETRIED = (408, 425, 429)
_REFUSED = (400, 413, 422)
_REMEDIES = {
    401: f"check the key in ${API_KEY}, or in the variable of --api-key-env",
    403: f"check what the key in ${API_KEY}, or in the variable of --api-key-env, may do",
    404: "check the model's name and --base-url, which usually ends in /v1",
}
_KEPT = "what has been judged is kept, and the same command goes on from there"

REMOTE_FORMATS = ("words", LLAMA_GUARD_3.name)
"""`words`: our one-word rubric; `llama-guard-3`: only the dialogue, the server's template adds the rest."""


class _Try(NamedTuple):
    """The result of one attempt: a judgement, or a problem.

    `garbage` says that the model's output could not be parsed, `unreached` that the server could not be
    reached; `pause` is how many seconds the server asks to wait.
    """

    judgement: Judgement | None = None
    problem: str = ""
    garbage: bool = False
    unreached: bool = False
    pause: float | None = None


class HttpJudge:
    """A chat model behind `BASE_URL/chat/completions`, asked at temperature 0.

    Args:
        model: What the server calls it.
        base_url: Up to and including `/v1`.
        format_: One of REMOTE_FORMATS.
        api_key_env: The environment variable that holds the key; API_KEY where None, which may be unset
            for a server without authentication.
        concurrency: Requests at the same time.
        per_minute: Requests a minute, retries included; None for no limit.
        timeout: Seconds to wait for a response.
        first_pause: Seconds before the first retry; doubled before each further one.
        clock: Time; another one in tests.

    Raises:
        JudgeError: an invalid URL or format, or no key in the named environment variable.
    """

    reads_cut = False
    cacheable = True

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        format_: str = "words",
        api_key_env: str | None = None,
        concurrency: int = 8,
        per_minute: float | None = None,
        timeout: float = 60.0,
        first_pause: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        if format_ not in REMOTE_FORMATS:
            raise JudgeError(
                f"`{format_}` is not a format of an http judge; known formats: {', '.join(REMOTE_FORMATS)}",
                code="judge.option",
                format=format_,
            )
        self._base_url = _checked(base_url)
        self._url = f"{self._base_url}/chat/completions"
        self._key = _key(api_key_env)
        self._model, self._format, self._timeout = model, format_, timeout
        self._concurrency, self._first_pause = concurrency, first_pause
        self._clock = clock or Clock()
        self._pacer = RequestPacer(per_minute, self._clock)
        self._answered = False
        guard = format_ == LLAMA_GUARD_3.name
        self._parse = parse_llama_guard if guard else parse_word
        self.questions: tuple[Question, ...] = ("unsafe",) if guard else ("unsafe", "refusal")
        self.name = judge_name(f"http:{model}")
        self.about = f"format {format_}"
        asked = "" if guard else RUBRIC
        self.digest = content_hash([model, base_url.rstrip("/"), format_, asked])

    def judge(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Judgement]]:
        """Judge the samples, `concurrency` at a time; see `Judge.judge`.

        Raises: JudgeError: the server rejects requests or is down, after pending requests have finished.
        """
        numbers = iter(range(len(samples)))
        failure: JudgeError | None = None
        failed, last = 0, ""
        self._clock.stopped.clear()
        client, pool = self._client(), ThreadPoolExecutor(self._concurrency)
        waiting: dict[Future[Judgement], int] = {}
        try:
            while True:
                free = 0 if failure else self._concurrency - len(waiting)
                for number in islice(numbers, free):
                    waiting[pool.submit(self._ask, client, samples[number])] = number
                if not waiting:
                    break
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda item: waiting[item]):
                    number = waiting.pop(future)
                    try:
                        found = future.result()
                    except JudgeError as error:
                        failure = failure or error
                    else:
                        failed, last = (0, "") if found.final else (failed + 1, found.evidence)
                        yield number, found
                if failed >= DOWN_AFTER:
                    failure = failure or self._down(failed, last)
                if failure is not None:
                    self._clock.stopped.set()
        finally:
            self._clock.stopped.set()
            pool.shutdown(cancel_futures=True)
            client.close()
        if failure is None and failed and not self._answered:
            failure = self._down(failed, last)
        if failure is not None:
            raise failure

    def _client(self) -> OpenAI:
        """The client, without its own retries (they would bypass the rate limit) and without redirects."""
        return OpenAI(
            api_key=self._key or "none",
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=0,
            http_client=DefaultHttpxClient(follow_redirects=False),
        )

    def _ask(self, client: OpenAI, sample: Sample) -> Judgement:
        """Send one request until it is answered, in a thread.

        Raises: JudgeError: the server rejects every request, or cannot be reached.
        """
        found, garbage = _Try(problem="stopped before the request was sent"), 0
        for attempt in range(ATTEMPTS):
            self._pacer.wait()
            if self._clock.stopped.is_set():
                return abstention(found.problem, final=False)
            found = self._try(client, sample)
            if found.judgement is not None:
                return found.judgement
            garbage += found.garbage
            if garbage == GARBAGE_ATTEMPTS:
                return abstention(found.problem)
            if found.pause is not None:
                self._pacer.hold(found.pause)
            elif not found.garbage and attempt + 1 < ATTEMPTS:
                self._clock.sleep(min(self._first_pause * 2**attempt, LONGEST_PAUSE_SECONDS))
        if found.unreached:
            raise self._down(1, found.problem)
        return abstention(found.problem, final=False)

    def _try(self, client: OpenAI, sample: Sample) -> _Try:
        """Send one request once.

        Raises:
            JudgeError: an error that every other request would get too.
        """
        try:
            answer = client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=self._messages(sample),
                temperature=0,
                max_tokens=ANSWER_TOKENS,
                extra_headers=None if self._key else {"Authorization": Omit()},
            )
        except APIStatusError as error:
            return self._refused(error)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(error, APITimeoutError) and type(cause).__name__ != "ConnectTimeout":
                return _Try(problem=f"did not respond for {self._timeout:g} seconds")
            return _Try(problem=f"cannot be reached: {self._plain(cause)}", unreached=True)
        try:
            text = answer.parse().choices[0].message.content or ""
        except (ValueError, LookupError, TypeError, AttributeError):
            problem = f"sent an invalid chat completion: {self._plain(answer.text)!r}"
            return _Try(problem=problem)
        self._answered = True
        answers = self._parse(text.strip())
        if answers is None:
            return _Try(problem=f"unreadable output: {self._plain(text)!r}", garbage=True)
        return _Try(Judgement(answers.unsafe, answers.refusal, self._plain(text)))

    def _messages(self, sample: Sample) -> "list[ChatCompletionMessageParam]":
        if self._format == LLAMA_GUARD_3.name:
            return [
                {"role": "user", "content": sample.prompt},
                {"role": "assistant", "content": sample.response},
            ]
        shown = _as_json(sample)
        return [{"role": "system", "content": RUBRIC}, {"role": "user", "content": shown}]

    def _refused(self, error: APIStatusError) -> _Try:
        """Handle an HTTP error status.

        Raises:
            JudgeError: every other request would get it too, or the server wants a very long pause.
        """
        response, status = error.response, error.status_code
        problem = f"HTTP {status}: {self._plain(response.text) or response.reason_phrase}"
        if status in _REFUSED:
            # Too long, or filtered: specific to this sample, if others were answered.
            return _Try(abstention(problem, final=self._answered))
        if status in _RETRIED or status >= 500:
            pause = retry_after(response.headers)
            if pause is not None and not pause <= LONGEST_RETRY_AFTER_SECONDS:
                remedy = f"it asks to wait {pause:.0f} seconds: try again then"
            else:
                return _Try(problem=problem, pause=pause)
        else:
            remedy = _REMEDIES.get(status, "check --base-url")
        raise JudgeError(
            f"the judge {self.name} at {self._url} answered {problem}; {remedy}; {_KEPT}",
            code="judge.rejected",
            url=self._url,
        )

    def _plain(self, said: object) -> str:
        """Untrusted text: shortened, on one line, without control characters and without the key."""
        text = "".join(c if c.isprintable() else "?" for c in " ".join(str(said).split()))
        return shortened(text if self._key is None else text.replace(self._key, "[key]"))

    def _down(self, failed: int, problem: str) -> JudgeError:
        return JudgeError(
            f"the judge {self.name} at {self._url} does not answer: {failed} request"
            f"{'' if failed == 1 else 's'} in a row failed, each tried up to {ATTEMPTS} times; the last "
            f"one: {problem}; start the server or check --base-url; {_KEPT}",
            code="judge.unreachable",
            url=self._url,
            failed=failed,
        )


def _as_json(sample: Sample) -> str:
    """Request and response as JSON, so that neither can end its quotes."""
    return json.dumps({"request": sample.prompt, "response": sample.response}, ensure_ascii=False)


def _checked(base_url: str) -> str:
    """The URL without its last slash.

    Raises:
        JudgeError: not http(s), no host, or a password in it.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise JudgeError(
            f"--base-url must look like http://host:8000/v1, but got {base_url!r}",
            code="judge.base_url",
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise JudgeError(
            "--base-url must not contain a user name, password, query or fragment; put a key into the "
            "environment (--api-key-env NAME)",
            code="judge.base_url",
        )
    return base_url.rstrip("/")


def _key(variable: str | None) -> str | None:
    """The API key, from the environment.

    Raises:
        JudgeError: the named variable is not set, or its value is not valid in a header.
    """
    found = os.environ.get(variable or API_KEY, "").strip()
    if variable is not None and not found:
        raise JudgeError(
            f"the environment variable {variable} is not set; export the API key in it",
            code="judge.api_key",
            variable=variable,
        )
    if not found.isascii() or not found.isprintable():
        raise JudgeError(
            f"the environment variable {variable or API_KEY} is not a valid key: it has characters that "
            f"are not allowed in an HTTP header",
            code="judge.api_key",
            variable=variable or API_KEY,
        )
    return found or None
