"""Exports: the network in plain Keras, and a configuration that runs again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from features.configfile import load
from features.errors import HeadhuntError, UsageError
from reports.config import Run
from search.leaderboard import leaders
from train.export import export
from train.promote import promote


def test_a_bundle(searched: Run) -> None:
    number = promote(searched)["promotions"][0]["trial"]
    result = export(searched, None, ["keras", "config"])
    assert result["trial"] == number
    assert result["formats"]["keras"]["max_abs_difference"] < 1e-5
    folder = Path(result["folder"])
    assert (folder / "labels.txt").read_text() == "a\nb\nc\n"
    card = (folder / "model_card.md").read_text()
    (tested,) = [line for line in card.splitlines() if line.startswith("| fine-tuned | test |")]
    assert re.search(r"\| \d+\.\d\d% \(\d+\.\d% to \d+\.\d%\) \|", tested)
    assert "the test photos were used once, after every choice was made." in card
    again = load(Run, folder / "headhunt.yaml")
    leader = leaders(searched, 1)[0]
    assert again.search.trials == 1
    assert again.search.space.size() == 1
    assert again.search.space.schedule["learning_rate"] == leader.config.schedule.learning_rate
    assert again.workdir == Path(f"run-trial-{number}")
    assert again.features == searched.features


def test_nothing_promoted(searched: Run) -> None:
    with pytest.raises(UsageError, match=r"nothing is promoted in run. Run `headhunt train promote`"):
        export(searched, None, ["keras"])
    with pytest.raises(
        UsageError, match=r"trial 3 has no finished promotion at .*Run `headhunt train promote --trial 3`"
    ):
        export(searched, 3, ["keras"])


def test_an_unknown_format(searched: Run) -> None:
    with pytest.raises(UsageError, match=r"--format: received 'onxx'; allowed: keras, config"):
        export(searched, None, ["keras", "onxx"])


def test_a_model_that_is_not_the_promoted_one_is_refused(searched: Run) -> None:
    number = promote(searched)["promotions"][0]["trial"]
    import keras

    file = Path("run") / "promotions" / str(number) / "model.keras"
    model = keras.saving.load_model(file)
    model.get_layer("head").get_layer("classifier").bias.assign([3.0, 0.0, -3.0])
    model.save(file)
    with pytest.raises(HeadhuntError, match=r"predicts otherwise than the promotion did: probabilities differ by"):
        export(searched, number, ["keras"])
