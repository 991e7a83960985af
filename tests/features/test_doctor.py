from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.build import file_sha256
from features.cache import cache_for
from features.config import FeaturesRun
from features.doctor import repair, verify
from features.errors import CacheError
from features.shards import Shard, read_shard, write_shard

MakeRun = Callable[..., FeaturesRun]


def shards(run: FeaturesRun) -> list[Path]:
    return sorted(cache_for(run).folder.glob("*.tfrecord"))


def rewrite(run: FeaturesRun, path: Path, **changes: object) -> None:
    """Replaces a shard and corrects every checksum, as a wrong computation would have left it."""
    cache = cache_for(run)
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    entry = next(entry for entry in manifest["shards"] if entry["file"] == path.name)
    shard = Shard(*map(np.array, read_shard(path, entry["records"], cache.feature_shape, "float16")))
    write_shard(path, shard._replace(**changes))
    entry["sha256"] = file_sha256(path)
    (cache.folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_sound_cache_has_no_faults(cached_run: FeaturesRun) -> None:
    assert verify(cached_run) == {"ok": True, "faults": []}


def test_damage_is_placed_and_mended(cached_run: FeaturesRun) -> None:
    flipped, cut, lost = (path for path in shards(cached_run) if "train-c001" in path.name)
    before = {path: path.read_bytes() for path in shards(cached_run)}
    data = bytearray(before[flipped])
    data[len(data) // 6 + 40] ^= 4
    flipped.write_bytes(data)
    cut.write_bytes(before[cut][:-5])
    lost.unlink()
    faults = verify(cached_run)["faults"]
    assert [(fault["shard"], fault["record"]) for fault in faults] == [
        (flipped.name, 1),
        (cut.name, None),
        (lost.name, None),
    ]
    assert faults[0]["what"] == "the checksum does not fit the data"
    assert "bytes, not" in faults[1]["what"]
    assert "is missing" in faults[2]["what"]
    result = repair(cached_run)
    assert result["repaired"] == sorted(path.name for path in (flipped, cut, lost))
    assert result["shards_written"] == 3
    assert {path: path.read_bytes() for path in shards(cached_run)} == before
    assert verify(cached_run)["ok"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"labels": np.zeros(6, np.int64)}, "another label than the index says"),
        ({"images": np.arange(6)}, "another image than the index says"),
        ({"features": np.full((6, 6), np.nan, np.float16)}, "NaN or infinity"),
        ({"features": np.ones((6, 6), np.float16)}, "all records are alike"),
    ],
    ids=["labels", "images", "nan", "constant"],
)
def test_wrong_content_with_right_checksums_is_found(
    cached_run: FeaturesRun, change: dict[str, object], what: str
) -> None:
    path = next(path for path in shards(cached_run) if "train-c001" in path.name)
    rewrite(cached_run, path, **change)
    faults = verify(cached_run)["faults"]
    assert {fault["what"] for fault in faults} == {what}
    assert {fault["shard"] for fault in faults} == {path.name}


def test_a_manifest_that_forgets_a_shard_is_found(cached_run: FeaturesRun) -> None:
    path = cache_for(cached_run).folder / "manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    forgotten = manifest["shards"].pop(1)
    path.write_text(json.dumps(manifest))
    assert verify(cached_run)["faults"] == [
        {"shard": forgotten["file"], "record": None, "what": "missing from the manifest"}
    ]
    repair(cached_run)
    assert path.read_text() == text


def test_without_a_cache_there_is_nothing_to_verify(make_run: MakeRun) -> None:
    with pytest.raises(CacheError, match="Run `headhunt features cache`"):
        verify(make_run())
