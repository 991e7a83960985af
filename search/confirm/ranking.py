"""Confirmation: the leaders ranked over several seeds, as `headhunt search confirm` left it in the run's folder.

A confirmation is of certain leaders of a study with certain settings. When the study has others since, it is not used, and a
line says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from features.runtime.atomic import write_text
from features.runtime.errors import UsageError
from features.runtime.log import log, relative
from features.runtime.section import Section
from search.config import SearchRun
from search.confirm.seed_runs import SeedRun
from search.confirm.statistics import Interval, compared_with_best, interval
from search.first_trials import FirstTrial
from search.leaderboard import Leader, load_study
from search.leaderboard import leaders as all_leaders
from search.metric import Metric, is_share
from search.ranking import Score

if TYPE_CHECKING:
    import optuna


class Confirmed(Section):
    """A trial over several seeds.

    `values` has the objective at the best epoch for each of `seeds`, null where the training failed: then `failure` says why, and
    there is no mean. `low` and `high` are null where the values do not differ, as those of a linear probe, which is solved once.
    `val_loss` is the mean at these epochs, which decides between equal means. `searched` is the search's own
    value, of one seed, that it was chosen by. `p_value` is that of "the best is no better than this one", corrected for the
    choice of the best and the number of comparisons (`compared_with_best`); null for the best itself.
    """

    number: int
    mean: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    searched: float
    val_loss: float | None = None
    first: FirstTrial | None = None
    p_value: float | None = None
    failure: str | None = None

    @property
    def interval(self) -> Interval | None:
        """The mean with its interval; None for a trial that failed with a seed, or whose values do not differ."""
        if self.mean is None or self.low is None or self.high is None or _are_equal(self.values):
            return None
        return Interval(self.mean, self.low, self.high)


class Confirmation(Section):
    """The confirmed trials, the best mean first; those that failed with a seed come last.

    `leaders` are the digests of the configurations by trial number, in the order of the search; `identity` is the study's;
    `comparison` names the tests that the p-values are of, which earlier versions did not.
    """

    study: str
    objective: Metric
    identity: dict[str, Any]
    comparison: Literal["tukey and paired t"]
    leaders: dict[int, str]
    confirmed: tuple[Confirmed, ...]

    @property
    def order(self) -> str:
        """What decides the order of leaders that have this confirmation, a sentence."""
        return (
            f"The confirmed leaders come first, by their mean over {len(self.confirmed[0].seeds)} seeds; behind them the others, "
            "as the search ranked them."
        )

    def place(self, number: int) -> int:
        """The place, from 0, of a trial: behind the confirmed ones come those that were not confirmed, then what failed with a
        seed."""
        for place, one in enumerate(self.confirmed):
            if one.number == number:
                return place if one.failure is None else len(self.confirmed) + 1
        return len(self.confirmed)

    def of(self, number: int) -> Confirmed | None:
        """What is confirmed of a trial; None when it was not among the leaders, or failed with a seed."""
        return next((one for one in self.confirmed if one.number == number and one.failure is None), None)


def rank(
    objective: Metric,
    leaders: Sequence[Leader],
    seeds: Sequence[int],
    found: Sequence[Sequence[SeedRun]],
) -> tuple[Confirmed, ...]:
    """The leaders by what their trainings with these seeds reached on average, each compared with the best.

    Those that failed with a seed come last.
    """
    rows = [_summed_up(objective, leader, seeds, runs) for leader, runs in zip(leaders, found, strict=True)]
    whole = [row for row in rows if row.failure is None]
    ranked = sorted(whole, key=lambda row: (Score.of(objective, row.mean or 0.0, row.val_loss or 0.0), row.number))
    p_values = compared_with_best([[value or 0.0 for value in row.values] for row in ranked]) if ranked else []
    judged = [row.model_copy(update={"p_value": p}) for row, p in zip(ranked[1:], p_values, strict=True)]
    return (*ranked[:1], *judged, *(row for row in rows if row.failure is not None))


def _summed_up(objective: Metric, leader: Leader, seeds: Sequence[int], runs: Sequence[SeedRun]) -> Confirmed:
    values = tuple(None if each.failure else each.value for each in runs)
    failure = next(
        (f"seed {seed}: {each.failure}" for seed, each in zip(seeds, runs, strict=True) if each.failure), None
    )
    mean = low = high = val_loss = None
    if not failure:
        mean, low, high = interval([value for value in values if value is not None], is_share=is_share(objective))
        low, high = (None, None) if _are_equal(values) else (low, high)
        val_loss = float(np.mean([each.val_loss for each in runs]))
    return Confirmed(
        number=leader.number, mean=mean, low=low, high=high, seeds=tuple(seeds), values=values, searched=leader.value,
        val_loss=val_loss, first=leader.first, failure=failure,
    )  # fmt: skip


def _are_equal(values: Sequence[float | None]) -> bool:
    """Whether a trial has one value with all seeds: then there is no spread that an interval could follow from."""
    return len({value if value is None else round(value, 6) for value in values}) == 1


def confirmation_file(workdir: Path) -> Path:
    """`confirm.json`."""
    return workdir / "confirm.json"


def write_confirmation(workdir: Path, confirmation: Confirmation) -> None:
    """Writes it, atomically."""
    write_text(confirmation_file(workdir), confirmation.model_dump_json(indent=1) + "\n")


def load_confirmation(run: SearchRun, leaders: Sequence[Leader]) -> Confirmation | None:
    """The confirmation of the run; None when there is none, or, with a line that says so, when it is not of these leaders (all of
    the study's, best first)."""
    found = _read(run, leaders)
    if not isinstance(found, str):
        return found
    log.print(
        f"{relative(confirmation_file(run.workdir))} is not used: {found}. `headhunt search confirm` confirms the leaders that "
        "the study has now; what it has trained before is not trained again.",
        style="yellow",
    )
    return None


def unused_confirmation(run: SearchRun) -> str | None:
    """Why the confirmation that is on disk is not used, a sentence; None where it is used, or where there is none."""
    found = _read(run, all_leaders(run)) if confirmation_file(run.workdir).exists() else None
    return f"{relative(confirmation_file(run.workdir))} is not used: {found}." if isinstance(found, str) else None


def find_confirmation(run: SearchRun) -> Confirmation | None:
    """The confirmation of the study as it is; None where there is none, without a word."""
    if not confirmation_file(run.workdir).exists():
        return None
    try:
        found = _read(run, all_leaders(run))
    except UsageError:  # there is no study
        return None
    return None if isinstance(found, str) else found


def _read(run: SearchRun, leaders: Sequence[Leader]) -> Confirmation | str | None:
    """The confirmation of these leaders, None where there is none; a text says why one that is there is not of them."""
    path = confirmation_file(run.workdir)
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        found = Confirmation.model_validate_json(text)
    except (ValidationError, ValueError, OSError) as error:
        if isinstance(error, ValidationError) and '"comparison"' not in text and '"confirmed"' in text:
            return "an earlier version made it, whose p-values were too small"
        return f"it cannot be read ({str(error).splitlines()[0]})"
    return _stale(run, found, load_study(run), leaders) or found


def _stale(run: SearchRun, found: Confirmation, study: optuna.Study, leaders: Sequence[Leader]) -> str | None:
    """Why a confirmation is not of this study as it is now; None when it is."""
    if found.study != run.name:
        return f"it is of the study {found.study!r}"
    identity = study.user_attrs.get("identity", {})
    changed = sorted(name for name in {*identity, *found.identity} if identity.get(name) != found.identity.get(name))
    if changed:
        return f"it is of a study with other settings ({', '.join(changed)})"
    now = digests(leaders[: len(found.leaders)])
    if list(now.items()) != list(found.leaders.items()):
        joined = [number for number, digest in now.items() if found.leaders.get(number) != digest]
        who = f"trial {joined[0]} was not among them" if joined else "in another order"
        return f"the study's leaders were others when they were confirmed ({who})"
    return None


def digests(leaders: Sequence[Leader]) -> dict[int, str]:
    """The first 16 hex digits of the sha256 of each leader's configuration, by number."""
    return {
        leader.number: hashlib.sha256(leader.config.model_dump_json().encode()).hexdigest()[:16] for leader in leaders
    }


def confirmed_first(run: SearchRun, top: int | None = None) -> tuple[list[Leader], Confirmation | None]:
    """The one ranking of the run: the leaders by its confirmation, where there is one of the study as it is, else by the search;
    with that confirmation. UsageError when no trial has run to its end."""
    ranked = all_leaders(run)
    found = _read(run, ranked)
    if found is None or isinstance(found, str):
        return ranked[:top], None
    return by_confirmation(ranked, found)[:top], found


def by_confirmation(leaders: Sequence[Leader], confirmation: Confirmation) -> list[Leader]:
    """The confirmed trials by their mean, then the others as they were ranked by the search; last what failed with a seed."""
    return sorted(leaders, key=lambda each: confirmation.place(each.number))  # equal ones stay as they were
