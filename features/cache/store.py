"""A cache's folder in an object store, which also keeps finished files, so that no machine computes them twice.

The local folder is a mirror. A file in the store is complete or absent: S3 and GCS put objects atomically, and a `file://` store
writes to a temporary name first. Credentials come from the driver's own environment variables (`AWS_*`, `FSSPEC_S3_*`).
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from features.runtime.atomic import atomic_path, file_sha256
from features.runtime.errors import CacheError, HeadhuntError, UsageError

ATTEMPTS = 4
"""Attempts per transfer; the pauses between them are 0.2, 0.4 and 0.8 seconds."""

FIRST_PAUSE_SECONDS = 0.2

DRIVERS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "file": ("", ""), "memory": ("", "")}
"""Allowed protocols: the package that each needs, and the extra of headhunt that installs it."""

Result = TypeVar("Result")


class Store:
    """One cache's folder in a store. Picklable; each process connects by itself, on first use.

    Raises UsageError for an invalid URL or a missing driver, HeadhuntError when a transfer fails permanently.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        protocol, separator, rest = url.partition("://")
        if not separator or protocol not in DRIVERS:
            allowed = ", ".join(f"{name}://" for name in DRIVERS)
            raise UsageError(f"features.store is {mask(url)!r}, but must be a URL that starts with one of {allowed}.")
        if not rest.strip("/") and protocol != "memory":
            raise UsageError(f"features.store is {mask(url)!r}, but must name a bucket or folder: {protocol}://NAME/…")
        if "@" in rest.partition("/")[0]:
            raise UsageError(f"features.store is {mask(url)!r}: put credentials in the environment, not in the URL.")
        self.url = url.rstrip("/")
        self.protocol = protocol
        self.options = dict(options or {})
        self._opened: Any = None

    def __repr__(self) -> str:
        return f"Store({mask(self.url)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every finished file in the folder, by name; {} when the folder does not exist."""

        def listing(system: Any) -> dict[str, int]:
            system.invalidate_cache()
            try:
                found = system.ls(self._path(), detail=True)
            except FileNotFoundError:
                self._check_bucket(system)
                return {}
            names = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in found if entry["type"] == "file"}
            return {name: int(entry["size"]) for name, entry in sorted(names.items()) if not name.endswith(".part")}

        return self._try("list", "", listing)

    def upload(self, file: Path) -> None:
        """Uploads a local file under its own name, atomically, and checks its size."""

        def put(system: Any) -> None:
            self._put(system, file.name, file.stat().st_size, lambda to: system.put_file(str(file), to))

        self._try("upload", file.name, put)

    def write_text(self, name: str, text: str) -> None:
        """Uploads text as UTF-8, atomically."""
        data = text.encode()
        self._try(
            "upload", name, lambda system: self._put(system, name, len(data), lambda to: system.pipe_file(to, data))
        )

    def read_text(self, name: str) -> str:
        """The UTF-8 text of a file. Raises CacheError when it is missing."""
        return bytes(self._try("read", name, lambda system: system.cat_file(self._path(name)))).decode()

    def download(self, name: str, target: Path, sha256: str | None = None) -> None:
        """Downloads a file to `target`, atomically. Raises CacheError, leaving `target` unchanged, when the file is missing or
        has another sha256."""
        with atomic_path(target) as temporary:
            self._try("download", name, lambda system: system.get_file(self._path(name), str(temporary)))
            if sha256 is not None:
                found = file_sha256(temporary)
                if found != sha256:
                    raise CacheError(
                        f"{mask(self.url)}/{name} is damaged: its sha256 is {found[:16]}…, expected {sha256[:16]}…. Delete it "
                        "there and run `headhunt features cache` to upload it again."
                    )

    def delete(self, name: str) -> None:
        """Deletes a file, if it exists."""

        def remove(system: Any) -> None:
            system.invalidate_cache()
            if system.exists(self._path(name)):
                system.rm_file(self._path(name))

        self._try("delete", name, remove)

    def _put(self, system: Any, name: str, size: int, send: Callable[[str], Any]) -> None:
        final = self._path(name)
        if self.protocol == "file":  # not atomic by itself
            temporary = self._path(f".{name}.{uuid.uuid4().hex}.part")
            system.makedirs(self._path(), exist_ok=True)
            try:
                send(temporary)
                self._check_size(system, temporary, size)
                os.replace(temporary, final)  # noqa: PTH105 - paths of the driver
            finally:
                if system.exists(temporary):
                    system.rm_file(temporary)
        else:
            send(final)
            system.invalidate_cache()
            self._check_size(system, final, size)

    def _check_size(self, system: Any, path: str, size: int) -> None:
        found = int(system.info(path)["size"])
        if found != size:
            raise OSError(f"{found} of {size} bytes arrived")

    def _check_bucket(self, system: Any) -> None:
        bucket = self._path().strip("/").partition("/")[0]
        if self.protocol in ("s3", "gs") and not system.exists(bucket):
            raise UsageError(
                f"features.store: there is no bucket {bucket!r} ({mask(self.url)}). Create it, or fix the URL."
            )

    def _path(self, name: str = "") -> str:
        rest = self.url.partition("://")[2]
        folder = f"/{rest.strip('/')}" if self.protocol in ("file", "memory") else rest
        return f"{folder}/{name}" if name else folder

    def _system(self) -> Any:
        if self._opened is None:
            import fsspec

            package, extra = DRIVERS[self.protocol]
            try:
                self._opened = fsspec.filesystem(self.protocol, **self.options)
            except ImportError:
                raise UsageError(
                    f"features.store: {self.protocol}:// needs the package {package}: pip install 'headhunt[{extra}]'"
                ) from None
        return self._opened

    def _try(self, action: str, name: str, work: Callable[[Any], Result]) -> Result:
        """Runs `work` with the file system, retrying on errors that may be temporary."""
        where = f"{mask(self.url)}/{name}"
        for attempt in range(ATTEMPTS):
            try:
                return work(self._system())
            except HeadhuntError:
                raise
            except Exception as error:  # drivers raise their libraries' exceptions
                kind = type(error).__name__
                said = mask(f"{kind}: {error}")
                if kind in ("NoCredentialsError", "PartialCredentialsError"):
                    raise UsageError(
                        f"features.store: no credentials for {where} ({said}). Set them in the environment, e.g. "
                        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
                    ) from None
                if "NoSuchBucket" in said or "bucket does not exist" in said:
                    raise UsageError(
                        f"features.store: there is no bucket at {where} ({said}). Create it, or fix the URL."
                    ) from None
                if isinstance(error, FileNotFoundError) and action in ("download", "read"):
                    raise CacheError(f"{where} is not in the store. Run `headhunt features cache`.") from None
                if attempt + 1 == ATTEMPTS or isinstance(error, PermissionError):
                    raise HeadhuntError(
                        f"cannot {action} {where}: {said}. Finished shards are kept on the local disk. Rerun the same command "
                        f"to continue."
                    ) from None
                time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")


def open_store(url: str | None, key16: str) -> Store | None:
    """The folder of the cache `key16` below the configured URL; None when no URL is configured."""
    return None if url is None else Store(f"{url.rstrip('/')}/{key16}")


def mask(text: str) -> str:
    """`text` with possible secrets masked: values of secret environment variables, URL passwords, key ids and signatures."""
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", name, re.IGNORECASE):
            text = text.replace(value, "***")
    text = re.sub(r"://[^/@\s]+@", "://***@", text)
    text = re.sub(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b", "***", text)
    return re.sub(
        r"((?:signature|credential|security-token|secret|password|token)[\w-]*[\"']?\s*[=:]\s*[\"']?)[^\s&\"',]+",
        r"\1***", text, flags=re.IGNORECASE,
    )  # fmt: skip
