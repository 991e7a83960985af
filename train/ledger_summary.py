"""How often a run's test photos were used, from its ledger and the models with test results in its folder."""

from __future__ import annotations

from features.runtime.errors import HeadhuntError
from train.baselines.measure import BASELINES, load_baselines
from train.config import TrainRun
from train.ledger import ledger_sentence
from train.promotion.artifact import find_promotions, ledger_names


def usage_of_test_photos(run: TrainRun) -> str:
    """One sentence on how often the test photos were used."""
    return ledger_sentence(run.workdir, models_with_test_numbers(run))


def models_with_test_numbers(run: TrainRun) -> set[str]:
    """The models with test results on disk, by their names in the ledger; damaged files count as none."""
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
