"""The names listed by `--help` are those of the registries."""

from __future__ import annotations

import pytest

from train.baselines.measure import BASELINES
from train.exports.export import FORMATS
from train.exports.runtimes import RUNTIMES
from train.names import BASELINES as BASELINE_NAMES
from train.names import FORMATS as FORMAT_NAMES
from train.names import MODEL_FORMATS

pytestmark = pytest.mark.unit


def test_names_are_those_of_the_registries() -> None:
    assert tuple(BASELINES) == BASELINE_NAMES
    assert tuple(FORMATS) == FORMAT_NAMES
    assert tuple(RUNTIMES) == MODEL_FORMATS
