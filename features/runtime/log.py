"""The log console, and how paths, URLs and commands are printed."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
"""Options that print text verbatim: paths, class names and commands contain brackets and colons that Rich would interpret."""

log = Console(stderr=True, **PLAIN)
"""Console for progress, warnings and errors (standard error)."""


def relative(path: Path) -> str:
    """A path relative to the working directory, for printing."""
    return os.path.relpath(path)


def without_password(url: str) -> str:
    """A URL, or text with URLs in it, with passwords masked."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"(://[^:/@\s]*:)\S*@", r"\1***@", url))


def shown(words: Sequence[str]) -> str:
    """The `headhunt` command with these words, quoted for a shell, passwords masked."""
    return without_password(shlex.join(["headhunt", *words]))


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 photo`, `2,000 photos`; `plural` if it does not end in s alone."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
