"""The curves and weights of a trial on disk: damaged files are reported and never read in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.runtime.errors import HeadhuntError
from search.records import load_curves, load_weights, write_trial, write_weights
from search.trial import EpochMetrics, TrialConfig, TrialResult

pytestmark = pytest.mark.unit

CURVES = tuple(EpochMetrics(epoch, 1.0, 0.5, 0.75, 0.25 * epoch, 1.0, 1e-3) for epoch in (1, 2, 3))


def test_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_weights(Path("run"), 4, {"head.kernel": np.arange(99, dtype=np.float32)})
    path = Path("run/trials/4/weights.npz")
    whole = path.read_bytes()
    assert load_weights(Path("run"), 4)["head.kernel"][98] == 98
    flipped = bytearray(whole)
    flipped[whole.index(np.float32(50).tobytes())] ^= 1
    for content in (b"", whole[: len(whole) // 2], b"no weights", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(
            HeadhuntError, match=r"run/trials/4/weights\.npz is damaged \(.+\)\. .* retrains trial 4 from its seed"
        ):
            load_weights(Path("run"), 4)
    path.unlink()
    path.mkdir()
    with pytest.raises(HeadhuntError, match=r"weights\.npz is damaged \(it is a folder\)"):
        load_weights(Path("run"), 4)


def test_damaged_curves_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_trial(Path("run"), 4, TrialConfig(), TrialResult(CURVES, 3, {}, None, 1.0))
    path = Path("run/trials/4/curves.csv")
    whole = path.read_bytes()
    assert load_curves(Path("run"), 4)["val_accuracy"].tolist() == [0.25, 0.5, 0.75]
    for content in (
        b"",
        whole[: len(whole) // 2],
        whole[:-1],
        b'\x00\xff{"a' * 9,
        whole.splitlines(keepends=True)[0],
        whole.replace(b"val_loss", b"other"),
        whole.replace(b"0.75", b"none"),
    ):
        path.write_bytes(content)
        with pytest.raises(HeadhuntError, match=r"^run/trials/4/curves\.csv is damaged \(.+\)\.$"):
            load_curves(Path("run"), 4)
    path.unlink()
    with pytest.raises(HeadhuntError, match=r"trial 4 has no curves at run/trials/4/curves\.csv"):
        load_curves(Path("run"), 4)
