"""Optuna's dashboard on a run's study, with the pictures of its trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from search.review.notes import artifact_store
from search.storage import cached_storage

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application: of an environment and `start_response`, the body."""

STYLE = b"""<style>
.MuiBox-root > .MuiBox-root > p.MuiTypography-body1 { white-space: normal; overflow-wrap: anywhere }
</style></head>"""
"""Lets long attributes wrap: on one line each, as the dashboard has them, a trial's page is three screens wide."""


def dashboard(storage: str, workdir: Path) -> Application:
    """The dashboard as a WSGI application."""
    from optuna_dashboard import wsgi

    return styled(wsgi(cached_storage(storage, workdir), artifact_store(workdir)))


def styled(application: Application) -> Application:
    """The application with STYLE in its HTML pages."""

    def answer(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        begun: list[Any] = []
        body = application(environment, lambda *begin: begun.extend(begin))
        status, headers, *rest = begun
        named = {name.lower(): value for name, value in headers}
        if not named.get("content-type", "").startswith("text/html") or environment["REQUEST_METHOD"] == "HEAD":
            start_response(status, headers, *rest)
            return body
        page = b"".join(body).replace(b"</head>", STYLE, 1)
        kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "etag")]
        start_response(status, [*kept, ("Content-Length", str(len(page)))], *rest)
        return [page]

    return answer
