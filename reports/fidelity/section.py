"""The fidelity study on the page: the result first, then the evidence."""

from __future__ import annotations

from features.runtime.log import counted
from reports.config import Run
from reports.fidelity.artifact import Against, Among, FidelityResults, Interval, RankingRow, Way, What, load_results
from reports.fidelity.figures import DRAWS, WAYS, draw_agreement, draw_cost, draw_lines
from reports.section import Block, LeftOutError, PageSection, Table
from reports.style import share

AGAINST: dict[Against, str] = {"fresh": "fresh views in every epoch", "fine_tuned": "after fine-tuning"}

AMONG: dict[Among, str] = {"all": "all", "better_half": "the better"}

CHEAPER: dict[What, str] = {
    "own": "as the search trains",
    "half_epochs": "half the epochs",
    "half_data": "half the training photos",
    "one_epoch": "one epoch",
}
"""The compared ways to rank, by their `what` in the results."""


def section(run: Run) -> PageSection:
    """The whole section; LeftOutError if there is no fidelity study."""
    found = load_results(run.workdir)
    if found is None:
        raise LeftOutError(
            "It has not been measured how well this search predicts the full run: run `headhunt reports fidelity`."
        )
    text = (
        f"{found.configurations} configurations, evenly spread over the search space, were each trained "
        f"for {found.epochs} epochs with "
        f"{found.seeds} seeds in every way below, on {found.date}. {_failed(found)}{_answer(found)} Intervals are 95 % "
        "bootstrap intervals over configurations and seeds; with so few seeds they are slightly too narrow, and they do not "
        "cover other photos."
    )
    policies = dict.fromkeys(row.policy for row in found.views if row.policy is not None)
    views = [_views(found, policy) for policy in policies]
    blocks = [_ranking(found), _worth(found), *views, _hyperparameters(found), _cost(found), _everything(found)]
    return PageSection("fidelity", "Fidelity", text, blocks=blocks)


def _failed(found: FidelityResults) -> str:
    """A sentence on the configurations that failed; empty if none did."""
    if not found.failed:
        return ""
    first, many = found.failed[0], len(found.failed)
    which = f"{counted(many, 'configuration')} failed, trial {first.trial} {first.reason}"
    return f"{which}; their failed results are left out. "


def _answer(found: FidelityResults) -> str:
    own = found.by_own_views()
    fresh, fine_tuned = own["fresh"], own.get("fine_tuned")
    told = [
        f"The search's ranking ({_way(found.own)}) agrees with the ranking under fresh views every epoch with a Spearman "
        f"correlation of {_shown(fresh.spearman)}; the head that it ranks first is "
        f"{_points(fresh)} points below the best."
    ]
    if fine_tuned is not None:
        told.append(
            f"After fine-tuning ({fine_tuned.configurations} of them, good, average and bad): "
            f"{_shown(fine_tuned.spearman)}, and {_points(fine_tuned)} points."
        )
    return " ".join(told)


def _ranking(found: FidelityResults) -> Block:
    rows = [
        [
            CHEAPER[row.what],
            AGAINST[row.against],
            f"{AMONG[row.among]} {row.configurations}",
            _shown(row.spearman),
            _shown(row.kendall),
            _shown(row.top1_regret_points, 1),
            _shown(row.top3_regret_points, 1),
        ]
        for row in found.ranking
        if row.what in CHEAPER
    ]
    columns = [
        "ranked by",
        "compared with",
        "among",
        "Spearman",
        "Kendall",
        "regret of the first",
        "of the first 3",
    ]
    text = (
        "Does a cheaper way rank heads in the same order? Regret is the accuracy lost by trusting it, in points: that of the "
        "best head minus that of the head that it ranks first, or of the best among its first three. "
    )
    ceiling = found.single_seed.spearman
    if ceiling.value is not None:
        text += (
            "A search trains each head once, so here each is ranked by one seed, and compared with the mean of other seeds of "
            f"the full run. A single full frozen run agrees with that mean by {_shown(ceiling)}, the ceiling. The better "
            "half is by the full run: ordering good heads is harder than separating good from bad ones."
        )
    return Block("Ranking", text, {"fidelity-agreement": draw_agreement(found)}, [Table(columns, rows, {3, 4, 5, 6})])


def _worth(found: FidelityResults) -> Block:
    rows = [
        [row.policy, f"{100 * row.clean_share:.0f} %", _shown(row.points, 1, plus=True)] for row in found.augmentation
    ]
    text = (
        "Fresh views every epoch minus clean photos only, in points of accuracy, averaged over configurations. A low value is no "
        "argument against augmentation in fine-tuning: there the network can adapt to the views, and train.finetune sets its own "
        "policy and share of clean photos."
    )
    columns = ["policy", "clean views", "gain from augmentation"]
    return Block("Gain from augmentation with a frozen network", text, tables=[Table(columns, rows, {1, 2})])


def _views(found: FidelityResults, policy: str) -> Block:
    figures = {
        f"fidelity-accuracy-{policy}": draw_lines(found, policy, "accuracy"),
        f"fidelity-spearman-{policy}": draw_lines(found, policy, "spearman"),
    }
    rows = [
        [
            f"{100 * row.clean_share:.0f} %",
            DRAWS[row.draw],
            _copies(row.copies),
            f"{_copies(row.low)} to {_copies(row.high)}",
        ]
        for row in found.closing
        if row.policy == policy
    ]
    text = (
        "How many cached views are as good as fresh views every epoch: the accuracy, with the interval of its difference from "
        "fresh views, and the agreement of the rankings. The table shows the number of views from which accuracy is at most "
        f"{found.tolerance_points:g} point{'s' if found.tolerance_points != 1 else ''} worse."
    )
    columns = ["clean views", "drawn", "as good from", "95 % interval"]
    return Block(f"Cached views of {policy}", text, figures, [Table(columns, rows, {0, 2, 3})])


def _hyperparameters(found: FidelityResults) -> Block:
    rows = [
        [
            row.parameter,
            row.value,
            str(row.configurations),
            *(_shown(each, 1, plus=True) for each in (row.cached, row.truth)),
            row.transfers,
        ]
        for row in found.hyperparameters
    ]
    text = (
        "The effect of each value in points of accuracy: configurations with the value minus the others, in the search and under "
        "fresh views. An effect transfers (yes) if it is significant on both sides with the same sign, and the two do not "
        "differ significantly. One in 20 lines may be wrong by chance."
    )
    columns = ["hyperparameter", "value", "configurations", "as searched", "fresh views", "transfers"]
    return Block("Do hyperparameter effects transfer?", text, tables=[Table(columns, rows, {2, 3, 4})])


def _cost(found: FidelityResults) -> Block:
    cost, rates, even = found.cost, found.cost.rates, found.cost.break_even_trials
    rows = [
        [f"{row.trials:,}", _duration(row.network), _duration(row.seed_cache), _duration(row.own_cache)]
        for row in cost.table
    ]
    text = (
        f"Time for a number of trials of {cost.epochs} epochs, including building the cache with {cost.copies} "
        "augmented copies. "
        + (
            f"The cache pays off from {counted(even, 'trial')} on. "
            if even
            else "The cache does not pay off here: a trial through the network takes no longer. "
        )
        + f"Time per photo or view, measured on {rates.photos} photos: "
        f"{1000 * rates.network_train:.1f} ms through the network in training, "
        f"{1000 * rates.network_val:.1f} ms in validation, {1000 * rates.extract:.1f} ms to cache, "
        f"{1000 * rates.seed_train:.2f} ms in training from a cache like that of the 2021 notebooks (unpooled "
        f"float32, ZLIB). A trial on this cache takes {cost.own_trial:.2f} s, and starting the workers and compiling takes "
        f"{cost.own_start:.0f} s once (timed on {cost.trials} trials, without sampling and recording them)."
    )
    return Block("Cost", text, {"fidelity-cost": draw_cost(found)}, [Table(["trials", *WAYS], rows, {0, 1, 2, 3})])


def _everything(found: FidelityResults) -> Block:
    ranked: dict[Way, dict[Against, RankingRow]] = {}
    for ranking in found.ranking:
        if ranking.what == "views":
            ranked.setdefault(ranking.way, {})[ranking.against] = ranking
    has_tuned = any("fine_tuned" in each for each in ranked.values())
    rows = []
    for row in found.views:
        each = ranked[row.key]
        tuned = [_shown(each["fine_tuned"].spearman)] if has_tuned else []
        rows.append(
            [
                row.policy or "none",
                "fresh" if row.fresh else str(row.copies),
                DRAWS[row.draw] if row.copies > 1 and not row.fresh else "",
                f"{100 * row.clean_share:.0f} %" if row.copies else "100 %",
                share(row.mean_accuracy),
                share(row.best_accuracy),
                _shown(row.gap_points, 1, plus=True),
                _shown(each["fresh"].spearman),
                _shown(each["fresh"].top1_regret_points, 1),
                *tuned,
            ]
        )
    columns = ["policy", "copies", "drawn", "clean", "mean", "best", "gap to fresh", "Spearman", "regret"]
    columns += ["Spearman, fine-tuned"] if has_tuned else []
    text = (
        "Every way to draw views: the mean accuracy and that of the best configuration, and the agreement of its ranking with "
        "that under fresh views of the same kind (for clean photos, of the search's kind)."
    )
    return Block(
        "All views",
        text,
        tables=[Table(columns, rows, set(range(3, len(columns))), f"All {len(rows)} ways in numbers")],
    )


def _way(way: Way) -> str:
    if not way.copies:
        return "clean photos only"
    copies = f"{counted(way.copies, 'cached view')} of {way.policy}"
    return f"{copies}, {DRAWS[way.draw]}, {100 * way.clean_share:.0f} % of them clean"


def _points(row: RankingRow) -> str:
    """The regret of the first head, without its interval."""
    return _shown(Interval(value=row.top1_regret_points.value, low=None, high=None), 1)


def _copies(number: int | None) -> str:
    return "more" if number is None else str(number)


def _shown(estimate: Interval, digits: int = 2, plus: bool = False) -> str:
    """An estimate as `0.96 (0.90 to 0.99)`; a dash if it does not exist."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None:
        return "–"
    how = f"{'+' if plus else ''}z.{digits}f"  # z: no "-0.0"
    if low is None or high is None:
        return format(value, how)
    return f"{value:{how}} ({low:{how}} to {high:{how}})"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
