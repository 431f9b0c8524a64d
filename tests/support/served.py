"""The real server in a thread of the test."""

import http.client
import json
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from support.factories import make_spec
from support.run_folders import write_run
from sweeper.serve.app import Site, make_app
from sweeper.serve.server import bind, make_server
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

HOSTILE = "</script><script>alert(1)</script>"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


class Served:
    """The real server in a thread, asked with requests as they are written here."""

    def __init__(
        self, root: Path, with_generations: bool = False, redact: bool = False, token: str = ""
    ) -> None:
        self._bound = bind("127.0.0.1", 0)
        self.port = int(self._bound.getsockname()[1])
        self._server = make_server(make_app(Site(root, with_generations, redact, token)))
        self._thread = threading.Thread(target=self._server.run, args=([self._bound],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._bound.close()

    def ask(
        self, target: str, method: str = "GET", host: str | None = "127.0.0.1", **headers: str
    ) -> Answer:
        """One request; the target goes out byte by byte as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        if host is not None:
            connection.putheader("Host", host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        found = connection.getresponse()
        text = found.read().decode("utf-8", "replace")
        connection.close()
        return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, text)

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    def live(self, name: str) -> dict[str, object]:
        return dict(json.loads(self.ask(f"/runs/{name}/live.json").text))


def add_run(root: Path, name: str, records: Iterable[TrialRecord], *overrides: str) -> RunFolder:
    """A run of the synthetic sweep, of which 139 records are planned."""
    return write_run(
        root / name, records, make_spec(*overrides), configurations=135, readouts=139, notes=[]
    )
