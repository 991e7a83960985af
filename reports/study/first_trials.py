"""The first trials beside the winner: what the search found that the simple answers did not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from features.errors import HeadhuntError
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.style import share
from search.config import SearchRun
from search.first_trials import TITLES, name_of
from search.leaderboard import load_study
from search.ranking import ranking
from search.records import load_curves
from search.review.describe import describe, show
from search.trial import TrialConfig

if TYPE_CHECKING:
    import optuna


class Row(NamedTuple):
    """A trial as it ended: `value` of the objective, `accuracy` and `top5` on the validation photos at the best epoch, None where
    there is none."""

    number: int
    title: str
    state: str
    value: float | None
    accuracy: float | None
    top5: float | None
    epochs: int
    is_probe: bool
    seconds: float | None
    views: str
    head: str


class FirstTrials(NamedTuple):
    """The first trials in their order, and the best trial of all, which may be one of them; None before any has ended."""

    rows: list[Row]
    winner: Row | None


def collect(run: SearchRun) -> FirstTrials:
    """What came of the first trials of the study; UsageError when there is no study."""
    study = load_study(run)
    firsts = [trial for trial in study.get_trials(deepcopy=False) if name_of(trial) and "config" in trial.user_attrs]
    best = ranking(study, run.search.objective)
    winner = _row(run, best[0], "winner") if best else None
    return FirstTrials([_row(run, trial, TITLES[name]) for trial in firsts if (name := name_of(trial))], winner)


def verdict(found: FirstTrials, objective: str) -> str:
    """How far the winner is above the probe, in a sentence; nothing where one of them is missing."""
    probe = next((row for row in found.rows if row.is_probe), None)
    if probe is None or probe.value is None or found.winner is None or found.winner.value is None:
        return ""
    if found.winner.number == probe.number:
        return " The linear probe wins: no head that the search trained is better than logistic regression on the same features."
    if objective == "val_loss":
        below = probe.value - found.winner.value
        return f" The winner's loss is {below:.4f} below the linear probe's."
    above = 100 * (found.winner.value - probe.value)
    if above == 0:
        return " The linear probe reaches what the winner does."
    return f" The winner is {above:.1f} points above the linear probe."


def section(run: Run) -> PageSection:
    """A row for each first trial and one for the winner; LeftOutError where the study has no first trials."""
    found = collect(run)
    if not found.rows:
        raise LeftOutError("The study has no first trials: `search.first` names those of a new one.")
    rows = [_cells(row, run.search.objective) for row in found.rows]
    if found.winner is not None:
        named = next((row.title for row in found.rows if row.number == found.winner.number), "")
        title = f"winner: the {named}" if named else "winner"
        rows.append(_cells(found.winner._replace(title=title), run.search.objective))
    columns = ["trial", "", "validation", "top-5", "epochs", "seconds", "views", "head"]
    if run.search.objective != "val_accuracy":
        columns.insert(2, run.search.objective.replace("_", " "))
    text = (
        "What a search must beat: trials that every study begins with, and the best of all trials. Each is shown at its best "
        "epoch; seconds are those of its training, its share where trials trained together."
        + verdict(found, run.search.objective)
    )
    numeric = {0, *range(2, len(columns) - 2)}
    return PageSection("first", "First trials and the winner", text, tables=[Table(columns, rows, numeric)])


def _row(run: SearchRun, trial: optuna.trial.FrozenTrial, title: str) -> Row:
    config, facts = TrialConfig.model_validate_json(trial.user_attrs["config"]), trial.user_attrs
    words = describe(config)
    accuracy = None
    try:
        curves = load_curves(run.workdir, trial.number)
        accuracy = float(curves["val_accuracy"].iloc[facts["best_epoch"] - 1])
    except (HeadhuntError, KeyError, IndexError):
        pass  # it failed, is still running, or its record is gone
    return Row(
        trial.number,
        title,
        trial.state.name,
        trial.value if trial.state.name == "COMPLETE" else None,
        accuracy,
        facts.get("top5"),
        facts.get("epochs", 0),
        config.is_probe,
        facts.get("seconds"),
        words["views"],
        ", ".join(words[name] for name in ("head", "optimizer", "schedule", "hypermodel", "values") if name in words),
    )


def _cells(row: Row, objective: str) -> list[str]:
    ended = {"COMPLETE": "", "FAIL": " (failed)", "RUNNING": " (running)"}.get(row.state, f" ({row.state.lower()})")
    own = [] if objective == "val_accuracy" else ["" if row.value is None else f"{row.value:.4f}"]
    return [
        str(row.number),
        row.title + ended,
        *own,
        "" if row.accuracy is None else share(row.accuracy),
        "" if row.top5 is None else share(row.top5),
        "solved" if row.is_probe and row.epochs else str(row.epochs),
        "" if row.seconds is None else show(float(row.seconds)),
        row.views,
        row.head,
    ]
