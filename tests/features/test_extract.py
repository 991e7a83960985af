from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np

from features.augment import POLICIES
from features.config import FeaturesRun
from features.extract import Extractor, extractor

MakeRun = Callable[..., FeaturesRun]


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_features_do_not_depend_on_the_company(make_run: MakeRun) -> None:
    """The same bytes whether an image comes alone, in the middle of a batch or in a padded one."""
    extract = Extractor(make_run(prepared=False).features)
    images = photos(11)
    together = extract(images)
    assert together.shape == (11, 6)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(extract(images[4:5]), together[4:5])
    np.testing.assert_array_equal(extract(images[3:10]), together[3:10])


def test_an_identity_transform_is_the_clean_image(make_run: MakeRun) -> None:
    extract = Extractor(make_run(prepared=False).features)
    images = photos(5)
    identity = POLICIES["none"].transforms(["x"] * 5, 0, "train", 1, (32, 32))
    np.testing.assert_allclose(extract(images, identity), extract(images), atol=1e-5)
    turned = POLICIES["flip_rotate_zoom"].transforms([str(n) for n in range(5)], 0, "train", 1, (32, 32))
    assert np.abs(extract(images, turned) - extract(images)).max() > 1e-3


def test_a_process_builds_an_extractor_once(make_run: MakeRun) -> None:
    config = make_run(prepared=False).features.model_dump_json()
    assert extractor(config) is extractor(config)


SCRIPT = """
import sys
import numpy as np
from features.augment import POLICIES
from features.config import FeaturesConfig
from features.extract import Extractor
extract = Extractor(FeaturesConfig.model_validate_json(sys.argv[1]))
images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
turns = POLICIES["flip_rotate_zoom_translate"].transforms([str(n) for n in range(11)], 0, "train", 1, (32, 32))
np.save(sys.argv[2], np.stack([extract(images), extract(images, turns)]))
assert "tensorflow" not in sys.modules
"""


def test_jax_computes_the_same_features(make_run: MakeRun, tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = make_run(prepared=False).features
    turns = POLICIES["flip_rotate_zoom_translate"].transforms([str(n) for n in range(11)], 0, "train", 1, (32, 32))
    extract = Extractor(config)
    expected = np.stack([extract(photos(11)), extract(photos(11), turns)])
    subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", SCRIPT, config.model_dump_json(), str(tmp_path / "jax.npy")],
        env={"KERAS_BACKEND": "jax", "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    np.testing.assert_allclose(np.load(tmp_path / "jax.npy"), expected, atol=2e-3)
