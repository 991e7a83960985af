from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from features.cache.views import Views
from features.runtime.errors import UsageError

pytestmark = pytest.mark.unit


def drawn(epoch: int, copies: int = 4, **views: object) -> np.ndarray:
    return Views.model_validate(views).checked(copies, "mild").of_epoch(epoch, 2000, seed=3)


def test_rotation_shows_one_copy_an_epoch() -> None:
    assert [set(drawn(epoch).tolist()) for epoch in range(5)] == [{1}, {2}, {3}, {4}, {1}]


def test_per_image_draws_every_copy_alike() -> None:
    counts = np.bincount(drawn(0, draw="per_image"), minlength=5)
    assert counts[0] == 0
    assert counts[1:].min() > 420


def test_clean_share_is_the_share_of_clean_images() -> None:
    assert 0.2 < np.mean(drawn(1, clean_share=0.25) == 0) < 0.3
    assert set(drawn(1, clean_share=1.0)) == {0}


def test_without_copies_all_is_clean() -> None:
    assert set(drawn(0, copies=0)) == {0}


def test_a_draw_is_a_pure_function() -> None:
    views = {"draw": "per_image", "clean_share": 0.3}
    np.testing.assert_array_equal(drawn(5, **views), drawn(5, **views))
    assert (drawn(5, **views) != drawn(6, **views)).any()
    assert drawn(0).dtype == np.int32


def test_fewer_copies_than_cached_may_be_used() -> None:
    assert set(Views(copies=2, draw="per_image").checked(8, "mild").of_epoch(0, 100, 0)) == {1, 2}


def test_what_the_cache_does_not_hold_is_refused() -> None:
    with pytest.raises(UsageError, match=r"views\.copies: 9 copies are requested, but 8 are cached"):
        Views(copies=9).checked(8, "mild")
    with pytest.raises(UsageError, match=r"views\.policy: the cache has 'mild', but views ask for 'none'"):
        Views(policy="none").checked(8, "mild")
    with pytest.raises(ValidationError):
        Views(clean_share=1.1)
