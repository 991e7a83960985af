"""The Optuna storage that the configuration names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from features.atomic import make_folder
from features.errors import UsageError

if TYPE_CHECKING:
    import optuna


def storage_url(spec: str, workdir: Path) -> str:
    """What a person gives to Optuna or its dashboard to read the study."""
    if spec == "sqlite":
        return f"sqlite:///{workdir / 'study.db'}"
    return str(workdir / "study.journal") if spec == "journal" else spec


def open_storage(spec: str, workdir: Path) -> optuna.storages.BaseStorage:
    """Opens (or makes) the storage; UsageError when it cannot be reached or the name is not understood."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    make_folder(workdir)
    url = storage_url(spec, workdir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if spec == "journal":
            return optuna.storages.JournalStorage(JournalFileBackend(url))
        if spec.startswith("grpc://"):
            host, _, port = spec.removeprefix("grpc://").partition(":")
            if not port.isdigit():
                raise UsageError(f"search.storage: received {spec!r}; a gRPC storage is grpc://host:port.")
            proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
            try:
                proxy.wait_server_ready(timeout=10)
            except ConnectionError as error:
                raise UsageError(
                    f"search.storage: no Optuna gRPC storage answers at {spec}. Start one with "
                    "`optuna.storages.run_grpc_proxy_server`, or correct the address."
                ) from error
            return proxy
        if "://" not in url:
            raise UsageError(
                f"search.storage: received {spec!r}; allowed: sqlite, journal, an SQLAlchemy URL, grpc://host:port."
            )
        return _open_database(url)


@contextmanager
def one_transaction(storage: optuna.storages.BaseStorage) -> Iterator[None]:
    """What is written inside is committed to a database once, at the end, or not at all; other storages write as they always do.

    Optuna commits every value by itself, and a commit waits for the disk.
    """
    import optuna
    from sqlalchemy.orm import scoped_session, sessionmaker

    database = getattr(storage, "_backend", storage)
    if not isinstance(database, optuna.storages.RDBStorage):
        yield
        return
    with database.engine.connect() as connection, connection.begin():
        own = database.scoped_session
        joined = sessionmaker(bind=connection, join_transaction_mode="rollback_only")
        database.scoped_session = scoped_session(joined)
        try:
            yield
        finally:
            database.scoped_session.remove()
            database.scoped_session = own


def _open_database(url: str) -> optuna.storages.BaseStorage:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.RDBStorage(
            url, engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
        )
    except (SQLAlchemyError, ImportError) as error:
        short = str(error).splitlines()[0]
        raise UsageError(
            f"search.storage: the database at {url} cannot be used: {short}. Check the URL and its driver."
        ) from error
