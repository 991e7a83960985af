"""Certificate: how far a study's ranking can be trusted, measured by `reports fidelity`, stored with the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from features.runtime.errors import HeadhuntError
from features.runtime.section import Section

if TYPE_CHECKING:
    import optuna

ATTRIBUTE = "fidelity"
"""The study attribute that holds the certificate."""


class Agreement(Section):
    """How well the cached ranking of some configurations agrees with another ranking of them.

    `spearman` and `kendall` (tau-b) are correlations, `low` and `high` Spearman's 95 % bootstrap interval; `regret_points` is how
    much worse, in points of accuracy, the winner of the cached ranking is than the true best.
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
    """How well the ranking on the study's cached views agrees with the frozen network's ranking under fresh views every epoch,
    and with the ranking after fine-tuning. `date` is ISO 8601, `finetune` the digest of the measured fine-tuning recipe."""

    date: str
    seeds: int
    frozen: Agreement
    tuned: Agreement | None = None
    finetune: str = ""

    def lines(self, finetune: str, floor: float) -> list[str]:
        """The lines to show before promoting with the recipe of this digest; warns where a correlation is below `floor`."""
        said = [f"Fidelity, measured {self.date}, against fresh views every epoch: {self.frozen}."]
        judged = {"fresh views every epoch would": (self.frozen, "search with more cached views")}
        if self.tuned is not None:
            other = "" if finetune == self.finetune else " with a different recipe"
            said.append(f"Against the ranking after fine-tuning{other}: {self.tuned}.")
            judged["fine-tuning does"] = (self.tuned, "confirm the leaders first (`headhunt search confirm`)")
        for what, (agreement, advice) in judged.items():
            if agreement.spearman < floor:
                said.append(
                    f"Warning: Spearman {agreement.spearman:z.2f} is below train.fidelity_floor ({floor:g}): this search does "
                    f"not rank heads as {what}. Promote more heads (--top), or {advice}."
                )
        return said


def write_certificate(study: optuna.Study, certificate: Certificate) -> None:
    """Stores the certificate with the study."""
    study.set_user_attr(ATTRIBUTE, certificate.model_dump(mode="json"))


def load_certificate(study: optuna.Study) -> Certificate | None:
    """A study's certificate, or None; HeadhuntError for one written by another version."""
    if ATTRIBUTE not in study.user_attrs:
        return None
    try:
        return Certificate.model_validate(study.user_attrs[ATTRIBUTE])
    except ValidationError as error:
        raise HeadhuntError(
            f"the fidelity certificate of the study {study.study_name!r} cannot be read: it was written by another version. "
            "Rerun `headhunt reports fidelity` to rewrite it."
        ) from error
