"""The fidelity study on the page: the answer first, then what it rests on."""

from __future__ import annotations

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
"""The ways to rank that are told beside each other, by their `what` in the results."""


def section(run: Run) -> PageSection:
    """The whole section; LeftOutError where there has been no fidelity study."""
    found = load_results(run.workdir)
    if found is None:
        raise LeftOutError(
            "How well this search predicts the full run has not been measured: run `headhunt reports fidelity`."
        )
    text = (
        f"{found.configurations} configurations spread evenly over the search space, each trained "
        f"{found.epochs} epochs with "
        f"{found.seeds} seeds in every way below, on {found.date}. {_failed(found)}{_answer(found)} Intervals are "
        "95 %, of a bootstrap over configurations and seeds; with so few seeds they are somewhat too narrow, and they say "
        "nothing about other photos."
    )
    policies = dict.fromkeys(row.policy for row in found.views if row.policy is not None)
    views = [_views(found, policy) for policy in policies]
    blocks = [_ranking(found), _worth(found), *views, _hyperparameters(found), _cost(found), _everything(found)]
    return PageSection("fidelity", "Fidelity", text, blocks=blocks)


def _failed(found: FidelityResults) -> str:
    """Which configurations are not in all of the numbers."""
    if not found.failed:
        return ""
    first, many = found.failed[0], len(found.failed)
    which = f"{many} configuration{'s' if many > 1 else ''} failed, trial {first.trial} {first.reason}"
    return f"{which}: what failed is left out. "


def _answer(found: FidelityResults) -> str:
    own = found.by_own_views()
    fresh, fine_tuned = own["fresh"], own.get("fine_tuned")
    told = [
        f"As this study trains ({_way(found.own)}), its ranking agrees with that under fresh views in every "
        "epoch by a Spearman "
        f"correlation of {_shown(fresh.spearman)}; the head that it puts first is "
        f"{_points(fresh)} points below the best."
    ]
    if fine_tuned is not None:
        told.append(
            f"After fine-tuning ({fine_tuned.configurations} of them, good, middling and bad): "
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
        "Does a cheaper way put heads in the same order? Regret is what one loses by trusting it, in points of "
        "accuracy: the best "
        "head's minus that of the head that it puts first, or of the best among its first three. "
    )
    ceiling = found.single_seed.spearman
    if ceiling.value is not None:
        text += (
            "A search trains each head once, so each is ranked by one seed here, and compared with the mean of other seeds of "
            f"the full run: one training of the full frozen run agrees with it by {_shown(ceiling)}, the ceiling. The better "
            "half is that by the full run: to order good heads is harder than to tell them from bad ones."
        )
    return Block("Ranking", text, {"fidelity-agreement": draw_agreement(found)}, [Table(columns, rows, {3, 4, 5, 6})])


def _worth(found: FidelityResults) -> Block:
    rows = [[row.policy, f"{row.clean_share:.0%}", _shown(row.points, 1, plus=True)] for row in found.augmentation]
    text = (
        "Fresh views in every epoch against clean photos alone, in points of accuracy, in the mean over "
        "configurations. It says "
        "nothing against augmentation in the fine-tuning that follows: there the network can adapt to its views, and "
        "train.finetune sets its own policy and share of clean photos."
    )
    columns = ["policy", "clean views", "augmentation is worth"]
    return Block("What augmentation is worth to the frozen network", text, tables=[Table(columns, rows, {1, 2})])


def _views(found: FidelityResults, policy: str) -> Block:
    figures = {
        f"fidelity-accuracy-{policy}": draw_lines(found, policy, "accuracy"),
        f"fidelity-spearman-{policy}": draw_lines(found, policy, "spearman"),
    }
    rows = [
        [
            f"{row.clean_share:.0%}",
            DRAWS[row.draw],
            _copies(row.copies),
            f"{_copies(row.low)} to {_copies(row.high)}",
        ]
        for row in found.closing
        if row.policy == policy
    ]
    text = (
        "How many cached views are as good as a fresh one in every epoch: the accuracy, with the interval of "
        "its distance to fresh "
        "views, and how well the ranking agrees with theirs. The table says from how many views on they "
        "are not worse by more than "
        f"{found.tolerance_points:g} point{'s' if found.tolerance_points != 1 else ''} of accuracy."
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
        "What each value is worth, in points of accuracy: the configurations that have it against the others, "
        "as the search sees them "
        "and under fresh views. An effect transfers (yes) where it is clear on both sides, has the same sign, and the two "
        "do not differ clearly. Of 20 lines, one may be wrong by chance."
    )
    columns = ["hyperparameter", "value", "configurations", "as searched", "fresh views", "transfers"]
    return Block("Does each hyperparameter's effect hold?", text, tables=[Table(columns, rows, {2, 3, 4})])


def _cost(found: FidelityResults) -> Block:
    cost, rates, even = found.cost, found.cost.rates, found.cost.break_even_trials
    rows = [
        [f"{row.trials:,}", _duration(row.network), _duration(row.seed_cache), _duration(row.own_cache)]
        for row in cost.table
    ]
    text = (
        f"Time for a number of trials of {cost.epochs} epochs, building the cache with {cost.copies} "
        "augmented copies included. "
        + (
            f"The cache pays from {even} trial{'s' if even > 1 else ''} on. "
            if even
            else "The cache does not pay here: a trial through the network takes no longer. "
        )
        + f"A photo or view takes, measured on {rates.photos} photos, "
        f"{1000 * rates.network_train:.1f} ms through the network in training, "
        f"{1000 * rates.network_val:.1f} ms in validation, {1000 * rates.extract:.1f} ms to cache, "
        f"{1000 * rates.seed_train:.2f} ms in training from the kind of cache that the 2021 notebooks had (unpooled "
        f"float32, ZLIB). A trial on this cache takes {cost.own_trial:.2f} s, and starting the workers and compiling takes "
        f"{cost.own_start:.0f} s once (timed on {cost.trials} trials; asking for trials and recording them is not in it)."
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
                f"{row.clean_share:.0%}" if row.copies else "100%",
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
        "Every way to draw views: the accuracy of the mean and of the best configuration, and how its ranking "
        "agrees with that under "
        "fresh views of the same kind (clean photos: of the search's kind)."
    )
    return Block(
        "All views",
        text,
        tables=[Table(columns, rows, set(range(3, len(columns))), f"All {len(rows)} ways in numbers")],
    )


def _way(way: Way) -> str:
    if not way.copies:
        return "clean photos alone"
    copies = f"{way.copies} cached view{'s' if way.copies > 1 else ''} of {way.policy}"
    return f"{copies}, {DRAWS[way.draw]}, {way.clean_share:.0%} of them clean"


def _points(row: RankingRow) -> str:
    """The regret of the first, without its interval."""
    return _shown(Interval(value=row.top1_regret_points.value, low=None, high=None), 1)


def _copies(number: int | None) -> str:
    return "more" if number is None else str(number)


def _shown(estimate: Interval, digits: int = 2, plus: bool = False) -> str:
    """`0.96 (0.90 to 0.99)`; a dash for what cannot be had."""
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
