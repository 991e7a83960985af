"""The service as its command-line clients see it."""

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
"""How often a request is sent that got no answer, or is to come later; what it asks for is done once, by its idempotency key."""

LONGEST_WAIT_SECONDS = 60
"""A service that says it takes a request later than that is not waited for."""


class Client:
    """A service at a URL.

    Methods raise UsageError for what the service refuses or a URL where there is none, LostError when it does not answer.
    """

    def __init__(self, url: str, token: str | None, certificate: Path | None = None) -> None:
        self._url, self._certificate = url.rstrip("/"), certificate
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def url(self) -> str:
        """Where the service is, as it may be printed."""
        return without_password(self._url)

    def searches(self) -> Searches:
        """Every search, the newest first."""
        return self._json("GET", "/searches", Searches)

    def search(self, name: str) -> SearchStatus:
        """How a search stands."""
        return self._json("GET", f"/searches/{_checked(name)}", SearchStatus)

    def submit(self, configuration: str) -> SearchStatus:
        """Starts the search of a configuration, given as YAML."""
        headers = {"Content-Type": "application/yaml"}
        return self._json("POST", "/searches", SearchStatus, content=configuration.encode(), headers=headers)

    def resume(self, name: str) -> SearchStatus:
        """Goes on with a search."""
        return self._json("POST", f"/searches/{_checked(name)}/resume", SearchStatus)

    def stop(self, name: str) -> SearchStatus:
        """Asks a search to save its state and end."""
        return self._json("POST", f"/searches/{_checked(name)}/stop", SearchStatus)

    def logs(self, name: str, job: int | None, follow: bool) -> Iterator[bytes]:
        """What a job said, piece by piece."""
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
        """The answer, which is of this kind."""
        import httpx

        headers = {**(headers or {}), **({} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())})}
        with self._open(60.0) as http:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    answer = http.request(method, path, headers=headers, **body)
                except (httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout):
                    if attempt == ATTEMPTS:
                        raise
                    log.print(f"No answer from {self.url}; asking again.", style="yellow")
                    continue
                if attempt == ATTEMPTS or not self._is_waited_for(answer):
                    break
        if not answer.is_success:
            self._refuse(answer)
        try:
            return kind.model_validate_json(answer.content)
        except ValueError:  # no JSON, or of something else
            raise self._no_headhunt() from None

    @contextmanager
    def _open(self, seconds: float | None) -> Iterator[Any]:
        """Connections to the service; what goes wrong with one is raised as a HeadhuntError."""
        import httpx

        try:
            verify: Any = ssl.create_default_context(cafile=str(self._certificate)) if self._certificate else True
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--tls-certificate {self._certificate}: it cannot be read as certificates: {error}."
            ) from None
        timeout = httpx.Timeout(seconds, connect=10.0)
        try:
            with httpx.Client(base_url=self._url, headers=self._headers, timeout=timeout, verify=verify) as http:
                yield http
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            fault = str(error).rstrip(".")
            raise UsageError(f"--url: received {self.url!r}: {fault}. It looks like {DEFAULT_URL}.") from None
        except httpx.ConnectError as error:
            untrusted = _certificate_fault(error)
            if untrusted is not None:
                raise UsageError(
                    f"the certificate of {self.url} is not trusted: {untrusted.rstrip('.')}. `--tls-certificate FILE` trusts "
                    "that of a service with one of its own, by the names that are in it."
                ) from None
            raise LostError(
                f"no service answers at {self.url}: {error}. Start one with `headhunt serve`, or name another with --url or "
                "HEADHUNT_URL."
            ) from None
        except httpx.HTTPError as error:
            raise LostError(
                f"the service at {self.url} gave an incomplete answer: {type(error).__name__} {error}."
            ) from None

    def _is_waited_for(self, answer: Any) -> bool:
        """Waits, where the service says that it takes the request in a while."""
        seconds = _retry_after(answer)
        if seconds is None or seconds > LONGEST_WAIT_SECONDS:
            return False
        log.print(f"{self.url} answered {answer.status_code}; asking again in {seconds} s.", style="yellow")
        time.sleep(seconds)
        return True

    def _refuse(self, answer: Any) -> None:
        """Raises what the service said."""
        status, place = answer.status_code, answer.headers.get("location")
        if 300 <= status < 400 and place:
            raise UsageError(
                f"{self.url} answered {status}, a redirect to {place!r}. Name the service's own address with --url or "
                "HEADHUNT_URL."
            )
        try:
            detail = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = answer.text.strip()[:300] or answer.reason_phrase
        seconds = _retry_after(answer)
        later = "" if seconds is None else f" In {seconds} s at the earliest."
        kind: type[HeadhuntError] = UsageError
        if status in (502, 503, 504):  # a proxy without its service, a service without what it stands on
            kind = LostError
        elif status >= 500 or status in (408, 429):
            kind = HeadhuntError
        raise kind(f"{answer.url.host} answered {status}: {detail}{later}")

    def _no_headhunt(self) -> UsageError:
        return UsageError(
            f"no Headhunt service answers at {self.url}, but something else. Name one with --url or HEADHUNT_URL."
        )


def _checked(name: str) -> str:
    """The name of a search, as it may stand in a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(
            f"the search's NAME: received {name!r}; it begins with a letter or digit, and has letters, digits, '.', '_' and '-'. "
            "`headhunt jobs` lists the searches."
        )
    return name


def _retry_after(answer: Any) -> int | None:
    """In how many seconds the service takes a request that it did not take now."""
    given = answer.headers.get("retry-after", "")
    return int(given) if answer.status_code in (408, 429, 503) and re.fullmatch("[0-9]{1,6}", given) else None


def _certificate_fault(error: BaseException | None) -> str | None:
    """What is wrong with the certificate, where that is the cause of an error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error.verify_message if error else None
