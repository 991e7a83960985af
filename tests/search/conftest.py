"""The PostgreSQL server for the tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.search.storages import binaries, postgresql


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL, including a password, of a database on this session's server."""
    if binaries() is None:
        pytest.skip("needs PostgreSQL, e.g. Debian's package")
    with postgresql() as url:
        yield url
