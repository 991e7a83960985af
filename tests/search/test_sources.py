"""What trials train on: the caches of several augmentation policies as one array."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from features.building.build import build_caches
from features.cache.feature_cache import cache_for
from features.cache.views import Views
from features.runtime.errors import UsageError
from headhunt import cli
from reports.config import Run
from search.leaderboard import check_cache, leaders
from search.population.sources import Caches, load_features
from tests.conftest import run_headhunt
from train.promotion.promote import promote


def changed(run: Run, **search: object) -> Run:
    """The run with mild views cached in addition to its own policy's, and another `search` section."""
    features = run.features.model_copy(update={"augmentation": ["flip_rotate_zoom", "mild"]})
    section = type(run.search).model_validate({**run.search.model_dump(mode="json"), **search})
    return run.model_copy(update={"features": features, "search": section})


def with_policies(run: Run, policies: list[str]) -> Run:
    space = {**run.search.space.model_dump(mode="json"), "views": {"policy": policies, "clean_share": [0.0, 0.5]}}
    return changed(run, space=space, sampler="random")


def test_the_copies_of_every_policy_follow_the_clean_photos(searched: Run) -> None:
    run = with_policies(searched, ["flip_rotate_zoom", "mild"])
    build_caches(run)
    caches = Caches(run)
    assert [(source.policy, source.copies) for source in caches.sources] == [("flip_rotate_zoom", 2), ("mild", 2)]
    found = load_features(caches.sources)
    assert len(found.train) == 5
    for policy, first in (("flip_rotate_zoom", 1), ("mild", 3)):
        cache = cache_for(run, policy)
        assert caches.of(Views(policy=policy)).key == cache.key
        for copy in (1, 2):
            assert (found.train[first + copy - 1] == cache.arrays("train", copy)[0]).all()
        views = caches.checked(Views(policy=policy, clean_share=0.5, draw="per_image"))
        rows, copies = found.rows_of_epoch(views, 3, 0), views.of_epoch(3, len(found.train_labels), 0)
        assert ((rows == 0) == (copies == 0)).all()
        assert (rows[rows > 0] == copies[copies > 0] + first - 1).all()
    assert (found.train[0] == cache_for(run).arrays("train")[0]).all()
    assert not np.array_equal(found.train[1], found.train[3])


def test_a_search_over_policies_names_each_trials_cache_and_promotion_takes_it(searched: Run) -> None:
    run = with_policies(searched, ["flip_rotate_zoom", "mild"])
    chosen = {
        "features.augmentation": ["flip_rotate_zoom", "mild"],
        "search.space": run.search.space.model_dump(mode="json"),
        "name": "both",
    }
    options = [part for name, value in chosen.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    for file in Path("run/trials").rglob("*"):
        if file.is_file():
            file.unlink()
    for stage in (("features", "cache"), ("search", "run")):
        run_headhunt(Path.cwd(), *stage, *options)
    run = run.model_copy(update={"name": "both"})
    keys = {policy: cache_for(run, policy).key for policy in ("flip_rotate_zoom", "mild")}
    found = leaders(run)
    assert {leader.config.views.policy for leader in found} == set(keys)
    for leader in found:
        assert leader.cache_key == keys[leader.config.views.policy or ""]
        check_cache(run, leader)
    best = next(leader.number for leader in found if leader.config.views.policy == "mild")
    assert fine_tuned(run, best, None) == fine_tuned(run, best, "mild") != fine_tuned(run, best, "flip_rotate_zoom")


def fine_tuned(run: Run, trial: int, augmentation: str | None) -> list[float]:
    """The losses, epoch by epoch, of a promotion augmented with this policy, or with that of the trial's views."""
    finetune = run.train.finetune.model_copy(update={"augmentation": augmentation, "clean_share": 0.0, "epochs": 1})
    run = run.model_copy(update={"train": run.train.model_copy(update={"finetune": finetune})})
    (promotion,) = promote(run, [trial])
    losses: list[float] = pd.read_csv(promotion.folder / "history.csv")["loss"].tolist()[1:]
    return losses


def test_a_policy_that_is_not_cached(searched: Run) -> None:
    message = r"views.policy: received 'rand_augment', but only these are cached: flip_rotate_zoom, mild. Add it"
    with pytest.raises(UsageError, match=message):
        Caches(with_policies(searched, ["rand_augment"]))
    with pytest.raises(UsageError, match=message):
        Caches(changed(searched, views={"policy": "rand_augment"}))
    with pytest.raises(UsageError, match=r"views.copies: 9 copies are requested, but 2 are cached"):
        Caches(changed(searched, views={"copies": 9}))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"views": {"policy": "flip"}}, "search.views.policy: received 'flip', but only these are cached: mild. Add"),
        ({"space": {"views": {"policy": ["mild", "flip"]}}}, "search.space.views.policy: received 'flip', but only"),
        (
            {"space": {"features": {"parts": ["avg", "gem:3"]}}},
            "search.space.features.parts: received 'gem:3'; the cache has avg, max",
        ),
        ({"space": {"features": {"parts": ["none", "avg"]}}}, "search.space.features.parts: received 'none'; the cache has"),
    ],
)  # fmt: skip
def test_what_features_lacks_is_refused_before_anything_is_cached(
    search: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = {"name": "x", "dataset": {"kind": "toy_cars"}, "features": {"pooling": "avg+max"}, "search": search}
    Path("headhunt.yaml").write_text(yaml.safe_dump(raw))
    for command in (["search", "run", "--dry-run"], ["run"]):
        refused = CliRunner().invoke(cli.app, command)
        assert refused.exit_code == 2
        assert message in " ".join(refused.stderr.split())
    del raw["search"]
    Path("headhunt.yaml").write_text(yaml.safe_dump(raw))
    assert CliRunner().invoke(cli.app, ["search", "run", "--dry-run"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["headhunt.yaml"]
