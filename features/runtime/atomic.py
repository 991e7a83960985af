"""Files that are either whole or absent: written under a temporary name, flushed, renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from features.runtime.errors import HeadhuntError, UsageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, flushes it to disk and renames it to `path`.

    A block that raises leaves `path` as it was. The temporary name keeps the suffix of `path`, since Keras and pandas
    choose the format by it, and is nobody else's: on a shared disk, process numbers of two machines may be the same. Raises
    HeadhuntError when the disk is full or the folder cannot be written.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise HeadhuntError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose another `workdir`."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields the temporary name of a folder that the block makes; when the block ends well, flushes its files and renames it.

    A block that raises leaves `path` as it was. An older folder of that name is moved aside first: a process that is killed in
    between leaves no folder, never half of one. Raises HeadhuntError when the disk is full or the folder cannot be written.
    """
    make_folder(path.parent)
    unique = uuid4().hex
    temporary, old = (path.with_name(f".{path.name}.{unique}.{state}") for state in ("tmp", "old"))
    try:
        yield temporary
        for part in [*temporary.rglob("*"), temporary]:
            _flush(part)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        raise HeadhuntError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose another `workdir`."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: Path) -> Path:
    """Makes the folder and its parents; UsageError when that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {path}: {error.strerror}. Choose a `workdir` that can be written."
        ) from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"the folder {path} cannot be written. Choose another `workdir` or change its permissions.")
    return path


def file_sha256(path: Path) -> str:
    """The sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def only_process(lock: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file for this process; UsageError (`refusal`, and who) when another one holds it.

    The lock goes with the process, however that ends.
    """
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"{refusal} (process {file.read().strip() or 'unknown'}). Wait for it or stop it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
