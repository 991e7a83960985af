"""What an operator decides about the service, and what is refused before it starts."""

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
"""Characters that a token must have."""


class Settings(BaseModel):
    """The service's settings, checked by `check`. `root` is the work directory, absolute and without links."""

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
    """SQLAlchemy URL of the storage of all studies; empty: an SQLite file in `root`."""
    ray: str | None = None
    """Address of Ray's job server; None: Ray is started on this machine."""
    jobs: int = 1
    """How many jobs run at once on a Ray that the service starts."""
    hypermodels: tuple[str, ...] = ()
    """Modules that `search.hypermodel` may name."""
    stores: tuple[str, ...] = ()
    """Prefixes that `features.store` may begin with."""
    hosts: tuple[str, ...] = ()
    """Other names that a request's Host header may have."""
    body_bytes: int = 256 * 1024
    body_seconds: float = 20
    """How long the body of a request may take to arrive, and its head as well."""
    head_bytes: int = 64 * 1024
    """Of a request's line and headers together."""
    reads: str = "500/second"
    writes: str = "120/minute"
    logins: str = "10/minute"
    connections: int = 256
    """Requests at once."""
    open_connections: int = 512
    """Connections at once, whether something is asked on them or not."""
    followers: int = 32
    """Logs that may be followed at once."""

    @property
    def storage_url(self) -> str:
        """The storage that every study is kept in."""
        return self.storage or sqlite_url(self.root / "headhunt.db")

    @property
    def storage_file(self) -> Path | None:
        """The file of the storage, if that is SQLite; a relative one starts where the service was started."""
        found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", self.storage_url, re.DOTALL)
        return Path(os.path.realpath(found[1])) if found else None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """Where the start page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.certificate else ''}://{host}:{self.port}"


def check(settings: Settings) -> None:
    """UsageError for what is not safe, or cannot work."""
    token = settings.token.get_secret_value() if settings.token else None
    if token is None and not settings.is_loopback:
        raise UsageError(
            f"--host {settings.host}: whoever reaches that address could start programs here, so a token is required. Write "
            "one to a file that only you can read (`openssl rand -hex 32 > token`) and name it: --token-file token; or set "
            "HEADHUNT_TOKEN. Without a token the service listens on 127.0.0.1 only."
        )
    if token is not None and (len(token) < LEAST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", token)):
        raise UsageError(
            f"the token has {len(token)} characters, but must have at least {LEAST_TOKEN}, printable ones of ASCII without "
            "spaces. Make one with `openssl rand -hex 32`."
        )
    if (settings.certificate is None) != (settings.key is None):
        raise UsageError("--tls-certificate and --tls-key go together; only one of them was given.")
    for option, path in (("--tls-certificate", settings.certificate), ("--tls-key", settings.key)):
        if path is not None and not path.is_file():
            raise UsageError(f"{option}: there is no file {path}.")
    if settings.certificate is not None and settings.key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--tls-certificate {settings.certificate} with --tls-key {settings.key} cannot be used: {error}. Both are PEM "
                "files, and the key belongs to the first certificate."
            ) from None
    _check_secrets(settings)
    _check_storage(settings.storage)
    _check_stores(settings.stores)
    _check_ray(settings.ray)


def _check_secrets(settings: Settings) -> None:
    """A configuration may name every file in the work directory, and what is wrong with a file is told with a part of it."""
    variables = ("PGPASSFILE", "RAY_AUTH_TOKEN_PATH")
    files = {"--token-file": settings.token_file, "--tls-key": settings.key}
    files |= {name: Path(os.environ[name]) for name in variables if os.environ.get(name)}
    for option, file in files.items():
        found = Path(os.path.realpath(file)) if file else None
        if found is None or not found.is_relative_to(settings.root):
            continue
        if not any(part.startswith(".") for part in found.relative_to(settings.root).parts):  # those cannot be named
            raise UsageError(
                f"{option}: {file} is in the work directory {settings.root}, where a search's configuration can name it. Keep "
                "secrets outside, or name another work directory with --root."
            )


def _check_stores(stores: tuple[str, ...]) -> None:
    for store in stores:
        scheme, _, rest = store.partition("://")
        _, at, place = rest.partition("/")[0].rpartition("@")
        if at:
            raise UsageError(
                f"--store {scheme}://***@{place}: a name and a password in the URL would be printed and appear in messages. "
                "Leave them out, and give them to Ray's nodes as the file system's library reads them, e.g. AWS_PROFILE."
            )


def _check_ray(address: str | None) -> None:
    scheme, separator, rest = (address or "").rpartition("://")
    _, at, host = rest.partition("/")[0].rpartition("@")
    if at:
        raise UsageError(
            f"--ray {scheme}{separator}***@{host}: a name and a password in the address would be printed and appear in messages. "
            "Leave them out, and use Ray's tokens: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH."
        )


def _check_storage(url: str) -> None:
    if not url:
        return
    if "://" not in url or url.startswith("grpc://"):
        raise UsageError(
            f"--storage: received {without_password(url)!r}; allowed: an SQLAlchemy URL, e.g. postgresql://user@host/database."
        )
    if without_password(url) != url:
        raise UsageError(
            f"--storage {without_password(url)}: a password in the URL would end up in every job's record. Leave it out, and "
            "give it to the service and to Ray's nodes by libpq's PGPASSFILE or PGPASSWORD."
        )
