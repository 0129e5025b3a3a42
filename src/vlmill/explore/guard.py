"""Who is answered: whoever holds the token, from this machine's own address, reading alone.

A page of another site can make a browser send requests to 127.0.0.1, and a name that resolves to it (DNS rebinding)
makes them same-origin. So the host has to be ours by name, an origin that is told has to be ours, and the token, which
no other page can know, comes as a cookie that browsers send to requests of this origin alone.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
TOKEN = "token"  # noqa: S105 - the name of the parameter
HEADER = "x-vlmill-token"

ANSWER_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""What browsers may do with answers: run modules of ours, show pictures of ours, and talk to nobody else."""

REFUSED = "refused: open the address that `vlmill explore` printed, with its token, on the machine that it runs on\n"


class Guard:
    """Refuses requests without the token, of another origin, to another host, or that would change something."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            return
        refusal = self._refuse_foreign(scope) or self._check_token(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message.get("headers", [])}
                more = [(name.encode(), value.encode()) for name, value in ANSWER_HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *(pair for pair in more if pair[0] not in own)]
            await send(message)

        await (refusal or self.app)(scope, receive, send_guarded)

    def _refuse_foreign(self, scope: Scope) -> Response | None:
        """Refuse a request to another host, from another origin, or that is no reading; None else."""
        headers = Headers(scope=scope)
        _, port = scope["server"]
        allowed = {f"{host}:{port}" for host in HOSTS}
        if headers.getlist("host") != [headers.get("host")] or headers.get("host") not in allowed:
            return PlainTextResponse(REFUSED, 421)
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{headers['host']}":
            return PlainTextResponse(REFUSED, 403)
        if scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse("refused: this server only reads\n", 405, {"allow": "GET, HEAD"})
        return None

    def _check_token(self, scope: Scope) -> Response | None:
        """Refuse a request without the token; None where it has it. In the address of the page it becomes a cookie."""
        headers, (_, port) = Headers(scope=scope), scope["server"]
        given = parse_qs(scope["query_string"].decode("latin-1")).get(TOKEN, [])
        if scope["path"] == "/" and len(given) == 1 and self._fits(given[0]):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._cookie(port), self.token, path="/", httponly=True, samesite="strict")
            return answer
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return PlainTextResponse(REFUSED, 403)
        if self._fits(headers.get(HEADER, "")) or self._fits(_read_cookie(headers, self._cookie(port))):
            return None
        return PlainTextResponse(REFUSED, 403)

    def _cookie(self, port: int) -> str:
        """Its name: cookies of one host are shared by its ports, so each server has its own."""
        return f"vlmill-explore-{port}"

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _read_cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def make_address(host: str, port: int, token: str) -> str:
    """The address to open."""
    return urlsplit(f"http://{host}:{port}/?{TOKEN}={token}").geturl()
