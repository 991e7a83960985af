"""The configuration file: wrong input gets one clear message that names the key path."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.backbones.table import pooling
from features.config import FeaturesRun
from features.dataset.config import ColumnSplit, FractionSplit, StanfordCars, ToyCars
from features.run_file import load
from features.runtime.errors import UsageError

TOY = "dataset: {kind: toy_cars}\n"


def read(tmp_path: Path, text: str, *overrides: str) -> FeaturesRun:
    file = tmp_path / "headhunt.yaml"
    file.write_text(text, encoding="utf-8")
    return load(FeaturesRun, file, overrides)


def test_defaults(tmp_path: Path) -> None:
    run = read(tmp_path, "dataset: {kind: stanford_cars, root: data}")
    assert isinstance(run.dataset, StanfordCars)
    assert run.dataset.split == FractionSplit(train=0.65, val=0.20, test=0.15, seed=42)
    assert (run.features.backbone, run.features.dtype) == ("resnet101v2", "float16")
    assert pooling(run.features) == "avg+max+covariance:64"


def test_a_column_split_is_told_by_its_key(tmp_path: Path) -> None:
    run = read(tmp_path, "dataset: {kind: stanford_cars, root: d, split: {column: test}}")
    assert run.dataset.split == ColumnSplit(column="test")


def test_overrides_are_yaml_and_make_missing_sections(tmp_path: Path) -> None:
    run = read(tmp_path, TOY, "features.image_size=[96, 64]", "features.copies=3", "dataset.classes=30")
    assert run.features.image_size == (96, 64)
    assert run.features.copies == 3
    assert isinstance(run.dataset, ToyCars)
    assert run.dataset.classes == 30


def test_numbers_without_a_point_before_the_exponent_are_numbers(tmp_path: Path) -> None:
    run = read(tmp_path, "dataset: {kind: csv, file: a.csv, split: {train: 7e-1, val: 2e-1, test: 1e-1}}")
    assert run.dataset.split == FractionSplit(train=0.7, val=0.2, test=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datset: {kind: toy_cars}", "datset: unknown key. Did you mean 'dataset'?"),
        ("features: {copies: 2}", "dataset: this key is required."),
        (TOY + "features: {copys: 2}", "features.copys: unknown key. Did you mean 'copies'?"),
        ("dataset: {kind: toy_cars, clases: 3}", "dataset.clases: unknown key. Did you mean 'classes'?"),
        (TOY + "features: {copies: -1}", "features.copies: received -1; input should be greater than or equal to 0."),
        (TOY + "features: {copies: many}", "features.copies: received 'many'; input should be a valid integer"),
        (
            TOY + "features: {pooling: avrg}",
            "features.pooling: received 'avrg'; allowed: none, or parts joined by +: avg",
        ),
        ("dataset: {kind: toycars}", "dataset.kind: received 'toycars'; allowed:"),
        ("dataset: {kind: toycars}", "Did you mean 'toy_cars'?"),
        ("dataset: {classes: 3}", "dataset: the key 'kind' is required."),
        ("dataset: {kind: stanford_cars}", "dataset.root: this key is required. Found there: kind."),
        (
            "dataset: {kind: toy_cars, split: {train: 0.5, val: 0.2, test: 0.2}}",
            "dataset.split: train + val + test must be 1, but 0.5 + 0.2 + 0.2 = 0.9.",
        ),
        ("dataset: {kind: toy_cars, split: {trian: 0.5}}", "dataset.split.trian: unknown key. Did you mean 'train'?"),
        (TOY + "features: {image_size: 8}", "image_size must be at least 16 pixels on each side, but got [8, 8]"),
        (
            TOY + "features: {workers: {executor: slurm}}",
            "features.workers.executor: received 'slurm'; allowed: 'auto', 'ray' or 'local'",
        ),
        (TOY + "name: a/b", "name: received 'a/b'"),
        (TOY + "features: {augmentation: flip}", "features.augmentation: received 'flip'; allowed: none, mild,"),
        (TOY + "features: {augmentation: 3}", "features.augmentation: received 3; must be a policy's name, a list of"),
        (TOY + "features: {augmentation: [{mode: x}]}", "features.augmentation.0.layer: this key is required."),
        (TOY + "features: {augmentation: [flip]}", "features.augmentation.0: received 'flip'; allowed: none, mild,"),
        (
            TOY + "features: {augmentation: {policy: mild, clean_probabilty: 0.1}}",
            "features.augmentation.clean_probabilty: unknown key. Did you mean 'clean_probability'?",
        ),
        (
            TOY + "features: {augmentation: {policy: mild, clean_probability: 2}}",
            "features.augmentation.clean_probability: received 2; input should be less than or equal to 1.",
        ),
        (
            TOY + "features: {augmentation: {clean_probability: 0.1}}",
            "features.augmentation: must have either policy (a name) or layers (a list).",
        ),
        (
            TOY + "features: {augmentation: {policy: mild, name: x}}",
            "features.augmentation: name is only for layers; a policy already has a name.",
        ),
        (
            TOY + "features: {augmentation: {layers: [{layer: RandomFlp}]}}",
            "features.augmentation.layers.0.layer: received 'RandomFlp'. Did you mean 'RandomFlip'?",
        ),
        (
            TOY + "features: {image_size: 64, augmentation: [{layer: RandomCrop, height: 60, width: 64}]}",
            "features.augmentation: these layers output photos of 60×64, but features.image_size is 64×64.",
        ),
        (
            TOY + "features: {backbone: resnet101v3}",
            "features.backbone: received 'resnet101v3'. Did you mean resnet101v2",
        ),
        (
            TOY + "features: {backbone: my.keras, image_size: 64}",
            "features.preprocessing: received None; with a .keras file",
        ),
        (
            TOY + "features: {backbone: my.keras, preprocessing: resnet_v2}",
            "features.image_size is required with a .keras file",
        ),
        (TOY + "features: [", "line 2, column 12: not valid YAML"),
        (TOY + TOY, "duplicate key 'dataset'"),
        ("- a\n", "must be a mapping with the keys name, workdir, dataset"),
    ],
)
def test_wrong_configurations(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, TOY + "features: {copys: 1, pooling: x}\nnme: a")
    assert len(str(caught.value).splitlines()) == 4


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"there is no configuration file .*none\.yaml\. Create one with `headhunt init`"
    ):
        load(FeaturesRun, tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["features.copies", "=3", "features..copies=3"])
def test_malformed_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match=r"--set takes key\.path=value"):
        read(tmp_path, TOY, override)


def test_an_override_below_a_value(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--set name\.x=3: 'name' is 'a', not a mapping"):
        read(tmp_path, TOY + "name: a", "name.x=3")
