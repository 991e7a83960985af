"""Which trials are promoted and exported."""

from __future__ import annotations

import pytest

from features.building.build import build_cache
from features.runtime.errors import UsageError
from reports.config import Run
from reports.errors.predictions import load_predictions
from reports.headline import headline
from search.leaderboard import leaders
from tests.fabricated import fabricate_confirmation, fabricate_promotion
from train.exports.export import export
from train.promotion.artifact import find_promotions
from train.promotion.promote import promote


def promoted(run: Run) -> list[int]:
    return [each.trial for each in find_promotions(run)]


def test_a_trial_named_twice_is_promoted_once_and_stray_folders_do_not_matter(searched: Run) -> None:
    last = leaders(searched)[-1].number
    done = promote(searched, [last, last])
    assert [promotion.trial for promotion in done] == [last]
    stray = searched.workdir / "promotions" / "copy of 3"
    stray.mkdir()
    (stray / "metrics.json").write_text("{}")
    assert promoted(searched) == [last]


def test_trials_of_another_cache_are_neither_promoted_nor_exported(searched: Run) -> None:
    promote(searched)
    features = searched.features.model_copy(update={"seed": 1, "copies": 0})
    other = searched.model_copy(update={"features": features})
    build_cache(other)
    message = (
        r"trial \d was trained on the cache [0-9a-f]{16}, but the configuration now refers to [0-9a-f]{16}. Restore the"
    )
    with pytest.raises(UsageError, match=message):
        promote(other)
    with pytest.raises(UsageError, match=message):
        export(other, None, ["keras"])


def test_promoted_trials_are_ranked_by_accuracy_then_loss_then_number(searched: Run) -> None:
    tuned = [(0.98, 0.41), (0.98, 0.156), (0.99, 0.9), (0.5, 0.1)]
    numbers = [
        fabricate_promotion(searched, place, {"accuracy": accuracy, "loss": loss})
        for place, (accuracy, loss) in enumerate(tuned)
    ]
    wanted = [numbers[place] for place in (2, 1, 0, 3)]
    assert promoted(searched) == wanted


def test_promoted_trials_are_ranked_by_the_objective_of_the_search(searched: Run) -> None:
    tuned = [(0.9, 0.6, 2.0), (0.5, 0.7, 0.1), (0.5, 0.7, 0.3)]  # accuracy, top-5 accuracy, loss
    names = ("accuracy", "top5_accuracy", "loss")
    numbers = [
        fabricate_promotion(searched, place, dict(zip(names, values, strict=True)))
        for place, values in enumerate(tuned)
    ]
    orders = {"val_accuracy": (0, 1, 2), "val_loss": (1, 2, 0), "val_top5_accuracy": (1, 2, 0)}
    for objective, places in orders.items():
        search = searched.search.model_copy(update={"objective": objective})
        assert promoted(searched.model_copy(update={"search": search})) == [numbers[place] for place in places]


def test_after_a_confirmation_its_ranking_comes_first(searched: Run) -> None:
    """Export, report and model card take the first; here the confirmed best has the lowest accuracy after its fine-tuning."""
    numbers = [fabricate_promotion(searched, place, {"accuracy": 0.9 - 0.1 * place, "loss": 1.0}) for place in range(4)]
    made = fabricate_confirmation(searched, 3, (numbers[1],))
    first = [each.number for each in made.confirmed if each.failure is None]
    assert sorted(first) == sorted((numbers[0], numbers[2]))
    assert promoted(searched) == [*first, numbers[3], numbers[1]]
    assert headline(searched)[0][1].startswith(f"test, trial {first[0]}, recipe 0a1b2c3d, fine-tuned: ")
    assert load_predictions(searched).trial == first[0]
    # A trial found by the search since then makes the confirmation stale.
    (searched.workdir / "confirm.json").write_text("{")
    assert promoted(searched) == numbers
