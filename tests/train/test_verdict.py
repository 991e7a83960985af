"""The verdict: intervals of paired differences, its sentences, and its photo counts."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from features.building.build import build_cache
from reports.config import Run
from search.leaderboard import leaders
from tests.conftest import run_headhunt
from tests.fabricated import fabricate_promotion
from train.baselines.measure import measure_baselines
from train.ledger_summary import usage_of_test_photos
from train.promotion.artifact import find_promotions
from train.promotion.promote import promote
from train.verdict import Difference, Verdict, best_verdict, paired_interval, verdict_of


def drawn(random: np.random.Generator, photos: int, studies: int, only_first: float, only_second: float) -> np.ndarray:
    """Whether a network and a baseline classify each photo correctly: (studies, photos, 2) bool; both are right on 70 %."""
    kind = random.choice(4, (studies, photos), p=[0.7, only_first, only_second, 0.3 - only_first - only_second])
    return np.stack([(kind == 0) | (kind == 1), (kind == 0) | (kind == 2)], axis=-1)


@pytest.mark.parametrize(
    ("photos", "only_first", "only_second"), [(49, 0.1, 0.1), (313, 0.08, 0.03), (1000, 0.02, 0.02)]
)
def test_the_interval_holds_the_true_difference_in_95_of_100_studies(
    photos: int, only_first: float, only_second: float
) -> None:
    studies = drawn(np.random.default_rng(3), photos, 2000, only_first, only_second)
    intervals = np.array([paired_interval(*study.T)[1:] for study in studies])
    truth = only_first - only_second
    covered = ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()
    assert 0.935 <= covered <= 0.975


def test_on_many_photos_it_is_that_of_a_paired_bootstrap() -> None:
    first, second = drawn(np.random.default_rng(5), 3000, 1, 0.08, 0.05)[0].T
    difference, low, high = paired_interval(first, second)
    resampled = bootstrap(
        (first.astype(float) - second,),
        np.mean,
        n_resamples=4000,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    assert difference == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx((resampled.low, resampled.high), abs=1.5e-3)


def test_equal_answers_are_no_certainty_and_no_interval_leaves_what_is_possible() -> None:
    right = np.ones(20, np.bool_)
    difference, low, high = paired_interval(right, right)
    assert difference == 0 and low < -0.05 and high > 0.05
    difference, low, high = paired_interval(right, ~right)
    assert difference == 1 and 0.7 < low < 1 and high == pytest.approx(1)


def difference(accuracy: float, difference: float, low: float, high: float) -> Difference:
    return Difference(accuracy=accuracy, difference=difference, low=low, high=high)


NEIGHBOURS = {"nearest_neighbours": difference(0.60, 0.20, 0.12, 0.28)}
THAN_NEIGHBOURS = "Better than the k-nearest neighbours (60.0 %): +20.0 points (+12.0 to +28.0)."


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (difference(0.70, 0.10, 0.04, 0.16), "Better than the linear probe (70.0 %): +10.0 points (+4.0 to +16.0)."),
        (
            difference(0.79, 0.01, -0.02, 0.04),
            "Not clearly different from the linear probe (79.0 %): +1.0 points (-2.0 to +4.0). "
            f"{THAN_NEIGHBOURS} These photos do not show that search and fine-tuning gained anything over the probe, the simpler "
            "model.",
        ),
        (
            difference(0.90, -0.10, -0.16, -0.04),
            f"Worse than the linear probe (90.0 %): -10.0 points (-16.0 to -4.0). {THAN_NEIGHBOURS} Use the probe, or search "
            "more widely.",
        ),
    ],
)
def test_what_it_says(probe: Difference, sentence: str) -> None:
    told = START + (sentence if THAN_NEIGHBOURS in sentence else f"{sentence} {THAN_NEIGHBOURS}")
    assert verdict_against(linear_probe=probe, **NEIGHBOURS).text == told


START = "Trial 3, frozen: 80.0 % of 313 test photos (95 % interval 75.2 % to 84.1 %). "


def verdict_against(**found: Difference) -> Verdict:
    return Verdict(title="trial 3, frozen", trial=3, photos=313, accuracy=0.8, low=0.752, high=0.841, against=found)


def test_the_probe_is_not_compared_with_itself() -> None:
    found = {"linear_probe": difference(0.8, 0.0, -0.05, 0.05), **NEIGHBOURS}
    itself = verdict_against(**found).model_copy(update={"is_probe": True})
    assert itself.text == f"{START}It is the linear probe itself. {THAN_NEIGHBOURS}"
    text = itself.model_copy(update={"is_first": True}).text
    assert text == f"{START}It is the linear probe itself: no head that was trained is better. {THAN_NEIGHBOURS}"


def test_it_says_what_it_was_not_compared_with() -> None:
    run = "run `headhunt train baselines`."
    assert verdict_against().text == (
        f"{START}It was not compared with the linear probe and the k-nearest neighbours: {run}"
    )
    without_neighbours = verdict_against(linear_probe=difference(0.70, 0.10, 0.04, 0.16)).text
    assert without_neighbours.endswith(f"(+4.0 to +16.0). It was not compared with the k-nearest neighbours: {run}")
    assert verdict_against(**NEIGHBOURS).text == (
        f"{START}{THAN_NEIGHBOURS} It was not compared with the linear probe: {run}"
    )


def test_only_the_same_photos_are_compared_one_by_one(searched: Run) -> None:
    measure_baselines(searched, "linear_probe")
    fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    same = verdict_of(searched, promotion)
    assert same.against is not None and set(same.against) == {"linear_probe"}
    file = promotion.folder / "predictions.csv"
    table = pd.read_csv(file)
    places = table.index[table["split"] == "test"]
    table.loc[places] = table.loc[places[::-1]].to_numpy()  # as many photos, in another order
    table.to_csv(file, index=False)
    other = verdict_of(searched, promotion)
    assert (other.accuracy, other.against) == (None, None)
    assert other.text == (
        f"No verdict: {file} is damaged or does not match the index: its test photos are different or in another order. "
        "Delete its folder, then rerun `headhunt train promote`."
    )


def test_there_is_none_between_results_of_two_caches_or_objectives(searched: Run) -> None:
    fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    other = searched.model_copy(update={"features": searched.features.model_copy(update={"seed": 1})})
    build_cache(other)
    measure_baselines(other, "linear_probe")
    text = verdict_of(other, promotion).text
    assert re.match(
        r"No verdict: trial \d was trained on the cache \w{16}, but the configuration now refers to \w{16}", text
    )
    search = searched.search.model_copy(update={"objective": "val_loss"})
    text = verdict_of(searched.model_copy(update={"search": search}), promotion).text
    assert text.startswith(
        "No verdict: search.objective: received val_loss, but the study 'tiny' searches by val_accuracy."
    )


def test_a_trial_is_first_if_it_ranks_before_others(searched: Run) -> None:
    for place in (0, 1):
        trial = fabricate_promotion(searched, place)
        (promotion,) = (each for each in find_promotions(searched) if each.trial == trial)
        assert verdict_of(searched, promotion).is_first == (place == 0)


def test_where_the_only_promotion_is_damaged_it_says_so(searched: Run) -> None:
    assert best_verdict(searched).text == "No verdict: nothing is promoted yet."
    fabricate_promotion(searched)
    (file,) = searched.workdir.glob("promotions/*/metrics.json")
    file.write_text("{")
    assert re.match(r"No verdict: run/promotions/\S*metrics.json is damaged \(", best_verdict(searched).text)


def test_promote_begins_with_it_and_the_ledger_counts_the_test_photos(searched: Run) -> None:
    done = run_headhunt(Path(), "train", "promote", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert next(iter(result)) == "verdict"
    (row,) = result["promotions"]
    table = pd.read_csv(Path(row["folder"]) / "predictions.csv").query("split == 'test'")
    verdict = result["verdict"]
    assert verdict["photos"] == len(table)
    assert verdict["accuracy"] == pytest.approx((table["label"] == table["predicted_1"]).mean())
    tested = {each["name"]: each["test"]["accuracy"] for each in result["baselines"]}
    for name, found in verdict["against"].items():
        assert found["accuracy"] == pytest.approx(tested[name])
        assert found["difference"] == pytest.approx(verdict["accuracy"] - tested[name])
    # The console shows it before the table of numbers.
    shown = done.stderr.replace("\n", " ")
    assert 0 < shown.index(verdict["text"][:40]) < shown.index("test ECE")
    with (searched.workdir / "test_ledger.csv").open() as file:
        lines = list(csv.DictReader(file))
    folder = Path(row["folder"]).name
    assert [(line["command"], line["model"], line["photos"]) for line in lines] == [
        ("train promote", f"frozen head of {folder}", str(len(table))),
        ("train promote", f"exported network of {folder}", str(len(table))),
        *(("train promote", each["title"], str(len(table))) for each in result["baselines"]),
    ]
    again = run_headhunt(Path(), "train", "promote", "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == result
    assert len((searched.workdir / "test_ledger.csv").read_text().splitlines()) == 1 + len(lines)
    last = leaders(searched)[-1].number
    other = run_headhunt(Path(), "train", "promote", "--trial", str(last), "--json")
    assert json.loads(other.stdout.splitlines()[-1])["verdict"]["trial"] == last
    told = " ".join(other.stderr.split())
    assert f"`headhunt train export` still exports trial {row['trial']}, {row['stage']}, which ranks first." in told


def test_the_test_photos_are_left_alone_until_they_are_asked_for(searched: Run) -> None:
    train = searched.train.model_copy(update={"evaluate_test": False})
    (promotion,) = promote(searched.model_copy(update={"train": train}))
    assert not (searched.workdir / "test_ledger.csv").exists()
    assert set(promotion.tuned.evaluated()) == set(promotion.frozen.evaluated()) == {"train", "val"}
    assert set(pd.read_csv(promotion.folder / "predictions.csv")["split"]) == {"val"}
    assert (
        "No verdict: the test photos were not evaluated because `train.evaluate_test` is false."
        in best_verdict(searched).text
    )
    assert usage_of_test_photos(searched) == "The test photos were not used."
    history = (promotion.folder / "history.csv").read_bytes()
    (evaluated,) = promote(searched)
    assert evaluated.tuned.test is not None
    assert (promotion.folder / "history.csv").read_bytes() == history  # nothing was retrained
