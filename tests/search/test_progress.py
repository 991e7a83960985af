"""The progress of a search: numbers, a table, a line; and the terminal is restored afterwards."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from search.review.progress import Best, Progress, Row, SearchSnapshot, line, table

pytestmark = pytest.mark.unit

BEST = Best(17, 0.7321, ["256-relu, dropout 0.3", "constant, learning rate 1e-3"])
STANDING = SearchSnapshot(
    "toys", "val_accuracy", 200, {"COMPLETE": 40, "PRUNED": 15, "FAIL": 2, "RUNNING": 8}, BEST, 30, 60.0, 90.0
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn(standing: SearchSnapshot, width: int = 100) -> str:
    console = Console(record=True, file=io.StringIO(), width=width)
    console.print(table(standing))
    return console.export_text()


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, soft_wrap=True, _environ={"TERM": "xterm"})


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_rate_is_of_this_process_and_the_time_left_runs_down() -> None:
    assert STANDING.ended == 57
    assert STANDING.per_minute == 30
    assert STANDING.seconds_left == 2 * 143 - 30
    assert STANDING._replace(elapsed=1000.0).seconds_left == 0
    resumed = STANDING._replace(ended_here=0, ended_at=0.0)
    assert resumed.per_minute is None
    assert resumed.seconds_left is None


def test_the_table() -> None:
    text = drawn(STANDING)
    for part in (
        "val_accuracy 0.7321 (trial 17)",
        "256-relu, dropout 0.3",
        "constant, learning rate 1e-3",
        "57 of 200",
        "40 complete, 15 pruned, 2 failed, 8 running",
        "30 trials/min, 1:30 elapsed, 4:16 left",
    ):
        assert part in text


def test_the_table_before_the_first_trial_has_ended() -> None:
    text = drawn(SearchSnapshot("toys", "val_loss", 4000, {"RUNNING": 8}, None, 0, 0.0, 3725.0))
    assert "no completed trials yet" in text
    assert "1:02:05 elapsed, no finished trials yet" in text


@pytest.mark.parametrize("width", [30, 50, 80])
def test_a_narrow_terminal_cuts_lines_and_does_not_wrap_them(width: int) -> None:
    text = drawn(STANDING._replace(best=BEST._replace(words=["x" * 200])), width)
    lines = text.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= width
    assert len(lines) == 6


def test_the_line_of_a_generation() -> None:
    rows = [Row(8, "PRUNED", None, ()), Row(9, "FAIL", None, ()), Row(10, "COMPLETE", 0.5, ())]
    assert line(STANDING, rows, 3.21) == (
        "  trials 8–10 of 200 (1 pruned, 1 failed): best val_accuracy 0.7321 (trial 17), 3.2 s; 30 trials/min, 4:16 left"
    )


def test_trials_count_as_they_end_and_the_better_one_leads() -> None:
    clock, console = Clock(), Console(file=io.StringIO(), width=200)
    told = SearchSnapshot("toys", "val_loss", 12, {"COMPLETE": 4}, Best(2, 0.9, ["old"]))
    with Progress(console, told, clock) as progress:
        progress.update([Row(number, "RUNNING", None, ()) for number in (4, 5, 6)])
        assert progress.standing.counts["RUNNING"] == 3
        clock.now += 10
        rows = [Row(4, "COMPLETE", 0.8, ["new"]), Row(5, "COMPLETE", 0.95, ()), Row(6, "RUNNING", None, ())]
        progress.update(rows)
        standing = progress.standing
        assert (standing.best, standing.ended, standing.ended_here) == (Best(4, 0.8, ["new"]), 6, 2)
        assert standing.per_minute == 12
        clock.now += 10
        progress.update([*rows[:2], Row(6, "PRUNED", None, ())])
        progress.told()
        assert progress.standing.counts == {"COMPLETE": 6, "PRUNED": 1, "FAIL": 0, "RUNNING": 0}
    assert said(console) == (
        "  trials 4–6 of 12 (1 pruned): best val_loss 0.8000 (trial 4), 20.0 s; 9.0 trials/min, 0:33 left\n"
    )


def test_trials_that_a_killed_driver_had_trained_do_not_count_for_the_rate() -> None:
    clock = Clock()
    progress = Progress(Console(file=io.StringIO()), SearchSnapshot("toys", "val_accuracy", 12, {}, None), clock)
    clock.now += 0.1
    progress.update([Row(0, "COMPLETE", 0.5, (), here=False)])
    assert progress.standing.ended == 1
    assert progress.standing.per_minute is None


def test_a_terminal_has_the_table_and_no_lines_and_gets_its_cursor_back_after_ctrl_c() -> None:
    console = terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        Progress(console, STANDING._replace(ended_here=0)) as progress,
    ):
        progress.update([Row(57, "COMPLETE", 0.8, ["cosine"])])
        progress.told()
        raise KeyboardInterrupt
    shown = said(console)
    assert "val_accuracy 0.8000 (trial 57)" in shown
    assert "58 of 200" in shown
    assert "trials 57–57" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_dumb_terminal_has_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200, _environ={"TERM": "dumb"})
    with Progress(console, STANDING) as progress:
        progress.update([Row(57, "COMPLETE", 0.8, ())])
        progress.told()
    assert "trials 57–57 of 200: best val_accuracy 0.8000 (trial 57)" in said(console)
