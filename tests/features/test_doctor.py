from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.building.build import build_cache
from features.building.doctor import repair, verify
from features.cache.feature_cache import cache_for
from features.cache.manifest import parse_manifest, write_manifest
from features.cache.shards import Shard, find_faults, read_shard, write_shard
from features.config import FeaturesRun
from features.runtime.atomic import file_sha256
from features.runtime.errors import CacheError

MakeRun = Callable[..., FeaturesRun]


def shards(run: FeaturesRun) -> list[Path]:
    return sorted(cache_for(run).folder.glob("*.tfrecord"))


def rewrite(run: FeaturesRun, path: Path, **changes: object) -> None:
    """Replaces a shard and corrects every checksum, as a wrong computation would leave it."""
    cache = cache_for(run)
    entry = next(entry for entry in cache.manifest.shards if entry.file == path.name)
    shard = Shard(*map(np.array, read_shard(path, entry.records, cache.feature_shape, "float16")))
    write_shard(path, shard._replace(**changes))
    corrected = entry.model_copy(update={"sha256": file_sha256(path)})
    change_manifest(run, shards=tuple(corrected if other == entry else other for other in cache.manifest.shards))


def change_manifest(run: FeaturesRun, **changes: object) -> None:
    """Changes the manifest, with a matching digest."""
    cache = cache_for(run)
    write_manifest(cache.folder, cache.manifest.model_copy(update=changes))


def test_a_sound_cache_has_no_faults(cached_run: FeaturesRun) -> None:
    found = verify(cached_run)
    assert (found["ok"], found["faults"]) == (True, [])
    assert found["bytes"] == sum(path.stat().st_size for path in shards(cached_run))
    entering = found["input"]  # noise of 0…240 on [-1, 1]
    assert entering["min"] == pytest.approx(-1, abs=0.05)
    assert -1 < entering["mean"] < 0 < entering["max"] < 1
    assert 0 <= found["constant_features"] < 6


def test_a_folder_in_place_of_a_shard_is_a_fault_among_others(cached_run: FeaturesRun) -> None:
    replaced, lost, *_ = shards(cached_run)
    replaced.unlink()
    replaced.mkdir()
    lost.unlink()
    faults = {fault["shard"]: fault["what"] for fault in verify(cached_run)["faults"]}
    assert faults == {replaced.name: "a folder has its name: delete or rename it", lost.name: "the file is missing"}
    with pytest.raises(IsADirectoryError):  # a user's folder is not deleted; the command says so
        repair(cached_run)
    replaced.rmdir()
    assert repair(cached_run)["shards_written"] == 2


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
    assert faults[0]["what"] == "the checksum does not match the data"
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
        ({"labels": np.zeros(6, np.int64)}, "the label differs from the index"),
        ({"images": np.arange(6)}, "the photo differs from the index"),
        ({"features": np.full((6, 6), np.nan, np.float16)}, "NaN or infinity"),
        ({"features": np.tile(np.arange(6, dtype=np.float16), (6, 1))}, "all records are equal"),
        ({"features": np.tile(np.arange(6, dtype=np.float16)[:, None], (1, 6))}, "all features are equal"),
    ],
    ids=["labels", "images", "nan", "alike", "constant"],
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
    cache = cache_for(cached_run)
    text = (cache.folder / "manifest.json").read_text()
    first, forgotten, *rest = cache.manifest.shards
    change_manifest(cached_run, shards=(first, *rest))
    faults = verify(cached_run)["faults"]
    assert {"shard": forgotten.file, "record": None, "what": "missing from the manifest"} in faults
    repair(cached_run)
    assert (cache.folder / "manifest.json").read_text() == text


def test_an_augmented_copy_outside_train_is_found(cached_run: FeaturesRun) -> None:
    entries = cache_for(cached_run).manifest.shards
    val = next(entry for entry in entries if entry.split == "val")
    wrong = val.model_copy(update={"copy_number": 1})
    change_manifest(cached_run, shards=tuple(wrong if entry == val else entry for entry in entries))
    faults = verify(cached_run)["faults"]
    assert {"shard": val.file, "record": None, "what": "an augmented copy of val, which must be clean"} in faults


def test_every_single_changed_byte_of_the_manifest_is_found(cached_run: FeaturesRun) -> None:
    path = cache_for(cached_run).folder / "manifest.json"
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(CacheError):
            parse_manifest(bytes(changed), path)
    for place in (0, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert [fault["shard"] for fault in verify(cached_run)["faults"]] == ["manifest.json"]
        assert repair(cached_run)["repaired"] == ["manifest.json"]
        assert path.read_bytes() == data


def test_every_single_changed_byte_of_a_shard_is_found(cached_run: FeaturesRun) -> None:
    cache = cache_for(cached_run)
    entry = cache.manifest.shards[0]
    path = cache.folder / entry.file
    data = path.read_bytes()
    record = len(data) // entry.records
    for place in range(len(data)):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[place] ^= 1 << place % 8
        (fault,) = find_faults(changed, entry.records, cache.feature_shape, cache.manifest.dtype)
        assert fault[0] == place // record
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 128]))
    (named,) = verify(cached_run)["faults"]
    assert (named["shard"], named["record"]) == (entry.file, entry.records - 1)


def test_what_enters_the_backbone_is_judged(make_run: MakeRun) -> None:
    run = make_run(preprocessing={"scale": 0, "offset": 1})
    build_cache(run)
    found = verify(run)
    assert found["input"] == {"min": 1, "max": 1, "mean": 1, "std": 0}
    (fault,) = [fault for fault in found["faults"] if "input" in fault["what"]]
    assert "the backbone's input hardly varies" in fault["what"]
    assert "features.preprocessing" in fault["what"]


def test_without_a_cache_there_is_nothing_to_verify(make_run: MakeRun) -> None:
    with pytest.raises(CacheError, match="Run `headhunt features cache`"):
        verify(make_run())
