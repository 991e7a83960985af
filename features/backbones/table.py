"""The table of frozen backbones: their names, preprocessing and identity. Nothing is built here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.backbones.inference import path_of
from features.backbones.keras_file import check_keras_file, read_keras_file
from features.backbones.lite0 import weights_file
from features.backbones.weights_file import check_weights_file
from features.config import FeaturesConfig
from features.runtime.atomic import file_sha256
from features.runtime.errors import UsageError
from features.runtime.nearest import nearest

Preprocessing = Literal["tf", "torch", "caffe", "none", "lite"]


@dataclass(frozen=True)
class Backbone:
    """A family's builder in keras.applications (or ours), its preprocessing, and its default size in pixels.

    Preprocessing: `tf` scales to [-1, 1]; `torch` standardises by ImageNet's mean and standard deviation; `caffe` swaps to BGR
    and subtracts the mean; `lite` is (x - 127) / 128; `none`: the network includes it.
    """

    builder: str
    preprocessing: Preprocessing
    image_size: int = 224
    smallest_pooled: int = 128
    """Smallest image side in pixels whose last map has 4 × 4 positions: all of these networks downsample by 32."""

    @property
    def normalizes(self) -> bool:
        """Whether it has a Normalization layer with learnt mean and variance (as weights)."""
        return self.builder.startswith("EfficientNetB")

    @property
    def depthwise(self) -> bool:
        """Whether it has depthwise convolutions."""
        return self.builder.startswith(("MobileNet", "NASNet", "EfficientNet", "ConvNeXt", "Xception", "lite0"))


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
    families += [Backbone("Xception", "tf", 299)]
    families += [
        Backbone(name, "tf", 299, 171) for name in ("InceptionV3", "InceptionResNetV2")
    ]  # unpadded convolutions
    families += [Backbone("NASNetLarge", "tf", 331)]
    families += [
        Backbone(f"EfficientNetB{n}", "none", size) for n, size in enumerate((240, 260, 300, 380, 456, 528, 600), 1)
    ]
    families += [Backbone(f"EfficientNetV2B{n}", "none", size) for n, size in enumerate((240, 260, 300), 1)]
    families += [Backbone(f"EfficientNetV2{n}", "none", size) for n, size in (("S", 384), ("M", 480), ("L", 480))]
    return {family.builder.lower(): family for family in families} | {"efficientnet_lite0": Backbone("lite0", "lite")}


BACKBONES = _families()
"""The backbones by their name in `features.backbone`."""

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
"""Scale and offset of the linear kinds of preprocessing."""

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def is_file(config: FeaturesConfig) -> bool:
    """Whether `features.backbone` is the path of a .keras file rather than a name."""
    return config.backbone.endswith(".keras")


def family(config: FeaturesConfig) -> Backbone:
    """The entry of BACKBONES. Raises UsageError with similar names for an unknown one."""
    found = BACKBONES.get(config.backbone.lower())
    if found is None:
        close = nearest(config.backbone.lower(), BACKBONES)
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
        raise UsageError(
            "features.image_size is required with a .keras file as backbone. Set it, e.g. `image_size: 224`."
        )
    size = family(config).image_size
    return size, size


def compute_dtype(config: FeaturesConfig) -> Literal["bfloat16", "float32"]:
    """The dtype of convolutions; with `auto`, bfloat16 if this machine supports it in hardware.

    Depthwise networks then stay in float32: in bfloat16 they are slower, and their features deviate by 6 % (Lite0) and 19 %
    (MobileNetV2) of their spread over photos (`tests/benchmarks/test_cache_speed.py -k bfloat16`), so the exported float32
    network would differ.
    """
    if config.compute != "auto":
        return config.compute
    if _is_depthwise(config):
        return "float32"
    if config.workers.gpus:
        return "bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def _is_depthwise(config: FeaturesConfig) -> bool:
    if not is_file(config):
        return family(config).depthwise
    path = Path(config.backbone)
    return path.is_file() and read_keras_file(path).depthwise


def weights_digest(config: FeaturesConfig) -> str:
    """Identifies the weights: the sha256 (hex) of their file, `random:<seed>`, or the name of Keras's download.

    Keras verifies its downloads against hashes in its source, so the name is as good as a digest.
    """
    if is_file(config):
        return file_sha256(existing_file(config.backbone, "features.backbone"))
    if config.weights == "random":
        return f"random:{config.seed}"
    if config.weights != "imagenet":
        return file_sha256(existing_file(config.weights, "features.weights"))
    builder = family(config).builder
    return file_sha256(weights_file()) if builder == "lite0" else f"keras.applications:{builder}:imagenet"


def check_backbone(config: FeaturesConfig) -> None:
    """Checks the files of backbone and weights without Keras; missing files are not checked.

    Raises UsageError for a `.keras` file that cannot be used, a cut that is not one of its layers, or a file without weights.
    """
    if not is_file(config):
        if config.weights not in ("imagenet", "random") and Path(config.weights).is_file():
            check_weights_file(Path(config.weights))
        return
    if config.weights != "imagenet":
        raise UsageError(
            f"features.weights: received {config.weights!r}, but {config.backbone} has its own weights. Remove the key."
        )
    path = Path(config.backbone)
    if not path.is_file():
        return
    file = read_keras_file(path)
    check_keras_file(file, path, image_size(config))
    for cut in config.cuts:
        path_of(cut, [layer.path for layer in file.layers if layer.kind != "InputLayer"])


def correction_key_parts(config: FeaturesConfig) -> dict[str, str]:
    """Extra key parts for backbones whose features earlier versions computed wrongly, so that their caches are not reused.

    Those versions left augmentation layers active, and lost the learnt statistics of a Normalization layer in bfloat16.
    """
    file = read_keras_file(existing_file(config.backbone, "features.backbone")) if is_file(config) else None
    learns = file.normalizes if file else config.weights != "random" and family(config).normalizes
    found = {"left_out": "augmentation"} if file and file.augments else {}
    return found | ({"normalization": "learnt"} if learns and compute_dtype(config) == "bfloat16" else {})


def prepared(config: FeaturesConfig, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Photos (n, h, w, 3) uint8 as they enter the backbone, float32: like `preprocessing_layers`, but without Keras."""
    kind, pixels = preprocessing(config), photos.astype(np.float32)
    if kind == "none":
        return pixels
    if kind == "caffe":
        return pixels[..., ::-1] - np.asarray(CAFFE_MEAN_BGR, np.float32)
    scale, offset = kind if isinstance(kind, tuple) else SCALES[kind]
    scaled: npt.NDArray[np.float32] = pixels * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)
    return scaled


def input_range(config: FeaturesConfig) -> tuple[float, float]:
    """The lowest and highest value that can enter the backbone, from a black and a white pixel."""
    ends = prepared(config, np.array([[[[0, 0, 0]]], [[[255, 255, 255]]]], np.uint8))
    return float(ends.min()), float(ends.max())


DEFAULT_POOLING = "avg+max+covariance:64"
"""Default pooling of maps with at least 16 positions: far better than the average on fine-grained classes, no worse on others
(docs/benchmarks.md, "Three backbones, three splits")."""


def pooling(config: FeaturesConfig) -> str:
    """The pooling of the cached maps: the configured one; by default DEFAULT_POOLING, or the average for small photos, whose last
    map has too few positions for a covariance. A `.keras` file is assumed to downsample by 32, like the named networks."""
    if config.pooling is not None:
        return config.pooling
    smallest = Backbone.smallest_pooled if is_file(config) else family(config).smallest_pooled
    return DEFAULT_POOLING if min(image_size(config)) >= smallest else "avg"


def existing_file(path: str, key: str) -> Path:
    if not Path(path).is_file():
        raise UsageError(f"{key}: there is no file {path}. Fix the path.")
    return Path(path)


def preprocessing(config: FeaturesConfig) -> Preprocessing | tuple[Any, Any]:
    """The kind of preprocessing, or (scale, offset). Raises UsageError if it is not configured for a .keras file."""
    if not is_file(config):
        if config.preprocessing is not None:
            raise UsageError(f"features.preprocessing: {config.backbone} has its own preprocessing. Remove the key.")
        return family(config).preprocessing
    named = config.preprocessing
    if isinstance(named, dict):
        if set(named) != {"scale", "offset"}:
            raise UsageError(
                f"features.preprocessing: a mapping must have `scale` and `offset`, but got {', '.join(named) or 'none'}."
            )
        return named["scale"], named["offset"]
    if named in MODULES:
        return MODULES[named]
    if named in BACKBONES:
        return BACKBONES[named].preprocessing
    raise UsageError(
        f"features.preprocessing: received {named!r}; with a .keras file as backbone, give the preprocessing of its training: "
        f"one of {', '.join(MODULES)}, or {{scale, offset}} to multiply photos in 0…255 by and to add."
    )
