"""optuna-dashboard as its command starts it, on a free port of this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna_dashboard


class _Quiet(WSGIRequestHandler):
    def log_message(self, *words: object) -> None:
        """Nothing: the requests of a page are no news."""


@contextmanager
def served(journal: Path) -> Iterator[str]:
    """The address of a dashboard that shows a journal."""
    app = optuna_dashboard.wsgi(str(journal))
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def shown_study(journal: Path, name: str) -> tuple[int, dict[str, Any]]:
    """The number of a study in a journal, and what the dashboard's page is made of."""
    with served(journal) as address:
        listed = _read(f"{address}/api/studies")["study_summaries"]
        number = next(item["study_id"] for item in listed if item["study_name"] == name)
        return number, _read(f"{address}/api/studies/{number}")


def best_ids(detail: dict[str, Any]) -> set[str]:
    """The configurations that the dashboard lists as best trials."""
    attributes = [
        {item["key"]: item["value"] for item in trial["user_attrs"]}
        for trial in detail["best_trials"]
    ]
    return {item["config_id"] for item in attributes}


def _read(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=30) as answer:
        return dict(json.load(answer))
