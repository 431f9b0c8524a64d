"""A chat-completions server on loopback that does as a test says, and a clock that does not wait."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from sweeper.judges.pace import Clock


class Reply(NamedTuple):
    """What the server sends. `text` is the model's words, unless `body` is given as it is."""

    text: str | None = "SAFE"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None


class Asked(NamedTuple):
    """One request as it came in: its number, its path, its headers in lower case, and its body."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def response(self) -> str:
        """The response that is to be judged."""
        last = self.body["messages"][-1]["content"]
        return str(json.loads(last)["response"]) if last.startswith("{") else str(last)


class Server(NamedTuple):
    """A running server: where it is, and all it was asked."""

    url: str
    asked: list[Asked]
    close: Callable[[], None]


@contextmanager
def serving(script: Callable[[Asked], Reply]) -> Iterator[Server]:
    """Serve `POST /v1/chat/completions` with what the script replies, in threads of this process."""
    asked: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                item = Asked(len(asked), self.path, headers, body)
                asked.append(item)
            reply = script(item)
            content = {"choices": [{"message": {"role": "assistant", "content": reply.text}}]}
            data = (json.dumps(content) if reply.body is None else reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def close() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    try:
        yield Server(f"http://127.0.0.1:{server.server_address[1]}/v1", asked, close)
    finally:
        close()


class FakeClock(Clock):
    """Sleeping takes no time, but the clock moves on by it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._now = 1000.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
            self.sleeps.append(seconds)
