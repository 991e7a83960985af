"""Which copy of each training photo an epoch uses."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.runtime.errors import UsageError
from features.runtime.section import Section


class Views(Section):
    """How cached copies are mixed: rotated by epoch, or drawn per photo; with a share of clean photos."""

    policy: str | None = Field(None, description="the cached augmentation policy; default: the cache's own")
    copies: int | None = Field(None, ge=0, description="augmented copies to use; default: all cached ones")
    clean_share: float = Field(0.0, ge=0, le=1, description="share of an epoch's photos used without augmentation")
    draw: Literal["rotation", "per_image"] = Field(
        "rotation", description="rotation: epoch e uses copy 1 + e mod K; per_image: a copy is drawn for each photo"
    )

    def checked(self, cached_copies: int, cached_policy: str) -> Views:
        """These views with `copies` filled in. Raises UsageError when the cache does not have them."""
        if self.policy not in (None, cached_policy):
            raise UsageError(f"views.policy: the cache has {cached_policy!r}, but views ask for {self.policy!r}.")
        if self.copies is not None and self.copies > cached_copies:
            raise UsageError(
                f"views.copies: {self.copies} copies are requested, but {cached_copies} are cached. Raise `features.copies` and "
                "run `headhunt features cache` to add the missing ones."
            )
        return self.model_copy(update={"copies": cached_copies if self.copies is None else self.copies})

    def of_epoch(self, epoch: int, images: int, seed: int) -> npt.NDArray[np.int32]:
        """The copy of each training photo in epoch `epoch` (from 0): (images,) int32, 0 = clean. Needs `checked` views.

        A pure function of its arguments: every trial with the same seed uses the same copies.
        """
        if self.copies is None:
            raise ValueError("views must be checked against a cache before use: call `checked` first")
        if self.copies == 0:
            return np.zeros(images, np.int32)
        random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
        clean = random.random(images) < self.clean_share
        if self.draw == "rotation":
            copies = np.full(images, 1 + epoch % self.copies, np.int32)
        else:
            copies = random.integers(1, self.copies, images, np.int32, endpoint=True)
        return np.where(clean, 0, copies).astype(np.int32)


def order_of_epoch(epoch: int, images: int, seed: int) -> npt.NDArray[np.int64]:
    """The order of the training photos in epoch `epoch` (from 0): a permutation (images,) int64, a function of (seed, epoch)."""
    key = np.array([seed, 1 << 32 | epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(images)
