"""A hub on the loopback device: a real HTTP server with the few answers that `huggingface_hub` asks for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee00" * 5


class Refusal(NamedTuple):
    """What the hub answers instead of a file or a listing."""

    code: int
    error: str


GATED = Refusal(403, "GatedRepo")
GATED_UNKNOWN = Refusal(401, "GatedRepo")
ABSENT = Refusal(404, "RepoNotFound")
NO_REVISION = Refusal(404, "RevisionNotFound")


class FakeHub(ThreadingHTTPServer):
    """Repositories by `models/OWNER/NAME` or `datasets/OWNER/NAME`; each is a folder, or a refusal.

    `asked` lists every request as `METHOD path`. A repository in `gated` shows its listing, but no file.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Path | Refusal] = {}
        self.gated: set[str] = set()
        self.commit = COMMIT
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that serves while the context lasts."""
    hub = FakeHub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(f"{self.command} {path}")
        if path.startswith("api/") and path.count("/") < 5:  # What is no repository's.
            self._send(b"", 404)
            return
        if path.startswith("api/"):
            kind, owner, name, what, revision, *_ = path.removeprefix("api/").split("/")
            repository, inner = f"{kind}/{owner}/{name}", ""
        else:
            parts = path.split("/")
            kind = "datasets" if parts[0] == "datasets" else "models"
            owner, name, what, revision, *rest = parts[1:] if kind == "datasets" else parts
            repository, inner = f"{kind}/{owner}/{name}", "/".join(rest)
        found = self.server.repositories.get(repository, ABSENT)
        if revision not in ("main", self.server.commit) and not isinstance(found, Refusal):
            found = NO_REVISION
        if what == "resolve" and repository in self.server.gated:
            found = GATED
        if isinstance(found, Refusal):
            self._send(b"", found.code, {"X-Error-Code": found.error})
        elif what == "resolve":
            self._send_file(found / inner)
        elif what == "tree":
            self._send(json.dumps(_listing(found)).encode())
        else:
            info = {"id": f"{owner}/{name}", "sha": self.server.commit, "siblings": []}
            self._send(json.dumps(info).encode())

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self._send(content, headers={"ETag": etag, "X-Repo-Commit": self.server.commit})

    def _send(self, content: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _listing(folder: Path) -> list[dict[str, object]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in files
    ]
