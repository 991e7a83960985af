"""The Optuna storage named in the configuration: SQLite, a journal file, a database server, or a gRPC proxy in front of one.

A database (SQLite, PostgreSQL) takes a generation's writes in one transaction: a kill leaves all of them or none. A journal and a
gRPC proxy write each value separately, so that a kill may fall between two of them. That costs only time: the next driver finds
trials half asked, reported or told, computes the same values again, and writes the missing ones.
"""

from __future__ import annotations

import os
import tempfile
import traceback
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.runtime.atomic import make_folder
from features.runtime.errors import LostError, UsageError
from features.runtime.interrupts import hold, release
from features.runtime.log import without_password

if TYPE_CHECKING:
    import optuna

DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""The SQLAlchemy driver for URLs that name a database but no driver."""

GRPC_SECONDS = 10
"""How long to wait for a gRPC proxy to answer before the search starts."""

SERVER = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
}
"""libpq parameters, unless the URL sets them: a machine or network that goes silent closes no connection, so a dead connection is
dropped after a minute. A live server, however slow, acknowledges what it receives."""

JOURNAL_SECONDS = 5
"""Age at which the lock of a journal is broken; Optuna holds it for one write."""


def storage_url(spec: str, workdir: Path) -> str:
    """The URL with which Optuna or its dashboard can open the study; a password in it is shown as ***."""
    return without_password(_address(spec, workdir))


def sqlite_url(path: Path) -> str:
    """The URL of a database file, with `?`, `%` and the like in its path quoted."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string()


def open_storage(spec: str, workdir: Path) -> optuna.storages.BaseStorage:
    """Opens (or creates) the storage; UsageError if it cannot be reached or the name is not understood."""
    import optuna

    make_folder(workdir)
    address = _address(spec, workdir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if spec == "journal":
            return _open_journal(address)
        if spec.startswith("grpc://"):
            return _open_proxy(spec)
        if "://" not in address:
            raise UsageError(
                f"search.storage: received {spec!r}; allowed: sqlite, journal, an SQLAlchemy URL, grpc://host:port."
            )
        return _open_database(address)


def cached_storage(spec: str, workdir: Path) -> optuna.storages.BaseStorage:
    """`open_storage` for a long-lived reader: finished trials are read once. Optuna's studies cache them, but its dashboard does
    not and would read all trials for every request."""
    from optuna.storages import get_storage

    return get_storage(open_storage(spec, workdir))


def kept_storage(spec: str, workdir: Path) -> optuna.storages.BaseStorage:
    """`cached_storage`, kept open for the next reader in this process, since opening a database takes a third of a second. A file
    that has changed is opened again."""
    if spec.startswith("sqlite:"):  # somebody's file, which may be replaced
        return cached_storage(spec, workdir)
    if "://" in spec:
        return _kept(spec, workdir, ())
    file = workdir / ("study.db" if spec == "sqlite" else "study.journal")
    found = file.stat()
    return _kept(spec, workdir, (str(file.resolve()), found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=4)
def _kept(spec: str, workdir: Path, file: tuple[str | int, ...]) -> optuna.storages.BaseStorage:
    return cached_storage(spec, workdir)


def with_own_cache(storage: optuna.storages.BaseStorage) -> optuna.storages.BaseStorage:
    """The same storage with a new, empty cache, which is freed with the returned object."""
    from optuna.storages import get_storage

    return get_storage(_database(storage) or storage)


@contextmanager
def one_transaction(storage: optuna.storages.BaseStorage, study_id: int | None = None) -> Iterator[None]:
    """Writes inside the block are committed to a database once, at the end, or not at all; other storages write as usual.

    Optuna commits every value separately, and each commit waits for the disk. With `study_id`, processes in a transaction on the
    same study take turns.
    """
    import sqlalchemy
    from sqlalchemy.orm import scoped_session, sessionmaker

    database = _database(storage)
    if database is None:
        yield
        return
    with database.engine.connect() as connection, connection.begin():
        if study_id is not None:  # changes nothing, but locks the row (SQLite: the file) until the end
            lock = sqlalchemy.text("UPDATE studies SET study_name = study_name WHERE study_id = :study")
            connection.execute(lock, {"study": study_id})
        own = database.scoped_session
        joined = sessionmaker(bind=connection, join_transaction_mode="rollback_only")
        database.scoped_session = scoped_session(joined)
        try:
            yield
        finally:
            database.scoped_session.remove()
            database.scoped_session = own


def release_read_locks(storage: optuna.storages.BaseStorage, error: BaseException) -> None:
    """Closes reads that an interrupt cut short. The frames of its traceback keep them open, and SQLite cannot commit while a read
    is open on any connection: the next write would deadlock."""
    database = _database(storage)
    if database is not None:
        traceback.clear_frames(error.__traceback__)
        database.scoped_session.remove()


def has_transactions(storage: optuna.storages.BaseStorage) -> bool:
    """Whether `one_transaction` makes a difference."""
    return _database(storage) is not None


@contextmanager
def storage_faults(spec: str, workdir: Path) -> Iterator[None]:
    """Turns the errors of a storage that became unavailable (a stopped server, a full disk) into a LostError."""
    import grpc
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError, grpc.RpcError) as error:
        cause: BaseException = error.__cause__ or error
        said = cause.details() if isinstance(cause, grpc.Call) else str(cause).splitlines()[0]
        raise LostError(
            f"the storage {storage_url(spec, workdir)} has failed: {without_password(str(said))}. What was written is "
            f"safe. {FREE_SPACE if _is_full(str(said)) else 'Wait until it is back.'}"
        ) from error


FREE_SPACE = "Free some space on its disk."


def _is_full(said: str) -> bool:
    """Whether a database's error is that of a full disk."""
    return any(words in said for words in ("is full", "No space left"))  # SQLite, PostgreSQL


def truncate_partial_record(spec: str, workdir: Path) -> None:
    """Cuts off a last line that a failing disk or machine left half-written: the next line would be appended to it, and no line
    after that could be read. Only for the study's one driver, before it opens the journal."""
    path = Path(_address(spec, workdir))
    if spec != "journal" or not path.exists():
        return
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        os.truncate(path, whole)


def _address(spec: str, workdir: Path) -> str:
    """The URL or path to open the storage with."""
    if spec == "sqlite":
        return sqlite_url(workdir / "study.db")
    if spec == "journal":
        return str(workdir / "study.journal")
    kind, separator, rest = spec.partition("://")
    if kind == "sqlite" and rest.startswith("/~/"):
        return sqlite_url(Path(rest[1:]).expanduser())
    return f"{DRIVERS.get(kind, kind)}{separator}{rest}"


def _database(storage: Any) -> optuna.storages.RDBStorage | None:
    import optuna

    database = getattr(storage, "_backend", storage)
    return database if isinstance(database, optuna.storages.RDBStorage) else None


def _open_journal(path: str) -> optuna.storages.BaseStorage:
    """The journal. A lock left behind by a killed process is broken after JOURNAL_SECONDS, but only if its path is absolute; with
    a relative path Optuna would wait forever."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(Path(path).resolve()), grace_period=JOURNAL_SECONDS)
    return optuna.storages.JournalStorage(JournalFileBackend(path, lock))


def _open_proxy(spec: str) -> optuna.storages.BaseStorage:
    import optuna

    host, _, port = spec.removeprefix("grpc://").rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"search.storage: received {spec!r}; a gRPC storage must be grpc://host:port.")
    proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    try:
        proxy.wait_server_ready(timeout=GRPC_SECONDS)
    except ConnectionError as error:
        raise UsageError(
            f"search.storage: no Optuna gRPC storage answers at {spec}. Start one with "
            "`optuna.storages.run_grpc_proxy_server`, or correct the address."
        ) from error
    return proxy


def _open_database(url: str) -> optuna.storages.BaseStorage:
    import optuna
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError

    try:
        _create_file(url)
        database = optuna.storages.RDBStorage(url, engine_kwargs=_options(url))
    except ImportError as error:
        if url.startswith("postgresql"):
            advice = "PostgreSQL needs psycopg: `pip install 'headhunt[postgresql]'`"
        else:
            advice = "Install the driver for that database"
        raise UsageError(
            f"search.storage: the database at {without_password(url)} needs a driver that is not installed ({error}). {advice}."
        ) from error
    except (SQLAlchemyError, RuntimeError, ValueError, OSError) as error:
        said = without_password(" ".join(str(error.__cause__ or error).split("\n(Background")[0].split()))
        advice = "Check the URL, and that the server is running and has this database and user."
        raise UsageError(
            f"search.storage: the database at {without_password(url)} cannot be used: {said}. "
            f"{FREE_SPACE if _is_full(said) else advice}"
        ) from error
    weakref.finalize(database, database.engine.dispose)  # close connections with their storage
    # An interrupt inside a transaction would leave the database locked, and saving the state would wait for that lock.
    event.listen(database.engine, "checkout", lambda *_: hold())
    event.listen(database.engine, "checkin", lambda *_: release())
    return database


def _create_file(url: str) -> None:
    """Creates a missing SQLite file whole or not at all. Optuna writes tables and indexes one by one: in a file in which a full
    disk or a kill stopped it, some would be missing for ever, among them the one by which a study's name is unique."""
    import optuna
    from sqlalchemy import make_url

    parsed = make_url(url)
    name = parsed.database or ":memory:"
    path = Path(name)
    if parsed.get_backend_name() != "sqlite" or name == ":memory:" or name.startswith("file:") or path.exists():
        return
    with suppress(FileNotFoundError), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        whole = Path(folder) / "study.db"
        optuna.storages.RDBStorage(sqlite_url(whole)).engine.dispose()
        with suppress(OSError):  # another process was faster, or the file system has no links
            path.hardlink_to(whole)


def _options(url: str) -> dict[str, Any]:
    """SQLAlchemy's options for an engine."""
    from sqlalchemy import make_url

    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    parts = make_url(url)
    # A server may close a connection that is idle during a long rung: test it before use.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if parts.drivername in ("postgresql+psycopg", "postgresql+psycopg2"):
        options["connect_args"] = {name: value for name, value in SERVER.items() if name not in parts.query}
    return options
