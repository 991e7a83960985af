"""Which trials are promoted and exported."""

from __future__ import annotations

import pytest

from features.build import build_cache
from features.errors import UsageError
from reports.config import Run
from search.leaderboard import leaders
from train.exports.export import export
from train.promotion.promote import promote, promoted


def test_a_trial_named_twice_is_promoted_once_and_stray_folders_do_not_matter(searched: Run) -> None:
    last = leaders(searched)[-1].number
    done = promote(searched, [last, last])
    assert [promotion["trial"] for promotion in done["promotions"]] == [last]
    stray = searched.workdir / "promotions" / "copy of 3"
    stray.mkdir()
    (stray / "metrics.json").write_text("{}")
    assert promoted(searched) == [last]


def test_trials_of_another_cache_are_neither_promoted_nor_exported(searched: Run) -> None:
    promote(searched)
    features = searched.features.model_copy(update={"seed": 1, "copies": 0})
    other = searched.model_copy(update={"features": features})
    build_cache(other)
    message = (
        r"trial \d was trained on the cache [0-9a-f]{16}, but the configuration names [0-9a-f]{16}. Set the `features`"
    )
    with pytest.raises(UsageError, match=message):
        promote(other)
    with pytest.raises(UsageError, match=message):
        export(other, None, ["keras"])
