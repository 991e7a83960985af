"""The service as its command-line clients see it."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.command import log
from features.errors import HeadhuntError, LostError, UsageError

DEFAULT_URL = "http://127.0.0.1:8000"

ATTEMPTS = 3
"""How often a request is sent that got no answer; what it asks for is done once, by its idempotency key."""


class Client:
    """A service at a URL. Methods raise UsageError for what the service refuses, LostError when it does not answer."""

    def __init__(self, url: str, token: str | None, certificate: Path | None = None) -> None:
        self._url, self._certificate = url.rstrip("/"), certificate
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def searches(self) -> list[dict[str, Any]]:
        """Every search, the newest first."""
        found: list[dict[str, Any]] = self._json("GET", "/searches")["searches"]
        return found

    def search(self, name: str) -> dict[str, Any]:
        """How a search stands."""
        return self._json("GET", f"/searches/{_part(name)}")

    def submit(self, configuration: str) -> dict[str, Any]:
        """Starts the search of a configuration, given as YAML."""
        headers = {"Content-Type": "application/yaml"}
        return self._json("POST", "/searches", content=configuration.encode(), headers=headers)

    def resume(self, name: str) -> dict[str, Any]:
        """Goes on with a search."""
        return self._json("POST", f"/searches/{_part(name)}/resume")

    def stop(self, name: str) -> dict[str, Any]:
        """Asks a search to save its state and end."""
        return self._json("POST", f"/searches/{_part(name)}/stop")

    def logs(self, name: str, job: int | None, follow: bool) -> Iterator[bytes]:
        """What a job said, piece by piece."""
        query = {"follow": str(follow).lower(), **({} if job is None else {"job": str(job)})}
        path = f"/searches/{_part(name)}/logs"
        seconds = None if follow else 60.0
        with self._open(seconds) as http, _faults(self._url), http.stream("GET", path, params=query) as answer:
            if answer.status_code >= 400:
                answer.read()
                _refuse(answer)
            yield from answer.iter_bytes()

    def _json(self, method: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
        import httpx

        headers = {**(headers or {}), **({} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())})}
        with self._open(60.0) as http, _faults(self._url):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    answer = http.request(method, path, headers=headers, **body)
                    break
                except (httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout):
                    if attempt == ATTEMPTS:
                        raise
                    log.print(f"No answer from {self._url}; asking again.", style="yellow", markup=False)
        if answer.status_code >= 400:
            _refuse(answer)
        found: dict[str, Any] = answer.json()
        return found

    @contextmanager
    def _open(self, seconds: float | None) -> Iterator[Any]:
        import ssl

        import httpx

        try:
            verify: Any = ssl.create_default_context(cafile=str(self._certificate)) if self._certificate else True
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--tls-certificate {self._certificate}: it cannot be read as certificates: {error}."
            ) from None
        timeout = httpx.Timeout(seconds, connect=10.0)
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=timeout, verify=verify) as http:
            yield http


def read_token(file: Path | None) -> str | None:
    """The token of the file, or else of HEADHUNT_TOKEN; None where there is neither. UsageError when it cannot be read."""
    if file is None:
        return os.environ.get("HEADHUNT_TOKEN", "").strip() or None
    try:
        token = file.read_text(encoding="utf-8").strip()
        is_open = bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)) and not file.is_symlink()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file}: it cannot be read: {error}.") from None
    if not token:
        raise UsageError(f"--token-file {file}: it is empty. Write a token to it: `openssl rand -hex 32 > {file}`.")
    if is_open:
        log.print(f"Others can read {file}: `chmod 600 {file}`.", style="yellow", markup=False)
    return token


def _part(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _refuse(answer: Any) -> None:
    """Raises what the service said."""
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = answer.text.strip()[:300] or answer.reason_phrase
    kind = HeadhuntError if answer.status_code >= 500 else UsageError
    raise kind(f"{answer.url.host} answered {answer.status_code}: {detail}")


@contextmanager
def _faults(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.InvalidURL as error:
        raise UsageError(f"--url: received {url!r}: {error}. It looks like {DEFAULT_URL}.") from None
    except httpx.UnsupportedProtocol:
        raise UsageError(f"--url: received {url!r}; it begins with http:// or https://.") from None
    except httpx.ConnectError as error:
        raise LostError(
            f"no service answers at {url}: {error}. Start one with `headhunt serve`, or name another with --url or HEADHUNT_URL."
        ) from None
    except httpx.HTTPError as error:
        raise LostError(f"the service at {url} gave no whole answer: {type(error).__name__} {error}.") from None
