"""Synchronises a cache's local folder with its object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from features.cache.checksums import Checksum, checksum_path, parse_checksum, read_checksum, write_checksum
from features.cache.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from features.cache.projections import projection_path, read_projections
from features.cache.shards import shard_bytes
from features.cache.store import Store
from features.runtime.atomic import make_folder, write_text
from features.runtime.errors import CacheError
from features.runtime.log import counted, log, relative

TRANSFERS = 16
"""Number of parallel transfers: they are bound by the network, not by cores."""

T = TypeVar("T")
R = TypeVar("R")


def push_shard(store: Store, shard: Path) -> None:
    """Uploads a finished shard, then its checksum file, which marks it as finished in the store."""
    store.upload(shard)
    store.upload(checksum_path(shard))


def exchange(store: Store, folder: Path, shards: dict[str, int], dtype: str) -> dict[str, Checksum]:
    """Uploads the finished local shards that the store lacks. Returns the checksums of shards that only the store has, by name.

    `shards` maps the names to consider to their number of records.
    """
    there = store.sizes()

    def whole(name: str, checksum: Checksum | None) -> bool:
        return checksum is not None and there.get(name) == shard_bytes(shards[name], checksum.feature_shape, dtype)

    here = {name: known for name in shards if (known := read_checksum(folder / name))}
    missing = [name for name in here if checksum_path(Path(name)).name not in there or not whole(name, here[name])]
    if missing:
        log.print(f"Uploading {counted(len(missing), 'finished shard')} to {store.url} …")
        _at_once(lambda name: push_shard(store, folder / name), missing)
    names = [name for name in shards if name not in here and name in there and checksum_path(Path(name)).name in there]
    texts = _at_once(lambda name: store.read_text(checksum_path(Path(name)).name), names)
    only_there = {name: parse_checksum(text) for name, text in zip(names, texts, strict=True)}
    return {name: checksum for name, checksum in only_there.items() if checksum and whole(name, checksum)}


def push_manifest(store: Store, folder: Path) -> None:
    """Uploads the manifest if the store has none or a different one. All shards must already be in the store."""
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    if MANIFEST not in store.sizes() or store.read_text(MANIFEST) != text:
        store.write_text(MANIFEST, text)


def fetch_projections(store: Store, folder: Path, maps: int) -> bool:
    """Downloads the projections of this many maps. Returns whether the store has all of them."""
    there = store.sizes()
    paths = [projection_path(folder, number) for number in range(1, maps + 1)]
    if not all(name in there for path in paths for name in (path.name, checksum_path(path).name)):
        return False
    for path in paths:
        checksum = parse_checksum(store.read_text(checksum_path(path).name))
        if checksum is None:
            return False
        store.download(path.name, path, checksum.sha256)
        write_checksum(path, checksum)
    return True


def pull(store: Store, folder: Path, copies: int) -> None:
    """Downloads the files of a finished cache that the folder lacks; does nothing if the store has no finished cache.

    If the folder already has a complete cache of at least `copies` copies, the store is not contacted. The manifest is written
    last, as in a build. Raises CacheError when the store's manifest or a shard is damaged.
    """
    try:
        manifest = read_manifest(folder)
        if manifest.copies >= copies and not _lacking(folder, manifest) and _has_projections(folder, manifest):
            return
    except CacheError:
        pass
    if MANIFEST not in store.sizes():
        return
    text = store.read_text(MANIFEST)
    manifest = parse_manifest(text.encode(), f"{store.url}/{MANIFEST}")
    lacking = _lacking(make_folder(folder), manifest)
    sha256 = {entry.file: entry.sha256 for entry in manifest.shards}
    if lacking:
        log.print(f"Downloading {counted(len(lacking), 'shard')} from {store.url} to {relative(folder)} …")

    def fetch(name: str) -> None:
        store.download(name, folder / name, sha256[name])
        write_checksum(folder / name, Checksum(sha256[name], manifest.feature_shape, manifest.parts))

    if not _has_projections(folder, manifest):
        fetch_projections(store, folder, len(manifest.projections))
    _at_once(fetch, lacking)
    write_text(folder / MANIFEST, text)


def _lacking(folder: Path, manifest: Manifest) -> list[str]:
    def size(name: str) -> int:
        return (folder / name).stat().st_size if (folder / name).exists() else -1

    shape, dtype = manifest.feature_shape, manifest.dtype
    return [entry.file for entry in manifest.shards if size(entry.file) != shard_bytes(entry.records, shape, dtype)]


def _has_projections(folder: Path, manifest: Manifest) -> bool:
    found = read_projections(folder, len(manifest.projections))
    return found is not None and tuple(projection.sha256 for projection in found) == manifest.projections


def _at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    pool = ThreadPoolExecutor(TRANSFERS)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)
