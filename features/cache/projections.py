"""The files of a cache's projections beside its shards: `projection-1.npy`, one for each map: (channels, components) float32."""

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

    Raises CacheError when shards in the folder were made with others: the arithmetic of this machine differs from that of the one
    that fitted them first.
    """
    for number, projection in enumerate(projections, start=1):
        path = projection_path(folder, number)
        known = checksum_of(path)
        if known is not None and known != projection.sha256 and any(folder.glob("*.tfrecord")):
            raise CacheError(
                f"{path.name} is missing or damaged, and fitted again on this machine it is another one than that of the shards "
                f"in {folder}. Delete that folder and run `headhunt features cache`, or repair it on the machine that made it."
            )
        with atomic_path(path) as temporary:
            temporary.write_bytes(projection.data)
        write_checksum(path, Checksum(projection.sha256, projection.kernel.shape))


def checksum_of(path: Path) -> str | None:
    """The sha256 (hex) that a projection's file had when it was fitted, also where the file itself is gone."""
    known = read_checksum(path, even_without_file=True)
    return known.sha256 if known else None


def read_projections(folder: Path, maps: int) -> tuple[Projection, ...] | None:
    """The projections of this many maps; None when one of them is missing, unfinished or damaged."""
    found = tuple(_whole(folder, maps))
    return found if len(found) == maps else None


def _whole(folder: Path, maps: int) -> Iterator[Projection]:
    for number in range(1, maps + 1):
        path = projection_path(folder, number)
        known = read_checksum(path)
        if known is not None and file_sha256(path) == known.sha256:
            yield Projection(path.read_bytes())
