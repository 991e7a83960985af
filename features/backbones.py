"""The frozen backbones: which there are, how their input is prepared, and how one is built."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.config import FeaturesConfig
from features.errors import HeadhuntError, UsageError
from features.lite0 import build_lite0, weights_file

Preprocessing = Literal["tf", "torch", "caffe", "none", "lite"]


@dataclass(frozen=True)
class Backbone:
    """A family's builder in keras.applications (or ours), its preprocessing, and its default size in pixels.

    Preprocessing: `tf` scales to [-1, 1]; `torch` standardises by ImageNet's mean and deviation; `caffe` swaps to BGR and
    subtracts the mean; `lite` is (x - 127) / 128; `none`: the network has it inside.
    """

    builder: str
    preprocessing: Preprocessing
    image_size: int = 224


def _families() -> dict[str, Backbone]:
    plain: dict[Preprocessing, tuple[str, ...]] = {
        "caffe": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
        "tf": ("ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "MobileNetV2", "NASNetMobile"),
        "torch": ("DenseNet121", "DenseNet169", "DenseNet201"),
        "none": (
            *("MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0"),
            *("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"),
        ),
    }
    families = [Backbone(name, kind) for kind, names in plain.items() for name in names]
    families += [Backbone(name, "tf", 299) for name in ("Xception", "InceptionV3", "InceptionResNetV2")]
    families += [Backbone("NASNetLarge", "tf", 331)]
    families += [
        Backbone(f"EfficientNetB{n}", "none", size) for n, size in enumerate((240, 260, 300, 380, 456, 528, 600), 1)
    ]
    families += [Backbone(f"EfficientNetV2B{n}", "none", size) for n, size in enumerate((240, 260, 300), 1)]
    families += [Backbone(f"EfficientNetV2{n}", "none", size) for n, size in (("S", 384), ("M", 480), ("L", 480))]
    return {family.builder.lower(): family for family in families} | {"efficientnet_lite0": Backbone("lite0", "lite")}


BACKBONES = _families()
"""Every backbone by its name in `features.backbone`."""

MODULES: dict[str, Preprocessing] = {
    "resnet": "caffe", "resnet_v2": "tf", "vgg16": "caffe", "vgg19": "caffe", "mobilenet": "tf", "mobilenet_v2": "tf",
    "mobilenet_v3": "none", "densenet": "torch", "nasnet": "tf", "xception": "tf", "inception_v3": "tf",
    "inception_resnet_v2": "tf", "efficientnet": "none", "efficientnet_v2": "none", "convnext": "none",
}  # fmt: skip
"""Preprocessing by the name of a keras.applications module, for a backbone given as a file."""

SCALES: dict[Preprocessing, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "lite": (1 / 128, -127 / 128),
    "torch": (
        [1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)],
        [-mean / deviation for mean, deviation in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)],
    ),
}
"""Scale and offset of each kind that is one multiplication and one addition."""

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def is_file(config: FeaturesConfig) -> bool:
    """Whether `features.backbone` is the path of a .keras file rather than a name."""
    return config.backbone.endswith(".keras")


def family(config: FeaturesConfig) -> Backbone:
    """The entry of BACKBONES; UsageError with near matches for an unknown name."""
    found = BACKBONES.get(config.backbone.lower())
    if found is None:
        close = difflib.get_close_matches(config.backbone.lower(), BACKBONES, n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"features.backbone: received {config.backbone!r}.{hint} Allowed: the path of a .keras file, or one of "
            f"{', '.join(sorted(BACKBONES))}."
        )
    return found


def image_size(config: FeaturesConfig) -> tuple[int, int]:
    """Height and width in pixels that photos are resized to."""
    if config.image_size is not None:
        return config.image_size
    if is_file(config):
        raise UsageError("features.image_size: with a .keras file as backbone, name the size, e.g. `image_size: 224`.")
    size = family(config).image_size
    return size, size


def compute_dtype(config: FeaturesConfig) -> Literal["bfloat16", "float32"]:
    """What the convolutions compute in: with `auto`, bfloat16 where this machine has it in hardware."""
    if config.compute != "auto":
        return config.compute
    if config.workers.gpus:
        return "bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def weights_digest(config: FeaturesConfig) -> str:
    """What identifies the weights: the sha256 (hex) of their file, `random:<seed>`, or the name of Keras's download.

    Keras checks its downloads against the hash in its own source, so a name is as good as a digest there.
    """
    if is_file(config):
        return _file_digest(_existing(config.backbone, "features.backbone"))
    if config.weights == "random":
        return f"random:{config.seed}"
    if config.weights != "imagenet":
        return _file_digest(_existing(config.weights, "features.weights"))
    builder = family(config).builder
    return _file_digest(weights_file()) if builder == "lite0" else f"keras.applications:{builder}:imagenet"


def _existing(path: str, key: str) -> Path:
    if not Path(path).is_file():
        raise UsageError(f"{key}: there is no file {path}.")
    return Path(path)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def preprocessing(config: FeaturesConfig) -> Preprocessing | tuple[Any, Any]:
    """The kind of preprocessing, or (scale, offset); UsageError where a .keras file's is not named."""
    if not is_file(config):
        if config.preprocessing is not None:
            raise UsageError(f"features.preprocessing: {config.backbone} has its own; leave the key out.")
        return family(config).preprocessing
    named = config.preprocessing
    if isinstance(named, dict):
        if set(named) != {"scale", "offset"}:
            raise UsageError(
                f"features.preprocessing: a mapping needs `scale` and `offset`, but got {', '.join(named) or 'none'}."
            )
        return named["scale"], named["offset"]
    if named in MODULES:
        return MODULES[named]
    if named in BACKBONES:
        return BACKBONES[named].preprocessing
    raise UsageError(
        f"features.preprocessing: received {named!r}; with a .keras file as backbone, name what it was trained with: one of "
        f"{', '.join(MODULES)}, or {{scale, offset}} that photos of 0…255 are multiplied by and shifted by."
    )


def preprocessing_layers(config: FeaturesConfig) -> list[Any]:
    """Stock Keras layers in float32 that take photos of 0…255 to what the backbone wants."""
    from keras import layers

    kind = preprocessing(config)
    if kind == "none":
        return []
    if kind == "caffe":
        return [_caffe_layer()]
    scale, offset = kind if isinstance(kind, tuple) else SCALES[kind]
    return [layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")]


def _caffe_layer() -> Any:
    """RGB to BGR minus the mean, as a fixed 1 × 1 convolution: a stock layer, where keras.applications has a function."""
    import numpy as np
    from keras import layers

    layer = layers.Conv2D(3, 1, dtype="float32", trainable=False, name="preprocessing")
    layer.build((None, None, None, 3))
    layer.set_weights(
        [np.eye(3, dtype=np.float32)[:, ::-1].reshape(1, 1, 3, 3), -np.asarray(CAFFE_MEAN_BGR, np.float32)]
    )
    return layer


def build_backbone(config: FeaturesConfig, policy: Literal["float32", "mixed_bfloat16"]) -> Any:
    """The network up to its last spatial map, frozen: a keras.Model of preprocessed float photos (batch, h, w, 3).

    Raises UsageError for a file that does not fit the image size, HeadhuntError when ImageNet weights cannot be downloaded.
    """
    import keras

    model = _from_file(config) if is_file(config) else _from_applications(config)
    if policy != "float32":
        original = model

        def in_policy(layer: Any) -> Any:
            if isinstance(layer, keras.Model):
                return keras.models.clone_model(layer, clone_function=in_policy)
            own = {"dtype": policy} if isinstance(layer, keras.layers.Layer) else {}  # a plain operation has no dtype
            return type(layer).from_config({**layer.get_config(), **own})

        model = keras.models.clone_model(original, clone_function=in_policy)
        model.set_weights(original.get_weights())
    model.name = "backbone"
    for layer in model.layers:
        layer.trainable = False
    if len(model.output.shape) != 4:
        raise UsageError(
            f"features.backbone: {config.backbone} gives {model.output.shape}, not a map (batch, h, w, channels)."
        )
    return model


def _from_file(config: FeaturesConfig) -> Any:
    import keras

    path = _existing(config.backbone, "features.backbone")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise UsageError(f"features.backbone: Keras cannot load {path}: {error}") from error
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"features.backbone: {path} must be a functional or sequential model of one input and one output."
        )
    expected = tuple(model.inputs[0].shape[1:])
    given = (*image_size(config), 3)
    if len(expected) != 3 or any(want not in (None, size) for want, size in zip(expected, given, strict=True)):
        raise UsageError(
            f"features.image_size: {path} takes photos of {expected}, but the configuration gives {given}."
        )
    return keras.Model(model.inputs[0], model.outputs[0])  # Sequential, or inputs in a list: all become the same form


def _from_applications(config: FeaturesConfig) -> Any:
    import keras

    entry = family(config)
    shape = (*image_size(config), 3)
    if config.weights == "random":
        keras.utils.set_random_seed(config.seed)
    if config.weights not in ("imagenet", "random"):
        _existing(config.weights, "features.weights")
    try:
        if entry.builder == "lite0":
            return _lite0(config, shape)
        weights = None if config.weights == "random" else config.weights
        return getattr(keras.applications, entry.builder)(include_top=False, weights=weights, input_shape=shape)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(
            f"features: {entry.builder} cannot be built with weights {config.weights!r} at {shape}: {error}"
        ) from error
    except Exception as error:
        if "URL fetch failure" not in str(error):  # Keras raises a bare Exception for a failed download
            raise
        raise HeadhuntError(
            f"the ImageNet weights of {entry.builder} could not be downloaded: {error}. Without a connection, name a file: "
            "`features.weights: PATH` (.weights.h5, without the top), or take `backbone: efficientnet_lite0`, whose weights are "
            "installed already."
        ) from error


def _lite0(config: FeaturesConfig, shape: tuple[int, int, int]) -> Any:
    model = build_lite0(shape, config.weights == "imagenet")
    if config.weights not in ("imagenet", "random"):
        model.load_weights(config.weights)
    return model


def build_extractor(config: FeaturesConfig, policy: Literal["float32", "mixed_bfloat16"]) -> Any:
    """Photos (batch, h, w, 3) float32 in 0…255 to features (batch, *feature_shape) float32, as a keras.Model.

    preprocessing → the layer "backbone" → pooling. Preprocessing and pooling compute in float32.
    """
    import keras

    inputs = keras.Input((*image_size(config), 3), dtype="float32", name="photos")
    x = inputs
    for layer in preprocessing_layers(config):
        x = layer(x)
    x = build_backbone(config, policy)(x)
    return keras.Model(inputs, pool(config, x), name="extractor")


def pool(config: FeaturesConfig, x: Any) -> Any:
    """The pooling of the configuration on a map (batch, h, w, channels), in float32."""
    from keras import layers

    average = layers.GlobalAveragePooling2D(dtype="float32", name="avg")
    maximum = layers.GlobalMaxPooling2D(dtype="float32", name="max")
    match config.pooling:
        case "avg":
            return average(x)
        case "max":
            return maximum(x)
        case "avg+max":
            return layers.Concatenate(dtype="float32", name="avg_max")([average(x), maximum(x)])
        case _:
            return layers.Activation("linear", dtype="float32", name="map")(x)
