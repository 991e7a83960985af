"""When a study ends, and why: by its trials, its hours, its target, or because nothing works.

It is decided between generations and from what the storage holds, so that a study ends at the same trial with any number of
workers, and however often it was killed; but for the hours, which depend on the machine. Nothing of this belongs to what a study
is: a study that has ended goes on with a higher number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from features.runtime.errors import HeadhuntError
from search.config import SearchConfig
from search.first_trials import name_of
from search.metric import is_at_least
from search.ranking import is_added, is_ours, ranking

if TYPE_CHECKING:
    import optuna


class End(NamedTuple):
    """Why no more trials are asked for: one word for programs, one sentence for people."""

    by: Literal["trials", "hours", "target", "space"]
    why: str


def reached_end(study: optuna.Study, search: SearchConfig, seconds: float) -> End | None:
    """Whether the study is at its end after `seconds` of search in all its runs; None while it should go on."""
    name, total = study.study_name, sum(map(is_ours, study.get_trials(deepcopy=False)))
    complete = ranking(study, search.objective)
    if search.target is not None and complete and _is_reached(search, complete[0].value or 0.0):
        best = complete[0]
        return End(
            "target",
            f"The study {name!r} ends with {total} trials: trial {best.number} has reached {search.objective} {best.value:.4f}, "
            f"and `search.target` is {search.target:g}. With another target, or none, it goes on.",
        )
    if total >= search.trials:
        return End("trials", f"The study {name!r} has its {search.trials} trials.")
    if search.hours is not None and seconds >= 3600 * search.hours:
        return End(
            "hours",
            f"The study {name!r} ends with {total} trials: it has searched for {seconds / 3600:.4g} hours, and `search.hours` is "
            f"{search.hours:g}. With more hours, or none, it goes on.",
        )
    return None


def space_is_used_up(study: optuna.Study, total: int, reason: str) -> End:
    """The end of a study whose sampler has nothing left to ask for."""
    return End("space", f"The study {study.study_name!r} ends with {total} trials: {reason}.")


def check_failures(study: optuna.Study) -> None:
    """HeadhuntError when every trial of the search that was drawn and has ended so far has failed, and none is under way."""
    every = [trial for trial in study.get_trials(deepcopy=False) if not is_added(trial)]
    trials = [
        trial for trial in every if name_of(trial) is None
    ] or every  # the space is judged by what is drawn from it
    if not trials or any(trial.state.name != "FAIL" for trial in trials):
        return
    reasons = [str(trial.user_attrs.get("reason", "unknown")) for trial in trials]
    raise HeadhuntError(
        f"all {len(trials)} trials so far have failed; the first: {reasons[0]}. {_advice(reasons[0])} With other settings it is "
        "another study: give it another `name` and `workdir`."
    )


def _is_reached(search: SearchConfig, value: float) -> bool:
    assert search.target is not None
    return is_at_least(search.objective, value, search.target)


def _advice(reason: str) -> str:
    if reason.startswith("out of memory"):
        return "Lower `search.lanes`, the largest `search.space.head.units` or `search.space.batch_size`."
    rates = "Lower the learning rates in `search.space.schedule.learning_rate`"
    return f"{rates}, or check the features with `headhunt features verify`."
