"""The first trials compared with the winner: what the search gained over simple solutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.style import share
from search.config import SearchRun
from search.confirm.ranking import Confirmation, Confirmed, find_confirmation
from search.first_trials import TITLES, name_of
from search.leaderboard import load_study
from search.metric import Metric, is_share
from search.ranking import ranking
from search.records import load_curves
from search.review.describe import describe, show
from search.trial import TrialConfig

if TYPE_CHECKING:
    import optuna


class Row(NamedTuple):
    """The result of a trial: `value` of the objective, `accuracy` and `top5` on the validation photos at the best epoch, and its
    result in `search confirm`; None if missing."""

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
    confirmed: Confirmed | None


class FirstTrials(NamedTuple):
    """The first trials in order, and the best of all trials, which may be one of them: the best confirmed one if confirmed. The
    winner is None if there are no completed trials."""

    rows: list[Row]
    winner: Row | None


def collect(run: SearchRun) -> FirstTrials:
    """The results of the study's first trials; UsageError if there is no study."""
    study = load_study(run)
    firsts = [trial for trial in study.get_trials(deepcopy=False) if name_of(trial) and "config" in trial.user_attrs]
    best, confirmation = ranking(study, run.search.objective), find_confirmation(run)
    if confirmation is not None:
        best.sort(key=lambda trial: confirmation.place(trial.number))
    winner = _row(run, best[0], "winner", confirmation) if best else None
    rows = [_row(run, trial, TITLES[name], confirmation) for trial in firsts if (name := name_of(trial))]
    return FirstTrials(rows, winner)


def verdict(found: FirstTrials, objective: Metric) -> str:
    """A sentence on how far the winner is above the probe; empty if one of them is missing."""
    probe = next((row for row in found.rows if row.is_probe), None)
    if probe is None or probe.value is None or found.winner is None or found.winner.value is None:
        return ""
    if found.winner.number == probe.number:
        return " The linear probe wins: no head in the search beats logistic regression on the same features."
    ours, its, how = found.winner.value, probe.value, ""
    own = found.winner.confirmed
    if own is not None and own.mean is not None:  # the probe's value is its mean: it is the same with every seed
        ours, how = own.mean, f", on average over {len(own.seeds)} seeds"
    if not is_share(objective):
        return f" The winner's loss is {its - ours:z.4f} below the linear probe's{how}."
    above = round(100 * (ours - its), 1)
    if above == 0:
        return f" The linear probe is as good as the winner{how}."
    return f" The winner is {abs(above):.1f} points {'above' if above > 0 else 'below'} the linear probe{how}."


def section(run: Run) -> PageSection:
    """A row for each first trial and one for the winner; LeftOutError if the study has no first trials."""
    found = collect(run)
    if not found.rows:
        raise LeftOutError("The study has no first trials: set `search.first` for a new study.")
    rows = [_cells(row, run.search.objective) for row in found.rows]
    if found.winner is not None:
        named = next((row.title for row in found.rows if row.number == found.winner.number), "")
        title = f"winner: the {named}" if named else "winner"
        rows.append(_cells(found.winner._replace(title=title), run.search.objective))
    columns = ["trial", "", "validation", "top-5", "epochs", "seconds", "views", "head"]
    if run.search.objective != "val_accuracy":
        columns.insert(2, run.search.objective.replace("_", " "))
    confirmed = next((row.confirmed for row in (*found.rows, found.winner) if row and row.confirmed), None)
    if confirmed is not None:
        place = columns.index("top-5")
        columns.insert(place, f"mean of {len(confirmed.seeds)} seeds")
        for cells, row in zip(rows, (*found.rows, found.winner), strict=False):
            cells.insert(place, _mean(row, run.search.objective) if row else "")
    text = (
        "The baselines that a search must beat: the trials that the study began with, and the best of all trials (by the mean "
        "over seeds if the leaders are confirmed). Validation accuracies are from the search, at the best epoch; seconds are "
        "training time, divided among trials that trained together." + verdict(found, run.search.objective)
    )
    numeric = {0, *range(2, len(columns) - 2)}
    return PageSection("first", "First trials and the winner", text, tables=[Table(columns, rows, numeric)])


def _mean(row: Row, objective: Metric) -> str:
    mean = row.confirmed.mean if row.confirmed else None
    return "" if mean is None else f"{mean:.4f}" if not is_share(objective) else share(mean)


def _row(run: SearchRun, trial: optuna.trial.FrozenTrial, title: str, confirmation: Confirmation | None) -> Row:
    config, facts = TrialConfig.model_validate_json(trial.user_attrs["config"]), trial.user_attrs
    words = describe(config)
    accuracy = None
    try:
        curves = load_curves(run.workdir, trial.number)
        accuracy = float(curves["val_accuracy"].iloc[facts["best_epoch"] - 1])
    except (HeadhuntError, KeyError, IndexError):
        pass  # it failed, is still running, or its record is missing
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
        confirmation.of(trial.number) if confirmation else None,
    )


def _cells(row: Row, objective: Metric) -> list[str]:
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
