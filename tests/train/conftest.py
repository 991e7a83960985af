"""A run whose best trial is promoted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from reports.config import Run
from train.promotion.promote import promote


@pytest.fixture(scope="session")
def promoted_once(searched_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `searched_once`, with its winner promoted; read-only, see `promoted`."""
    folder = tmp_path_factory.mktemp("promoted") / "run"
    shutil.copytree(searched_once, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        promote(Run.model_validate(yaml.safe_load(Path("headhunt.yaml").read_text())))
    return folder


@pytest.fixture
def promoted(promoted_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a promotion, in its own folder, which is the working directory."""
    shutil.copytree(promoted_once, tmp_path / "promoted")
    monkeypatch.chdir(tmp_path / "promoted")
    return Run.model_validate(yaml.safe_load(Path("headhunt.yaml").read_text()))
