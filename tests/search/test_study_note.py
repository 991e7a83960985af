"""The study's note in Optuna's dashboard names the trial that ranks first here."""

from __future__ import annotations

import json
from pathlib import Path

from optuna_dashboard import get_note, save_note
from scipy.stats import t

from reports.config import Run
from search.leaderboard import leaders, load_study
from tests.conftest import run_headhunt


def test_it_follows_search_and_confirmation_until_somebody_edits_it(searched: Run) -> None:
    best = leaders(searched)[0]
    note = get_note(load_study(searched))
    assert note.startswith(f"**Trial {best.number} ranks first** by its best epoch; `headhunt train promote` takes it.")
    assert f"| {best.number} | {best.value:.4f} |  |" in note
    done = run_headhunt(Path(), "search", "confirm", "--top", "2", "--seeds", "2", "--json")
    note = get_note(load_study(searched))
    assert "ranks first** by the mean over several seeds" in note
    confirmed = json.loads(done.stdout.splitlines()[-1])["confirmed"]
    assert len(confirmed) == 2
    for row in confirmed:
        one, other = row["values"]
        mean, half = (
            (one + other) / 2,
            t.ppf(0.975, 1) * abs(one - other) / 2,
        )  # s / √2 of two values is half their distance
        spread = f"{max(mean - half, 0):.4f} to {min(mean + half, 1):.4f}" if half else "the same with every seed"
        assert f"| {row['number']} | {row['searched']:.4f} | {mean:.4f} ({spread}) |" in note
    save_note(load_study(searched), "mine")
    run_headhunt(Path(), "search", "confirm", "--top", "3", "--seeds", "2")
    assert get_note(load_study(searched)) == "mine"
