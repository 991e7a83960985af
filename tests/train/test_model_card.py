"""What the model card and the page call a network: frozen, or fine-tuned alone or together with its backbone."""

from __future__ import annotations

from typing import Any

import pytest

from features.cache import cache_for
from reports.config import Run
from reports.models import promotions
from search.leaderboard import leaders
from tests.fabricated import fabricate_promotion
from train.exports.model_card import model_card
from train.promotion.artifact import find_promotion
from train.verdict import verdict_of

CACHED = "a head that was searched for on cached features"


@pytest.mark.parametrize(
    ("made", "sentence", "tuned", "stages"),
    [
        (
            {"best_epoch": 0, "unfrozen": [], "tuned": {"accuracy": 0.125}},
            f"{CACHED}.",
            "5 epochs. No epoch was better than the frozen network, which it is. In float32, as it is exported, it has 12.5 % of "
            "the validation photos right, against 40.0 % on the cached features, which are less precise.",
            ["frozen"],
        ),
        (
            {"best_epoch": 0, "unfrozen": []},
            f"{CACHED}.",
            "5 epochs. No epoch was better than the frozen network, which it is.",
            ["frozen"],
        ),
        (
            {"unfrozen": []},
            f"{CACHED} and then fine-tuned alone.",
            "the head alone, 5 epochs. The best was epoch 5.",
            ["frozen", "fine-tuned, head alone"],
        ),
        (
            {"unfrozen": ["conv", "conv_1"]},
            f"{CACHED} and then fine-tuned together with the backbone.",
            "the head and 2 layers of the backbone, 5 epochs. The best was epoch 5.",
            ["frozen", "fine-tuned"],
        ),
    ],
)
def test_what_was_fine_tuned(searched: Run, made: dict[str, Any], sentence: str, tuned: str, stages: list[str]) -> None:
    promotion = find_promotion(searched, fabricate_promotion(searched, **made))
    verdict = verdict_of(searched, promotion)
    lines = model_card(searched, leaders(searched)[0], cache_for(searched), promotion, verdict, {}).splitlines()
    assert lines[4].endswith(sentence)
    assert f"- fine-tuning: {tuned}" in lines
    assert ("fine-tuned" in lines[2]) == ("fine-tuned" in stages[-1])
    assert [row.stage for row in promotions.collect(searched, [promotion])] == stages
