"""The page's section about workers: what each of them did when."""

from __future__ import annotations

import pytest

from reports.config import Run
from reports.section import LeftOutError
from reports.study import (
    workers,
)
from search.driver.worklog import Work, load_work


def test_a_worker_is_a_row_and_the_time_between_sessions_is_left_out() -> None:
    def task(session: float, worker: str, started: float, seconds: float, ended: int = 1) -> Work:
        return Work(session, 2, worker, started, seconds, 2, ended, 8)

    work = [
        task(1000, "a/1/thread_0", 1010, 20), task(1000, "a/1/thread_1", 1010, 10), task(1000, "a/1/thread_1", 1020, 20, 0),
        task(9000, "a/2/thread_1", 9000, 30), task(9000, "b/7", 9010, 20),
    ]  # fmt: skip
    found = workers.collect(work)
    first, second = found.sessions
    assert (first.seconds, first.busy, first.trials, first.epochs) == (40, pytest.approx(50 / 80), 2, 24)
    assert (second.seconds, second.busy) == (30, pytest.approx(50 / 60))
    assert found.starts == [0, 40]
    assert (found.busy, found.trials_per_minute) == (pytest.approx(100 / 140), pytest.approx(60 * 4 / 70))
    assert found.rows == ["a 1", "a 2", "b 1"]
    assert [(bar.row, bar.start) for bar in found.bars] == [
        ("a 1", 10),
        ("a 2", 10),
        ("a 2", 20),
        ("a 1", 40),
        ("b 1", 50),
    ]


def test_processes_that_never_work_at_once_share_a_row() -> None:
    work = [Work(0, 1, f"a/{number}", 10.0 * number, 9, 1, 1, 1) for number in range(20)]
    assert workers.collect(work).rows == ["a 1"]


def test_many_bars_are_joined_where_the_gaps_are_smallest() -> None:
    work = [Work(0, 1, "a/1", 10.0 * number + (number > 3), 9, 1, 1, 2) for number in range(8)]
    bars = workers.joined(workers.collect(work).bars, 2)
    assert [(bar.start, bar.seconds, bar.tasks, bar.trials, bar.epochs) for bar in bars] == [
        (0, 39, 4, 4, 8),
        (41, 39, 4, 4, 8),
    ]
    assert len(workers.joined(workers.collect(work).bars, 8)) == 8


def test_the_workers_of_a_real_search(searched: Run) -> None:
    found = workers.collect(load_work(searched.workdir))
    assert 0 < found.busy <= 1
    assert (sum(session.trials for session in found.sessions), len(found.rows) <= 2) == (6, True)
    (searched.workdir / "trials" / "work.csv").unlink()
    with pytest.raises(LeftOutError, match=r"The workers' log .*`headhunt search run`"):
        workers.section(searched)
