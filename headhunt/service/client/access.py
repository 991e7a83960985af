"""The service's default URL, and how clients read its token."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from features.runtime.errors import UsageError
from features.runtime.log import log

DEFAULT_URL = "http://127.0.0.1:8000"

VARIABLE = "HEADHUNT_TOKEN"


def read_token(file: Path | None) -> str | None:
    """The token from the file, or else from HEADHUNT_TOKEN; None if there is neither.

    UsageError for a file that cannot be read or a malformed token, which the message does not quote.
    """
    if file is None:
        return _checked(os.environ.get(VARIABLE, "").strip(), VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8", errors="surrogateescape").strip()
        is_open = bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)) and not file.is_symlink()
    except OSError as error:
        raise UsageError(f"--token-file {file}: cannot be read: {error}.") from None
    if not token:
        raise UsageError(
            f"--token-file {file}: the file is empty. Write a token to it: `openssl rand -hex 32 > {file}`."
        )
    if is_open:
        log.print(f"{file} is readable by others. Fix it: `chmod 600 {file}`.", style="yellow")
    return _checked(token, f"--token-file {file}")


def _checked(token: str, source: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise UsageError(
            f"{source}: must contain one token and nothing else: printable ASCII characters, no spaces or line breaks. "
            "Generate one with `openssl rand -hex 32`."
        )
    return token
