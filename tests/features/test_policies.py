"""One or several augmentation policies: their configuration and their caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from tensorflow.data import TFRecordDataset

from features.augmentation.policies import augmentation_of, of_policy, policy_copies, policy_name, with_policies
from features.building.build import build_caches
from features.building.doctor import repair, verify
from features.cache.feature_cache import cache_for
from features.cache.keys import explain_key, key_parts
from features.cache.manifest import cache_key
from features.config import FeaturesConfig, FeaturesRun
from features.dataset.index import DatasetIndex, load_index
from features.run_file import load
from features.runtime.errors import CacheError, UsageError
from headhunt.run import _cached

MakeRun = Callable[..., FeaturesRun]

FLIPS = [{"layer": "RandomFlip", "mode": "vertical"}]


@pytest.mark.parametrize(
    ("value", "copies"),
    [
        ("mild", {"mild": 5}),
        (FLIPS, {"custom": 5}),
        ([], {"custom": 5}),
        ({"policy": "mild", "clean_probability": 0.5}, {"mild": 5}),
        ({"layers": FLIPS, "name": "flips", "copies": 0}, {"flips": 0}),
        (["mild"], {"mild": 5}),
        (["mild", {"policy": "flip_rotate_zoom", "copies": 2}], {"mild": 5, "flip_rotate_zoom": 2}),
        ([{"layers": FLIPS, "name": "flips", "copies": 1}, {"policy": "mild"}], {"flips": 1, "mild": 5}),
    ],
)
def test_every_form_of_the_policies_and_their_copies(value: Any, copies: dict[str, int]) -> None:
    config = FeaturesConfig(copies=5, augmentation=value)
    assert policy_copies(config) == copies
    assert policy_name(config) == next(iter(copies))
    again = FeaturesConfig.model_validate_json(config.model_dump_json())
    assert again == config


def test_a_policy_alone_is_what_it_is_as_the_only_one() -> None:
    listed = FeaturesConfig(copies=5, augmentation=["mild", {"layers": FLIPS, "name": "flips", "copies": 1}])
    alone = FeaturesConfig(copies=1, augmentation={"layers": FLIPS, "name": "flips"})
    assert augmentation_of(listed, "flips") == augmentation_of(alone)
    assert not hasattr(augmentation_of(alone), "copies")
    assert augmentation_of(listed) == "mild"
    more = with_policies(listed, ["mild", "flip_rotate_zoom"], 7)
    assert policy_copies(more) == {"mild": 7, "flips": 7, "flip_rotate_zoom": 7}
    assert policy_copies(with_policies(alone, [], 7)) == {"flips": 7}


def test_the_default_is_four_copies_of_mild_views() -> None:
    assert policy_copies(FeaturesConfig()) == {"mild": 4}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"augmentation": ["mild", "mild"]},
            "features.augmentation: received ['mild', 'mild']; two policies are called 'mild'",
        ),
        (
            {"augmentation": [{"layers": FLIPS}, "mild", {"layers": FLIPS}]},
            "two policies are called 'custom', but names must be unique. Keep one of them, or write {layers: [...], name: ",
        ),
        (
            {"augmentation": ["mild", *FLIPS]},
            "entry 1 is a Keras layer, but other entries are policies. For a policy of layers, write {layers: [...], name",
        ),
        (
            {"augmentation": ["mild", 3]},
            "features.augmentation.1: received 3; a policy must be a name, or {policy | layers, name,",
        ),
        (
            {"augmentation": ["mild", {"policy": "flipp"}]},
            "features.augmentation.1.policy: received 'flipp'; allowed: none, mild",
        ),
        (
            {"augmentation": ["mild", {"policy": "none", "copie": 2}]},
            "features.augmentation.1.copie: unknown key. Did you mean 'copies'? Allowed: policy, name, layers, clean_probability",
        ),
        (
            {"augmentation": ["mild", {"policy": "none", "copies": -1}]},
            "features.augmentation.1.copies: received -1; input should be greater than or equal to 0",
        ),
        (
            {"augmentation": "mild", "other_policies": ["flip_rotate_zoom"]},
            "features: other_policies was removed. Write augmentation: [mild, flip_rotate_zoom].",
        ),
        (
            {"other_policies": ["mild"]},
            "other_policies was removed. Write augmentation: [flip_rotate_zoom, mild].",
        ),
        ({"other_policies": []}, "other_policies was removed. Remove it; augmentation lists all policies."),
        (
            {"augmentation": FLIPS, "other_policies": ["mild"]},
            "Write augmentation: [{layers: [{layer: RandomFlip, mode: vertical}]}, mild].",
        ),
    ],
)
def test_wrong_policies(tmp_path: Path, features: dict[str, Any], message: str) -> None:
    file = tmp_path / "headhunt.yaml"
    file.write_text(yaml.safe_dump({"dataset": {"kind": "toy_cars"}, "features": features}))
    with pytest.raises(UsageError) as refused:
        load(FeaturesRun, file)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2, "one message"


KEYS = {
    "540ca586f5b4704ca81e718743182890ab1f25dac9fcb0cb1b7250ac74d2bc93": "flip_rotate_zoom",
    "c8d1f0be547447097c707cc76e289639ccad8c3d28e9f40fba0cfe1cc08368aa": {"policy": "mild", "clean_probability": 0.25},
    "320300935a5ff0efad79fdc680911ffa4d662e30692030d57019d9d311036d66": [
        {"layer": "RandomFlip", "mode": "horizontal"},
        {"layer": "RandomBrightness", "factor": 0.2},
    ],
    "d03c5b425e01046aeba5f71e6c43d760e4e9a959efbcf47061ec730a3065f33e": {"layers": FLIPS, "name": "flips"},
}
"""Policies by the cache key at commit 02ad395, when features.augmentation took a single policy."""


@pytest.mark.parametrize("key", KEYS)
def test_caches_of_one_policy_keep_their_keys(key: str) -> None:
    boxes = {name: [value, value] for name, value in (("x1", 1), ("y1", 1), ("x2", 9), ("y2", 9))}
    columns = {"sha256": ["0" * 64, "1" * 64], "label": [0, 1], "split": ["train", "val"], **boxes}
    index = DatasetIndex(pd.DataFrame(columns), ("a", "b"), Path())
    section = {
        "backbone": "efficientnet_lite0", "weights": "random", "image_size": 32, "pooling": "avg", "compute": "float32",
    }  # fmt: skip

    def key_of(augmentation: Any) -> str:
        features = {**section, "augmentation": augmentation}
        run = FeaturesRun.model_validate({"dataset": {"kind": "folder", "root": "x"}, "features": features})
        return cache_key(key_parts(run, index))

    assert key_of(KEYS[key]) == key
    if not isinstance(KEYS[key], list):
        assert key_of([KEYS[key], "rand_augment"]) == key, "the first of several is the configuration's own"


def test_caches_of_several_policies_with_their_own_copies(make_run: MakeRun) -> None:
    policies = ["mild", {"layers": FLIPS, "name": "flips", "copies": 2}, {"policy": "none", "copies": 0}]
    run = make_run(augmentation=policies)
    built = build_caches(run)
    assert (built["copies"], {name: other["copies"] for name, other in built["others"].items()}) == (
        1,
        {"flips": 2, "none": 0},
    )
    shards = {path.stat().st_ino: path for path in run.workdir.glob("cache/*/*.tfrecord")}.values()
    records = sum(1 for path in shards for _ in TFRecordDataset(str(path)))
    assert _cached([built, *built["others"].values()], images=24).startswith(f"{records} feature vectors, 1 augmented")
    caches = {name: cache_for(run, name) for name in policy_copies(run.features)}
    assert [cache.manifest.policy for cache in caches.values()] == list(caches)
    clean = caches["mild"].arrays("train")[0]
    for cache in caches.values():
        np.testing.assert_array_equal(cache.arrays("train")[0], clean)
    alone = make_run("alone", augmentation={"layers": FLIPS, "name": "flips"}, copies=2)
    build_caches(alone)
    assert cache_for(alone).key == caches["flips"].key
    np.testing.assert_array_equal(cache_for(alone).arrays("train", 2)[0], caches["flips"].arrays("train", 2)[0])
    assert build_caches(run)["others"]["flips"]["shards_written"] == 0
    with pytest.raises(
        UsageError,
        match=r"views.policy: received 'rand_augment', but only these are cached: mild, flips, none. Add it to",
    ):
        cache_for(run, "rand_augment")
    grown = make_run(augmentation=["mild", {"layers": FLIPS, "name": "flips", "copies": 3}])
    with pytest.raises(
        CacheError, match=r"3 copies of flips are configured, but the cache has 2. Run `headhunt features"
    ):
        cache_for(grown, "flips")


def test_damage_in_the_cache_of_any_policy_is_found_and_repaired(make_run: MakeRun) -> None:
    run = make_run(augmentation=["mild", {"policy": "flip_rotate_zoom", "copies": 2}])
    build_caches(run)
    sound = verify(run)
    assert (sound["ok"], sound["faults"]) == (True, [])
    sizes = [verify(of_policy(run, name))["bytes"] for name in ("mild", "flip_rotate_zoom")]
    assert sound["bytes"] == sum(sizes)
    lost = [next(cache_for(run, name).folder.glob("train-c001*.tfrecord")) for name in ("mild", "flip_rotate_zoom")]
    before = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    found = verify(run)
    assert not found["ok"]
    assert [(fault["shard"], fault.get("policy")) for fault in found["faults"]] == [
        (lost[0].name, None),
        (lost[1].name, "flip_rotate_zoom"),
    ]
    repaired = repair(run)
    assert (repaired["repaired"], repaired["others"]["flip_rotate_zoom"]["repaired"]) == (
        [lost[0].name],
        [lost[1].name],
    )
    assert [path.read_bytes() for path in lost] == before
    assert verify(run)["ok"]


def test_two_policies_of_the_same_layers_are_refused(make_run: MakeRun) -> None:
    run = make_run(augmentation=[{"layers": FLIPS, "name": "flips"}, "mild", {"layers": FLIPS, "name": "mine"}])
    with pytest.raises(UsageError, match="'flips' and 'mine' have the same layers, so they would share one cache"):
        build_caches(run)


@pytest.mark.parametrize(("copies", "said"), [(1, True), (0, False)])
def test_copies_that_repeat_the_clean_photos_are_said(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], copies: int, said: bool
) -> None:
    build_caches(make_run(augmentation="none", copies=copies))
    told = " ".join(capsys.readouterr().err.split())
    assert ("The policy none changes nothing: its copies repeat the clean photos. Set its `copies: 0`" in told) == said


def test_what_differs_is_shown_from_where_it_begins(make_run: MakeRun) -> None:
    build_caches(make_run(augmentation="flip_rotate_zoom"))
    run = make_run(augmentation="mild")
    said = explain_key(run, key_parts(run, load_index(run)))
    has, wanted = said.partition("augmentation (has ")[2].split(", wanted ")
    assert has[:20] == wanted[:20]
    assert has != wanted.removesuffix(")")
    assert len(has) <= 60
