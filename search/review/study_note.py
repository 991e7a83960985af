"""The study's note in Optuna's dashboard: which trial ranks first, and why it may differ from Optuna's "best trial"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.runtime.errors import UsageError
from search.config import SearchRun
from search.confirm.ranking import Confirmation, confirmed_first
from search.confirm.table import show_confirmed
from search.first_trials import label_of
from search.leaderboard import Leader
from search.optuna_internals import storage_of, study_id
from search.review.notes import VERSION, write_note

if TYPE_CHECKING:
    import optuna

SHOWN = 5
"""Number of trials listed."""

WRITTEN = "headhunt:note_ver"
"""The version of the note that this program wrote last; the dashboard counts it up when somebody edits the note."""


def write_study_note(run: SearchRun, study: optuna.Study) -> None:
    """Writes the note on the run's study, unless somebody has edited it or no trial is completed."""
    storage, number = storage_of(study), study_id(study)
    known = storage.get_study_system_attrs(number)
    if known.get(VERSION) != known.get(WRITTEN):
        return
    try:
        leaders, confirmation = confirmed_first(run, SHOWN)
    except UsageError:
        return
    version = known.get(WRITTEN, 0) + 1
    storage.set_study_system_attr(number, WRITTEN, version)
    write_note(study, None, study_note(run.search.objective, leaders, confirmation), version)


def study_note(objective: str, leaders: Sequence[Leader], confirmation: Confirmation | None) -> str:
    """The note in Markdown; `leaders` are the best completed trials, best first."""
    first = leaders[0]
    how = "by the mean over several seeds" if confirmation else "by its best epoch"
    lines = [
        f"**Trial {label_of(first.number, first.first)} ranks first** {how}; `headhunt train promote` takes it.",
        "",
        f"| trial | {objective} | confirmed |",
        "|---|---|---|",
    ]
    for leader in leaders:
        confirmed = show_confirmed(confirmation.of(leader.number)) if confirmation else ""
        lines.append(f"| {label_of(leader.number, leader.first)} | {leader.value:.4f} | {confirmed} |")
    lines += [
        "",
        'Ties are decided by the validation loss. Optuna\'s "best trial" knows neither the loss nor a confirmation.',
    ]
    return "\n".join(lines) + "\n"
