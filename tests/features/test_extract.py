from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from features.backbones.extract import Extractor, extractor
from features.config import FeaturesRun

MakeRun = Callable[..., FeaturesRun]


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_features_do_not_depend_on_the_company(make_run: MakeRun) -> None:
    """Same bytes whether a photo comes alone, in the middle of a batch or in a padded one."""
    extract = Extractor(make_run(prepared=False).features)
    images = photos(11)
    together = extract(images)
    assert together.shape == (11, 6)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(extract(images[4:5]), together[4:5])
    np.testing.assert_array_equal(extract(images[3:10]), together[3:10])


def test_views_are_of_the_configuration_s_policy_whatever_the_company(make_run: MakeRun) -> None:
    layers = [{"layer": "RandomBrightness", "factor": 0.5}, {"layer": "RandomFlip"}]
    images, identities = photos(11), [str(n) for n in range(11)]
    for policy in ("flip_rotate_zoom", layers):
        extract = Extractor(make_run(prepared=False, augmentation=policy).features)
        clean, together = extract(images), extract(images, identities, "train", 1)
        assert (np.abs(together - clean).max(1) > 1e-3).all()
        np.testing.assert_array_equal(extract(images[3:10], identities[3:10], "train", 1), together[3:10])
        assert (extract(images, identities, "train", 2) != together).any(1).all()
    extract = Extractor(make_run(prepared=False, augmentation={"policy": "mild", "clean_probability": 1}).features)
    np.testing.assert_array_equal(extract(images, identities, "train", 1), extract(images))


def test_a_process_builds_an_extractor_once(make_run: MakeRun) -> None:
    config = make_run(prepared=False).features.model_dump_json()
    assert extractor(config) is extractor(config)


SCRIPT = """
import sys
import numpy as np
from features.config import FeaturesConfig
from features.backbones.extract import Extractor
extract = Extractor(FeaturesConfig.model_validate_json(sys.argv[1]))
images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
np.save(sys.argv[2], np.stack([extract(images), extract(images, [str(n) for n in range(11)], "train", 1)]))
assert "tensorflow" not in sys.modules
"""


def test_jax_computes_the_same_features(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run(prepared=False, augmentation="flip_rotate_zoom_translate").features
    extract = Extractor(config)
    expected = np.stack([extract(photos(11)), extract(photos(11), [str(n) for n in range(11)], "train", 1)])
    subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", SCRIPT, config.model_dump_json(), str(tmp_path / "jax.npy")],
        env={
            "KERAS_BACKEND": "jax",
            "PATH": "/usr/bin:/bin",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        check=True,
    )
    np.testing.assert_allclose(np.load(tmp_path / "jax.npy"), expected, atol=2e-3)
