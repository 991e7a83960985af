"""Optuna's dashboard on the storage of all studies, with the artifacts of every search's trials.

Optuna's dashboard keeps all trials that it has shown in memory forever. So each study gets its own instance, which is dropped
when nobody uses it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from features.runtime.atomic import make_folder
from headhunt.service.jobs.admission import contained
from search.driver.storage import with_own_cache
from search.review.dashboard import Application, application

if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore
    from optuna.storages import BaseStorage

KEPT_SECONDS = 600
"""How long an unused study's dashboard is kept."""

KEPT_STUDIES = 8
"""Maximum number of studies whose dashboards are kept: the most recently used ones."""


class Pictures:
    """An Optuna artifact store: the searches' artifacts, plus a folder for uploads in the dashboard."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Opens an artifact of any search."""
        reader: BinaryIO = self._store(artifact_id).open_reader(artifact_id)
        return reader

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Adds an upload."""
        self._in(self._root / ".artifacts").write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Deletes an artifact."""
        self._store(artifact_id).remove(artifact_id)

    def _store(self, artifact_id: str) -> FileSystemArtifactStore:
        """The store that holds an artifact; symlinks out of the work directory are not followed."""
        found = self._root.glob(f"*/artifacts/{artifact_id}") if re.fullmatch(r"[0-9a-fA-F-]+", artifact_id) else ()
        return self._in(next((path.parent for path in found if contained(path, self._root)), self._root / ".artifacts"))

    def _in(self, folder: Path) -> FileSystemArtifactStore:
        from optuna.artifacts import FileSystemArtifactStore

        return FileSystemArtifactStore(make_folder(folder))


class Dashboards:
    """A WSGI application that forwards requests about each study to its own dashboard, and all others to a common one."""

    def __init__(self, root: Path, storage: BaseStorage) -> None:
        import optuna_dashboard  # noqa: F401 -- takes seconds, so not during the first request

        self._storage, self._pictures = storage, Pictures(root)
        self._kept: dict[str, tuple[Application, float]] = {}
        """By study, with the time of its last use; least recently used first."""
        self._lock = threading.Lock()

    def __call__(self, environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Forwards a request."""
        from bottle import request

        about = re.match(r"/(?:api/studies|csv)/(\d+)", environment["PATH_INFO"])
        try:
            return self._of(about[1] if about else "")(dict(environment), start_response)
        finally:
            request.bind()  # Bottle keeps each thread's last request, which would keep the dashboard alive

    def _of(self, study: str) -> Application:
        with self._lock:
            if not self._kept:
                self._let_go_later()
            found, _ = self._kept.pop(study, (None, 0.0))
            answering = found or application(with_own_cache(self._storage), self._pictures)
            self._kept[study] = (answering, time.monotonic())
            for oldest in list(self._kept)[:-KEPT_STUDIES]:
                del self._kept[oldest]
            return answering

    def _let_go(self) -> None:
        with self._lock:
            since = time.monotonic() - KEPT_SECONDS
            self._kept = {study: kept for study, kept in self._kept.items() if kept[1] > since}
            if self._kept:
                self._let_go_later()

    def _let_go_later(self) -> None:
        timer = threading.Timer(KEPT_SECONDS / 10, self._let_go)
        timer.daemon = True
        timer.start()


def dashboard(root: Path, storage: BaseStorage) -> Any:
    """The dashboard as an ASGI application."""
    from a2wsgi import WSGIMiddleware

    answering: Any = Dashboards(root, storage)
    return WSGIMiddleware(answering, workers=8)
