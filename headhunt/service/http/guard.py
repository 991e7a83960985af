"""Who may ask, how often, how much, and what a browser may do with the answer: around every route, the dashboard's too."""

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
"""Of a token in a form; whoever sends it is not known yet."""

READING = ("GET", "HEAD", "OPTIONS")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""Of everything that has no other."""

DASHBOARD_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""Optuna's dashboard sets styles from its script; parallel coordinates are drawn by programs that Plotly makes from text."""

REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'none'; base-uri 'none'"
)
"""A report has its scripts in itself: it gets an origin of its own, which reaches nothing here."""

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}

DASHBOARD = ("/dashboard", "/api/", "/static/", "/artifacts/", "/csv/", "/favicon.ico")
"""Where Optuna's dashboard answers: it is not free in its paths."""

LOGIN, ASSETS = "/login", "/assets/"
"""What is answered without a token: where it is given, and how the pages look."""


class Guard:
    """An ASGI application around another one."""

    def __init__(self, application: Application, settings: Settings) -> None:
        self._application, self._settings = application, settings
        self._token = settings.token.get_secret_value().encode() if settings.token else None
        self._hosts = {host.lower() for host in (settings.host, *settings.hosts)}
        if settings.is_loopback:
            self._hosts |= {"localhost", "127.0.0.1", "::1"}
        self._limiter = SlidingWindowCounterRateLimiter(
            MemoryStorage()
        )  # a moving window would start a thread at every hit
        self._reads, self._writes, self._logins = (
            parse(limit) for limit in (settings.reads, settings.writes, settings.logins)
        )
        self._active = 0
        self._known_until: dict[str, float] = {}
        self.cookie_name = f"headhunt-{self._sign('name')[:8]}"  # browsers keep one jar for all ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets the application answer."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: there are none
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
        """The value of a new cookie: until when it is good, and a signature by the token."""
        until = str(int(time.time()) + COOKIE_SECONDS)
        return f"{until}.{self._sign(until)}"

    def is_token(self, given: str) -> bool:
        """Whether this is the token; compared in constant time."""
        return self._token is not None and hmac.compare_digest(_digest(given.encode()), _digest(self._token))

    def is_https(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the browser asked by HTTPS: here, or, as it says of itself, a proxy in front."""
        proxied = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
        return self._settings.certificate is not None or proxied == b"https"

    async def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Application | None:
        """What is answered instead, for a request that is not let through."""
        path, method = scope["path"], scope["method"]
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_known_host(host):
            return _problem(
                421,
                f"the Host header names {host[:200]!r}, which this service is not known by. Start it with "
                "--allowed-host, if that is its name.",
            )
        if self._active >= self._settings.connections:
            return _problem(503, "too many requests at once. Try again.", {"Retry-After": "1"})
        client = scope["client"][0] if scope.get("client") else ""
        reading = method in READING
        if path == LOGIN and not reading:
            limit, kind = self._logins, "logins"
        else:
            limit, kind = (self._reads, "reads") if reading else (self._writes, "writes")
        if not await self._limiter.hit(limit, kind, client):
            return await self._too_often(limit, kind, client)
        if not reading and not self._is_own_origin(headers, host):
            return _problem(403, "the request comes from a page of another site (its Origin header), and is not taken.")
        if self._token is not None and path != LOGIN and not path.startswith(ASSETS):
            refusal = await self._unless_known(scope, headers, client)
            if refusal is not None:
                return refusal
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most_bytes(path):
            return _problem(413, self._too_large(path))
        return None

    async def _unless_known(self, scope: Scope, headers: dict[bytes, bytes], client: str) -> Application | None:
        """What is answered to a request without the token and without its cookie.

        After too many wrong tokens from an address none of it is looked at, lest it go on guessing; where the right one came
        from lately there are others than who guesses, and they are let in.
        """
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer":
            if self._known_until.get(client, 0) < time.monotonic() and not await self._limiter.test(
                self._logins, "logins", client
            ):
                return await self._too_often(self._logins, "logins", client)
            if self.is_token(given.decode("latin-1").strip()):
                self._known_until[client] = time.monotonic() + COOKIE_SECONDS
                return None
        elif any(self._is_good(value) for value in _cookies(headers, self.cookie_name)):
            return None
        if b"authorization" in headers and not await self._limiter.hit(self._logins, "logins", client):
            return await self._too_often(self._logins, "logins", client)
        if b"text/html" in headers.get(b"accept", b"") and scope["method"] == "GET":
            asked = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            return _redirect(f"{LOGIN}?next={quote(asked)}")
        fault = "that is not the token of this service" if b"authorization" in headers else "a token is required"
        return _problem(
            401,
            f"{fault}: the header `Authorization: Bearer TOKEN`; on the command line --token-file or HEADHUNT_TOKEN; in a "
            "browser /login.",
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
        """Whether a page elsewhere cannot have led here by a name of its own that it points at this machine."""
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
        """The request's body, whole; or the answer to one that is too large or too slow. Who reads has none to wait for."""
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
                return _problem(400, "the request ended before its body did.")
            if not message.get("more_body", False):
                return parts

    def _most_bytes(self, path: str) -> int:
        return min(LOGIN_BYTES, self._settings.body_bytes) if path == LOGIN else self._settings.body_bytes

    def _too_large(self, path: str) -> str:
        return f"the request's body is too large; at most {self._most_bytes(path)} bytes are taken."


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose body was read already."""
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
    """The values that a request has for a cookie, whatever else is in the header: other services of the host write there, too."""
    pairs = (pair.strip().partition("=") for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"))
    return [value for key, _, value in pairs if key == name]


def _digest(value: bytes) -> bytes:
    """Of one length, so that a comparison tells nothing of the value's."""
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
    """The page where the token is given, with what was wrong with the last one."""
    return _login_template().replace("{{ fault }}", html.escape(fault))


@cache
def _login_template() -> str:
    return (Path(__file__).parent / "static" / "login.html").read_text(encoding="utf-8")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Application:
    """An answer that says why: to a form in a browser, which is the login's, with that form again."""

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
