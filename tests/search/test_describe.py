"""Configurations as text."""

from __future__ import annotations

from typing import Any

import pytest

from features.cache.views import Views
from search.heads import HeadConfig
from search.optimizers import SGD, Adam, AdamW
from search.review.describe import describe, head_line, optimizer_line, schedule_line, short, show, views_line
from search.schedules import SCHEDULES, Constant, OneCycle, Plateau, StepDecay, WarmupCosine
from search.trial import HypermodelChoice, TrialConfig

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (HeadConfig(), "no hidden layer"),
        (HeadConfig(units=(256,), dropout=0.30000000000000004, l2=1e-4), "256-relu, dropout 0.3, l2 1e-4"),
        (HeadConfig(units=(512, 128), activation="gelu", batch_norm=True), "512-128-gelu, batch normalisation"),
        (HeadConfig(label_smoothing=0.1, standardize=False), "no hidden layer, label smoothing 0.1, features not standardised"),
    ],
)  # fmt: skip
def test_heads(head: HeadConfig, said: str) -> None:
    assert head_line(head) == said


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (Constant(learning_rate=5e-4), "constant, learning rate 5e-4"),
        (StepDecay(learning_rate=0.00772), "step_decay, learning rate 0.00772, factor 0.5, every 10 epochs, floor 1e-6"),
        (WarmupCosine(warmup_epochs=1), "warmup_cosine, learning rate 1e-3, warmup 1 epoch, down to 0"),
        (OneCycle(), "one_cycle, learning rate 1e-3, rising for 30 %, from 4 %, down to 4e-4 %"),
        (Plateau(), "plateau, learning rate 1e-3, factor 0.5, patience 5 epochs, floor 1e-6"),
        (Plateau(rise_factor=3), "plateau, learning rate 1e-3, factor 0.5, patience 5 epochs, floor 1e-6, rise factor 3, "
         "rise 5 epochs, rise at plateau 1"),
    ],
)  # fmt: skip
def test_schedules(schedule: Any, said: str) -> None:
    assert schedule_line(schedule) == said


def test_every_schedule_has_words() -> None:
    for kind, schedule in SCHEDULES.items():
        assert schedule_line(schedule()).startswith(f"{kind}, learning rate 1e-3")


def test_optimisers() -> None:
    assert [optimizer_line(one) for one in (Adam(), AdamW(), SGD())] == [
        "adam",
        "adamw, weight decay 0.004",
        "sgd, momentum 0.9",
    ]


@pytest.mark.parametrize(
    ("views", "said"),
    [
        (Views(), "all copies"),
        (Views(copies=0), "clean photos"),
        (Views(copies=1), "1 copy"),
        (Views(copies=8, clean_share=0.25, draw="per_image", policy="mild"), "8 copies, per image, 25 % clean, mild"),
    ],
)
def test_views(views: Views, said: str) -> None:
    assert views_line(views) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (1e-4, "1e-4"), (0.0006962, "6.96e-4"),
     (0.5, "0.5"), (123.4, "123"), (2345.0, "2345"), (3, "3"), (True, "True")],
)  # fmt: skip
def test_numbers(value: Any, said: str) -> None:
    assert show(value) == said


def test_a_hypermodel_is_its_function_and_its_values() -> None:
    config = TrialConfig(hypermodel=HypermodelChoice(function="heads:build", values={"units": 64, "rate": 1e-4}))
    assert describe(config)["hypermodel"] == "heads:build"
    assert short(config) == ["units 64, rate 1e-4"]
    assert "head" not in describe(config)
    assert short(TrialConfig()) == ["no hidden layer", "constant, learning rate 1e-3"]
