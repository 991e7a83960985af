"""Downloads of exports: a file as it is, a folder as a zip archive."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from headhunt.service.jobs.admission import contained
from headhunt.service.jobs.jobs import UnknownError
from train.exports.record import PARTS

BUNDLE = "bundle"
"""The whole export, with labels and model card."""


class Download(NamedTuple):
    """A file to send under a name; `temporary` if it was created for this download."""

    path: Path
    name: str
    temporary: bool


def exported_formats(folder: Path) -> list[str]:
    """The formats that are complete in an export's folder."""
    return [name for name, parts in PARTS.items() if all(_is_own(folder / part, folder) for part in parts)]


def _is_own(path: Path, folder: Path) -> bool:
    """Whether the path exists and is not a symlink out of the folder."""
    return path.exists() and contained(path, folder)


def download(root: Path, search: str, trial: int, format_: str) -> Download:
    """A trial's export in a format; UnknownError if it does not exist."""
    folder = root / search / "exports" / str(trial)
    found = exported_formats(folder) if contained(folder, root / search) else []
    if not found:
        raise UnknownError(
            f"trial {trial} of {search!r} has no export. Promote it by POST /searches/{search}/promotions, which also exports it."
        )
    if format_ not in (*found, BUNDLE):
        raise UnknownError(
            f"trial {trial} of {search!r} is not exported as {format_!r}; available: {', '.join(found)}, {BUNDLE} (all of them)."
        )
    stem = f"{search}-trial-{trial}"
    paths = [folder] if format_ == BUNDLE else [folder / part for part in PARTS[format_]]
    if len(paths) == 1 and paths[0].is_file() and contained(paths[0], folder):
        return Download(paths[0], stem + paths[0].suffix, False)
    return Download(_zipped(paths, folder), f"{stem}-{format_}.zip", True)


def report_page(root: Path, search: str) -> Path | None:
    """The page of a search's report, or None."""
    page = root / search / "report" / "index.html"
    return page if page.is_file() and contained(page, root / search) else None


def _zipped(paths: list[Path], folder: Path) -> Path:
    """A temporary zip archive of files and folders, with names relative to `folder`. Uncompressed: weights do not compress."""
    files = [
        file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()
    ]
    with tempfile.NamedTemporaryFile(prefix="headhunt-", suffix=".zip", delete=False) as archive:
        try:
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as archived:
                for file in files:
                    if contained(file, folder) and not file.name.startswith("."):
                        archived.write(file, file.relative_to(folder))
        except BaseException:  # e.g. a full disk, which the partial archive would keep full
            Path(archive.name).unlink(missing_ok=True)
            raise
        return Path(archive.name)
