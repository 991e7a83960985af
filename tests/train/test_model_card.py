"""How the model card and the page describe a network: frozen, or its head fine-tuned alone or with the backbone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from features.cache.feature_cache import cache_for
from features.cache.views import Views
from reports.config import Run
from reports.models import promotions
from search.leaderboard import leaders
from tests.fabricated import fabricate_promotion
from train.config import FinetuneConfig, PhaseConfig
from train.exports.model_card import model_card, trained
from train.promotion.artifact import find_promotion
from train.verdict import verdict_of

CACHED = "a head that was found by a search on cached features"


@pytest.mark.parametrize(
    ("made", "sentence", "tuned", "stages"),
    [
        (
            {"best_epoch": 0, "unfrozen": [], "tuned": {"accuracy": 0.125}},
            f"{CACHED}.",
            "5 epochs. No epoch was better than the frozen network, which is kept. Exported in float32, it classifies 12.5 % of "
            "the validation photos correctly, compared with 40.0 % on the cached features, which are less precise.",
            ["frozen"],
        ),
        (
            {"best_epoch": 0, "unfrozen": []},
            f"{CACHED}.",
            "5 epochs. No epoch was better than the frozen network, which is kept.",
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
    cache = cache_for(searched)
    lines = model_card(searched, leaders(searched)[0], cache, promotion, verdict, {}).splitlines()
    assert lines[4].endswith(sentence)
    (line,) = (line for line in lines if line.startswith(f"- fine-tuning: {tuned}"))
    assert line.endswith(f" Its photos were augmented (`{cache.manifest.policy}`).")
    assert ("fine-tuned" in lines[2]) == ("fine-tuned" in stages[-1])
    assert [row.stage for row in promotions.collect(searched, [promotion])] == stages


@pytest.mark.parametrize(
    ("unfreeze", "unfrozen", "said"),
    [
        ([5], 5, ["the head and the last 5 convolutional layers"]),
        ([5], 2, ["the head and the last 2 convolutional layers (the backbone has no more)"]),
        (["head", 3], 1, ["the head", "the head and the last 1 convolutional layer (the backbone has no more)"]),
        ([5], 0, ["the head and at most the last 5 convolutional layers"]),  # frozen: how many it has is not recorded
        (
            [2, 5],
            2,
            ["the head and the last 2 convolutional layers", "the head and at most the last 5 convolutional layers"],
        ),
        (
            ["late", 5],
            3,
            ["the head and the backbone from late on", "the head and at most the last 5 convolutional layers"],
        ),
        (["all"], 9, ["the head and the whole backbone"]),
    ],
)
def test_no_more_layers_are_named_than_the_backbone_has(
    searched: Run, unfreeze: list[int | str], unfrozen: int, said: list[str]
) -> None:
    """The number in the configuration is a limit. What changed is recorded only for the phases that led to the best epoch."""
    made = find_promotion(searched, fabricate_promotion(searched, unfrozen=[f"conv_{n}" for n in range(unfrozen)]))
    plan = FinetuneConfig(phases=tuple(PhaseConfig(unfreeze=what) for what in unfreeze))
    made = made.model_copy(update={"finetune": plan})
    assert trained(made) == said
    card = model_card(searched, leaders(searched)[0], cache_for(searched), made, verdict_of(searched, made), {})
    assert [line[4:].split(": up to")[0] for line in card.splitlines() if line.startswith("  - ")] == said


def test_a_frozen_networks_results_are_those_of_the_exported_network(searched: Run) -> None:
    """Not those of its head on the cached features, which are less precise: the report and the console show the network's."""
    made = fabricate_promotion(searched, best_epoch=0, unfrozen=[], tuned={"accuracy": 0.125})
    promotion = find_promotion(searched, made)
    verdict = verdict_of(searched, promotion)
    card = model_card(searched, leaders(searched)[0], cache_for(searched), promotion, verdict, {})
    assert card.count("| frozen backbone | val |") == card.count("| frozen backbone | val | 12.5 % |") == 1


def test_what_a_trial_was_trained_on_is_said(searched: Run) -> None:
    """Not everything in its cache; fine-tuning uses the policy of the trial's views, unless its section sets another."""
    promotion, leader = find_promotion(searched, fabricate_promotion(searched)), leaders(searched)[0]
    cache, verdict = cache_for(searched), verdict_of(searched, promotion)
    policy = cache.manifest.policy
    plain = promotion.finetune.model_copy(update={"clean_share": 1.0})
    for views, tuning, said, tuned in (
        (Views(policy=policy, copies=0), {}, "clean photos", f"augmented (`{policy}`)."),
        (Views(), {}, f"{cache.copies} copies, rotation, {policy}", f"augmented (`{policy}`)."),
        (
            Views(copies=1, clean_share=0.25),
            {},
            f"1 copy, 25 % clean, {policy}",
            f"augmented (`{policy}`), 25 % of them clean.",
        ),
        (Views(), {"finetune": plain}, f"{cache.copies} copies, rotation, {policy}", "clean."),
    ):
        one = replace(leader, config=leader.config.model_copy(update={"views": views}))
        made = promotion.model_copy(update=tuning)
        card = model_card(searched, one, cache, made, verdict, {})
        assert f"- feature cache: `{cache.key[:16]}`; the head was trained on: {said}\n" in card
        assert f" Its photos were {tuned}\n" in card


def test_the_layers_at_which_the_backbone_is_cut_are_said(searched: Run) -> None:
    promotion, leader = find_promotion(searched, fabricate_promotion(searched)), leaders(searched)[0]
    cache, verdict = cache_for(searched), verdict_of(searched, promotion)
    for cut, said in (
        (None, ""),
        ("early", ", up to `early`"),
        (("early", "late"), ", up to `early` and `late`, each pooled"),
    ):
        run = searched.model_copy(update={"features": searched.features.model_copy(update={"cut": cut})})
        (line,) = [
            one for one in model_card(run, leader, cache, promotion, verdict, {}).splitlines() if "backbone:" in one
        ]
        assert line.endswith(f", weights `{cache.manifest.key_parts['weights']}`{said}")
