"""The study's note in Optuna's dashboard names the trial that ranks first here."""

from __future__ import annotations

from pathlib import Path

from optuna_dashboard import get_note, save_note

from reports.config import Run
from search.leaderboard import leaders, load_study
from tests.conftest import run_headhunt


def test_it_follows_search_and_confirmation_until_somebody_edits_it(searched: Run) -> None:
    best = leaders(searched)[0]
    note = get_note(load_study(searched))
    assert note.startswith(f"**Trial {best.number} ranks first** by its best epoch; `headhunt train promote` takes it.")
    assert f"| {best.number} | {best.value:.4f} |  |" in note
    run_headhunt(Path(), "search", "confirm", "--top", "2", "--seeds", "2")
    note = get_note(load_study(searched))
    assert "ranks first** by the mean over several seeds" in note and note.count(" to ") + note.count("same with") >= 1
    save_note(load_study(searched), "mine")
    run_headhunt(Path(), "search", "confirm", "--top", "3", "--seeds", "2")
    assert get_note(load_study(searched)) == "mine"
