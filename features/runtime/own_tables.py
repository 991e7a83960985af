"""CSV tables that Headhunt wrote itself, read back whole."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def read_whole_table(path: Path, options: Mapping[str, Any] = {}) -> pd.DataFrame:
    """A table that Headhunt wrote; `options` are those of `pandas.read_csv`.

    Raises FileNotFoundError where there is none, ValueError where it is no table or its last line is cut off: every line that is
    written ends with a line break.
    """
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise ValueError("its last line is cut off")
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **options)
    return table
