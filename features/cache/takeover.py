"""Reuses finished shards of one cache in another: hard-linked if the file system supports it, otherwise copied."""

from __future__ import annotations

import shutil
from pathlib import Path

from features.cache.checksums import Checksum, read_checksum, write_checksum
from features.cache.manifest import Manifest
from features.cache.projections import projection_path
from features.runtime.atomic import atomic_path, file_sha256


def take_over(other: Path, manifest: Manifest, folder: Path, augmented: bool) -> None:
    """Links the shards of the cache in `other` that `folder` lacks and whose checksum matches; only the clean ones unless
    `augmented`. The projections are linked first; if they cannot be, or differ, no shard is linked."""
    for number, sha256 in enumerate(manifest.projections, start=1):
        source, target = projection_path(other, number), projection_path(folder, number)
        if not target.exists() and not _link(source, target, sha256):
            return
        if file_sha256(target) != sha256:
            return
        write_checksum(target, read_checksum(source) or Checksum(sha256, ()))
    for entry in manifest.shards:
        source, target = other / entry.file, folder / entry.file
        if (entry.copy_number and not augmented) or target.exists() or not _link(source, target, entry.sha256):
            continue
        write_checksum(target, Checksum(entry.sha256, manifest.feature_shape, manifest.parts))


def _link(source: Path, target: Path, sha256: str) -> bool:
    """Links or copies `source` to `target` if it exists with this sha256. Returns whether it did."""
    if not source.exists() or file_sha256(source) != sha256:
        return False
    with atomic_path(target) as temporary:
        try:
            temporary.hardlink_to(source)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
    return True
