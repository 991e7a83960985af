"""Confirmation: the leaders ranked over several seeds, as `headhunt search confirm` left it in the run's folder.

A confirmation is of certain leaders of a study with certain settings. When the study has others since, it is not used, and a
line says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from features.atomic import write_text
from features.command import log, relative
from features.config import Section
from search.config import SearchRun
from search.confirm.statistics import Interval, holm, interval, paired_p_value
from search.leaderboard import Leader, load_study
from search.trial import Objective

if TYPE_CHECKING:
    import optuna


class Confirmed(Section):
    """A trial over several seeds.

    `values` has the objective at the best epoch for each of `seeds`, null where the training failed: then `failure` says why, and
    there is no mean. `searched` is the search's own value, of one seed, that it was chosen by. `p_value` is that of the paired
    test against the best, null for the best itself; `p_holm` is corrected for the number of comparisons.
    """

    number: int
    mean: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    searched: float
    p_value: float | None = None
    p_holm: float | None = None
    failure: str | None = None

    @property
    def interval(self) -> Interval | None:
        """The mean with its interval; None for a trial that failed with a seed."""
        if self.mean is None or self.low is None or self.high is None:
            return None
        return Interval(self.mean, self.low, self.high)


class Confirmation(Section):
    """The confirmed trials, the best mean first; those that failed with a seed come last.

    `leaders` are the digests of the configurations by trial number, in the order of the search; `identity` is the study's.
    """

    study: str
    objective: Objective
    identity: dict[str, Any]
    leaders: dict[int, str]
    confirmed: tuple[Confirmed, ...]

    def of(self, number: int) -> Confirmed | None:
        """What is confirmed of a trial; None when it was not among the leaders, or failed with a seed."""
        return next((one for one in self.confirmed if one.number == number and one.failure is None), None)


def rank(
    objective: Objective,
    leaders: Sequence[Leader],
    seeds: Sequence[int],
    values: Sequence[Sequence[float | None]],
    failures: Sequence[str | None],
) -> tuple[Confirmed, ...]:
    """The leaders by the mean of their values, (leaders, seeds), each compared with the best."""
    rows = [
        _summed_up(leader, tuple(seeds), tuple(own), failure)
        for leader, own, failure in zip(leaders, values, failures, strict=True)
    ]
    sign = 1 if objective == "val_loss" else -1
    ranked = sorted(
        (row for row in rows if row.failure is None), key=lambda row: (sign * (row.mean or 0.0), row.number)
    )
    compared = [paired_p_value(_numbers(row), _numbers(ranked[0])) for row in ranked[1:]]
    judged = [
        row.model_copy(update={"p_value": p_value, "p_holm": corrected})
        for row, p_value, corrected in zip(ranked[1:], compared, holm(compared), strict=True)
    ]
    return (*ranked[:1], *judged, *(row for row in rows if row.failure is not None))


def _summed_up(
    leader: Leader, seeds: tuple[int, ...], values: tuple[float | None, ...], failure: str | None
) -> Confirmed:
    mean, low, high = (None, None, None) if failure else interval([value for value in values if value is not None])
    return Confirmed(
        number=leader.number, mean=mean, low=low, high=high, seeds=seeds, values=values, searched=leader.value, failure=failure
    )  # fmt: skip


def _numbers(row: Confirmed) -> list[float]:
    return [value for value in row.values if value is not None]


def confirmation_file(workdir: Path) -> Path:
    """`confirm.json`."""
    return workdir / "confirm.json"


def write_confirmation(workdir: Path, confirmation: Confirmation) -> None:
    """Writes it, atomically."""
    write_text(confirmation_file(workdir), confirmation.model_dump_json(indent=1) + "\n")


def load_confirmation(run: SearchRun, leaders: Sequence[Leader]) -> Confirmation | None:
    """The confirmation of the run; None when there is none, or, with a line that says so, when it is not of these leaders (all of
    the study's, best first)."""
    path = confirmation_file(run.workdir)
    if not path.exists():
        return None
    try:
        found = Confirmation.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError, OSError) as error:
        stale = f"it cannot be read ({str(error).splitlines()[0]})"
    else:
        reason = _stale(run, found, load_study(run), leaders)
        if reason is None:
            return found
        stale = reason
    log.print(
        f"{relative(path)} is not used: {stale}. `headhunt search confirm` confirms the leaders that the study has now; what it "
        "has trained before is not trained again.",
        style="yellow",
    )
    return None


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


def by_confirmation(leaders: Sequence[Leader], confirmation: Confirmation) -> list[Leader]:
    """The confirmed trials by their mean, then the others as they were ranked by the search; last what failed with a seed."""
    places = {one.number: place for place, one in enumerate(confirmation.confirmed)}
    failed = {one.number for one in confirmation.confirmed if one.failure is not None}
    # sorted() keeps the order of those with the same key: the search's.
    return sorted(leaders, key=lambda each: (each.number in failed, places.get(each.number, len(leaders))))
