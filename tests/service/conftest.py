"""A service per module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.serving import Service, work_directory


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, photos: Path) -> Iterator[Service]:
    """A service with a token and its own Ray, for the tests of a module."""
    root = work_directory(tmp_path_factory.mktemp("service"), tiny_backbone, photos)
    service = Service(root).start()
    yield service
    if service.process.poll() is None:
        service.kill()
