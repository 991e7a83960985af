"""A cache's projection files beside its shards: `projection-1.npy`, …, one per map: (channels, components) float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from features.backbones.projection import Projection
from features.cache.checksums import Checksum, read_checksum, write_checksum
from features.runtime.atomic import atomic_path, file_sha256
from features.runtime.errors import CacheError


def projection_path(folder: Path, number: int) -> Path:
    """The file of the projection of map `number`, from 1."""
    return folder / f"projection-{number}.npy"


def write_projections(folder: Path, projections: Sequence[Projection]) -> None:
    """Writes the files and, after each, its checksum file.

    Raises CacheError when the folder's shards were made with other projections, because this machine's arithmetic differs from
    that of the machine that fitted them first.
    """
    for number, projection in enumerate(projections, start=1):
        path = projection_path(folder, number)
        known = checksum_of(path)
        if known is not None and known != projection.sha256 and any(folder.glob("*.tfrecord")):
            raise CacheError(
                f"{path.name} is missing or damaged, and refitting it on this machine does not give the projection of the shards "
                f"in {folder}. Delete that folder and run `headhunt features cache`, or repair it on the machine that made it."
            )
        with atomic_path(path) as temporary:
            temporary.write_bytes(projection.data)
        write_checksum(path, Checksum(projection.sha256, projection.kernel.shape))


def checksum_of(path: Path) -> str | None:
    """The sha256 (hex) of a projection's file when it was fitted, even if the file itself is gone; None if unknown."""
    known = read_checksum(path, even_without_file=True)
    return known.sha256 if known else None


def read_projections(folder: Path, maps: int) -> tuple[Projection, ...] | None:
    """The projections of this many maps; None when any is missing, unfinished or damaged."""
    found = tuple(_whole(folder, maps))
    return found if len(found) == maps else None


def _whole(folder: Path, maps: int) -> Iterator[Projection]:
    for number in range(1, maps + 1):
        path = projection_path(folder, number)
        known = read_checksum(path)
        if known is not None and file_sha256(path) == known.sha256:
            yield Projection(path.read_bytes())
