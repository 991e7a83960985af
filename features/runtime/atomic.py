"""Files: atomic writes (a temporary name, a flush, a rename), reads of text, locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import relative

DELETE_FOLDER = "Headhunt needs a file of this name: delete or rename the folder, then rerun the same command."
"""What to do about a folder where a file should be."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; if the block succeeds, flushes it to disk and renames it to `path`.

    If the block raises, `path` is left unchanged. The temporary name keeps the suffix of `path`, because Keras and pandas
    choose the format by it, and is unique across machines that share a disk (process IDs are not). Raises HeadhuntError when
    the disk is full or the folder is not writable.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary name for a folder that the block creates; if the block succeeds, flushes its files and renames it.

    If the block raises, `path` is left unchanged. An existing folder of that name is moved aside first: a process killed between
    the two renames leaves no folder, never half of one. Raises HeadhuntError when the disk is full or the folder is not writable.
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
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: Path) -> Path:
    """Creates the folder and its parents. Raises UsageError when that fails or the folder is not writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {path}: {error.strerror}. {_advice(error.errno)}") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"the folder {path} is not writable. {_advice(errno.EACCES)}")
    return path


def read_text(path: Path, advice: str) -> str:
    """The content of a UTF-8 file. Raises FileNotFoundError when it is missing, HeadhuntError, with `advice` on what to do, when
    it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        reason = "it is a folder"
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = error.strerror or str(error)
    raise HeadhuntError(f"{relative(path)} is damaged ({reason}). {advice}")


def file_sha256(path: Path) -> str:
    """The sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files and folders that killed processes left in a folder to which no other process is writing."""
    for left in [*folder.glob(".*.tmp*"), *folder.glob(".*.old")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


@contextmanager
def only_process(lock: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file for this process. Raises UsageError (`refusal`, and the process ID) when another process holds it.

    The operating system releases the lock when the process ends, however it ends.
    """
    with lock.open("a+", encoding="utf-8", errors="replace") as file:
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


def _cannot_write(path: Path, error: OSError) -> HeadhuntError:
    if path.is_dir() and isinstance(error, IsADirectoryError):
        return HeadhuntError(f"cannot write {relative(path)}: it is a folder. {DELETE_FOLDER}")
    return HeadhuntError(f"cannot write {path}: {error.strerror or error}. {_advice(error.errno)}")


def _advice(number: int | None) -> str:
    """What to do after an error of the operating system with this number."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or choose another `workdir`."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Change its permissions, or choose another `workdir`."
    return "Choose another `workdir`."


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
