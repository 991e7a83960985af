"""`search confirm`: the command, killed and rerun; what it refuses; and when its ranking is used."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from scipy import stats

from features.cache.feature_cache import cache_for
from features.runtime.atomic import only_process
from features.runtime.errors import HeadhuntError, UsageError
from headhunt.run import _confirmed as _said
from reports.config import Run
from reports.section import LeftOutError
from reports.study import confirmed as section
from reports.study.confirmed import section as _confirmed
from search.cli import _leaderboard, _row
from search.confirm import rerun as module
from search.confirm import trainings
from search.confirm.ranking import (
    Confirmed,
    by_confirmation,
    confirmation_file,
    load_confirmation,
    rank,
    write_confirmation,
)
from search.confirm.rerun import confirm, confirmation_seeds
from search.confirm.seed_runs import SeedRun, load_runs, write_runs
from search.confirm.statistics import interval
from search.confirm.table import confirmation_table, show_confirmed, show_p
from search.leaderboard import leaders
from tests.conftest import run_headhunt
from tests.fabricated import fabricate_confirmation, seed_run
from tests.forks import run_python
from train.promotion.promote import _choose

BODY = """
import json, os, shutil
from pathlib import Path
import search.confirm.rerun
import search.confirm.trainings
from features.run_file import load
from search.config import SearchRun

run = load(SearchRun, Path("headhunt.yaml"))
print(json.dumps(search.confirm.rerun.confirm(run, 3, 2)), flush=True)
shutil.move("run/confirm", "before")
Path("run/confirm.json").unlink()
write, calls = search.confirm.trainings.write_runs, []

def kill(*arguments):
    write(*arguments)
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), 9)

search.confirm.trainings.write_runs = kill
search.confirm.rerun.confirm(run, 3, 2)
"""


def test_a_killed_confirmation_goes_on_and_ends_as_if_it_had_not_been(searched: Run) -> None:
    killed = run_python(BODY)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    undisturbed = json.loads(killed.stdout.splitlines()[0])
    assert (undisturbed["trained"], undisturbed["reused"]) == (6, 0)
    assert len(load_runs(searched.workdir)) == 2
    assert not confirmation_file(searched.workdir).exists()
    done = run_headhunt(Path.cwd(), "search", "confirm", "--top", "3", "--seeds", "2", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["trained"], result["reused"]) == (4, 2)
    assert result["confirmed"] == undisturbed["confirmed"]
    for file in Path("before").iterdir():
        assert Path("run/confirm", file.name).read_bytes() == file.read_bytes()
    check_ranking(searched, result)
    # Everything is on disk: nothing is trained, whether for the same numbers or smaller ones.
    again = confirm(searched, 2, 2)
    assert (again["trained"], again["reused"]) == (0, 4)
    values = {row["number"]: row["values"] for row in result["confirmed"]}
    assert all(row["values"] == values[row["number"]] for row in again["confirmed"])


def check_ranking(run: Run, result: dict[str, Any]) -> None:
    """The ranking of the 3 leaders over 2 seeds, in the result, in the study and on disk."""
    rows = result["confirmed"]
    assert sorted(row["number"] for row in rows) == sorted(leader.number for leader in leaders(run, 3))
    assert [row["mean"] for row in rows] == sorted((row["mean"] for row in rows), reverse=True)
    assert [row["p_value"] is None for row in rows] == [True, False, False]
    searched = {leader.number: leader.value for leader in leaders(run)}
    runs = load_runs(run.workdir).values()
    for row in rows:
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["searched"] == searched[row["number"]]
        assert row["seeds"] == list(confirmation_seeds(run.search.seed, 2))
        own = [each for each in runs if each.trial == row["number"]]
        assert sorted(each.value or 0 for each in own) == sorted(row["values"])
        assert all(len(each.curves) == run.search.epochs for each in own)
        assert all(max(curve[4] or 0 for curve in each.curves) == each.value for each in own)
    assert json.loads(confirmation_file(run.workdir).read_text())["confirmed"] == rows
    kept = optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db").user_attrs["confirmed"]
    assert {int(number): row["mean"] for number, row in kept.items()} == {row["number"]: row["mean"] for row in rows}
    assert all(row["seeds"] == 2 for row in kept.values())


@pytest.mark.parametrize(
    ("top", "seeds", "message"),
    [
        (0, 5, "--top: received 0; at least 1 leader must be confirmed, e.g. --top 5."),
        (-3, 5, "--top: received -3; at least 1 leader must be confirmed, e.g. --top 5."),
        (8, 1, "--seeds: received 1; an interval needs at least 2 seeds, e.g. --seeds 5."),
    ],
)  # fmt: skip
def test_numbers_that_make_no_ranking(searched: Run, top: int, seeds: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        confirm(searched, top, seeds)
    assert str(caught.value) == message


def test_without_a_study(searched: Run) -> None:
    (searched.workdir / "study.db").unlink()
    with pytest.raises(UsageError, match=r"there is no study 'tiny' in .*Run `headhunt search run`"):
        confirm(searched)


def test_while_a_search_is_running(searched: Run) -> None:
    with (
        only_process(searched.workdir / ".search.lock", ""),
        pytest.raises(UsageError, match=rf"a search or a confirmation is running in run \(process {os.getpid()}\)"),
    ):
        confirm(searched)


def test_with_other_settings(searched: Run) -> None:
    changed = searched.search.model_copy(update={"epochs": 9})
    with pytest.raises(UsageError, match=r"started with other settings: epochs \(was 4, is 9\)"):
        confirm(searched.model_copy(update={"search": changed}))


def test_seeds_are_others_than_the_searchs_and_the_first_ones_stay() -> None:
    seeds = confirmation_seeds(7, 8)
    assert len({7, *seeds}) == 9
    assert confirmation_seeds(7, 3) == seeds[:3]
    assert not set(confirmation_seeds(8, 8)) & set(seeds)


def test_losses_are_ranked_from_below_and_failures_come_last(searched: Run) -> None:
    best = leaders(searched, 4)
    values: list[list[float | None]] = [[0.9, 0.8], [0.3, 0.5], [None, None], [0.3, 0.5]]
    found = [
        [seed_run(each.number, seed, value) for seed, value in zip((1, 2), own, strict=True)]
        for each, own in zip(best, values, strict=True)
    ]
    ranked = rank("val_loss", best, (1, 2), found)
    equal = sorted((best[1].number, best[3].number))
    assert [row.number for row in ranked] == [*equal, best[0].number, best[2].number]
    assert [row.p_value for row in ranked[:2]] == [None, 1.0]
    why = "seed 1: the loss is not finite after epoch 3"
    assert (ranked[-1].mean, ranked[-1].p_value, ranked[-1].failure) == (None, None, why)


def test_equal_means_are_ranked_by_their_loss(searched: Run) -> None:
    best = leaders(searched, 3)
    losses = {leader.number: loss for leader, loss in zip(best, (0.4, 0.1, 0.2), strict=True)}
    found = [[seed_run(number, seed, 0.9, loss) for seed in (1, 2)] for number, loss in losses.items()]
    ranked = rank("val_accuracy", best, (1, 2), found)
    assert [row.number for row in ranked] == sorted(losses, key=lambda number: losses[number])
    assert [row.val_loss for row in ranked] == [0.1, 0.2, 0.4]


def test_promotion_follows_the_confirmed_ranking_and_says_so(searched: Run, capsys: pytest.CaptureFixture[str]) -> None:
    ranked, cache = leaders(searched), cache_for(searched)
    wide = searched.model_copy(update={"train": searched.train.model_copy(update={"top": 6})})
    assert [leader.number for leader in _choose(wide, cache, [])] == [leader.number for leader in ranked]
    assert capsys.readouterr().err == ""
    numbers = [leader.number for leader in ranked[:4]]
    failed = numbers[1]
    made = fabricate_confirmation(searched, 4, (failed,))
    first = sorted((number for number in numbers if number != failed), reverse=True)
    wanted = [*first, *(leader.number for leader in ranked[4:]), failed]
    assert [leader.number for leader in by_confirmation(ranked, made)] == wanted
    assert [leader.number for leader in _choose(wide, cache, [])] == wanted
    shown = ", ".join(map(str, wanted))
    said = f"Promoting by the ranking of `headhunt search confirm` (mean of 2 seeds): trial {shown}."
    assert said in capsys.readouterr().err
    assert [leader.number for leader in _choose(searched, cache, [ranked[5].number])] == [ranked[5].number]
    assert capsys.readouterr().err == ""  # an explicitly named trial is promoted


REASONS = ["other settings (cache)", "the study's leaders have changed", "cannot be read", "an earlier version"]


@pytest.mark.parametrize("reason", REASONS)
def test_a_confirmation_of_something_else_is_not_used(
    searched: Run, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ranked, made = leaders(searched), fabricate_confirmation(searched, 3)
    assert load_confirmation(searched, ranked) == made
    if "cache" in reason:
        other = made.model_copy(update={"identity": {**made.identity, "cache": "f" * 64}})
        write_confirmation(searched.workdir, other)
    elif "leaders" in reason:  # a longer search has found a better trial
        ranked = [ranked[-1], *ranked[:-1]]
    elif "earlier" in reason:  # its p-values come from other tests
        earlier = made.model_dump_json(exclude={"comparison"})
        confirmation_file(searched.workdir).write_text(earlier)
    else:
        confirmation_file(searched.workdir).write_text("{")
    assert load_confirmation(searched, ranked) is None
    said = capsys.readouterr().err
    assert said.startswith("run/confirm.json is not used: ")
    assert reason in said
    if "leaders" in reason:
        assert f"(trial {ranked[0].number} is new among them)" in said
    assert "Run `headhunt search confirm` to confirm the current leaders" in said


def test_the_leaderboard_and_the_report_show_what_is_confirmed(searched: Run) -> None:
    with pytest.raises(LeftOutError, match="Run `headhunt search confirm`"):
        _confirmed(searched)
    ranked = leaders(searched)
    assert "confirmed" not in _row(ranked[0], None)
    made = fabricate_confirmation(searched, 3, (ranked[1].number,))
    best = made.of(ranked[0].number)
    assert best is not None
    assert best.interval is not None
    row = _row(ranked[0], made)["confirmed"]
    assert (row["number"], row["mean"], row["seeds"]) == (ranked[0].number, best.mean, [1, 2])
    assert [_row(ranked[place], made)["confirmed"] for place in (1, 5)] == [None, None]
    table = _leaderboard(searched, ranked, made)
    column = table.columns[2]  # no top-5 accuracy for three classes
    assert column.header == "confirmed, 2 seeds"
    assert [cell != "" for cell in column.cells] == [True, False, True, False, False, False]
    assert (
        table.caption == "val_accuracy is optimistic, because trials and epochs were chosen on the validation photos."
    )
    done = run_headhunt(Path(), "search", "top", "--json")
    rows = [row["number"] for row in json.loads(done.stdout.splitlines()[-1])["trials"]]
    failed = made.confirmed[-1].number
    others = [each.number for each in ranked[3:]]
    assert rows == [*(each.number for each in made.confirmed[:-1]), *others, failed]
    assert "Confirmed leaders come first, by their mean over 2 seeds," in " ".join(done.stderr.split())
    page = _confirmed(searched)
    assert [line[0] for line in page.tables[0].rows] == [str(each.number) for each in made.confirmed]
    assert page.tables[0].rows[-1][1:3] == ["failed", "seed 2: the loss is not finite after epoch 3"]
    found = section.collect(searched)
    assert found is not None
    assert (len(found.ranked), len(found.failed), found.seeds) == (2, 1, 2)
    assert list(page.figures["confirmed"].data[1].x) == [each.mean for each in found.ranked[::-1]]
    shown = confirmation_table(searched, {"confirmed": [each.model_dump(mode="json") for each in made.confirmed]})
    assert list(shown.columns[1].cells)[-1] == "failed"
    assert next(iter(shown.columns[3].cells)) == f"{made.confirmed[0].searched:.4f}"


def test_a_search_that_has_been_confirmed_says_who_ranks_first(searched: Run) -> None:
    first, best = (each.number for each in fabricate_confirmation(searched, 2).confirmed)
    said = " ".join(run_headhunt(Path(), "search", "run", "--json").stderr.split())
    assert f"Best: trial {best}, " in said and best == leaders(searched)[0].number
    assert said.endswith(f"By `headhunt search confirm`, trial {first} ranks first: promotion follows that.")


def test_an_interval_that_ends_at_100_percent_is_shown_with_both_ends() -> None:
    """For 1, 1 and 0.97: mean 0.99, standard error sqrt(0.0003 / 3) = 0.01, and t with two degrees of freedom 4.3027."""
    half = float(stats.t.ppf(0.975, 2)) * 0.01
    assert half == pytest.approx(0.043027, abs=1e-6)
    found = interval([1.0, 1.0, 0.97], is_share=True)
    one = Confirmed(
        number=3, mean=found.mean, low=found.low, high=found.high, seeds=(1, 2, 3), values=(1.0, 1.0, 0.97), searched=1.0
    )  # fmt: skip
    assert show_confirmed(one) == "0.9900 (0.9470 to 1.0000)"
    probe = one.model_copy(
        update={"number": 0, "first": "probe", "values": (0.75,) * 3, "mean": 0.75, "low": 0.75, "high": 0.75}
    )
    bars = section.draw(section.ConfirmedLeaders([one, probe], [], 3), "val_accuracy").data[1].error_x
    assert (bars.array[1], bars.arrayminus[1]) == (pytest.approx(0.01), pytest.approx(half))
    assert (bars.array[0], bars.arrayminus[0]) == (None, None)
    assert not bars.symmetric


def test_values_that_do_not_differ_have_no_interval(searched: Run) -> None:
    """For a probe, which does not depend on the seed, and for trained heads that happen to be equal."""
    head = leaders(searched, 1)[0]
    runs = [[seed_run(number, seed, 0.75) for seed in (1, 2)] for number in (0, 1)]
    pair = [replace(head, number=0, first="probe"), replace(head, number=1)]
    probe, equal = rank("val_accuracy", pair, (1, 2), runs)
    assert (probe.mean, probe.low, probe.high, probe.interval) == (0.75, None, None, None)
    assert show_confirmed(probe) == "0.7500 (solved, the same with every seed)"
    assert show_confirmed(equal) == "0.7500 (the same with every seed)"
    result = {"confirmed": [each.model_dump(mode="json") for each in (probe, equal)]}
    table = confirmation_table(searched, result)
    assert list(table.columns[2].cells) == ["solved, the same with every seed", "the same with every seed"]
    assert _said(result, "val_accuracy").endswith(": val_accuracy 0.7500 (solved, the same with every seed)")


def test_p_values_as_text() -> None:
    assert [show_p(p) for p in (None, 0.0004, 0.001, 0.0416, 1.0)] == ["", "< 0.001", "0.001", "0.042", "1.000"]


def test_trainings_are_found_again_and_damaged_files_are_named(tmp_path: Path) -> None:
    run = SeedRun(key="a", trial=3, seed=5, value=None, best_epoch=0, failure="why", curves=((1.0, None),))
    write_runs(tmp_path, [run, run.model_copy(update={"key": "b"})])
    write_runs(tmp_path, [run.model_copy(update={"key": "c"})])
    assert {key: each.failure for key, each in load_runs(tmp_path).items()} == {"a": "why", "b": "why", "c": "why"}
    file = next((tmp_path / "confirm").glob("*.json"))
    file.write_text("[{]")
    with pytest.raises(HeadhuntError, match=rf"{file.name} cannot be read: .*Delete it; its trainings will be rerun"):
        load_runs(tmp_path)


def test_leaders_that_all_fail_and_memory_that_runs_out(searched: Run) -> None:
    from search.trial import TrialResult

    best = leaders(searched, 2)
    failed = SeedRun(key="a", trial=0, seed=5, value=None, best_epoch=0, failure="not finite", curves=())
    with pytest.raises(
        HeadhuntError, match=rf"none of the 2 leaders completed all 2 seeds; trial {best[0].number} failed with seed 5: not"
    ):  # fmt: skip
        module._rank(searched, best, (5, 6), [[failed, failed], [failed, failed]])
    wanted = trainings.Training(best[0].number, best[0].config, "key")
    full = TrialResult((), 0, {}, "out of memory: RESOURCE_EXHAUSTED", 1.0)
    with pytest.raises(HeadhuntError, match=r"ran out of memory.*lower `search.lanes`, then rerun the same command"):
        trainings._record(searched, wanted, full)
