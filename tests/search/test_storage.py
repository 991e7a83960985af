"""One contract for SQLite, the journal, PostgreSQL and the gRPC proxy: the same study, resumed, read, shown in the dashboard."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest
import sqlalchemy
import yaml
from optuna_dashboard import wsgi

from features.runtime.errors import LostError, UsageError
from reports.config import Run
from search.driver.ownership import Patience, owned, read_driver
from search.driver.storage import one_transaction, open_storage, storage_faults, storage_url, truncate_partial_record
from search.leaderboard import leaders, load_study
from tests.forks import run_python
from tests.search.storages import PASSWORD, binaries, free_port, proxy

KINDS = ["sqlite", "journal", "postgresql", "grpc"]

BODY = """
import json, sys
from pathlib import Path
from features.run_file import load
from search.config import SearchRun
from search.study import run_search

for kind, storage in json.loads(sys.argv[1]).items():
    for name in ("cache", "dataset"):  # the same folder: what is compiled for one storage serves the next
        Path(kind).mkdir(exist_ok=True)
        Path(kind, name).symlink_to(Path("run", name).resolve())
    for trials in (4, 6):  # the second goes on in the middle of a generation
        given = [f"workdir={kind}", f"search.storage={storage}", f"search.trials={trials}"]
        result = run_search(load(SearchRun, Path("headhunt.yaml"), given))
    print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def studies(
    searched_once: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Run]]:
    """The same search on every kind of storage, in two runs each, by one process; returns the configurations that read them."""
    folder = tmp_path_factory.mktemp("storages") / "x"
    shutil.copytree(searched_once, folder)
    (folder / "run" / "study.db").unlink()
    shutil.rmtree(folder / "run" / "trials")
    with proxy(f"sqlite:///{folder}/behind.db") as address:
        specs = {"sqlite": "sqlite", "journal": "journal", "grpc": address}
        if binaries() is not None:
            specs["postgresql"] = request.getfixturevalue("postgresql_url")
        done = run_python(BODY, json.dumps(specs), folder=folder)
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        raw = yaml.safe_load((folder / "headhunt.yaml").read_text())
        runs = {}
        for line, (kind, spec) in zip(done.stdout.splitlines(), specs.items(), strict=True):
            assert json.loads(line)["trials"] == {"complete": 6, "pruned": 0, "failed": 0}
            runs[kind] = Run.model_validate(
                {**raw, "workdir": folder / kind, "search": {**raw["search"], "storage": spec}}
            )
        yield runs


@pytest.fixture(params=KINDS)
def stored(request: pytest.FixtureRequest, studies: dict[str, Run]) -> Run:
    """The configuration of a study on one kind of storage."""
    if request.param not in studies:
        pytest.skip("needs PostgreSQL, e.g. Debian's package")
    return studies[request.param]


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty storage of each kind; the gRPC server runs in this process."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgresql_url")
    elif request.param == "grpc":
        from optuna.storages._grpc.server import make_server as serve_storage

        port = free_port()
        server = serve_storage(optuna.storages.InMemoryStorage(), "127.0.0.1", port)
        server.start()
        yield f"grpc://127.0.0.1:{port}"
        server.stop(0).wait()
    else:
        yield request.param


def test_the_history_is_that_of_sqlite(stored: Run, studies: dict[str, Run]) -> None:
    def history(run: Run) -> list[object]:
        return [
            (
                trial.number,
                trial.state,
                trial.values,
                trial.params,
                trial.intermediate_values,
                trial.user_attrs["config"],
            )
            for trial in load_study(run).trials
        ]

    assert history(stored) == history(studies["sqlite"])
    assert leaders(stored) == leaders(studies["sqlite"])
    driver = read_driver(load_study(stored))
    assert driver is not None and not driver.running and driver.seconds > 0


def test_the_dashboard_reads_it(stored: Run) -> None:
    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged."""

    application = wsgi(open_storage(stored.search.storage, stored.workdir))
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/api/studies", timeout=20) as answer:
            names = [summary["study_name"] for summary in json.load(answer)["study_summaries"]]
        server.shutdown()
        thread.join()
    assert "tiny" in names


def test_of_newcomers_at_the_same_moment_one_gets_the_study(empty: str, tmp_path: Path) -> None:
    optuna.create_study(storage=open_storage(empty, tmp_path), study_name="contested", load_if_exists=True)
    start, end = threading.Barrier(4), threading.Barrier(4)
    outcomes: list[str] = []

    def drive() -> None:
        study = optuna.load_study(study_name="contested", storage=open_storage(empty, tmp_path))
        start.wait()
        try:
            with owned(study, lambda: open_storage(empty, tmp_path), "the storage", Patience(settle=5)):
                outcomes.append("owns")
                end.wait(300)
        except Exception as error:
            outcomes.append(type(error).__name__)
            end.wait(300)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("owns") == 1, outcomes


def test_what_is_written_together_is_written_or_not(empty: str, tmp_path: Path) -> None:
    """Only databases guarantee that."""
    study = optuna.create_study(storage=open_storage(empty, tmp_path), study_name="together", load_if_exists=True)
    with one_transaction(study._storage, study._study_id):
        trial = study.ask()
        trial.report(0.5, 1)
        study.tell(trial, 0.6)
    with pytest.raises(RuntimeError), one_transaction(study._storage, study._study_id):
        study.ask()
        raise RuntimeError
    seen = optuna.load_study(study_name="together", storage=open_storage(empty, tmp_path)).trials
    assert (seen[0].value, seen[0].intermediate_values) == (0.6, {1: 0.5})
    assert len(seen) == (2 if empty == "journal" or empty.startswith("grpc") else 1)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlit", "search.storage: received 'sqlit'; allowed: sqlite, journal, an SQLAlchemy URL, grpc://host:port"),
        ("grpc://localhost", "search.storage: received 'grpc://localhost'; a gRPC storage must be grpc://host:port"),
        (
            "postgresql://nobody:open@127.0.0.1:1/x",
            "the database at postgresql+psycopg://nobody:***@127.0.0.1:1/x cannot",
        ),
        ("postgresql+psycopg2://u:open@h/x", "needs a driver that is not installed"),
        ("postgresql://u:open", "the database at postgresql+psycopg://u:open cannot be used: "),
    ],
)
def test_storages_that_cannot_be_used(tmp_path: Path, storage: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_storage(storage, tmp_path)
    assert message in str(caught.value)
    assert ":open@" not in str(caught.value)


def test_a_wrong_password_is_told_and_not_shown(postgresql_url: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"headhunt:\*\*\*@.*password authentication failed for user \"headhunt\""
    ) as caught:
        open_storage(postgresql_url.replace(PASSWORD, "melon"), tmp_path)
    assert "melon" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("sqlite", "sqlite:///run/study.db"),
        ("journal", "run/study.journal"),
        ("postgresql://me:pa:ss/w@rd@host:5/x", "postgresql+psycopg://me:***@host:5/x"),
        (
            "postgres://me@host/x?password=word&sslmode=require",
            "postgresql+psycopg://me@host/x?password=***&sslmode=require",
        ),
        ("mysql+pymysql://me:word@host/x", "mysql+pymysql://me:***@host/x"),
        ("grpc://host:13000", "grpc://host:13000"),
    ],
)
def test_urls_are_shown_without_their_password(spec: str, shown: str) -> None:
    assert storage_url(spec, Path("run")) == shown


def test_a_database_from_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage_url("sqlite:///~/studies.db", Path("run")) == f"sqlite:///{tmp_path}/studies.db"


@pytest.mark.parametrize(
    "name", ["run a", "run%20a", "runs?one", "run[new]", "run{1}", "run#2", "a@b:c", "läufe", "a&b=c"]
)
def test_the_database_lies_in_the_folder_whatever_its_name(name: str, tmp_path: Path) -> None:
    """Its URL, given to Optuna, names the same file and does not find a study elsewhere."""
    workdir = tmp_path / name
    optuna.create_study(storage=open_storage("sqlite", workdir), study_name="x")
    assert (workdir / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert optuna.get_all_study_names(storage_url("sqlite", workdir)) == ["x"]
    assert optuna.get_all_study_names(open_storage("sqlite", tmp_path / f"other {name}")) == []


def test_a_storage_that_goes_away_in_the_middle_is_told(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage("sqlite", tmp_path), study_name="x")
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("drop table trials")
    database.close()
    with (
        pytest.raises(
            LostError, match=r"the storage sqlite:///.*study\.db has failed: .*no such table.* Wait until it is back"
        ),
        storage_faults("sqlite", tmp_path),
    ):
        study.ask()


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    storage = open_storage("sqlite", tmp_path)
    study = optuna.create_study(storage=storage, study_name="x")
    assert isinstance(storage, optuna.storages.RDBStorage)
    sqlalchemy.event.listen(
        storage.engine, "connect", lambda database, _: database.execute("pragma max_page_count = 1")
    )
    storage.engine.dispose()  # from the next connection on, the file may not grow
    with (
        pytest.raises(
            LostError, match=r"has failed: .* is full\. What was written is safe\. Free some space on its disk\."
        ),
        storage_faults("sqlite", tmp_path),
    ):
        study.set_user_attr("long", "x" * 100_000)


@pytest.mark.parametrize("pages", [2, 8, 14, 20])
def test_a_disk_that_is_full_at_first_leaves_no_half_of_a_database(pages: int, tmp_path: Path) -> None:
    def limit(database: Any, _: Any) -> None:
        database.execute(f"pragma max_page_count = {pages}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", limit)
    try:
        with pytest.raises(UsageError, match=r"cannot be used: .* is full\. Free some space on its disk\."):
            open_storage("sqlite", tmp_path)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", limit)
    storage = open_storage("sqlite", tmp_path)
    optuna.create_study(storage=storage, study_name="x")
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(storage=storage, study_name="x")
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/whole.db")
    names = []
    for file in ("study.db", "whole.db"):
        with sqlite3.connect(tmp_path / file) as database:
            names.append(sorted(database.execute("select name from sqlite_master")))
        database.close()
    assert names[0] == names[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.db", "whole.db"]


def test_a_grpc_server_that_stops_is_told(tmp_path: Path) -> None:
    from optuna.storages._grpc.server import make_server as serve_storage

    port = free_port()
    server = serve_storage(optuna.storages.InMemoryStorage(), "127.0.0.1", port)
    server.start()
    spec = f"grpc://127.0.0.1:{port}"
    study = optuna.create_study(storage=open_storage(spec, tmp_path), study_name="x")
    server.stop(0).wait()
    with pytest.raises(LostError, match=rf"the storage {spec} has failed"), storage_faults(spec, tmp_path):
        study.ask()


def test_a_connection_that_the_server_closed_is_replaced(postgresql_url: str, tmp_path: Path) -> None:
    import psycopg

    study = optuna.create_study(storage=open_storage(postgresql_url, tmp_path), study_name="idle", load_if_exists=True)
    with psycopg.connect(postgresql_url) as own:
        own.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    assert study.ask().number >= 0


@pytest.mark.parametrize(("given", "seconds"), [("", 60), ("?tcp_user_timeout=7000&connect_timeout=3", 7)])
def test_a_connection_on_which_nothing_arrives_is_given_up(
    postgresql_url: str, tmp_path: Path, given: str, seconds: int
) -> None:
    """After a minute, unless the URL says otherwise; enforced by the operating system."""
    storage = open_storage(postgresql_url + given, tmp_path)
    assert isinstance(storage, optuna.storages.RDBStorage)
    with storage.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as open_one:
            assert open_one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * seconds
            assert open_one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            probes = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert [open_one.getsockopt(socket.IPPROTO_TCP, option) for option in probes] == [20, 10, 4]
        assert driver.info.get_parameters()["connect_timeout"] == ("3" if given else "10")


@pytest.mark.slow
def test_a_journal_whose_lock_was_left_by_a_killed_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optuna.create_study(storage=open_storage("journal", Path("run")), study_name="x")
    Path("run/study.journal.lock").symlink_to(Path("run/study.journal").resolve())
    study = optuna.load_study(study_name="x", storage=open_storage("journal", Path("run")))
    assert study.ask().number == 0  # after JOURNAL_SECONDS


def test_a_torn_last_line_of_a_journal_is_cut_off(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage("journal", tmp_path), study_name="x")
    study.ask()
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    truncate_partial_record("journal", tmp_path)
    study = optuna.load_study(study_name="x", storage=open_storage("journal", tmp_path))
    study.ask()
    assert len(optuna.load_study(study_name="x", storage=open_storage("journal", tmp_path)).trials) == 2
