"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(received: str, allowed: Iterable[str], most: int = 3) -> list[str]:
    """The allowed names most similar to `received`, best first, at most `most`."""
    return difflib.get_close_matches(received, list(allowed), n=most)


def suggest(received: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the most similar name, or an empty string."""
    close = nearest(received, allowed, 1)
    return f" Did you mean {close[0]!r}?" if close else ""
