"""Binds to an address and serves until it is stopped."""

import errno
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp

from sweeper.errors import RunFolderError, SweeperError
from sweeper.runs.listing import servable_runs
from sweeper.serve.app import Site, make_app

DEFAULT_PORT = 8765


class Started(NamedTuple):
    """The address of the server, the number of runs, and whether other machines can reach it."""

    url: str
    runs: int
    public: bool


def serve(
    root: Path,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    with_generations: bool = False,
    redact: bool = False,
    beside: bool = False,
    begin: Callable[[Started], None] = lambda started: None,
) -> None:
    """Serve the run at `root`, or the runs below it, until SIGINT or SIGTERM.

    Pages of an address of this machine alone can stop and resume runs.

    Args:
        root: A run folder or a folder of them; it may be empty still.
        host: The address or name to bind to.
        port: The port; 0 picks a free one.
        with_generations: Whether files of responses may be downloaded.
        redact: Leave harmful prompts and responses and folders of local paths out of everything.
        beside: It lasts as long as the sweep that it shows; its pages resume nothing.
        begin: Called when the server has started.

    Raises:
        RunFolderError: there is no such folder.
        SweeperError: the address cannot be bound to.
    """
    root = root.resolve()
    if not root.is_dir():
        raise RunFolderError(
            f"{root} is not a folder; give a run folder, or the folder that holds several"
        )
    with bind(host, port) as bound:
        address = ipaddress.ip_address(bound.getsockname()[0])
        names = {_bracketed(host), _bracketed(str(address))}
        if address.is_unspecified:
            names |= {socket.gethostname(), socket.getfqdn()}
        token = secrets.token_urlsafe(32) if address.is_loopback else None
        app = make_app(
            Site(root, with_generations, redact, token, beside), names, address.is_unspecified
        )
        server = make_server(app)
        # A request that is cancelled by the shutdown is not an error.
        logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
        shown = "127.0.0.1" if address.is_unspecified else host
        url = f"http://{_bracketed(shown)}:{bound.getsockname()[1]}/"
        begin(Started(url, len(servable_runs(root)), not address.is_loopback))
        server.run(sockets=[bound])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Uvicorn configured for HTTP only, without trusting proxies and without a server header."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=1,
        )
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SweeperError: the port is taken or not allowed, or the host is not one of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SweeperError(f"--host {host} is not an address of this machine: {error}") from None
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(64)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise SweeperError(
                f"port {port} on {host} is in use: another `sweeper serve`? Use another --port, or "
                f"--port 0 for a free one"
            ) from None
        raise SweeperError(
            f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}; give another "
            "--host or --port"
        ) from None
    return bound


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
