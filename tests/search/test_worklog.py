"""The work log: what a search writes there, and what is left of it after a kill."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from reports.config import Run
from search.driver.worklog import Work, WorkLog, load_work, work_file
from tests.conftest import run_headhunt

ROW = Work(1000.5, 2, "a,b/12/thread_0", 1001.25, 3.5, 4, 1, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trials").mkdir()
    return tmp_path


def test_rows_are_read_as_they_were_written(folder: Path) -> None:
    assert load_work(folder) == []
    log = WorkLog(folder, 2, goes_on=False)
    log.append([ROW])
    log.append([])
    log.append([ROW._replace(trials=5), ROW])
    WorkLog(folder, 3, goes_on=True).append([ROW])
    assert load_work(folder) == [ROW, ROW._replace(trials=5), ROW, ROW]
    assert work_file(folder).read_text().splitlines()[0] == ",".join(Work._fields)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_row_that_is_not_whole_is_no_row_and_the_next_search_drops_it(folder: Path, cut: int) -> None:
    WorkLog(folder, 2, goes_on=True).append([ROW, ROW])
    whole = work_file(folder).read_bytes()
    work_file(folder).write_bytes(whole[:-cut])
    assert load_work(folder) == [ROW]
    WorkLog(folder, 2, goes_on=True).append([ROW])
    assert work_file(folder).read_bytes() == whole


def test_a_new_study_begins_the_log_anew(folder: Path) -> None:
    WorkLog(folder, 2, goes_on=True).append([ROW, ROW])
    log = WorkLog(folder, 2, goes_on=False)
    for _ in range(3):
        log.append([ROW])
    assert load_work(folder) == [ROW] * 3


def test_a_file_that_is_not_ours_has_no_rows(folder: Path) -> None:
    work_file(folder).write_bytes(b"session\nx,2,worker,1,1,1,1,1\n1,2\n\xff\xfe\n")
    assert load_work(folder) == []


def test_a_log_that_cannot_be_written_stops_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work_file(folder).mkdir()
    WorkLog(folder, 1, goes_on=False).append([ROW])
    assert "work.csv: Is a directory." in capsys.readouterr().err


def test_a_search_logs_every_task_and_goes_on_with_the_log(searched: Run) -> None:
    rows = load_work(searched.workdir)
    assert [sum(column) for column in zip(*(row[5:] for row in rows), strict=True)] == [6, 6, 24]
    (session,) = {row.session for row in rows}
    (worker,) = {row.worker for row in rows}
    host, process = worker.split("/")
    assert (host, process.isdigit(), {row.workers for row in rows}) == (socket.gethostname(), True, {1})
    assert all(row.started >= session - 0.01 and row.seconds > 0 for row in rows)
    run_headhunt(Path.cwd(), "search", "run", "--trials", "9", "--workers", "2")
    more = load_work(searched.workdir)
    assert more[: len(rows)] == rows
    later = more[len(rows) :]
    assert (sum(row.ended for row in later), {row.workers for row in later}) == (3, {2})
    (other,) = {row.worker.rpartition("/")[0] for row in later}
    assert other.partition("/")[0] == host
    assert {row.worker for row in later} <= {f"{other}/thread_{number}" for number in range(2)}
    assert later[0].session > session
