"""Comparison of this run's study with those of the configurations in `reports.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from features.dataset.index import load_index
from features.run_file import load
from features.runtime.errors import UsageError
from reports.config import Run
from reports.section import Block, LeftOutError, PageSection, Table
from reports.study import history
from reports.style import COLOURS, SHARES, figure, share, text, whole_ticks
from search.confirm.ranking import Confirmed, load_confirmation
from search.confirm.table import show_confirmed
from search.driver.ownership import read_driver
from search.leaderboard import leaders, load_study
from search.metric import Metric, is_share
from train.promotion.artifact import find_promotions

if TYPE_CHECKING:
    import plotly.graph_objects as go


class StudyFacts(NamedTuple):
    """A study: its trials by state, the best value so far by number of trials and by cumulative epochs, (points,) each, and the
    results of its best trial.

    `confirmed` is the best trial over several seeds, `test` the accuracy of the best promoted model, `seconds` the total duration
    of its searches, `photos` the sha256 of its validation photos; None if missing.
    """

    name: str
    sampler: str
    pruner: str
    objective: Metric
    counts: dict[str, int]
    trials: list[int]
    epochs: list[int]
    best: list[float]
    confirmed: Confirmed | None
    test: float | None
    seconds: float | None
    photos: frozenset[str] | None


def collect(run: Run) -> list[StudyFacts]:
    """This run's study, then the others in configuration order; UsageError if one cannot be read."""
    others = [(str(path), _other(run, path)) for path in run.reports.compare]
    found = [_facts(run), *(_named(path, other) for path, other in others)]
    names = [facts.name for facts in found]
    places = ["this run", *(path for path, _ in others)]
    return [
        facts._replace(name=f"{facts.name} ({place})") if names.count(facts.name) > 1 else facts
        for facts, place in zip(found, places, strict=True)
    ]


def _other(run: Run, path: Path) -> Run:
    """The run of another configuration. A relative `workdir` is resolved beside the file, or else in the working directory."""
    if not path.is_file():
        raise UsageError(f"reports.compare: file not found: {path}; it must be the headhunt.yaml of another run.")
    other = load(Run, path)
    beside = path.parent / other.workdir
    other = other.model_copy(update={"workdir": beside if beside.exists() else other.workdir})
    if (other.name, other.workdir.resolve()) == (run.name, run.workdir.resolve()):
        raise UsageError(f"reports.compare: {path} is this run itself; it must be the headhunt.yaml of another run.")
    return other


def _named(path: str, run: Run) -> StudyFacts:
    try:
        return _facts(run)
    except UsageError as error:
        raise UsageError(f"reports.compare: {path}: {error}") from None


def _facts(run: Run) -> StudyFacts:
    study, search = load_study(run), run.search
    told = history.collect(study, search.objective)
    points = [(n, value) for n, value in zip(told.numbers, told.best, strict=True) if value is not None]
    trained = list(accumulate(len(trial.intermediate_values) for trial in study.get_trials(deepcopy=False)))
    confirmation = load_confirmation(run, leaders(run)) if told.counts.get("complete") else None
    best = next(iter(find_promotions(run)), None) if points else None
    driver = read_driver(study)
    made = {
        "sampler": search.sampler,
        "pruner": search.pruner,
        **study.user_attrs.get("identity", {}),
    }  # the study's own settings, not the file's current ones
    return StudyFacts(
        run.name,
        made["sampler"],
        made["pruner"],
        search.objective,
        told.counts,
        [number + 1 for number, _ in points],
        [trained[number] for number, _ in points],
        [value for _, value in points],
        confirmation.confirmed[0] if confirmation else None,
        best.tuned.test.accuracy if best and best.tuned.test else None,
        driver.seconds if driver else None,
        _photos(run),
    )


def _photos(run: Run) -> frozenset[str] | None:
    try:
        return frozenset(load_index(run).of_split("val")["sha256"])
    except UsageError:
        return None


def draw(studies: Sequence[StudyFacts], over: str) -> go.Figure:
    """The best value so far of studies with the same objective, a line each; `over` is "trials" or "epochs"."""
    objective = studies[0].objective
    axis = SHARES if is_share(objective) else {}
    drawn = figure("trials" if over == "trials" else "epochs trained", objective.replace("_", " "), **axis)
    for facts, colour in zip(studies, COLOURS * (1 + len(studies) // len(COLOURS)), strict=False):
        drawn.add_scatter(
            x=facts.trials if over == "trials" else facts.epochs,
            y=facts.best,
            mode="lines" if len(facts.best) > 1 else "markers",
            name=text(facts.name),
            line={"shape": "hv", "width": 2, "color": colour},
        )
    places = [place for facts in studies for place in (facts.trials if over == "trials" else facts.epochs)]
    drawn.update_xaxes(whole_ticks(places))
    drawn.update_layout(showlegend=True)
    return drawn


def section(run: Run) -> PageSection:
    """The table and the figures; LeftOutError if the configuration lists no other study."""
    if not run.reports.compare:
        raise LeftOutError(
            "No other studies to compare: list the headhunt.yaml of other runs in `reports.compare`, then rerun "
            "`headhunt reports build`."
        )
    found = collect(run)
    objectives = list(dict.fromkeys(facts.objective for facts in found))
    told = (
        f"{len(found)} studies. Best is the single-seed value that the best trial was chosen by; confirmed is the best mean over "
        "several seeds, with its 95 % interval; test is the accuracy of the best promoted model."
    )
    if len(objectives) > 1:
        told += " They have different objectives, whose values are not comparable: each objective has its own figures."
    photos = {facts.photos for facts in found}
    if None in photos:
        told += " It is unknown whether they share their validation photos: a run's photo index is missing."
    elif len(photos) > 1:
        told += " Their validation photos differ, so their values are not comparable."
    blocks = [
        Block(
            title,
            what,
            {_key(over, objective, objectives): draw(_with(found, objective), over) for objective in objectives},
        )
        for title, over, what in (
            ("By trials", "trials", "The best value so far after each trial."),
            (
                "By epochs",
                "epochs",
                "The same by the cumulative epochs of all trials, which is what a pruner saves.",
            ),
        )
    ]
    return PageSection("studies", "Studies side by side", told, tables=[_table(found)], blocks=blocks)


def _key(over: str, objective: Metric, objectives: list[Metric]) -> str:
    return f"studies-by-{over}" + (f"-{objective.replace('_', '-')}" if len(objectives) > 1 else "")


def _with(found: Sequence[StudyFacts], objective: Metric) -> list[StudyFacts]:
    return [facts for facts in found if facts.objective == objective]


def _table(found: Sequence[StudyFacts]) -> Table:
    columns = ["study", "test", "best", "confirmed", "sampler", "pruner", "objective", "complete", "pruned", "failed"]
    rows = []
    for facts in found:
        show = share if is_share(facts.objective) else "{:.4f}".format
        rows.append(
            [
                facts.name,
                "" if facts.test is None else share(facts.test),
                show(facts.best[-1]) if facts.best else "",
                show_confirmed(facts.confirmed, show),
                facts.sampler,
                facts.pruner.replace("_", " "),
                facts.objective.replace("_", " "),
                *(str(facts.counts.get(state, 0)) for state in ("complete", "pruned", "failed")),
                "" if facts.seconds is None else f"{facts.seconds:,.0f}",
            ]
        )
    return Table([*columns, "seconds of search"], rows, {1, 2, 3, 7, 8, 9, 10})
