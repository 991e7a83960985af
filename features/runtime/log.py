"""Where progress, warnings and errors go, and how paths, URLs and commands are printed."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
"""Text is printed as it is: paths, classes and commands hold brackets and colons that Rich would take for its own."""

log = Console(stderr=True, **PLAIN)
"""Where progress, warnings and errors are written."""


def relative(path: Path) -> str:
    """A path as it is printed: relative to the working directory."""
    return os.path.relpath(path)


def without_password(url: str) -> str:
    """A URL, or a text with URLs in it, as it may be printed or logged."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"(://[^:/@\s]*:)\S*@", r"\1***@", url))


def shown(words: Sequence[str]) -> str:
    """A command with these words, as a shell takes it and as it may be printed."""
    return without_password(shlex.join(["headhunt", *words]))
