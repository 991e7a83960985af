"""Access control, rate and size limits, and browser security headers, around every route and the dashboard."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import ipaddress
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from headhunt.service.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE_SECONDS = 12 * 3600

LOGIN_BYTES = 4096
"""Maximum size of the login form, whose sender is not authenticated yet."""

READING = ("GET", "HEAD", "OPTIONS")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""The default content security policy."""

DASHBOARD_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""Optuna's dashboard sets inline styles; Plotly's parallel coordinates need `eval`."""

REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'none'; base-uri 'none'"
)
"""A report contains inline scripts, so it is sandboxed: it gets its own origin without access to the service."""

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}

DASHBOARD = ("/dashboard", "/api/", "/static/", "/artifacts/", "/csv/", "/favicon.ico")
"""The paths of Optuna's dashboard, which are fixed."""

LOGIN, ASSETS = "/login", "/assets/"
"""The paths that need no token: the login page, and the assets of the pages."""


class Guard:
    """ASGI middleware that checks every request before the application sees it."""

    def __init__(self, application: Application, settings: Settings) -> None:
        self._application, self._settings = application, settings
        self._token = settings.token.get_secret_value().encode() if settings.token else None
        self._hosts = {host.lower() for host in (settings.host, *settings.hosts)}
        if settings.is_loopback:
            self._hosts |= {"localhost", "127.0.0.1", "::1"}
        self._limiter = SlidingWindowCounterRateLimiter(
            MemoryStorage()
        )  # a moving window would start a thread on every hit
        self._reads, self._writes, self._logins = (
            parse(limit) for limit in (settings.reads, settings.writes, settings.logins)
        )
        self._active = 0
        self._trusted_until: dict[str, float] = {}
        self.cookie_name = f"headhunt-{self._sign('name')[:8]}"  # browsers share cookies between the ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rejects the request, or passes it to the application."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket, which the service does not use
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        sending = _with_headers(scope, send, self._settings.certificate is not None)
        refusal = await self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        self._active += 1
        try:
            body = await self._body(scope, receive, headers)
            if isinstance(body, bytes):
                await self._application(scope, _replayed(body, receive), sending)
            else:
                await body(scope, receive, sending)
        finally:
            self._active -= 1

    def cookie(self) -> str:
        """The value of a new cookie: its expiry time, and a signature with the token."""
        until = str(int(time.time()) + COOKIE_SECONDS)
        return f"{until}.{self._sign(until)}"

    def is_token(self, given: str) -> bool:
        """Whether this is the service's token; compared in constant time."""
        return self._token is not None and hmac.compare_digest(_digest(given.encode()), _digest(self._token))

    def is_https(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the browser used HTTPS: to this service, or to a proxy in front (by its X-Forwarded-Proto header)."""
        proxied = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
        return self._settings.certificate is not None or proxied == b"https"

    async def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Application | None:
        """The response to a request that is not let through, else None."""
        path, method = scope["path"], scope["method"]
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_known_host(host):
            return _problem(
                421,
                f"the Host header is {host[:200]!r}, which is not a known name of this service. If it is one, start the "
                "service with --allowed-host.",
            )
        if self._active >= self._settings.connections:
            return _problem(503, "too many concurrent requests. Try again.", {"Retry-After": "1"})
        client = scope["client"][0] if scope.get("client") else ""
        reading = method in READING
        if path == LOGIN and not reading:
            limit, kind = self._logins, "logins"
        else:
            limit, kind = (self._reads, "reads") if reading else (self._writes, "writes")
        if not await self._limiter.hit(limit, kind, client):
            return await self._too_often(limit, kind, client)
        if not reading and not self._is_own_origin(headers, host):
            return _problem(403, "requests from pages of other sites (by the Origin header) are not allowed.")
        if self._token is not None and path != LOGIN and not path.startswith(ASSETS):
            refusal = await self._authenticate(scope, headers, client)
            if refusal is not None:
                return refusal
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most_bytes(path):
            return _problem(413, self._too_large(path))
        return None

    async def _authenticate(self, scope: Scope, headers: dict[bytes, bytes], client: str) -> Application | None:
        """The response to a request without a valid token or cookie, else None.

        Too many wrong tokens lock an address out for a while, to stop guessing. An address that recently sent the right token is
        exempt: others than the guesser use it.
        """
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer":
            if self._trusted_until.get(client, 0) < time.monotonic() and not await self._limiter.test(
                self._logins, "logins", client
            ):
                return await self._too_often(self._logins, "logins", client)
            if self.is_token(given.decode("latin-1").strip()):
                self._trusted_until[client] = time.monotonic() + COOKIE_SECONDS
                return None
        elif any(self._is_good(value) for value in _cookies(headers, self.cookie_name)):
            return None
        if b"authorization" in headers and not await self._limiter.hit(self._logins, "logins", client):
            return await self._too_often(self._logins, "logins", client)
        if b"text/html" in headers.get(b"accept", b"") and scope["method"] == "GET":
            asked = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            return _redirect(f"{LOGIN}?next={quote(asked)}")
        fault = "wrong token" if b"authorization" in headers else "a token is required"
        return _problem(
            401,
            f"{fault}. Send the header `Authorization: Bearer TOKEN`; on the command line use --token-file or HEADHUNT_TOKEN; in "
            "a browser open /login.",
            {"WWW-Authenticate": "Bearer"},
        )

    async def _too_often(self, limit: RateLimitItem, kind: str, client: str) -> Application:
        until = (await self._limiter.get_window_stats(limit, kind, client)).reset_time
        seconds = max(1, math.ceil(until - time.time()))
        return _problem(429, f"too many requests: at most {limit}. Try again.", {"Retry-After": str(seconds)})

    def _is_good(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        good = hmac.compare_digest(_digest(signature.encode()), _digest(self._sign(until).encode()))
        return good and until.isdigit() and int(until) > time.time()

    def _sign(self, until: str) -> str:
        return hmac.new(self._token or b"", b"headhunt cookie " + until.encode(), hashlib.sha256).hexdigest()

    def _is_known_host(self, host: str) -> bool:
        """Whether the Host header is a known name: protects against DNS rebinding by pages of other sites."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if "@" in host:
            return False
        if name in self._hosts:
            return True
        return self._settings.host in ("0.0.0.0", "::") and (_is_address(name) or not self._settings.hosts)

    def _is_own_origin(self, headers: dict[bytes, bytes], host: str) -> bool:
        origin = headers.get(b"origin")
        if origin is None:
            return headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin")
        try:
            return urlsplit(origin.decode("latin-1")).netloc.lower() == host.lower()
        except ValueError:
            return False

    async def _body(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> bytes | Application:
        """The complete body of a request, or the response to one that is too large or too slow. GET requests have no body."""
        if scope["method"] in READING:
            return b""
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            return b""
        parts: bytes = b""
        until = time.monotonic() + self._settings.body_seconds
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                return _problem(408, "the request's body did not arrive in time.", {"Connection": "close"})
            parts += message.get("body", b"")
            if len(parts) > self._most_bytes(scope["path"]):
                return _problem(413, self._too_large(scope["path"]), {"Connection": "close"})
            if message["type"] == "http.disconnect":
                return _problem(400, "the connection closed before the request's body was complete.")
            if not message.get("more_body", False):
                return parts

    def _most_bytes(self, path: str) -> int:
        return min(LOGIN_BYTES, self._settings.body_bytes) if path == LOGIN else self._settings.body_bytes

    def _too_large(self, path: str) -> str:
        return f"the request's body is too large; it must be at most {self._most_bytes(path)} bytes."


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that replays a body that was already read."""
    is_given = False

    async def replayed() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookies(headers: Mapping[bytes, bytes], name: str) -> list[str]:
    """The values of a cookie in a request. Tolerates malformed cookies, which other services on the host may have set."""
    pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"))
    return [value for key, _, value in pairs if key == name]


def _digest(value: bytes) -> bytes:
    """A digest of fixed length, so that a comparison does not reveal the value's length."""
    return hashlib.sha256(value).digest()


def _with_headers(scope: Scope, send: Send, is_tls: bool) -> Send:
    path: str = scope["path"]
    policy = PAGE_POLICY
    if path.startswith(DASHBOARD):
        policy = DASHBOARD_POLICY
    elif path.endswith("/report"):
        policy = REPORT_POLICY
    added = {**HEADERS, b"content-security-policy": policy.encode()}
    if is_tls:
        added[b"strict-transport-security"] = b"max-age=31536000"
    if path.startswith(ASSETS):
        added[b"cache-control"] = b"no-cache"
    elif path.startswith("/static/"):
        added[b"cache-control"] = b"private, max-age=300"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in added]
            message = {**message, "headers": [*kept, *added.items()]}
        await send(message)

    return sending


def login_page(fault: str) -> str:
    """The login page, with an error message about the last attempt."""
    return _login_template().replace("{{ fault }}", html.escape(fault))


@cache
def _login_template() -> str:
    return (Path(__file__).parent / "static" / "login.html").read_text(encoding="utf-8")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Application:
    """An error response: JSON, or the login page with the message if the login form was sent by a browser."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        accepted = dict(scope["headers"]).get(b"accept", b"")
        if scope["path"] == LOGIN and b"text/html" in accepted:
            body, kind = login_page(detail[:1].upper() + detail[1:]).encode(), "text/html; charset=utf-8"
        else:
            body, kind = json.dumps({"detail": detail}).encode(), "application/json"
        await _plain(status, body, {"Content-Type": kind, **(headers or {})})(scope, receive, send)

    return answer


def _redirect(to: str) -> Application:
    return _plain(303, b"", {"Location": to})


def _plain(status: int, body: bytes, headers: dict[str, str]) -> Application:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        given: Iterable[tuple[bytes, bytes]] = [
            (name.lower().encode(), value.encode()) for name, value in headers.items()
        ]
        whole = [*given, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": whole})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return answer
