"""Certificate: what a fidelity study found of a study's ranking, kept with the study for whoever promotes from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from features.runtime.errors import HeadhuntError
from features.runtime.section import Section

if TYPE_CHECKING:
    import optuna

ATTRIBUTE = "fidelity"
"""The study's attribute that holds it."""


class Agreement(Section):
    """How well the cached ranking of some configurations agrees with another one of them.

    `spearman` and `kendall` (tau-b) are correlations, `low` and `high` Spearman's 95 % bootstrap interval; `regret_points` is how
    much worse, in points of accuracy, the best by the cached ranking is than the best.
    """

    configurations: int
    spearman: float
    low: float
    high: float
    kendall: float
    regret_points: float

    def __str__(self) -> str:
        return (
            f"Spearman {self.spearman:z.2f} (95 % interval {self.low:z.2f} to {self.high:z.2f}), Kendall {self.kendall:z.2f}, "
            f"regret {self.regret_points:z.1f} points, {self.configurations} configurations"
        )


class Certificate(Section):
    """How well the ranking on the study's cached views agrees with that of the frozen network under a fresh view in every epoch,
    and with that after fine-tuning; `date` is ISO 8601, `finetune` the digest of the fine-tuning recipe that was measured."""

    date: str
    seeds: int
    frozen: Agreement
    tuned: Agreement | None = None
    finetune: str = ""

    def lines(self, finetune: str, floor: float) -> list[str]:
        """What to tell somebody who promotes by the recipe of this digest; it warns where a correlation is below the floor."""
        said = [f"Fidelity, measured {self.date}: against fresh views in every epoch {self.frozen}."]
        judged = {"fresh views in every epoch would": (self.frozen, "search with more cached views")}
        if self.tuned is not None:
            other = "" if finetune == self.finetune else " by another recipe than this one"
            said.append(f"Against the ranking after fine-tuning{other}: {self.tuned}.")
            judged["fine-tuning does"] = (self.tuned, "confirm the leaders first (`headhunt search confirm`)")
        for what, (agreement, advice) in judged.items():
            if agreement.spearman < floor:
                said.append(
                    f"Warning: {agreement.spearman:z.2f} is below train.fidelity_floor, {floor:g}: this search does not rank "
                    f"heads as {what}. Promote more than the first few (--top), or {advice}."
                )
        return said


def write_certificate(study: optuna.Study, certificate: Certificate) -> None:
    """Domains it with the study."""
    study.set_user_attr(ATTRIBUTE, certificate.model_dump(mode="json"))


def load_certificate(study: optuna.Study) -> Certificate | None:
    """A study's certificate; None where it has none. HeadhuntError for one that another version wrote."""
    if ATTRIBUTE not in study.user_attrs:
        return None
    try:
        return Certificate.model_validate(study.user_attrs[ATTRIBUTE])
    except ValidationError as error:
        raise HeadhuntError(
            f"the fidelity certificate of the study {study.study_name!r} cannot be read: another version wrote it. "
            "`headhunt reports fidelity` writes it anew."
        ) from error
