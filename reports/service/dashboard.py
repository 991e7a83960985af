"""Optuna's dashboard on the storage of all studies, with the pictures of every search's trials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from features.atomic import make_folder
from reports.service.admission import contained
from search.review.dashboard import application

if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore
    from optuna.storages import BaseStorage


class Pictures:
    """An artifact store of Optuna's: what the searches have, and a folder for what somebody adds in the dashboard."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """A file of any search."""
        reader: BinaryIO = self._store(artifact_id).open_reader(artifact_id)
        return reader

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Adds a file."""
        self._in(self._root / ".artifacts").write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Takes a file away."""
        self._store(artifact_id).remove(artifact_id)

    def _store(self, artifact_id: str) -> FileSystemArtifactStore:
        """Where a file is: links that lead out of the work directory are not followed."""
        found = self._root.glob(f"*/artifacts/{artifact_id}") if re.fullmatch(r"[0-9a-fA-F-]+", artifact_id) else ()
        return self._in(next((path.parent for path in found if contained(path, self._root)), self._root / ".artifacts"))

    def _in(self, folder: Path) -> FileSystemArtifactStore:
        from optuna.artifacts import FileSystemArtifactStore

        return FileSystemArtifactStore(make_folder(folder))


def dashboard(root: Path, storage: BaseStorage) -> Any:
    """The dashboard as an ASGI application."""
    from a2wsgi import WSGIMiddleware

    answering: Any = application(storage, Pictures(root))
    return WSGIMiddleware(answering, workers=8)
