"""Policies and their views: pure functions of (seed, split, copy, photo), independent of the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import TypeAdapter

from features.augmentation.augment import POLICIES, AugmentationPolicy, Augmenter, resolve_policy
from features.augmentation.geometry import Step, merge
from features.augmentation.layer_views import LayerView
from features.augmentation.policies import policy_name
from features.config import Augmentation, AugmentationConfig, AugmentationLayer, FeaturesConfig
from features.runtime.errors import UsageError

IDENTITIES = [f"{n:064x}" for n in range(12)]
LAYERS = [
    {"layer": "RandomBrightness", "factor": 0.2},
    {"layer": "RandomFlip", "mode": "vertical"},
    {"layer": "RandomZoom", "height_factor": [-0.3, 0.1], "width_factor": 0.1},
    {"layer": "RandomContrast", "factor": 0.5},
    {"layer": "RandomErasing", "scale": [0.1, 0.2]},
    {"layer": "RandomRotation", "factor": 0.1, "fill_mode": "constant"},
    {"layer": "RandomBrightness", "factor": 0.2},
]
SIZES = [{"layer": "Resizing", "height": 30, "width": 40}, {"layer": "RandomCrop", "height": 24, "width": 32}]


def parsed(value: Any) -> Any:
    """A value as read from the configuration file."""
    return TypeAdapter(Augmentation).validate_python(value)


POLICIES_TRIED: dict[str, AugmentationPolicy] = {
    **POLICIES,
    "layers": resolve_policy(parsed(LAYERS)),
    "sizes": resolve_policy(parsed([*SIZES, {"layer": "RandomFlip"}])),
    "clean": resolve_policy(parsed({"layers": LAYERS[:3], "clean_probability": 0.4})),
    "resized clean": resolve_policy(parsed({"layers": [*SIZES[:1], LAYERS[1], *SIZES[1:]], "clean_probability": 0.4})),
}


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.float32]:
    """(12, 24, 32, 3) float32 in 0…255, all different."""
    return np.random.default_rng(0).integers(0, 256, (12, 24, 32, 3)).astype(np.float32)


def views(policy: AugmentationPolicy, images: Any, identities: Any = IDENTITIES, key: Any = (5, "train", 2)) -> Any:
    return np.asarray(Augmenter(policy)(images, identities, *key))


@pytest.mark.parametrize("name", POLICIES_TRIED)
def test_a_view_knows_nothing_of_its_company(name: str, images: npt.NDArray[np.float32]) -> None:
    """Same bytes in another order, in another batch, alone, and from an augmenter that was used before."""
    augment = Augmenter(POLICIES_TRIED[name])
    together = np.asarray(augment(images, IDENTITIES, 5, "train", 2))
    assert together.shape == images.shape
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 255
    order = np.random.default_rng(1).permutation(12)
    permuted = np.asarray(augment(images[order], [IDENTITIES[n] for n in order], 5, "train", 2))
    assert np.array_equal(permuted, together[order])
    few = np.asarray(augment(images[3:6], [IDENTITIES[3], None, IDENTITIES[5]], 5, "train", 2))
    assert np.array_equal(few, [together[3], images[4], together[5]])
    for n in (7, 2):
        alone = np.asarray(augment(images[n : n + 1], [IDENTITIES[n]], 5, "train", 2))
        assert np.array_equal(alone[0], together[n])
    assert np.array_equal(views(POLICIES_TRIED[name], images), together)


@pytest.mark.parametrize("name", [name for name in POLICIES_TRIED if name != "none"])
def test_seed_split_and_copy_each_give_other_views(name: str, images: npt.NDArray[np.float32]) -> None:
    augment = Augmenter(POLICIES_TRIED[name])
    here = np.asarray(augment(images, IDENTITIES, 5, "train", 2))
    for other in ((6, "train", 2), (5, "val", 2), (5, "train", 3)):
        there = np.asarray(augment(images, IDENTITIES, *other))
        assert np.mean([np.array_equal(a, b) for a, b in zip(here, there, strict=True)]) < 0.6
    same_photo = np.repeat(images[:1], 12, 0)
    assert len({view.tobytes() for view in np.asarray(augment(same_photo, IDENTITIES, 5, "train", 2))}) > 5


def test_threads_get_the_views_that_one_thread_gets(images: npt.NDArray[np.float32]) -> None:
    augment = Augmenter(POLICIES_TRIED["layers"])
    found: dict[int, npt.NDArray[np.float32]] = {}

    def work(copy: int) -> None:
        found[copy] = np.asarray(augment(images, IDENTITIES, 5, "train", copy))

    threads = [threading.Thread(target=work, args=(copy,)) for copy in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for copy in range(4):
        assert np.array_equal(found[copy], views(POLICIES_TRIED["layers"], images, key=(5, "train", copy)))


@pytest.mark.parametrize("policy", ["flip_rotate_zoom", "rand_augment"])
def test_about_the_clean_probability_is_left_clean(policy: str) -> None:
    identities = [f"{n:064x}" for n in range(600)]
    images = np.random.default_rng(2).integers(0, 256, (600, 8, 8, 3)).astype(np.float32)
    never, sometimes, always = (
        views(resolve_policy(parsed({"policy": policy, "clean_probability": share})), images, identities)
        for share in (0.0, 0.25, 1.0)
    )
    clean = (sometimes == images).all((1, 2, 3))
    assert 0.2 < clean.mean() < 0.32
    assert np.array_equal(sometimes[~clean], never[~clean])
    assert np.array_equal(always, images)


def test_no_policy_leaves_the_image_alone(images: npt.NDArray[np.float32]) -> None:
    assert np.array_equal(views(POLICIES["none"], images), images)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("flip_rotate_zoom", [0.938399, -0.04162037, 2.91851, 0.04162037, 0.938399, 0.1365816]),
        ("flip_rotate_zoom_translate", [0.93563324, -0.08315898, 3.041716, 0.08315898, 0.93563324, 6.386826]),
    ],
)
def test_the_draws_of_the_named_policies_stay_what_they_are(policy: str, expected: list[float]) -> None:
    """An existing cache remains the cache of its configuration."""
    layers = POLICIES[policy].layers
    matrices = [
        Step(layer.layer, layer.arguments).matrices([f"5/train/2/{IDENTITIES[0]}"], (48, 64)) for layer in layers
    ]
    np.testing.assert_allclose(merge(matrices)[0, :6], expected, rtol=1e-5)


def test_consecutive_geometric_layers_are_resampled_once(images: npt.NDArray[np.float32]) -> None:
    """A rotation and its inverse lose nothing when merged into one resampling; two Keras layers blur."""
    layers = [{"layer": "RandomRotation", "factor": [0.1, 0.1]}, {"layer": "RandomRotation", "factor": [-0.1, -0.1]}]
    merged = views(resolve_policy(parsed(layers)), images)
    np.testing.assert_allclose(merged, images, atol=0.05)
    apart = [layers[0], {"layer": "RandomBrightness", "factor": [0, 0]}, layers[1]]
    assert np.abs(views(resolve_policy(parsed(apart)), images) - images).max() > 10


def test_a_list_is_its_layers_one_after_the_other(images: npt.NDArray[np.float32]) -> None:
    """Against Keras's own layers called on one photo each, with their generators set."""
    layers = [LAYERS[0], LAYERS[3], LAYERS[5], LAYERS[0]]
    expected = []
    for image, identity in zip(images[:4], IDENTITIES, strict=False):
        photo: Any = image[None]
        for position, layer in enumerate(layers):
            arguments = {name: value for name, value in layer.items() if name != "layer"}
            view = LayerView(str(layer["layer"]), arguments, occurrence=int(position == 3))
            photo = keras_s_own(view, photo, f"5/train/2/{identity}")
        expected.append(photo[0])
    found = views(resolve_policy(parsed(layers)), images[:4], IDENTITIES[:4])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def keras_s_own(view: LayerView, photo: Any, key: str) -> npt.NDArray[np.float32]:
    """The result of calling Keras's layer normally, with its generators set to the view's states."""
    generators = [variable for variable in view.layer.variables if variable.name == "seed_generator_state"]
    for generator, state in zip(generators, view.states(key), strict=True):
        generator.assign(state)
    return np.asarray(view.layer(photo, training=True))


@pytest.mark.parametrize("arguments", [{}, {"num_ops": 3, "factor": [0.2, 0.9]}], ids=["default", "three, stronger"])
def test_rand_augment_is_keras_s_own(arguments: dict[str, Any], images: npt.NDArray[np.float32]) -> None:
    view = LayerView("RandAugment", arguments)
    for n in range(24):
        photo, key = images[n % 12 : n % 12 + 1], str(n)
        ours = np.asarray(view.view(photo, view.states(key)))
        np.testing.assert_allclose(ours, keras_s_own(view, photo, key), atol=0.01, err_msg=key)


SCRIPT = """
import sys
import numpy as np
import test_augment as here
from features.augmentation.layer_views import LayerView
images = here.images.__wrapped__()
augment = here.Augmenter(here.POLICIES_TRIED["layers"])
together = np.asarray(augment(images, here.IDENTITIES, 5, "train", 2))
order = np.arange(12)[::-1]
permuted = augment(images[order], [here.IDENTITIES[n] for n in order], 5, "train", 2)
assert np.array_equal(np.asarray(permuted), together[order])
alone = augment(images[3:4], here.IDENTITIES[3:4], 5, "train", 2)
assert np.array_equal(np.asarray(alone)[0], together[3])
view = LayerView("RandAugment", {})
for n in range(12):
    ours = np.asarray(view.view(images[n : n + 1], view.states(str(n))))
    np.testing.assert_allclose(ours, here.keras_s_own(view, images[n : n + 1], str(n)), atol=0.01)
for name, arguments in (("RandomCrop", {"height": 8, "width": 8}), ("RandomElasticTransform", {})):
    view = LayerView(name, arguments)
    first, second = (np.asarray(view.view(images[:1], view.states(key))) for key in "ab")
    assert np.array_equal(first, view.view(images[:1], view.states("a")))
    assert not np.array_equal(first, second)
flip = here.Augmenter(here.POLICIES["flip_rotate_zoom"])
np.save(sys.argv[1], np.asarray(flip(images, here.IDENTITIES, 5, "train", 2)))
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
def test_jax_gives_pure_views_too_and_the_same_resampling(tmp_path: Path, images: npt.NDArray[np.float32]) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "views.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    here = views(POLICIES["flip_rotate_zoom"], images)
    np.testing.assert_allclose(np.load(tmp_path / "views.npy"), here, atol=0.05)


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
def test_a_named_policy_is_the_list_of_its_layers(name: str) -> None:
    layers = [layer.model_dump() for layer in POLICIES[name].layers]
    for value in (name, layers, {"policy": name}, {"layers": layers, "name": "mine"}):
        assert resolve_policy(parsed(value)) == POLICIES[name]


def test_a_policy_s_dump_is_plain_json_and_holds_all_that_its_views_depend_on() -> None:
    dumps = [
        resolve_policy(parsed(value)).model_dump(mode="json")
        for value in (
            LAYERS,
            LAYERS[::-1],
            LAYERS[1:],
            [{**LAYERS[0], "factor": 0.3}, *LAYERS[1:]],
            {"layers": LAYERS, "clean_probability": 0.1},
        )
    ]
    texts = [json.dumps(dump, sort_keys=True) for dump in dumps]
    assert len(set(texts)) == 5
    assert [json.loads(text) for text in texts] == dumps


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("mild", "mild"),
        (LAYERS, "custom"),
        ({"policy": "mild", "clean_probability": 0.25}, "mild"),
        ({"layers": LAYERS}, "custom"),
        ({"layers": LAYERS, "name": "mine"}, "mine"),
    ],
)
def test_the_name_of_a_policy(value: Any, name: str) -> None:
    assert policy_name(FeaturesConfig(augmentation=value)) == name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("flip", "key: received 'flip'; allowed: none, mild, flip_rotate_zoom"),
        ("flip_rotat_zoom", "Did you mean 'flip_rotate_zoom'?"),
        (
            [{"layer": "RandomCutout"}],
            "key.0.layer: received 'RandomCutout'. Did you mean 'RandomCrop'? Allowed: AutoContrast",
        ),
        ([LAYERS[0], {"layer": "RandomFlip", "axis": 1}], "key.1.axis: not an argument of RandomFlip"),
        ({"policy": "mld"}, "key.policy: received 'mld'; allowed: none, mild"),
        ({"layers": [{"layer": "RandomFlp"}]}, "key.layers.0.layer: received 'RandomFlp'. Did you mean 'RandomFlip'?"),
        ({"layers": LAYERS, "name": "mild"}, "key.name: 'mild' is the name of a built-in policy"),
        ([*SIZES[::-1], LAYERS[0]], "key: these layers output photos of 30×40, but features.image_size is 24×32."),
    ],
)
def test_anything_else_is_refused_with_its_key(value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_policy(parsed(value), "key", (24, 32))
    assert message in str(caught.value)


def test_what_only_keras_can_refuse_is_said_in_one_message() -> None:
    with pytest.raises(
        UsageError, match=r"Keras rejects the layer RandomRotation with {'factor': 9}: The `factor` arg"
    ):
        LayerView("RandomRotation", {"factor": 9})


def test_a_mapping_names_a_policy_or_lists_layers() -> None:
    layer = AugmentationLayer.model_validate(LAYERS[0])
    assert parsed({"layers": LAYERS[:1]}) == AugmentationConfig(layers=[layer])
    assert parsed({"policy": "mild"}).clean_probability == 0
