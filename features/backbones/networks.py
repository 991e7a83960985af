"""Builds frozen backbones as Keras models: loads and cuts them, and adds preprocessing and pooling."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import IO, Any, Literal

from features.backbones.inference import InferenceNetwork
from features.backbones.keras_file import keras_file_damage
from features.backbones.lite0 import build_lite0
from features.backbones.pooling_layers import build_pooling
from features.backbones.projection import Projection
from features.backbones.table import (
    CAFFE_MEAN_BGR,
    SCALES,
    check_backbone,
    existing_file,
    family,
    image_size,
    is_file,
    pooling,
    preprocessing,
)
from features.backbones.weights_file import check_weights_file, load_weights
from features.config import FeaturesConfig
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log

Policy = Literal["float32", "mixed_bfloat16"]


def preprocessing_layers(config: FeaturesConfig) -> list[Any]:
    """Stock float32 Keras layers that map photos in 0…255 to the backbone's input."""
    from keras import layers

    kind = preprocessing(config)
    if kind == "none":
        return []
    if kind == "caffe":
        return [_caffe_layer()]
    scale, offset = kind if isinstance(kind, tuple) else SCALES[kind]
    return [layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")]


def _caffe_layer() -> Any:
    """RGB to BGR minus the mean, as a fixed 1 × 1 convolution: a stock layer instead of keras.applications's function."""
    import numpy as np
    from keras import layers

    layer = layers.Conv2D(3, 1, dtype="float32", trainable=False, name="preprocessing")
    layer.build((None, None, None, 3))
    layer.set_weights(
        [np.eye(3, dtype=np.float32)[:, ::-1].reshape(1, 1, 3, 3), -np.asarray(CAFFE_MEAN_BGR, np.float32)]
    )
    return layer


def build_backbone(config: FeaturesConfig, policy: Policy) -> Any:
    """The frozen network up to the cut, or its last map: a keras.Model of preprocessed photos (batch, h, w, 3).

    It is flat and always runs in inference mode, see InferenceNetwork. With several cuts it has one output per cut, in their
    order.

    Raises UsageError for a file that does not match the image size, a cut that is not a layer, or an output that is not a map;
    HeadhuntError when ImageNet weights cannot be downloaded.
    """
    whole = _whole(config, policy)
    outputs = [whole.tensor(cut) for cut in config.cuts]
    if not outputs:
        _check_is_map(config, whole)
    return _frozen(whole.input, outputs if len(outputs) > 1 else (outputs or [whole.output])[0], "backbone")


def suffix_of(model: Any, layer: str) -> Any | None:
    """The model from the output of `layer` on, sharing its layers; None if other paths bypass `layer` or it is used more than
    once."""
    import keras

    try:
        return keras.Model(model.get_layer(layer).output, model.output)
    except (ValueError, AttributeError):
        return None


def _whole(config: FeaturesConfig, policy: Policy) -> InferenceNetwork:
    """The whole network in inference mode, with every layer computing in `policy`."""
    if not is_file(config):
        return InferenceNetwork(_from_applications(config), image_size(config), policy)
    loaded = _from_file(config)
    try:
        return InferenceNetwork(loaded, image_size(config), policy)
    except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise UsageError(
            f"features.backbone: {config.backbone} cannot be rebuilt layer by layer at {image_size(config)}: "
            f"{_first_line(error)} "
            "Save a network of stock Keras layers."
        ) from error


def _check_is_map(config: FeaturesConfig, whole: InferenceNetwork) -> None:
    """Raises UsageError if a network without a cut does not end in a map."""
    shape = getattr(whole.output, "shape", ())
    if len(shape) == 4:
        return
    maps = [
        path for path, found in whole.tensors.items() if len(found) == 1 and len(getattr(found[0], "shape", ())) == 4
    ]
    last = f"Set `features.cut` to a layer that outputs a map; the last are {', '.join(maps[-3:])}." if maps else ""
    raise UsageError(
        f"features.backbone: {config.backbone} outputs {tuple(shape)}, not a map (batch, h, w, channels). {last}".rstrip()
    )


def _frozen(inputs: Any, outputs: Any, name: str) -> Any:
    """A model without trainable layers."""
    import keras

    model = keras.Model(inputs, outputs, name=name)
    for layer in model.layers:
        layer.trainable = False
    return model


def _from_file(config: FeaturesConfig) -> Any:
    import keras

    path = existing_file(config.backbone, "features.backbone")
    check_backbone(config)
    if damage := keras_file_damage(path):
        raise UsageError(f"features.backbone: {path} is damaged ({damage}). Save the network again, or restore a copy.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises all kinds of exceptions on unsuitable files
        raise UsageError(
            f"features.backbone: Keras cannot load {path}: {_first_line(error)} Save a network of stock Keras layers."
        ) from error
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"features.backbone: {path} must be a functional or sequential model with one input and one output."
        )
    return model


def _first_line(error: Exception) -> str:
    """The first line of a Keras error as one short sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{shorten(lines[0], 300, placeholder=' …').rstrip('.')}."


def _from_applications(config: FeaturesConfig) -> Any:
    import keras

    entry = family(config)
    shape = (*image_size(config), 3)
    if config.weights == "random":
        keras.utils.set_random_seed(config.seed)
    try:
        if config.weights in ("imagenet", "random"):
            return _named(entry.builder, config.weights, shape)
        path = existing_file(config.weights, "features.weights")
        check_weights_file(path)
        model = _named(entry.builder, "random", shape)
        load_weights(model, path, config.backbone)
        return model
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"features: {entry.builder} cannot be built with weights {config.weights!r} at {shape}: {error}"
        ) from error
    except Exception as error:
        if "URL fetch failure" not in str(error):  # Keras raises a bare Exception for a failed download
            raise
        raise HeadhuntError(
            f"the ImageNet weights of {entry.builder} could not be downloaded: {error}. Without a connection, set "
            "`features.weights` to a file (.weights.h5, without the top), or use `backbone: efficientnet_lite0`, whose weights "
            "are already installed."
        ) from error


def _named(builder: str, weights: str, shape: tuple[int, int, int]) -> Any:
    """The network of a builder, with ImageNet or random weights."""
    import keras

    if builder == "lite0":
        return build_lite0(shape, weights == "imagenet")
    build = getattr(keras.applications, builder)
    if weights != "imagenet":
        return build(include_top=False, weights=None, input_shape=shape)
    with _single_downloader(f"{builder}-{shape[0]}x{shape[1]}"):  # MobileNet has weights per size
        return build(include_top=False, weights="imagenet", input_shape=shape)


FETCH_SECONDS = 600
"""How long a process waits for another one that downloads weights."""


@contextmanager
def _single_downloader(what: str) -> Iterator[None]:
    """Lets only one process at a time build a network with ImageNet weights, until the first has downloaded them.

    Keras downloads straight to the final file name, where another process would find half a file, and machines often share its
    folder. The lock file records that the weights are complete; from then on no process waits. Nor does a process wait if the
    lock file cannot be written or locked, or longer than FETCH_SECONDS: the downloading machine may have died.
    """
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if not os.access(home, os.W_OK):
        home = Path("/tmp/.keras")  # Keras's fallback
    try:
        (home / "models").mkdir(parents=True, exist_ok=True)
        lock = (home / "models" / f".{what}.fetched").open("ab+", buffering=0)
    except OSError:
        lock = None
    if lock is None:
        yield
        return
    with lock:
        _wait_for(lock)
        fetched = _is_fetched(lock)  # possibly while this process waited
        if fetched:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
        yield
        if not fetched:
            with suppress(OSError):
                lock.write(b"yes\n")


def _wait_for(lock: IO[bytes]) -> None:
    """Waits for the lock, or until the weights are there."""
    began = time.monotonic()
    is_told = False
    with suppress(OSError):  # a file system without locks
        while not _is_fetched(lock) and time.monotonic() - began < FETCH_SECONDS:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not is_told:
                    log.print("Another process is downloading the ImageNet weights; waiting for it.")
                is_told = True
                time.sleep(0.5)


def _is_fetched(lock: IO[bytes]) -> bool:
    lock.seek(0)
    return bool(lock.read())


def build_extractor(config: FeaturesConfig, policy: Policy, projections: Sequence[Projection] = ()) -> Any:
    """Photos (batch, h, w, 3) float32 in 0…255 to features (batch, *feature_shape) float32, as a keras.Model.

    preprocessing → the layer "backbone" → the layer "pooling". Preprocessing and pooling compute in float32. Covariances need the
    cache's `projections`. Raises UsageError when a cut to be pooled does not output a map.
    """
    import keras

    maps = build_maps(config, policy)
    shapes = [tuple(output.shape[1:]) for output in maps.outputs]
    pooled = build_pooling(pooling(config), shapes, projections)(maps.outputs if len(shapes) > 1 else maps.outputs[0])
    return keras.Model(maps.input, pooled, name="extractor")


def build_maps(config: FeaturesConfig, policy: Policy) -> Any:
    """Photos (batch, h, w, 3) float32 in 0…255 to the maps before pooling, (batch, h, w, channels) each: a keras.Model.

    Raises UsageError as `build_extractor` does.
    """
    import keras

    inputs = keras.Input((*image_size(config), 3), dtype="float32", name="photos")
    x = inputs
    for layer in preprocessing_layers(config):
        x = layer(x)
    model = keras.Model(inputs, build_backbone(config, policy)(x), name="maps")
    for cut, output in zip(config.cuts or ("",), model.outputs, strict=True):
        if len(output.shape) != 4 and pooling(config) != "none":
            raise UsageError(
                f"features.pooling: {pooling(config)} needs a map (batch, h, w, channels), but the cut at {cut!r} outputs "
                f"{tuple(output.shape)}. Set `features.pooling: none`."
            )
    return model
