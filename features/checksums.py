"""A shard's checksum file, `.NAME.sha256.json`: written after the shard, it says that the shard is finished, and what it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from features.atomic import write_text


class Checksum(NamedTuple):
    """The sha256 (hex) of a shard's file, and the shape of one image's features in it."""

    sha256: str
    feature_shape: tuple[int, ...]


def checksum_path(shard: Path) -> Path:
    """Where the checksum file of a shard stands: beside it, hidden."""
    return shard.with_name(f".{shard.name}.sha256.json")


def write_checksum(shard: Path, checksum: Checksum) -> None:
    """Writes the checksum file of a shard that is on disk in full."""
    write_text(checksum_path(shard), json.dumps({"sha256": checksum.sha256, "shape": checksum.feature_shape}))


def parse_checksum(text: str) -> Checksum | None:
    """What a checksum file says; None when it is damaged, so that the shard counts as unfinished."""
    try:
        content = json.loads(text)
        return Checksum(str(content["sha256"]), tuple(int(size) for size in content["shape"]))
    except (ValueError, KeyError, TypeError):
        return None


def read_checksum(shard: Path) -> Checksum | None:
    """The checksum of a shard; None when shard or checksum file is missing."""
    try:
        return parse_checksum(checksum_path(shard).read_text(encoding="utf-8")) if shard.exists() else None
    except (OSError, UnicodeDecodeError):
        return None


def file_sha256(path: Path) -> str:
    """The sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def discard_shard(path: Path) -> None:
    """Takes a damaged shard away, so that the next build computes it again."""
    checksum_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
