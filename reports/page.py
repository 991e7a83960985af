"""The sections of the page, each from what is on disk; what is missing is left out with the command that makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from features.dataset import load_index
from features.errors import CacheError, UsageError
from reports import confirmed, confusions, dataset_section, history, importance, leader_curves, promotions
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from search.confirm.table import show_p
from search.leaderboard import Leader, leaders, load_study
from train.promotion.promote import promoted


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _hypermodels(run: Run, best: list[Leader]) -> PageSection:
    """The leaders of a function, by the values that it drew."""
    rows = [
        [
            str(leader.number),
            f"{leader.value:.4f}" if run.search.objective == "val_loss" else _share(leader.value),
            _share(leader.top5),
            ", ".join(
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params
            ),
        ]
        for leader, params in ((leader, leader.params.items()) for leader in best)
    ]
    columns = ["trial", run.search.objective.replace("_", " "), "top-5", "hyperparameters"]
    text = f"The models of {run.search.hypermodel} that did best on the cached features of the validation photos."
    return PageSection("leaders", "Leaders", text, tables=[Table(columns, rows, {0, 1, 2})])


def _leaderboard(run: Run) -> PageSection:
    best = leaders(run, run.reports.leaders)
    if run.search.hypermodel is not None:
        return _hypermodels(run, best)
    rows = []
    for leader in best:
        config = leader.config
        rows.append(
            [
                str(leader.number),
                f"{leader.value:.4f}" if run.search.objective == "val_loss" else _share(leader.value),
                _share(leader.top5),
                " → ".join(map(str, config.head.units)) or "none",
                f"{config.head.dropout:g}",
                f"{config.head.l2:.1e}",
                config.schedule.kind,
                f"{config.schedule.learning_rate:.1e}",
                f"{config.optimizer.kind}, {config.batch_size}",
            ]
        )
    columns = [
        "trial",
        run.search.objective.replace("_", " "),
        "top-5",
        "hidden units",
        "dropout",
        "L2",
        "schedule",
        "peak rate",
        "optimiser, batch",
    ]
    text = "The heads that did best on the cached features of the validation photos."
    return PageSection("leaders", "Leaders", text, tables=[Table(columns, rows, {0, 1, 2, 4, 5, 7})])


def _confirmed(run: Run) -> PageSection:
    found = confirmed.collect(run)
    if found is None:
        raise LeftOutError(
            "No ranking over several seeds is there for these leaders: `headhunt search confirm` makes one."
        )
    show = "{:.4f}".format if run.search.objective == "val_loss" else _share
    rows = [
        [
            str(row.number),
            show(mean),
            f"{show(low)} to {show(high)}",
            show(row.searched),
            show_p(row.p_value),
            show_p(row.p_holm),
        ]
        for row, (mean, low, high) in found.ranked
    ]
    rows += [[str(row.number), "failed", f"{row.failure}", show(row.searched), "", ""] for row in found.failed]
    columns = ["trial", "mean", "95 % interval", "as searched", "p against the best", "p, Holm"]
    text = (
        f"The leaders, each trained again with {found.seeds} seeds. As searched: the value of one seed that each was chosen by, "
        "which favours lucky seeds. p is that of a paired t-test against the best, seed by seed; Holm's is corrected for the "
        "number of comparisons."
    )
    figures = [confirmed.draw(found, run.search.objective)]
    return PageSection("confirmed", "Confirmed leaders", text, figures, [Table(columns, rows, {0, 1, 2, 3, 4, 5})])


def _history(run: Run) -> PageSection:
    found = history.collect(load_study(run), run.search.objective)
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    text = f"{sum(found.counts.values())} trials: {counts}."
    return PageSection("history", "Search history", text, [history.draw(found)])


def _importance(run: Run) -> PageSection:
    found = importance.collect(load_study(run))
    if isinstance(found, str):
        raise LeftOutError(f"{found[:1].upper()}{found[1:]} `headhunt search run --trials N` adds trials.")
    text = f"How much of the objective's variance each parameter explains, over {found.trials} complete trials."
    return PageSection("importance", "Parameter importance", text, [importance.draw(found)])


def _rates(run: Run) -> PageSection:
    sizes = load_index(run).table["split"].value_counts()
    curves = leader_curves.collect_rates(run, leaders(run, run.reports.leaders), int(sizes["train"]))
    if not curves:
        if run.search.hypermodel is not None:
            raise LeftOutError("The leaders are models of a function, which sets their learning rates itself.")
        raise LeftOutError("The leaders' curves are not in the run's folder: `headhunt search run` writes them.")
    text = "The schedules of the leaders, as they were followed step by step."
    return PageSection("rates", "Learning rates", text, [leader_curves.draw_rates(curves)])


def _curves(run: Run) -> PageSection:
    curves = leader_curves.collect_curves(run, leaders(run, run.reports.leaders))
    if not curves:
        raise LeftOutError("The leaders' curves are not in the run's folder: `headhunt search run` writes them.")
    text = (
        "Accuracy of the leaders on cached features: on the validation photos, and on each epoch's views of the training "
        "photos while they trained."
    )
    return PageSection("curves", "Learning curves", text, [leader_curves.draw_curves(curves)])


def _promotions(run: Run) -> PageSection:
    rows, baselines = promotions.collect(run), promotions.collect_baselines(run)
    if not rows and not baselines:
        raise LeftOutError("Nothing is promoted yet: `headhunt train promote` fine-tunes the best trials.")
    table = [
        [
            row.title,
            row.chosen,
            *(_share(row.metrics[split]["accuracy"]) for split in promotions.SPLITS),
            *(_share(row.metrics[split]["top5_accuracy"]) for split in promotions.SPLITS),
            _share(row.metrics["test"]["ece"]),
            *("", "", ""),
        ]
        for row in baselines
    ]
    table += [
        [
            f"trial {row.trial}",
            row.stage,
            *(_share(row.top1[split]) for split in promotions.SPLITS),
            *(_share(row.top5[split]) for split in promotions.SPLITS),
            "" if row.ece is None else _share(row.ece),
            row.head,
            row.dropout,
            row.schedule,
        ]
        for row in rows
    ]
    columns = ["model", "backbone", "train", "val", "test", "train top-5", "val top-5", "test top-5", "test ECE"]
    columns += ["hidden units", "dropout", "schedule"]
    text = (
        "Frozen: the head on the cached features of clean photos. Fine-tuned: the exported network, backbone and head together. "
        "Test photos were used once, after every choice was made. ECE is the expected calibration error: how far confidence is "
        "from accuracy. Epoch 0 of the figure is the frozen network."
    )
    if baselines:
        columns[1] = "backbone, or chosen"
        text += (
            " The baselines' probes see the same clean features, and validation chose their settings; the training photos of the "
            "nearest neighbours are measured without themselves."
        )
    figures = [promotions.draw_finetuning(promotions.collect_finetuning(run))] if rows else []
    return PageSection("promotions", "Promoted models", text, figures, [Table(columns, table, {*range(2, 9), 10})])


def _confusions(run: Run) -> PageSection:
    if not promoted(run):
        raise LeftOutError("Confusions are those of a promoted model: `headhunt train promote`.")
    found = confusions.collect(run, load_index(run).class_names, run.reports.confusions)
    rows = [[pair.truth, pair.predicted, f"{pair.photos} of {pair.of}"] for pair in found.worst]
    text = (
        f"The fine-tuned trial {found.trial} takes {found.wrong:,} of the {found.photos:,} test photos for another class; the "
        "most frequent pairs first."
    )
    return PageSection("confusions", "Worst confusions", text, tables=[Table(["is", "taken for", "photos"], rows, {2})])


SECTIONS: dict[str, tuple[str, Callable[[Run], PageSection]]] = {
    "promotions": ("Promoted models", _promotions),
    "leaders": ("Leaders", _leaderboard),
    "confirmed": ("Confirmed leaders", _confirmed),
    "history": ("Search history", _history),
    "importance": ("Parameter importance", _importance),
    "rates": ("Learning rates", _rates),
    "curves": ("Learning curves", _curves),
    "confusions": ("Worst confusions", _confusions),
    "dataset": ("Data set", dataset_section.section),
}
"""Every section in its order on the page."""


def collect_sections(run: Run) -> tuple[list[PageSection], dict[str, str]]:
    """The sections that there is something for, and why the others are left out, by name."""
    sections, left_out = [], {}
    for name, (_, make) in SECTIONS.items():
        try:
            sections.append(make(run))
        except (LeftOutError, UsageError, CacheError) as reason:
            left_out[name] = str(reason)
    return sections, left_out


def headline(run: Run) -> list[tuple[str, str]]:
    """The main numbers as (figure, what it is); empty before a search."""
    numbers: list[tuple[str, str]] = []
    try:
        ranked = leaders(run)
        facts = dataset_section.collect(load_index(run))
    except UsageError:
        return numbers
    if run.search.objective != "val_loss":
        spread = 100 * (ranked[0].value - ranked[-1].value)
        what = (
            f"validation, best head (trial {ranked[0].number}), {spread:.1f} points above the worst that ran to its end"
        )
        numbers.append((_share(ranked[0].value), what))
    best: list[Any] = promotions.collect(run)[:2]
    if best:
        frozen, tuned = best
        gained = 100 * (tuned.top1["val"] - frozen.top1["val"])
        numbers.append(
            (_share(tuned.top1["val"]), f"validation, fine-tuned trial {tuned.trial}: {gained:+.1f} points over frozen")
        )
        numbers.append((_share(tuned.top1["test"]), f"test, top-1; top-5 {_share(tuned.top5['test'])}"))
    numbers.append((_share(facts.most_frequent), f"always naming the most frequent of {facts.classes} classes"))
    return numbers
