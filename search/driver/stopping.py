"""When and why a study ends: by its trials, hours or target, because its space is exhausted, or because every trial fails.

This is decided between generations from what the storage holds, so that a study ends at the same trial with any number of
workers, however often it was killed; only the hours depend on the machine. These limits are not part of a study's identity: a
study that has ended continues with a higher limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from features.runtime.errors import HeadhuntError
from features.runtime.log import counted
from search.config import SearchConfig
from search.first_trials import name_of
from search.metric import is_at_least
from search.ranking import is_external, is_from_search, ranking

if TYPE_CHECKING:
    import optuna


class End(NamedTuple):
    """Why no more trials are asked for: a word for programs and a sentence for people."""

    by: Literal["trials", "hours", "target", "space"]
    why: str


def reached_end(study: optuna.Study, search: SearchConfig, seconds: float) -> End | None:
    """Why the study ends after `seconds` of search, summed over its runs; None while it should continue."""
    name, total = study.study_name, sum(map(is_from_search, study.get_trials(deepcopy=False)))
    ends = f"The study {name!r} ends with {counted(total, 'trial')}"
    complete = ranking(study, search.objective)
    if search.target is not None and complete and _is_reached(search, complete[0].value or 0.0):
        best = complete[0]
        return End(
            "target",
            f"{ends}: trial {best.number} has reached {search.objective} {best.value:.4f}, "
            f"and `search.target` is {search.target:g}. To continue, change or remove the target.",
        )
    if total >= search.trials:
        return End("trials", f"The study {name!r} has its {counted(search.trials, 'trial')}.")
    if search.hours is not None and seconds >= 3600 * search.hours:
        return End(
            "hours",
            f"{ends}: it has searched for {seconds / 3600:.4g} hours, and `search.hours` is "
            f"{search.hours:g}. To continue, raise or remove `search.hours`.",
        )
    return None


def space_is_used_up(study: optuna.Study, total: int, reason: str) -> End:
    """The end of a study whose sampler has nothing left to suggest."""
    return End("space", f"The study {study.study_name!r} ends with {counted(total, 'trial')}: {reason}.")


def check_failures(study: optuna.Study) -> None:
    """HeadhuntError if all drawn trials of the search (or, if none was drawn, all its first trials) have failed."""
    every = [trial for trial in study.get_trials(deepcopy=False) if not is_external(trial)]
    trials = [
        trial for trial in every if name_of(trial) is None
    ] or every  # judge the space by the trials drawn from it
    if not trials or any(trial.state.name != "FAIL" for trial in trials):
        return
    reasons = [str(trial.user_attrs.get("reason", "unknown")) for trial in trials]
    failed = (
        "its only trial so far has failed: "
        if len(trials) == 1
        else f"all {len(trials)} trials so far have failed; the first: "
    )
    raise HeadhuntError(
        f"{failed}{reasons[0]}. {_advice(reasons[0])} Changed settings "
        "need a new study: give it another `name` and `workdir`."
    )


def _is_reached(search: SearchConfig, value: float) -> bool:
    assert search.target is not None
    return is_at_least(search.objective, value, search.target)


def _advice(reason: str) -> str:
    if reason.startswith("out of memory"):
        return "Lower `search.lanes`, the largest `search.space.head.units` or `search.space.batch_size`."
    rates = "Lower the learning rates in `search.space.schedule.learning_rate`"
    return f"{rates}, or check the features with `headhunt features verify`."
