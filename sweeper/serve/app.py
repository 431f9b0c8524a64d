"""The routes of the server."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp

from sweeper.report.local_paths import without_folders
from sweeper.runs.frames import csv_text
from sweeper.runs.listing import Listed, servable_runs
from sweeper.runs.run import open_run
from sweeper.serve.compare import compare
from sweeper.serve.control import Control
from sweeper.serve.files import FILES, chunks, find_generations, open_regular_file
from sweeper.serve.guard import Guard
from sweeper.serve.live import live_data, log_text
from sweeper.serve.pages import (
    COMPARE_POLICY,
    FRAMED_MESSAGE_POLICY,
    LIVE_POLICY,
    STATIC,
    IndexRow,
    compare_page,
    framed_report,
    index_page,
    index_row,
    live_page,
    message_page,
    run_link,
    static_file,
    summary,
)
from sweeper.serve.state import DAMAGE, Pace, RunView
from sweeper.store.folder import RunFolder

Made = TypeVar("Made")

KEPT_VIEWS = 4
"""The number of runs, last requested first, whose records are kept in memory."""


class Site:
    """The runs of one folder as web pages.

    Work is done in two threads: one reads files and answers frequent requests, the other renders reports,
    one at a time. Stopping the server waits for neither.
    """

    def __init__(
        self,
        root: Path,
        with_generations: bool = False,
        redact: bool = False,
        token: str | None = None,
        beside: bool = False,
    ) -> None:
        self._root = root.resolve()
        self.token = token
        self._control = Control(beside)
        self._pace = Pace()
        self._with_generations = with_generations and not redact
        self._redact = redact
        self._views: OrderedDict[Path, RunView] = OrderedDict()
        self._rows: dict[Path, RunView] = {}
        self._lock = threading.Lock()
        self._looking = anyio.CapacityLimiter(1)
        self._rendering = anyio.CapacityLimiter(1)

    def routes(self) -> list[Route]:
        """The routes."""
        run = "/runs/{run}"
        return [
            Route("/", self.index),
            Route("/static/{name}", self.static),
            Route("/compare", self.compare),
            Route(run, self.named),
            Route(f"{run}/", self.page),
            Route(f"{run}/report", self.report),
            Route(f"{run}/live.json", self.live),
            Route(f"{run}/logs/{{trial}}", self.log),
            Route(f"{run}/stop", self.stop, methods=["POST"]),
            Route(f"{run}/stop/{{path}}", self.stop_path, methods=["POST"]),
            Route(f"{run}/resume", self.resume, methods=["POST"]),
            Route(f"{run}/report.html", self.download),
            Route(f"{run}/records.csv", self.csv),
            Route(f"{run}/files/{{name}}", self.file),
            Route(f"{run}/generations/{{name}}", self.generations),
        ]

    async def _look(self, work: Callable[[], Made]) -> Made:
        return await anyio.to_thread.run_sync(work, limiter=self._looking, abandon_on_cancel=True)

    async def _render(self, work: Callable[[], Made]) -> Made:
        return await anyio.to_thread.run_sync(work, limiter=self._rendering, abandon_on_cancel=True)

    def _find(self, name: str) -> Listed | None:
        """A run that may be shown."""
        found = servable_runs(self._root).get(name)
        return None if found is None or found.problem else found

    def _view(self, listed: Listed) -> RunView:
        path = listed.folder.root
        with self._lock:
            view = self._views.pop(path, None) or RunView(listed.folder, self._redact, self._pace)
            self._views[path] = view
            while len(self._views) > KEPT_VIEWS:
                self._views.popitem(last=False)
        return view

    async def index(self, request: Request) -> Response:
        """The index of runs; for a folder that is a run, its report."""
        runs = servable_runs(self._root)
        if list(runs) == [self._root.name] and runs[self._root.name].folder.root == self._root:
            return RedirectResponse(run_link(self._root.name), 302)
        paths = {listed.folder.root for listed in runs.values()}
        self._rows = {path: row for path, row in self._rows.items() if path in paths}
        return HTMLResponse(await self._look(partial(self._index, runs.values())))

    def _index(self, runs: Iterable[Listed]) -> str:
        return index_page(self._root.name, [self._row(listed) for listed in runs])

    def _row(self, listed: Listed) -> IndexRow:
        """A row of the index, even for a damaged run."""
        if listed.problem:
            return IndexRow(listed.name, listed.problem)
        kept = self._rows.setdefault(listed.folder.root, RunView(listed.folder, pace=self._pace))
        try:
            known, now = kept.known(), time.time()
            state = kept.state(known, now)
            left = kept.seconds_left(known.spec, now) if state == "running" else None
            found = summary(kept.found_lately())
            quiet = now - kept.changed_at()
            return index_row(listed.name, found, len(known.records), state, left, quiet)
        except DAMAGE as error:
            return IndexRow(listed.name, _problem(error, self._root))

    async def named(self, request: Request) -> Response:
        """Redirects a run's address without the final slash."""
        name = request.path_params["run"]
        return _absent(name) if self._find(name) is None else RedirectResponse(run_link(name), 302)

    async def page(self, request: Request) -> Response:
        """The live page of a run, around its report."""
        name = request.path_params["run"]
        listed = self._find(name)
        if listed is None:
            return _absent(name)
        files = ["report.html", "records.csv", *(f"files/{item}" for item in FILES)]
        html = live_page(name, files, self.token or "")
        return HTMLResponse(html, headers={"Content-Security-Policy": LIVE_POLICY})

    async def report(self, request: Request) -> Response:
        """The report of a run, for its live page."""
        name = request.path_params["run"]
        listed = self._find(name)
        if listed is None:
            return _framed(_absent(name))
        try:
            page = await self._render(self._view(listed).page)
        except DAMAGE as error:
            return _framed(self._damaged(name, error))
        html, policy = framed_report(page)
        return _framed(HTMLResponse(html, headers={"Content-Security-Policy": policy}))

    async def live(self, request: Request) -> Response:
        """The progress of a run, for its page."""
        listed = self._find(request.path_params["run"])
        if listed is None:
            return JSONResponse({"problem": "this run no longer exists"}, 404)
        try:
            data = await self._look(partial(live_data, self._view(listed)))
            return self._json({**data, "note": self._control.note(listed.folder)})
        except DAMAGE as error:
            return JSONResponse({"problem": _problem(error, self._root)}, 503)

    async def log(self, request: Request) -> Response:
        """The last lines of a trial's log."""
        trial, listed = request.path_params["trial"], self._find(request.path_params["run"])
        if listed is None:
            return _absent(trial)
        try:
            text = await self._look(partial(log_text, self._view(listed), trial))
        except DAMAGE as error:
            return self._damaged(trial, error)
        return _absent(trial) if text is None else PlainTextResponse(text)

    async def stop(self, request: Request) -> Response:
        """Stop a run; see `Control.stop`."""
        return await self._controlled(request, self._control.stop)

    async def stop_path(self, request: Request) -> Response:
        """Stop one path of a run; see `Control.stop_path`."""
        path = request.path_params["path"]
        return await self._controlled(request, partial(self._control.stop_path, path))

    async def resume(self, request: Request) -> Response:
        """Resume a run; see `Control.resume`."""
        return await self._controlled(request, self._control.resume)

    async def _controlled(self, request: Request, act: Callable[[RunFolder], str]) -> Response:
        listed = self._find(request.path_params["run"])
        if listed is None:
            return JSONResponse({"problem": "this run no longer exists"}, 404)
        try:
            return self._json({"said": await self._look(partial(act, listed.folder.open()))}, 202)
        except DAMAGE as error:
            return self._json({"problem": _problem(error, self._root)}, 409)

    def _json(self, data: dict[str, Any], status: int = 200) -> Response:
        return JSONResponse(without_folders(data) if self._redact else data, status)

    async def download(self, request: Request) -> Response:
        """The report as written by `sweeper report`."""
        name = request.path_params["run"]
        listed = self._find(name)
        if listed is None:
            return _absent(name)
        try:
            page = await self._render(self._view(listed).page)
        except DAMAGE as error:
            return self._damaged(name, error)
        return _attachment(page.html, f"{name}-report.html", "text/html")

    async def csv(self, request: Request) -> Response:
        """The records as a table; see `Run.frame`."""
        name = request.path_params["run"]
        listed = self._find(name)
        if listed is None:
            return _absent(name)
        path = listed.folder.root
        try:
            text = await self._render(lambda: csv_text(open_run(path).frame()))
        except DAMAGE as error:
            return self._damaged(name, error)
        return _attachment(text, f"{name}.csv", "text/csv")

    async def file(self, request: Request) -> Response:
        """One of FILES, unchanged."""
        name, listed = request.path_params["name"], self._find(request.path_params["run"])
        if listed is None or name not in FILES:
            return _absent(name)
        return self._sent(listed.folder.root / name, f"{listed.name}-{name}")

    async def generations(self, request: Request) -> Response:
        """The responses of one configuration under one seed, as plain text to save."""
        name, listed = request.path_params["name"], self._find(request.path_params["run"])
        path = None
        if listed is not None and self._with_generations:
            path = find_generations(listed.folder, name)
        return _absent(name) if path is None else self._sent(path, name)

    def _sent(self, path: Path, name: str) -> Response:
        try:
            file = open_regular_file(path)
        except OSError:
            return _absent(path.name)
        return StreamingResponse(chunks(file), media_type="text/plain", headers=_saved_as(name))

    async def compare(self, request: Request) -> Response:
        """Two runs side by side."""
        names = (request.query_params.get("a", ""), request.query_params.get("b", ""))
        views = []
        for name in names:
            listed = self._find(name)
            if listed is None:
                return _absent(name)
            views.append(self._view(listed))

        def made() -> str:
            return compare_page(compare(names, views[0].found(), views[1].found()))

        try:
            html = await self._render(made)
        except DAMAGE as error:
            return self._damaged(" and ".join(names), error)
        return HTMLResponse(html, headers={"Content-Security-Policy": COMPARE_POLICY})

    def _damaged(self, name: str, error: BaseException) -> Response:
        text = _problem(error, self._root)
        return HTMLResponse(message_page(f"{name} cannot be shown", text), 503)

    async def static(self, request: Request) -> Response:
        """The style sheet and the scripts of the pages."""
        name = request.path_params["name"]
        if name not in STATIC:
            return _absent(name)
        return Response(static_file(name), media_type=STATIC[name])


def make_app(site: Site, names: Iterable[str] = (), any_address: bool = False) -> ASGIApp:
    """The guarded application; see `Guard`."""
    inner = Starlette(routes=site.routes())
    inner.router.redirect_slashes = False  # Its own routes would bypass the lookup of runs.
    return Guard(inner, names, any_address, site.token)


def _problem(error: BaseException, root: Path) -> str:
    """The error message without the path of the folder."""
    text = (str(error) or type(error).__name__).replace(f"{root.parent}/", "")
    return text if len(text) < 1000 else f"{text[:1000]} ..."


def _framed(response: Response) -> Response:
    """Let a page of this server hold the response in a frame."""
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers.setdefault("Content-Security-Policy", FRAMED_MESSAGE_POLICY)
    return response


def _absent(name: str) -> Response:
    return HTMLResponse(message_page("Not here", f"There is no {name[:200]} to show."), 404)


def _attachment(text: str, name: str, media_type: str) -> Response:
    return Response(text, media_type=media_type, headers=_saved_as(name))


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
