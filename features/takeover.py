"""Finished shards of one cache taken over into another: linked where the file system can, else copied."""

from __future__ import annotations

import shutil
from pathlib import Path

from features.atomic import atomic_path
from features.checksums import Checksum, file_sha256, write_checksum
from features.manifest import Manifest


def take_over(other: Path, manifest: Manifest, folder: Path, augmented: bool) -> None:
    """Links the shards of the cache in `other` that `folder` lacks and whose checksum holds; the clean ones alone unless
    `augmented`."""
    for entry in manifest.shards:
        source, target = other / entry.file, folder / entry.file
        if (entry.copy_number and not augmented) or target.exists():
            continue
        if not source.exists() or file_sha256(source) != entry.sha256:
            continue
        with atomic_path(target) as temporary:
            try:
                temporary.hardlink_to(source)
            except OSError:  # a file system without links
                shutil.copyfile(source, temporary)
        write_checksum(target, Checksum(entry.sha256, manifest.feature_shape))
