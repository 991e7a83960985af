from __future__ import annotations

import os
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest

from features.backbones.lite0 import build_lite0, read_torch_file, weights_file
from features.runtime.errors import HeadhuntError

REFERENCE = Path(__file__).parents[3] / "shared/data/weights/efficientnet_lite0_imagenet1000.keras"


def test_the_packaged_file_reads_without_torch() -> None:
    state = read_torch_file(weights_file())
    first, last = next(iter(state.values())), list(state)[-2:]
    assert first.shape == (32, 3, 3, 3)
    assert [state[name].shape for name in last] == [(1000, 1280), (1000,)]


def test_random_weights_build_at_any_size() -> None:
    assert build_lite0((64, 96, 3), pretrained=False).output.shape == (None, 2, 3, 1280)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference network is not on this machine")
def test_the_features_are_those_of_the_reference_network() -> None:
    """The reference keeps its weights in float16, so pooled features agree to about 1 %."""
    reference = keras.saving.load_model(REFERENCE)
    penultimate = keras.Model(reference.inputs[0], reference.get_layer("gap").output)
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    ours = np.asarray(build_lite0((224, 224, 3), pretrained=True)(photos)).mean((1, 2))
    theirs = np.asarray(penultimate(photos))
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)


class Evil:
    def __reduce__(self) -> object:
        return os.system, ("echo ran",)


def test_a_file_that_asks_for_code_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(HeadhuntError, match=r"not a readable PyTorch weights file.*posix\.system"):
        read_torch_file(path)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", pickle.dumps(3)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(HeadhuntError, match=r"other\.pth is not a readable PyTorch weights file"):
        read_torch_file(path)
