"""Confirmation: the leaders ranked over several seeds, as stored by `headhunt search confirm` in the run's folder.

A confirmation holds for the leaders and settings that a study had at the time. If these have changed, it is not used, and this is
logged.
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
    there is no mean. `low` and `high` are null where the values do not differ, e.g. for a linear probe, which is solved once.
    `val_loss` is the mean over the best epochs; it breaks ties between equal means. `searched` is the single-seed value by which
    the search chose the trial. `p_value` belongs to the hypothesis "the best is no better than this one", corrected for choosing
    the best and for the number of comparisons (`compared_with_best`); null for the best itself.
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
        """The mean with its interval; None for a trial that failed with some seed, or whose values do not differ."""
        if self.mean is None or self.low is None or self.high is None or _are_equal(self.values):
            return None
        return Interval(self.mean, self.low, self.high)


class Confirmation(Section):
    """The confirmed trials, best mean first; those that failed with some seed come last.

    `leaders` are the digests of the configurations by trial number, in the order of the search, with the probe last if it was
    not among them; `identity` is the study's;
    `comparison` names the tests behind the p-values (absent in files of earlier versions).
    """

    study: str
    objective: Metric
    identity: dict[str, Any]
    comparison: Literal["tukey and paired t"]
    leaders: dict[int, str]
    confirmed: tuple[Confirmed, ...]

    @property
    def order(self) -> str:
        """One sentence on how leaders with this confirmation are ordered."""
        return (
            f"Confirmed leaders come first, by their mean over {len(self.confirmed[0].seeds)} seeds, then the others in the "
            "search's order."
        )

    def place(self, number: int) -> int:
        """A trial's place, from 0: confirmed trials first, then unconfirmed ones, then those that failed with some seed."""
        for place, one in enumerate(self.confirmed):
            if one.number == number:
                return place if one.failure is None else len(self.confirmed) + 1
        return len(self.confirmed)

    def of(self, number: int) -> Confirmed | None:
        """A trial's confirmation; None if it was not among the leaders, or failed with some seed."""
        return next((one for one in self.confirmed if one.number == number and one.failure is None), None)


def rank(
    objective: Metric,
    leaders: Sequence[Leader],
    seeds: Sequence[int],
    found: Sequence[Sequence[SeedRun]],
    step: float = 0.0,
) -> tuple[Confirmed, ...]:
    """The leaders by their mean over these seeds, each compared with the best; those that failed with some seed come last.

    `step` is the smallest possible difference between two values: a photo's share of an accuracy, 0 for losses.
    """
    rows = [_summed_up(objective, leader, seeds, runs) for leader, runs in zip(leaders, found, strict=True)]
    whole = [row for row in rows if row.failure is None]
    ranked = sorted(whole, key=lambda row: (Score.of(objective, row.mean or 0.0, row.val_loss or 0.0), row.number))
    p_values = compared_with_best([[value or 0.0 for value in row.values] for row in ranked], step) if ranked else []
    judged = [row.model_copy(update={"p_value": p}) for row, p in zip(ranked[1:], p_values, strict=True)]
    return (*ranked[:1], *judged, *(row for row in rows if row.failure is not None))


def _summed_up(objective: Metric, leader: Leader, seeds: Sequence[int], runs: Sequence[SeedRun]) -> Confirmed:
    values = tuple(None if each.failure else each.value for each in runs)
    failure = next(
        (f"seed {seed}: {each.failure}" for seed, each in zip(seeds, runs, strict=True) if each.failure), None
    )
    mean = low = high = val_loss = None
    if not failure:
        known = [value for value in values if value is not None]
        mean, low, high = interval(known, is_share(objective), is_loss=not is_share(objective))
        low, high = (None, None) if _are_equal(values) else (low, high)
        val_loss = float(np.mean([each.val_loss for each in runs]))
    return Confirmed(
        number=leader.number, mean=mean, low=low, high=high, seeds=tuple(seeds), values=values, searched=leader.value,
        val_loss=val_loss, first=leader.first, failure=failure,
    )  # fmt: skip


def _are_equal(values: Sequence[float | None]) -> bool:
    """Whether a trial has the same value with every seed, so that there is no spread to compute an interval from."""
    return len({value if value is None else round(value, 6) for value in values}) == 1


def confirmation_file(workdir: Path) -> Path:
    """`confirm.json`."""
    return workdir / "confirm.json"


def write_confirmation(workdir: Path, confirmation: Confirmation) -> None:
    """Writes `confirm.json` atomically."""
    write_text(confirmation_file(workdir), confirmation.model_dump_json(indent=1) + "\n")


def load_confirmation(run: SearchRun, leaders: Sequence[Leader]) -> Confirmation | None:
    """The confirmation of the run; None if there is none, or (logged) if it does not match these leaders (all of the study's,
    best first)."""
    found = _read(run, leaders)
    if not isinstance(found, str):
        return found
    log.print(
        f"{relative(confirmation_file(run.workdir))} is not used: {found}. Run `headhunt search confirm` to confirm the current "
        "leaders; earlier trainings are reused.",
        style="yellow",
    )
    return None


def unused_confirmation(run: SearchRun) -> str | None:
    """One sentence on why the confirmation on disk is not used; None if it is used, or if there is none."""
    found = _read(run, all_leaders(run)) if confirmation_file(run.workdir).exists() else None
    return f"{relative(confirmation_file(run.workdir))} is not used: {found}." if isinstance(found, str) else None


def find_confirmation(run: SearchRun) -> Confirmation | None:
    """The confirmation of the study as it is now; None if there is none or it is stale. Logs nothing."""
    if not confirmation_file(run.workdir).exists():
        return None
    try:
        found = _read(run, all_leaders(run))
    except UsageError:  # there is no study
        return None
    return None if isinstance(found, str) else found


def _read(run: SearchRun, leaders: Sequence[Leader]) -> Confirmation | str | None:
    """The confirmation of these leaders; None if there is none; a text on why the existing one does not match them."""
    path = confirmation_file(run.workdir)
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        found = Confirmation.model_validate_json(text)
    except (ValidationError, ValueError, OSError) as error:
        if isinstance(error, ValidationError) and '"comparison"' not in text and '"confirmed"' in text:
            return "it was made by an earlier version, whose p-values were too small"
        return f"it cannot be read ({str(error).splitlines()[0]})"
    return _stale(run, found, load_study(run), leaders) or found


def _stale(run: SearchRun, found: Confirmation, study: optuna.Study, leaders: Sequence[Leader]) -> str | None:
    """Why a confirmation does not match the study as it is now; None if it does."""
    if found.study != run.name:
        return f"it belongs to the study {found.study!r}"
    if found.objective != run.search.objective:
        return f"it ranks by {found.objective}, not by {run.search.objective}"
    identity = study.user_attrs.get("identity", {})
    changed = sorted(name for name in {*identity, *found.identity} if identity.get(name) != found.identity.get(name))
    if changed:
        return f"it belongs to a study with other settings ({', '.join(changed)})"
    count = len(found.leaders)
    now = digests(to_confirm(leaders, count - 1))  # the probe, if it was not among the leaders, is the last
    if list(now) != list(found.leaders):
        now = digests(leaders[:count])
    if list(now.items()) != list(found.leaders.items()):
        joined = [number for number, digest in now.items() if found.leaders.get(number) != digest]
        who = f"trial {joined[0]} is new among them" if joined else "their order is different"
        return f"the study's leaders have changed since they were confirmed ({who})"
    return None


def to_confirm(leaders: Sequence[Leader], top: int) -> list[Leader]:
    """The first `top` leaders, and the linear probe if it is behind them: solved, it costs nothing, and a leader that was only
    lucky must not end before it."""
    return [*leaders[:top], *(leader for leader in leaders[top:] if leader.first == "probe")]


def digests(leaders: Sequence[Leader]) -> dict[int, str]:
    """The first 16 hex digits of the sha256 of each leader's configuration, by number."""
    return {
        leader.number: hashlib.sha256(leader.config.model_dump_json().encode()).hexdigest()[:16] for leader in leaders
    }


def confirmed_first(run: SearchRun, top: int | None = None) -> tuple[list[Leader], Confirmation | None]:
    """The run's single ranking and the confirmation behind it: by the confirmation if there is a current one, else by the search
    (and None). UsageError if there are no completed trials."""
    ranked = all_leaders(run)
    found = _read(run, ranked)
    if found is None or isinstance(found, str):
        return ranked[:top], None
    return by_confirmation(ranked, found)[:top], found


def by_confirmation(leaders: Sequence[Leader], confirmation: Confirmation) -> list[Leader]:
    """Confirmed trials by their mean, then the others in the search's order; last those that failed with some seed."""
    return sorted(leaders, key=lambda each: confirmation.place(each.number))  # the sort is stable
