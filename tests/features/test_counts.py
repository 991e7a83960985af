"""Counts with their nouns."""

from __future__ import annotations

import pytest

from features.audit.variation import Variation
from features.runtime.log import counted

pytestmark = pytest.mark.unit


def test_one_is_singular_and_other_counts_are_plural() -> None:
    assert [counted(count, "photo") for count in (0, 1, 2, 1200)] == ["0 photos", "1 photo", "2 photos", "1,200 photos"]
    assert [counted(count, "copy", "copies") for count in (1, 2)] == ["1 copy", "2 copies"]


def test_verbs_follow_the_count() -> None:
    assert Variation(10, 1, 1, 30, 1).warnings == [
        "1 of 10 features is constant over the 30 clean training photos.",
        "1 of 10 features has the same value in at least 99 % of the clean training photos.",
        "1 clean training photo has the same features as a different photo.",
    ]
