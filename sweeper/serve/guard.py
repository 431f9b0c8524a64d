"""Checks of every request, and security headers of every response."""

import ipaddress
import re
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]@/?#]+)(:[0-9]{1,5})?")


CONTROL = re.compile(r"/runs/[^/]+/(stop(/[A-Za-z0-9_-]{1,64})?|resume)")
"""The paths that change something."""


class Guard:
    """Allows GET and HEAD with this server's name as the host; adds headers to every response.

    With a token, which stands in the server's own pages, POST to a path of CONTROL is allowed to this
    machine, if it carries the token and comes from such a page.

    A foreign page whose name resolves to this address (DNS rebinding) sends its own name as the host, and
    is rejected.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Iterable[str] = (),
        any_address: bool = False,
        token: str | None = None,
    ) -> None:
        self._app = app
        self._token = token
        self._names = OWN_NAMES | {name.lower() for name in names}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0], scope):
            return PlainTextResponse(
                "This server answers only to the name or address it was started with.\n", 421
            )
        if scope["method"] == "POST" and self._token and CONTROL.fullmatch(scope["path"]):
            return self._control_refusal(scope, hosts[0])
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse(
                "Only GET and HEAD.\n", 405, headers={"Allow": "GET, HEAD", "Connection": "close"}
            )
        return None

    def _control_refusal(self, scope: Scope, host: str) -> Response | None:
        headers, client = Headers(scope=scope), scope.get("client")
        own = headers.getlist("origin") == [f"http://{host}"]
        tokens = headers.getlist("x-sweeper-token")
        known = len(tokens) == 1 and secrets.compare_digest(
            tokens[0].encode("utf-8", "replace"), (self._token or "").encode()
        )
        near = client is not None and ipaddress.ip_address(client[0]).is_loopback
        if own and known and near:
            return None
        text = "Only a page of this server may do that: open the run in it and use its buttons.\n"
        return PlainTextResponse(text, 403, headers={"Connection": "close"})

    def _knows(self, host: str, scope: Scope) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower().removesuffix(".")
        if name in self._names:
            return True
        # Bound to all addresses, only the address of this connection is accepted; a name
        # would prove nothing.
        server = scope.get("server")
        return self._any_address and server is not None and name.strip("[]") == server[0].lower()
