"""The study for its readers: its completed trials, best first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from features.augmentation.policies import configured
from features.cache.feature_cache import cache_for
from features.runtime.errors import UsageError
from search.config import SearchRun
from search.driver.storage import kept_storage, storage_url
from search.first_trials import FirstTrial, name_of
from search.ranking import ranking
from search.trial import TrialConfig

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Leader:
    """A completed trial: the objective and the top-5 validation accuracy at its best epoch, and its configuration."""

    number: int
    value: float
    top5: float
    params: dict[str, Any]
    config: TrialConfig
    cache_key: str
    first: FirstTrial | None = None
    """The name of a first trial; None if the trial is drawn."""


class OtherObjectiveError(UsageError):
    """The configuration ranks by another objective than the study."""


def load_study(run: SearchRun) -> optuna.Study:
    """The configuration's study, for reading; UsageError if it does not exist, OtherObjectiveError if it was searched by another
    objective."""
    import optuna

    url = storage_url(run.search.storage, run.workdir)
    missing = UsageError(f"there is no study {run.name!r} in {url}. Run `headhunt search run`.")
    if run.search.storage in ("sqlite", "journal") and not (run.workdir / url.rpartition("/")[2]).exists():
        raise missing
    try:
        study = optuna.load_study(study_name=run.name, storage=kept_storage(run.search.storage, run.workdir))
    except KeyError:
        raise missing from None
    wanted, own = run.search.objective, study.user_attrs.get("identity", {}).get("objective")
    if own not in (None, wanted):
        raise OtherObjectiveError(
            f"search.objective: received {wanted}, but the study {run.name!r} searches by {own}. Restore it, or use another "
            "`name` and `workdir` for a new study."
        )
    return study


def leaders(run: SearchRun, top: int | None = None) -> list[Leader]:
    """The completed trials, best first (see `search.ranking`); UsageError if there are none."""
    best_first = ranking(load_study(run), run.search.objective)
    if not best_first:
        raise UsageError(f"the study {run.name!r} has no completed trials. Run `headhunt search run`.")
    return [_leader(trial) for trial in best_first[:top]]


def check_cache(run: SearchRun, leader: Leader) -> None:
    """Raises UsageError if a trial was trained on a different cache than the configuration's for its policy."""
    cache = cache_for(run, configured(run.features, leader.config.views.policy))
    if leader.cache_key != cache.key:
        raise UsageError(
            f"trial {leader.number} was trained on the cache {leader.cache_key[:16]}, but the configuration now refers to "
            f"{cache.key[:16]}. Restore the photos and the sections `dataset` and `features`, or search again with another "
            "`name` and `workdir`."
        )


def _leader(trial: optuna.trial.FrozenTrial) -> Leader:
    facts = trial.user_attrs
    config = TrialConfig.model_validate(json.loads(facts["config"]))
    return Leader(
        trial.number, float(trial.value or 0.0), facts["top5"], trial.params, config, facts["cache"], name_of(trial)
    )
