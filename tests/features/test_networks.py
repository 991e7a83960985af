"""A backbone cut at one of its layers, and the rest of the network after it; ImageNet weights that many workers need at once."""

from __future__ import annotations

import fcntl
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.backbones import networks
from features.backbones.networks import build_backbone, build_extractor, suffix_of
from features.building.build import build_cache
from features.cache.feature_cache import cache_for
from features.config import FeaturesConfig
from features.runtime.errors import HeadhuntError, UsageError
from tests.features.test_build import MakeRun


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> FeaturesConfig:
    """A network of two blocks, the second with a residual connection: `first` → (`second` → `third`) + → `last`."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inputs)
    first = keras.layers.BatchNormalization(name="first_bn")(first)
    second = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(first)
    third = keras.layers.Conv2D(4, 3, padding="same", name="third")(second)
    joined = keras.layers.Add(name="block_out")([first, third])
    outputs = keras.layers.Conv2D(6, 1, strides=2, name="last")(joined)
    path = tmp_path_factory.mktemp("residual") / "residual.keras"
    keras.Model(inputs, outputs).save(path)
    raw = {"backbone": str(path), "preprocessing": {"scale": 1 / 255, "offset": 0}, "image_size": 16}
    return FeaturesConfig.model_validate(raw)


def cut(config: FeaturesConfig, **update: Any) -> FeaturesConfig:
    return config.model_copy(update=update)


@pytest.mark.parametrize("layer", ["first_bn", "block_out"])
def test_the_parts_before_and_behind_a_cut_are_the_whole(residual: FeaturesConfig, layer: str) -> None:
    photos = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    whole = np.asarray(build_backbone(residual, "float32")(photos))
    before, behind = build_backbone(cut(residual, cut=layer), "float32"), rest(residual, layer)
    np.testing.assert_allclose(np.asarray(behind(before(photos))), whole, atol=1e-5)
    assert not [weight for model in (before, behind) for weight in model.trainable_weights]


def rest(config: FeaturesConfig, layer: str) -> Any:
    """The network after a layer, from the layer's map to the last one."""
    return suffix_of(build_backbone(cut(config, cut=None), "float32"), layer)


def test_no_network_lies_behind_a_layer_that_other_paths_lead_past(residual: FeaturesConfig) -> None:
    assert rest(residual, "second") is None


def test_a_cut_gives_the_activation_itself_or_its_pooling(residual: FeaturesConfig) -> None:
    photos = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3)).astype(np.float32)
    activation = np.asarray(build_extractor(cut(residual, cut="second", pooling="none"), "float32")(photos))
    assert activation.shape == (2, 8, 8, 4)
    pooled = np.asarray(build_extractor(cut(residual, cut="second", pooling="avg"), "float32")(photos))
    np.testing.assert_allclose(pooled, activation.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("secnd", "the backbone has no layer 'secnd'. Did you mean second"),
        ("conv5", "no layer 'conv5'. Its last layers: .*block_out, last"),
    ],
)
def test_a_wrong_cut_is_explained(residual: FeaturesConfig, wrong: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"features\.cut: .*{message}"):
        build_backbone(cut(residual, cut=wrong), "float32")


def test_a_cache_of_a_cut(make_run: MakeRun, residual: FeaturesConfig) -> None:
    update = {"backbone": residual.backbone, "preprocessing": residual.preprocessing, "image_size": 16}
    run = make_run(cut="block_out", pooling="none", **update)
    build_cache(run)
    cache = cache_for(run)
    assert cache.feature_shape == (8, 8, 4)
    suffix = rest(run.features, "block_out")
    maps = np.asarray(suffix(cache.arrays("val", dtype=np.float32)[0]))
    whole = make_run("whole", pooling="none", **update)
    build_cache(whole)
    np.testing.assert_allclose(maps, cache_for(whole).arrays("val")[0], atol=5e-3)


SLIM = Path(__file__).parents[3] / "shared/data/weights/resnet101v2_slim_imagenet_conv1_to_conv4.keras"


@pytest.mark.slow
@pytest.mark.skipif(not SLIM.exists(), reason=f"needs {SLIM}")
def test_real_weights_are_cut_at_every_block() -> None:
    raw = {"backbone": str(SLIM), "preprocessing": "resnet_v2", "image_size": 224}
    config = FeaturesConfig.model_validate(raw)
    model = keras.saving.load_model(SLIM, compile=False)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    whole = np.asarray(build_backbone(config, "float32")(photos))
    blocks = [layer.name for layer in model.layers if layer.name.startswith("add")]
    for layer in (blocks[0], blocks[-2]):
        at = cut(config, cut=layer)
        parts = rest(config, layer)(build_backbone(at, "float32")(photos))
        np.testing.assert_allclose(np.asarray(parts), whole, atol=1e-3)


WEIGHTS = bytes(range(256)) * 400


class _Weights(BaseHTTPRequestHandler):
    """Serves the weights slowly; counts requests, and how many come at once."""

    asked: list[int]
    at_once = 0

    def do_GET(self) -> None:
        counts = type(self)
        counts.at_once += 1
        counts.asked.append(counts.at_once)
        self.send_response(200)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.end_headers()
        self.wfile.write(WEIGHTS[:1000])
        time.sleep(0.5)
        self.wfile.write(WEIGHTS[1000:])
        counts.at_once -= 1

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MobileNet, which downloads its weights from here with Keras's own get_file, into its own KERAS_HOME."""
    counting: Any = type("Counting", (_Weights,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def mobilenet(**arguments: Any) -> str:
            return str(
                keras.utils.get_file(
                    "m.h5", f"http://127.0.0.1:{server.server_port}/m.h5", cache_subdir="models", cache_dir=tmp_path,
                    file_hash=hashlib.sha256(WEIGHTS).hexdigest(),
                )
            )  # fmt: skip

        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(keras.applications, "MobileNet", mobilenet)
        yield counting
        server.shutdown()


FETCHED = "models/.MobileNet-32x32.fetched"
PRETRAINED = FeaturesConfig.model_validate({"backbone": "mobilenet", "image_size": 32})


def test_of_many_workers_one_fetches_the_weights(imagenet: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(networks._from_applications, [PRETRAINED] * 4))
    assert {Path(path).read_bytes() for path in found} == {WEIGHTS}
    assert imagenet.asked == [1]  # one request, never two at once
    with (tmp_path / FETCHED).open() as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        later = pool.submit(networks._from_applications, PRETRAINED)
        try:
            later.result(timeout=10)  # does not wait
        finally:
            fcntl.flock(other, fcntl.LOCK_UN)


def test_weights_that_did_not_come_are_fetched_by_the_next(
    imagenet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**arguments: Any) -> None:
        raise Exception("URL fetch failure on http://somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(keras.applications, "MobileNet", fails)
        with pytest.raises(HeadhuntError, match="could not be downloaded"):
            networks._from_applications(PRETRAINED)
    assert not (tmp_path / FETCHED).read_bytes()
    networks._from_applications(PRETRAINED)
    assert (tmp_path / FETCHED).read_bytes()


def test_where_no_lock_can_be_written_weights_are_fetched_without(imagenet: Any, tmp_path: Path) -> None:
    (tmp_path / FETCHED).mkdir(parents=True)
    networks._from_applications(PRETRAINED)
    assert imagenet.asked == [1]


def test_who_fetches_is_not_waited_for_without_end(
    imagenet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(networks, "FETCH_SECONDS", 0.1)
    (tmp_path / FETCHED).parent.mkdir()
    with (tmp_path / FETCHED).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        networks._from_applications(PRETRAINED)
    assert imagenet.asked == [1]
    assert capsys.readouterr().err.count("Another process is downloading the ImageNet weights; waiting for it.") == 1


def test_other_weights_leave_keras_s_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    networks._from_applications(PRETRAINED.model_copy(update={"weights": "random"}))
    assert not list(tmp_path.iterdir())
