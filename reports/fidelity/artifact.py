"""The results of the fidelity study on disk, fidelity/results.json; numbers that do not exist are null."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError

from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError
from reports.fidelity.cost import Rates

VERSION: Literal[3] = 3
"""Format version of results.json; it changes with the keys."""

Against = Literal["fresh", "fine_tuned"]
"""What a ranking is compared with: fresh views every epoch, or the networks after fine-tuning."""

Among = Literal["all", "better_half"]
"""The compared configurations: a search chooses among good ones, which are harder to rank."""

What = Literal["own", "one_epoch", "half_epochs", "half_data", "views"]
"""How a ranking was obtained: like the search, in a cheaper way, or with one of the ways to draw views."""


class Part(BaseModel):
    """Base of everything in results.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(Part):
    """A number with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class Way(Part):
    """A way to draw views; `policy` is null for clean photos, `draw` is rotation or per_image."""

    policy: str | None
    copies: int
    fresh: bool
    draw: str
    clean_share: float

    @property
    def key(self) -> Way:
        """The way without its measurements."""
        return Way(**{name: getattr(self, name) for name in Way.model_fields})


class MeasuredWay(Way):
    """The accuracies (shares) of the configurations trained in this way, and the gap to fresh views in points."""

    mean_accuracy: float
    best_accuracy: float
    gap_points: Interval


class Closing(Part):
    """The number of copies from which cached views are as good as fresh ones; null if more than were measured."""

    policy: str
    draw: str
    clean_share: float
    copies: int | None
    low: int | None
    high: int | None


class Worth(Part):
    """The gain from fresh views of a policy over clean photos, in points of accuracy."""

    policy: str
    clean_share: float
    points: Interval


class RankingAgreement(Part):
    """The agreement of two rankings; regrets are in points of accuracy."""

    configurations: int
    spearman: Interval
    kendall: Interval
    top1_regret_points: Interval
    top3_regret_points: Interval


class RankingRow(Part):
    """The agreement of one ranking with another."""

    what: What
    policy: str | None
    copies: int
    fresh: bool
    draw: str
    clean_share: float
    against: Against
    among: Among
    configurations: int
    spearman: Interval
    kendall: Interval
    top1_regret_points: Interval
    top3_regret_points: Interval

    @property
    def way(self) -> Way:
        """The way in which the ranking's views were drawn."""
        return Way(**{name: getattr(self, name) for name in Way.model_fields})


class HyperparameterEffect(Part):
    """The effect of a hyperparameter's value in points of accuracy, in the search and in truth."""

    parameter: str
    value: str
    configurations: int
    cached: Interval
    truth: Interval
    difference: Interval
    transfers: str


class FailedTrial(Part):
    """A configuration that is left out, with the reason."""

    trial: int
    reason: str


class TrialAccuracies(Part):
    """A configuration with its accuracies in the search, with fresh views, and after fine-tuning."""

    trial: int
    params: dict[str, bool | int | float | str | None]
    own: float
    fresh: float
    tuned: float | None


class CostOfTrials(Part):
    """Seconds for a number of trials, including building the cache: through the network, on the 2021 cache, on ours."""

    trials: int
    network: float
    seed_cache: float
    own_cache: float


class CostResults(Part):
    """The fields of `reports.fidelity.cost.Cost`, and numbers derived from them."""

    epochs: int
    copies: int
    trials: int
    network_trial: float
    seed_trial: float
    own_trial: float
    own_start: float
    seed_build: float
    own_build: float
    rates: Annotated[Rates, PlainSerializer(lambda rates: rates._asdict())]
    break_even_trials: int | None
    table: list[CostOfTrials]


class FidelityResults(Part):
    """The contents of results.json."""

    version: Literal[3] = VERSION
    date: str
    configurations: int
    seeds: int
    epochs: int
    tolerance_points: float
    failed: list[FailedTrial]
    own: Way
    views: list[MeasuredWay]
    closing: list[Closing]
    augmentation: list[Worth]
    ranking: list[RankingRow]
    single_seed: RankingAgreement
    hyperparameters: list[HyperparameterEffect]
    trials: list[TrialAccuracies]
    cost: CostResults

    def by_own_views(self) -> dict[Against, RankingRow]:
        """The search's own rankings of all configurations, by what they are compared with."""
        return {row.against: row for row in self.ranking if (row.what, row.among) == ("own", "all")}


def results_file(workdir: Path) -> Path:
    """`fidelity/results.json` of a run."""
    return workdir / "fidelity" / "results.json"


def write_results(workdir: Path, results: FidelityResults) -> None:
    """Writes the results atomically."""
    write_text(results_file(workdir), json.dumps(results.model_dump(), indent=1, allow_nan=False) + "\n")


def load_results(workdir: Path) -> FidelityResults | None:
    """The results of a run's fidelity study; None if there are none. HeadhuntError for a file that cannot be read."""
    path = results_file(workdir)
    again = "Rerun `headhunt reports fidelity` to rewrite it."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise HeadhuntError(f"{path} cannot be read: {error}. {again}") from error
    if content.get("version") != VERSION:
        raise HeadhuntError(f"{path} was written by another version of Headhunt. {again}")
    try:
        return FidelityResults.model_validate(content)
    except ValidationError as error:
        lacking = sorted(
            str(fault["loc"][0]) for fault in error.errors() if fault["type"] == "missing" and len(fault["loc"]) == 1
        )
        what = f"it lacks {', '.join(lacking)}" if lacking else f"{error.error_count()} values are missing or wrong"
        raise HeadhuntError(f"{path} is damaged: {what}. {again}") from None
