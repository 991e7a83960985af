"""HTTP client of the service, for the command line."""

from __future__ import annotations

import re
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from features.runtime.errors import HeadhuntError, LostError, UsageError
from features.runtime.log import log, without_password
from headhunt.service.board.schemas import Answer, Searches, SearchStatus
from headhunt.service.client.access import DEFAULT_URL

Answered = TypeVar("Answered", bound=Answer)


ATTEMPTS = 3
"""Maximum attempts for a request without a response or with a Retry-After. The idempotency key prevents repeated execution."""

LONGEST_WAIT_SECONDS = 60
"""Maximum Retry-After that the client waits for."""


class Client:
    """Client of the service at a URL.

    Methods raise UsageError if the service rejects the request or the URL is wrong, LostError if it does not answer, and
    HeadhuntError for other failures (status 5xx, 408, 429).
    """

    def __init__(self, url: str, token: str | None, certificate: Path | None = None) -> None:
        self._url, self._certificate = url.rstrip("/"), certificate
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def url(self) -> str:
        """The service's URL without a password, safe to print."""
        return without_password(self._url)

    def searches(self) -> Searches:
        """All searches, newest first."""
        return self._json("GET", "/searches", Searches)

    def search(self, name: str) -> SearchStatus:
        """The status of a search."""
        return self._json("GET", f"/searches/{_checked(name)}", SearchStatus)

    def submit(self, configuration: str) -> SearchStatus:
        """Starts a search from a YAML configuration."""
        headers = {"Content-Type": "application/yaml"}
        return self._json("POST", "/searches", SearchStatus, content=configuration.encode(), headers=headers)

    def resume(self, name: str) -> SearchStatus:
        """Resumes a search."""
        return self._json("POST", f"/searches/{_checked(name)}/resume", SearchStatus)

    def stop(self, name: str) -> SearchStatus:
        """Asks a search to save its state and end."""
        return self._json("POST", f"/searches/{_checked(name)}/stop", SearchStatus)

    def logs(self, name: str, job: int | None, follow: bool) -> Iterator[bytes]:
        """Streams the log of a job in chunks."""
        query = {"follow": str(follow).lower(), **({} if job is None else {"job": str(job)})}
        path = f"/searches/{_checked(name)}/logs"
        with self._open(None if follow else 60.0) as http:
            for attempt in range(1, ATTEMPTS + 1):
                with http.stream("GET", path, params=query) as answer:
                    if attempt < ATTEMPTS and self._is_waited_for(answer):
                        continue
                    if not answer.is_success:
                        answer.read()
                        self._refuse(answer)
                    if not answer.headers.get("content-type", "").startswith("text/plain"):
                        raise self._no_headhunt()
                    yield from answer.iter_bytes()
                    return

    def _json(
        self, method: str, path: str, kind: type[Answered], headers: dict[str, str] | None = None, **body: bytes
    ) -> Answered:
        """Sends a request and parses the response as `kind`."""
        import httpx

        headers = {**(headers or {}), **({} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())})}
        with self._open(60.0) as http:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    answer = http.request(method, path, headers=headers, **body)
                except (httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout):
                    if attempt == ATTEMPTS:
                        raise
                    log.print(f"No answer from {self.url}; retrying.", style="yellow")
                    continue
                if attempt == ATTEMPTS or not self._is_waited_for(answer):
                    break
        if not answer.is_success:
            self._refuse(answer)
        try:
            return kind.model_validate_json(answer.content)
        except ValueError:  # not JSON, or not from Headhunt
            raise self._no_headhunt() from None

    @contextmanager
    def _open(self, seconds: float | None) -> Iterator[Any]:
        """An HTTP client for the service; its errors are raised as HeadhuntError."""
        import httpx

        try:
            verify: Any = ssl.create_default_context(cafile=str(self._certificate)) if self._certificate else True
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--tls-certificate {self._certificate}: cannot be read as PEM certificates: {error}."
            ) from None
        timeout = httpx.Timeout(seconds, connect=10.0)
        try:
            with httpx.Client(base_url=self._url, headers=self._headers, timeout=timeout, verify=verify) as http:
                yield http
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            fault = str(error).rstrip(".")
            raise UsageError(f"--url: received {self.url!r}: {fault}. It must look like {DEFAULT_URL}.") from None
        except httpx.ConnectError as error:
            untrusted = _certificate_fault(error)
            if untrusted is not None:
                raise UsageError(
                    f"the certificate of {self.url} is not trusted: {untrusted.rstrip('.')}. For a self-signed "
                    "certificate, use `--tls-certificate FILE` and a host name that the certificate contains."
                ) from None
            raise LostError(
                f"no service answers at {self.url}: {error}. Start one with `headhunt serve`, or give another URL with --url or "
                "HEADHUNT_URL."
            ) from None
        except httpx.HTTPError as error:
            raise LostError(
                f"incomplete response from the service at {self.url}: {type(error).__name__} {error}."
            ) from None

    def _is_waited_for(self, answer: Any) -> bool:
        """Waits if the response asks to retry soon; returns whether it waited."""
        seconds = _retry_after(answer)
        if seconds is None or seconds > LONGEST_WAIT_SECONDS:
            return False
        log.print(f"{self.url} answered {answer.status_code}; retrying in {seconds} s.", style="yellow")
        time.sleep(seconds)
        return True

    def _refuse(self, answer: Any) -> None:
        """Raises the service's error message."""
        status, place = answer.status_code, answer.headers.get("location")
        if 300 <= status < 400 and place:
            raise UsageError(
                f"{self.url} answered {status}, a redirect to {place!r}. Give the service's own URL with --url or "
                "HEADHUNT_URL."
            )
        try:
            detail = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = answer.text.strip()[:300] or answer.reason_phrase
        seconds = _retry_after(answer)
        later = "" if seconds is None else f" Retry after {seconds} s."
        kind: type[HeadhuntError] = UsageError
        if status in (502, 503, 504):  # a proxy without its service, or a service without Ray or storage
            kind = LostError
        elif status >= 500 or status in (408, 429):
            kind = HeadhuntError
        raise kind(f"{answer.url.host} answered {status}: {detail}{later}")

    def _no_headhunt(self) -> UsageError:
        return UsageError(f"{self.url} is not a Headhunt service. Give the service's URL with --url or HEADHUNT_URL.")


def _checked(name: str) -> str:
    """The search's name, if it is valid in a URL path; UsageError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"NAME: received {name!r}; it must begin with a letter or digit and contain only letters, digits, '.', '_' and '-'. "
            "`headhunt jobs` lists the searches."
        )
    return name


def _retry_after(answer: Any) -> int | None:
    """Seconds of the Retry-After header of a response with status 408, 429 or 503, else None."""
    given = answer.headers.get("retry-after", "")
    return int(given) if answer.status_code in (408, 429, 503) and re.fullmatch("[0-9]{1,6}", given) else None


def _certificate_fault(error: BaseException | None) -> str | None:
    """Why the certificate is not trusted, if that caused the error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error.verify_message if error else None
