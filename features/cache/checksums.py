"""A shard's checksum file, `.NAME.sha256.json`: written after the shard, it marks the shard as finished and describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from features.pooling import Layout
from features.runtime.atomic import write_text


class Checksum(NamedTuple):
    """The sha256 (hex) of a shard's file, the shape of one photo's features, and the parts they were pooled to."""

    sha256: str
    feature_shape: tuple[int, ...]
    parts: Layout = ()


def checksum_path(shard: Path) -> Path:
    """The path of a shard's checksum file: beside it, hidden."""
    return shard.with_name(f".{shard.name}.sha256.json")


def write_checksum(shard: Path, checksum: Checksum) -> None:
    """Writes the checksum file of a shard that is completely on disk."""
    parts = {"parts": checksum.parts} if checksum.parts else {}
    content = {"sha256": checksum.sha256, "shape": checksum.feature_shape, **parts}
    write_text(checksum_path(shard), json.dumps(content))


def parse_checksum(text: str) -> Checksum | None:
    """Parses a checksum file; None when it is damaged, so that the shard counts as unfinished."""
    try:
        content = json.loads(text)
        parts = tuple((str(name), int(width)) for name, width in content.get("parts", ()))
        return Checksum(str(content["sha256"]), tuple(int(size) for size in content["shape"]), parts)
    except (ValueError, KeyError, TypeError):
        return None


def read_checksum(shard: Path, even_without_file: bool = False) -> Checksum | None:
    """The checksum of a shard; None when its checksum file is missing, or (unless `even_without_file`) the shard itself."""
    if not (even_without_file or shard.exists()):
        return None
    try:
        return parse_checksum(checksum_path(shard).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def discard_shard(path: Path) -> None:
    """Deletes a damaged shard, so that the next build recomputes it."""
    checksum_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
