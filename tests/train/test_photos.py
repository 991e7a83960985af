"""Training batches: every photo once per epoch, a fresh view each time, the same for the same seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from features.augmentation.augment import POLICIES, AugmentationPolicy, Augmenter, resolve_policy
from features.config import AugmentationConfig
from features.dataset.index import load_index
from reports.config import Run
from train import photos as photos_module
from train.finetuning.batches import training_epoch
from train.photos import Photos, PhotoViews

Batches = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@pytest.fixture
def train(searched: Run) -> Photos:
    return Photos(searched, load_index(searched), "train")


def epoch(
    train: Photos,
    number: int,
    clean_share: float = 0.0,
    seed: int = 0,
    policy: AugmentationPolicy = POLICIES["flip_rotate_zoom"],
    batch_size: int = 4,
) -> Batches:
    with training_epoch(PhotoViews(train, Augmenter(policy), seed, clean_share), number, batch_size, 3, seed) as data:
        batches = [data[position] for position in range(len(data))]
    assert [len(pixels) for pixels, _ in batches] == [batch_size] * (len(train) // batch_size)
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])


def test_an_epoch_is_a_pure_function_of_seed_and_number(train: Photos) -> None:
    for again, first in zip(epoch(train, 2), epoch(train, 2), strict=True):
        assert np.array_equal(again, first)
    assert not np.array_equal(epoch(train, 2)[0], epoch(train, 3)[0])
    assert not np.array_equal(epoch(train, 2)[0], epoch(train, 2, seed=1)[0])


@pytest.mark.parametrize("policy", ["flip_rotate_zoom", "rand_augment"])
def test_views_do_not_depend_on_the_batches(train: Photos, policy: str) -> None:
    small, large = (epoch(train, 1, 0.25, policy=POLICIES[policy], batch_size=size)[0] for size in (3, 4))
    assert np.array_equal(small[:12], large[:12])


def test_a_policy_leaves_photos_clean_besides_the_clean_share(train: Photos) -> None:
    policy = resolve_policy(AugmentationConfig(policy="flip_rotate_zoom", clean_probability=0.5))
    originals = {train.inputs([n])[0].astype(np.float32).tobytes() for n in range(len(train))}
    clean = [p.tobytes() in originals for number in range(20) for p in epoch(train, number, 0.5, policy=policy)[0]]
    assert 0.65 < np.mean(clean) < 0.85


def test_every_photo_is_there_once_with_its_label(train: Photos) -> None:
    pixels, labels = epoch(train, 0, clean_share=1.0)
    originals = {train.inputs([n])[0].tobytes(): int(train.labels[n]) for n in range(len(train))}
    found = {
        photo.astype(np.uint8).tobytes(): int(label) for photo, label in zip(pixels, labels.argmax(1), strict=True)
    }
    assert found == originals
    assert pixels.dtype == np.float32
    assert (labels.sum(1) == 1).all()


def test_about_the_clean_share_is_left_as_it_is(train: Photos) -> None:
    originals = {train.inputs([n])[0].astype(np.float32).tobytes() for n in range(len(train))}
    clean = [photo.tobytes() in originals for number in range(20) for photo in epoch(train, number, 0.5)[0]]
    assert 0.35 < np.mean(clean) < 0.65
    assert not any(photo.tobytes() in originals for photo in epoch(train, 0)[0])


def test_photos_that_do_not_fit_into_memory_are_the_same(
    train: Photos, searched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos_module, "MEMORY_BYTES", 0)
    from_disk = Photos(searched, load_index(searched), "train")
    positions = np.array([3, 0, 5])
    assert from_disk._held is None
    assert np.array_equal(from_disk.inputs(positions), train.inputs(positions))
