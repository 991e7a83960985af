"""Fits a cache's projections on workers, before its first shard."""

from __future__ import annotations

from pathlib import Path

from features.backbones.projection import MapMoments, Projection, add_moments, fit, fitted_rows, widest_covariance
from features.backbones.table import pooling
from features.building.blocks import Block, Task, sum_maps
from features.cache.keys import for_workers
from features.cache.mirror import fetch_projections, push_shard
from features.cache.projections import projection_path, read_projections, write_projections
from features.cache.store import Store
from features.config import FeaturesRun
from features.dataset.index import DatasetIndex
from features.runtime.commands.progress import progress
from features.runtime.log import log
from features.runtime.workers.executors import Executor

FEW_PLACES = 16
"""With fewer positions per map, the covariance of one photo is mostly noise."""


def are_fitted(run: FeaturesRun, folder: Path, store: Store | None) -> bool:
    """Whether the cache's folder has the projections that the pooling needs; those in the store are downloaded."""
    if not widest_covariance(pooling(run.features)) or _found(run, folder) is not None:
        return True
    return store is not None and fetch_projections(store, folder, _maps(run)) and _found(run, folder) is not None


def projections(
    run: FeaturesRun, index: DatasetIndex, folder: Path, executor: Executor, threads: int, store: Store | None
) -> tuple[Projection, ...]:
    """The projections of the cache in `folder`, one per map, fitted and written if missing; none if the pooling has no
    covariance. Raises CacheError when existing shards were made with other projections, which are lost."""
    components = widest_covariance(pooling(run.features))
    if not components:
        return ()
    if are_fitted(run, folder, store):
        return _found(run, folder) or ()
    rows = fitted_rows(index)
    log.print(f"Fitting the principal components of the channels on {len(rows)} clean training photos …")
    total = _sum_of_maps(executor, _tasks(run, index, folder, rows, threads))
    places = min(moments.places for moments in total) // len(rows)
    if places < FEW_PLACES:
        log.print(
            f"The maps have only {places} positions each, so their covariances are mostly noise. Consider `features.pooling: "
            "avg+max`, or a larger `features.image_size`.",
        )
    write_projections(folder, [fit(moments, components) for moments in total])
    if store:
        for number in range(1, _maps(run) + 1):
            push_shard(store, projection_path(folder, number))
    return _found(run, folder) or ()


def _tasks(run: FeaturesRun, index: DatasetIndex, folder: Path, rows: list[int], threads: int) -> list[Task]:
    size = run.features.images_per_shard
    features, crop = for_workers(run).features.model_dump_json(), bool(getattr(run.dataset, "crop_to_bbox", False))
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    tasks = []
    for number, piece in enumerate(pieces):
        photos = DatasetIndex(index.table.iloc[piece], index.class_names, index.root)
        block = Block("train", number, len(pieces), tuple(piece))
        tasks.append(Task(features, photos, folder.resolve(), block, (), crop, threads, None))
    return tasks


def _sum_of_maps(executor: Executor, tasks: list[Task]) -> list[MapMoments]:
    """The sums over all tasks, one per map, added in the order of the tasks, since floating-point sums depend on the order."""
    waiting: dict[int, list[MapMoments]] = {}
    total: list[MapMoments] = []
    added = 0
    with progress("components", sum(len(task.block.rows) for task in tasks), "images") as advance:
        for position, sums in executor.map(sum_maps, tasks):
            waiting[position] = sums
            advance(len(tasks[position].block.rows))
            while added in waiting:
                sums = waiting.pop(added)
                total = [add_moments(pair) for pair in zip(total, sums, strict=True)] if total else sums
                added += 1
    return total


def _maps(run: FeaturesRun) -> int:
    return len(run.features.cuts) or 1


def _found(run: FeaturesRun, folder: Path) -> tuple[Projection, ...] | None:
    return read_projections(folder, _maps(run))
