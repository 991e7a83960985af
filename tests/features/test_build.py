from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.building import build
from features.building.blocks import plan_blocks
from features.building.build import build_cache, build_caches
from features.building.doctor import verify
from features.cache.feature_cache import cache_for
from features.config import FeaturesRun
from features.dataset.index import load_index
from features.runtime.atomic import only_process
from features.runtime.errors import CacheError, DatasetError, UsageError

MakeRun = Callable[..., FeaturesRun]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("build.json", ".lock")}


def test_the_result_has_the_promised_keys(make_run: MakeRun) -> None:
    result = build_cache(make_run(copies=2))
    expected = "cache key copies records bytes shards_written shards_reused seconds images_per_second policy"
    assert list(result) == expected.split()
    assert result["copies"] == 2
    index = load_index(make_run(prepared=False))
    assert result["records"] == 24 + 2 * len(index.of_split("train"))


def test_blocks_cut_each_split_in_order(make_run: MakeRun) -> None:
    index = load_index(make_run())
    blocks = plan_blocks(index, 6)
    for split in ("train", "val", "test"):
        rows = [row for block in blocks if block.split == split for row in block.rows]
        assert rows == index.of_split(split).index.tolist()
    first = blocks[0]
    assert first.file(3) == f"train-c003-00000-of-{first.of:05d}.tfrecord"
    assert plan_blocks(index, 1000)[1].file(0) == "val-00000-of-00001.tfrecord"


def test_a_second_run_computes_nothing(cached_run: FeaturesRun) -> None:
    folder = cache_for(cached_run).folder
    before = contents(folder)
    result = build_cache(cached_run)
    assert result["shards_written"] == 0
    assert result["shards_reused"] == len([name for name in before if name.endswith(".tfrecord")])
    assert contents(folder) == before


def test_growth_computes_the_new_copy_alone_and_ends_as_if_built_at_once(make_run: MakeRun) -> None:
    build_cache(make_run("grown", copies=1))
    grown = make_run("grown", copies=2)
    result = build_cache(grown)
    assert result["shards_written"] == len([b for b in plan_blocks(load_index(grown), 6) if b.split == "train"])
    at_once = make_run("at-once", copies=2)
    build_cache(at_once)
    assert contents(cache_for(grown).folder) == contents(cache_for(at_once).folder)


def test_policies_are_cached_side_by_side_and_share_their_clean_shards(make_run: MakeRun) -> None:
    run = make_run(augmentation=["flip_rotate_zoom", "mild"], images_per_shard=6)
    result = build_caches(run)
    assert list(result["others"]) == ["mild"]
    train = [block for block in plan_blocks(load_index(run), 6) if block.split == "train"]
    assert result["others"]["mild"]["shards_written"] == len(train)  # its augmented copy; the clean shards are reused
    main, mild = cache_for(run), cache_for(run, "mild")
    assert (main.manifest.policy, mild.manifest.policy) == ("flip_rotate_zoom", "mild")
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(main.arrays(split)[0], mild.arrays(split)[0])
    assert (main.arrays("train", 1)[0] != mild.arrays("train", 1)[0]).any()
    alone = make_run("alone", augmentation="mild")
    build_cache(alone)
    assert contents(mild.folder) == contents(cache_for(alone).folder)


def test_a_damaged_clean_shard_is_not_taken_over(make_run: MakeRun) -> None:
    run = make_run()
    build_cache(run)
    damaged = next(cache_for(run).folder.glob("val-*.tfrecord"))
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    other = make_run(augmentation="mild")
    build_cache(other)
    assert verify(other)["ok"]


def test_a_second_build_in_the_same_folder_is_refused(cached_run: FeaturesRun) -> None:
    folder = cache_for(cached_run).folder
    with (
        only_process(folder / ".lock", ""),
        pytest.raises(UsageError, match=rf"another build is writing to .*{folder.name} \(process {os.getpid()}\)"),
    ):
        build_cache(cached_run)


def test_a_new_cache_says_how_it_differs(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    build_cache(make_run(copies=0))
    build_cache(make_run(copies=0, pooling="max"))
    said = " ".join(capsys.readouterr().err.split())
    assert 'differs in pooling (has "avg", wanted "max").' in said


def test_fewer_copies_keep_what_is_there(cached_run: FeaturesRun, make_run: MakeRun) -> None:
    result = build_cache(make_run(copies=0))
    assert (result["copies"], result["shards_written"]) == (1, 0)


def test_lost_and_half_written_shards_are_computed_again(cached_run: FeaturesRun) -> None:
    folder = cache_for(cached_run).folder
    before = contents(folder)
    whole, cut, unfinished = sorted(name for name in before if name.endswith(".tfrecord") and name[0] != ".")[:3]
    (folder / whole).unlink()
    (folder / cut).write_bytes(before[cut][:-10])
    (folder / f".{unfinished}.sha256.json").unlink()
    (folder / f".{Path(unfinished).stem}.999.tmp.tfrecord").write_bytes(b"left by a killed worker")
    (folder / "manifest.json").unlink()
    assert build_cache(cached_run)["shards_written"] == 3
    (folder / f".{Path(unfinished).stem}.999.tmp.tfrecord").unlink(missing_ok=True)
    assert contents(folder) == before


def test_validation_and_test_are_never_augmented(make_run: MakeRun) -> None:
    mild, strong = make_run("mild", augmentation="mild"), make_run("strong", augmentation="flip_rotate_zoom_translate")
    for run in (mild, strong):
        build_cache(run)
    for split in ("val", "test", "train"):
        np.testing.assert_array_equal(cache_for(mild).arrays(split)[0], cache_for(strong).arrays(split)[0])
    assert (cache_for(mild).arrays("train", 1)[0] != cache_for(strong).arrays("train", 1)[0]).any()


def test_copies_of_keras_layers_are_those_of_a_cache_that_grew_and_some_photos_stay_clean(make_run: MakeRun) -> None:
    layers = [{"layer": "RandomBrightness", "factor": [0.2, 0.4]}, {"layer": "RandomFlip"}]
    policy = {"layers": layers, "name": "bright", "clean_probability": 0.5}
    at_once, grown = make_run("at-once", copies=2, augmentation=policy), make_run("grown", augmentation=policy)
    build_cache(at_once)
    build_cache(grown)
    build_cache(grown.model_copy(update={"features": grown.features.model_copy(update={"copies": 2})}))
    assert contents(cache_for(at_once).folder) == contents(cache_for(grown).folder)
    cache = cache_for(at_once)
    clean = [(cache.arrays("train", copy)[0] == cache.arrays("train")[0]).all(1) for copy in (1, 2)]
    assert 0.2 < np.mean(clean) < 0.8
    assert (clean[0] != clean[1]).any()


def test_a_policy_that_is_given_another_name_keeps_its_shards(make_run: MakeRun) -> None:
    run = make_run(augmentation={"layers": [{"layer": "RandomFlip"}], "name": "mirror"})
    build_cache(run)
    assert cache_for(run).manifest.policy == "mirror"
    renamed = make_run(augmentation={"layers": [{"layer": "RandomFlip"}], "name": "flip"})
    assert build_cache(renamed)["shards_written"] == 0
    assert cache_for(renamed).manifest.policy == "flip"


def test_a_worker_decodes_with_its_own_cores_which_change_no_byte(
    cached_run: FeaturesRun, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)  # those of the driver's machine
    for workers, threads in (({"count": 2}, 4), ({"count": 16}, 1), ({"count": 8, "cpus": 6}, 6), ({"cpus": 0.5}, 1)):
        run = make_run("own-cores", workers={"executor": "local", **workers})
        assert build._threads(run) == threads
    run = make_run("own-cores", workers={"executor": "local", "cpus": 6})
    assert build_cache(run)["key"] == cache_for(cached_run).key
    assert contents(cache_for(run).folder) == contents(cache_for(cached_run).folder)


def test_workers_write_the_same_bytes(
    cached_run: FeaturesRun, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a relative `workdir` and backbone, too: workers start in their own folder. By Ray: tests/features/test_pooling.py."""
    monkeypatch.chdir(tmp_path)
    backbone = os.path.relpath(cached_run.features.backbone)
    run = make_run("by-workers", backbone=backbone, workers={"executor": "auto", "count": 2, "cpus": 1})
    run = run.model_copy(update={"workdir": Path("by-workers")})
    build_cache(run)
    assert contents(cache_for(run).folder) == contents(cache_for(cached_run).folder)


def test_a_photo_that_went_away_is_named_and_nothing_is_trusted(
    make_run: MakeRun, photos: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(photos, tmp_path / "photos")
    run = make_run(prepared=False)
    run = run.model_copy(update={"dataset": run.dataset.model_copy(update={"root": tmp_path / "photos"})})
    from features.dataset.prepare import prepare

    prepare(run)
    (tmp_path / "photos" / "b" / "3.png").unlink()
    with pytest.raises(DatasetError, match=r"b/3\.png"):
        build_cache(run)
    with pytest.raises(CacheError, match="Run `headhunt features cache`"):
        cache_for(run)


def test_features_too_large_for_float16_are_refused(make_run: MakeRun) -> None:
    run = make_run(preprocessing={"scale": 1e6, "offset": 0})
    with pytest.raises(CacheError, match=r"too large for float16\. Set `features\.dtype: float32`"):
        build_cache(run)
