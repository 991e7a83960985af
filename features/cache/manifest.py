"""The manifest of a cache: its contents, and a digest that reveals damage to the manifest itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer

from features.pooling import Layout
from features.runtime.atomic import write_text
from features.runtime.errors import CacheError
from features.runtime.section import Section

FORMAT_VERSION = 2

MANIFEST = "manifest.json"


class ShardEntry(Section):
    """One shard file, its contents and its sha256."""

    file: str
    split: Literal["train", "val", "test"]
    copy_number: int
    records: int
    sha256: str


class Manifest(Section):
    """The contents of a cache. Its bytes depend only on the configuration and the photos.

    `parts` are the columns of a record: the name and width of each part of the pooling; empty for unpooled maps.
    `projections` are the sha256 (hex) of the projection files beside the shards, one per map; empty without covariances.
    """

    format_version: int
    key: str
    key_parts: dict[str, Any]
    feature_shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    policy: str
    copies: int
    splits: dict[str, int]
    shards: tuple[ShardEntry, ...]
    parts: Layout = ()
    projections: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits empty `parts` and `projections`, so that the digests of older manifests, which lack them, still match."""
        content: dict[str, Any] = plain(self)
        return {name: value for name, value in content.items() if value or name not in ("parts", "projections")}

    def text(self) -> str:
        """The manifest's file content: JSON, with the sha256 of everything else as `digest`."""
        content = self.model_dump(mode="json")
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps({**content, "digest": digest}, indent=1) + "\n"


def cache_key(parts: dict[str, Any]) -> str:
    """sha256 (hex) of the parts of a key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, which marks the cache as finished."""
    write_text(folder / MANIFEST, manifest.text())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the cache in `folder`. Raises CacheError when it is missing or a single byte of it has changed."""
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_bytes(), path)
    except FileNotFoundError:
        raise CacheError(f"there is no finished feature cache in {folder}. Run `headhunt features cache`.") from None
    except IsADirectoryError:
        raise CacheError(
            f"{path} is damaged (it is a folder). Delete it, then run `headhunt features repair`, which keeps intact shards."
        ) from None


def parse_manifest(data: bytes, source: Path | str) -> Manifest:
    """Parses a manifest's bytes. Raises CacheError unless they are exactly what `Manifest.text` writes, including the digest."""
    try:
        content = json.loads(data.decode())
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping")
        version = content.get("format_version")
        if version != FORMAT_VERSION and isinstance(version, int) and "key_parts" in content:
            raise CacheError(
                f"{source} has format {version}, but this version of Headhunt reads {FORMAT_VERSION}. Run `headhunt "
                f"features cache` "
                "to rebuild the cache."
            )
        content.pop("digest", None)
        manifest = Manifest.model_validate_json(json.dumps(content))
        if manifest.text().encode() != data or cache_key(manifest.key_parts) != manifest.key:
            raise ValueError("its digest does not match its content")
    except (ValueError, ValidationError) as error:
        why = f"{error.error_count()} errors" if isinstance(error, ValidationError) else str(error)
        raise CacheError(
            f"{source} is damaged ({why}). Run `headhunt features repair`, which keeps intact shards."
        ) from None
    return manifest
