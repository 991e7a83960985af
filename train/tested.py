"""How often the test photos of a run were used: its ledger, beside the models that its folder has test numbers of."""

from __future__ import annotations

from features.runtime.errors import HeadhuntError
from train.baselines.measure import BASELINES, load_baselines
from train.config import TrainRun
from train.ledger import ledger_sentence
from train.promotion.artifact import find_promotions, ledger_names


def use_of_test_photos(run: TrainRun) -> str:
    """In a sentence."""
    return ledger_sentence(run.workdir, models_with_test_numbers(run))


def models_with_test_numbers(run: TrainRun) -> set[str]:
    """The models with test numbers on disk, as the ledger calls them; what is damaged has none."""
    found = set()
    for each in find_promotions(run):
        names = ledger_names(each.folder)
        measured = (each.frozen, each.tuned)
        found |= {name for name, splits in zip(names, measured, strict=True) if splits.test}
    try:
        baselines = load_baselines(run.workdir).items()
        return found | {BASELINES[name].title for name, each in baselines if each.test}
    except HeadhuntError:
        return found
