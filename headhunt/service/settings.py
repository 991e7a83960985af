"""The operator's settings of the service, and the checks before it starts."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

from features.runtime.errors import UsageError
from features.runtime.log import without_password
from search.driver.storage import sqlite_url

LEAST_TOKEN = 16
"""Minimum number of characters of a token."""


class Settings(BaseModel):
    """The service's settings, checked by `check`. `root` is the work directory, absolute and with symlinks resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: SecretStr | None = None
    token_file: Path | None = None
    """Where the token was read from."""
    certificate: Path | None = None
    key: Path | None = None
    storage: str = ""
    """SQLAlchemy URL of the storage of all studies; empty means an SQLite file in `root`."""
    ray: str | None = None
    """Address of Ray's job server; None starts Ray on this machine."""
    jobs: int = 1
    """Concurrent jobs on a Ray that the service starts."""
    hypermodels: tuple[str, ...] = ()
    """Modules that `search.hypermodel` may use."""
    stores: tuple[str, ...] = ()
    """Allowed prefixes of `features.store`."""
    hosts: tuple[str, ...] = ()
    """Further host names accepted in a request's Host header."""
    body_bytes: int = 256 * 1024
    body_seconds: float = 20
    """Timeout for a request's head, and for its body."""
    head_bytes: int = 64 * 1024
    """Maximum size of a request's line and headers together."""
    reads: str = "500/second"
    writes: str = "120/minute"
    logins: str = "10/minute"
    connections: int = 256
    """Concurrent requests."""
    open_connections: int = 512
    """Open connections, idle ones included."""
    followers: int = 32
    """Logs that can be followed at the same time."""

    @property
    def storage_url(self) -> str:
        """URL of the storage of all studies."""
        return self.storage or sqlite_url(self.root / "headhunt.db")

    @property
    def storage_file(self) -> Path | None:
        """The file of an SQLite storage, else None. A relative path is resolved in the service's own working directory."""
        found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", self.storage_url, re.DOTALL)
        return Path(os.path.realpath(found[1])) if found else None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """URL of the start page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{self.port}"


def check(settings: Settings) -> None:
    """Raises UsageError for settings that are unsafe or cannot work."""
    token = settings.token.get_secret_value() if settings.token else None
    if token is None and not settings.is_loopback:
        raise UsageError(
            f"--host {settings.host}: anyone who can reach that address could start programs here, so a token is required. "
            "Write one to a file that only you can read (`openssl rand -hex 32 > token`) and pass --token-file token, or set "
            "HEADHUNT_TOKEN. Without a token the service listens on 127.0.0.1 only."
        )
    if token is not None and (len(token) < LEAST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", token)):
        raise UsageError(
            f"the token has {len(token)} characters; it must be at least {LEAST_TOKEN} printable ASCII characters without "
            "spaces. Generate one with `openssl rand -hex 32`."
        )
    if (settings.certificate is None) != (settings.key is None):
        raise UsageError("--tls-certificate and --tls-key must be given together; received only one of them.")
    for option, path in (("--tls-certificate", settings.certificate), ("--tls-key", settings.key)):
        if path is not None and not path.is_file():
            raise UsageError(f"{option}: file not found: {path}.")
    if settings.certificate is not None and settings.key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--tls-certificate {settings.certificate} with --tls-key {settings.key} cannot be used: {error}. Both must be "
                "PEM files, and the key must belong to the first certificate."
            ) from None
    _check_secrets(settings)
    _check_storage(settings.storage)
    _check_stores(settings.stores)
    _check_ray(settings.ray)


def _check_secrets(settings: Settings) -> None:
    """Refuses secrets in the work directory: a configuration can name any file there, and error messages quote its contents."""
    variables = ("PGPASSFILE", "RAY_AUTH_TOKEN_PATH")
    files = {"--token-file": settings.token_file, "--tls-key": settings.key}
    files |= {name: Path(os.environ[name]) for name in variables if os.environ.get(name)}
    for option, file in files.items():
        found = Path(os.path.realpath(file)) if file else None
        if found is None or not found.is_relative_to(settings.root):
            continue
        if not any(
            part.startswith(".") for part in found.relative_to(settings.root).parts
        ):  # hidden files cannot be named
            raise UsageError(
                f"{option}: {file} is in the work directory {settings.root}, where a search's configuration can name it. Move "
                "it elsewhere, or choose another work directory with --root."
            )


def _check_stores(stores: tuple[str, ...]) -> None:
    for store in stores:
        scheme, _, rest = store.partition("://")
        _, at, place = rest.partition("/")[0].rpartition("@")
        if at:
            raise UsageError(
                f"--store {scheme}://***@{place}: credentials in the URL would appear in output and messages. Remove them, and "
                "provide them on Ray's nodes in the way that the file system's library reads them, e.g. AWS_PROFILE."
            )


def _check_ray(address: str | None) -> None:
    scheme, separator, rest = (address or "").rpartition("://")
    _, at, host = rest.partition("/")[0].rpartition("@")
    if at:
        raise UsageError(
            f"--ray {scheme}{separator}***@{host}: credentials in the address would appear in output and messages. Remove them, "
            "and use Ray's tokens: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH."
        )


def _check_storage(url: str) -> None:
    if not url:
        return
    if "://" not in url or url.startswith("grpc://"):
        raise UsageError(
            f"--storage: received {without_password(url)!r}; it must be an SQLAlchemy URL, e.g. postgresql://user@host/database."
        )
    if without_password(url) != url:
        raise UsageError(
            f"--storage {without_password(url)}: a password in the URL would be stored in every job's record. Remove it, "
            "and set PGPASSFILE or PGPASSWORD (libpq) for the service and on Ray's nodes."
        )
