"""Reads CSV tables that Headhunt wrote."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def read_whole_table(path: Path, options: Mapping[str, Any] = {}) -> pd.DataFrame:
    """Reads a table that Headhunt wrote; `options` go to `pandas.read_csv`.

    Raises FileNotFoundError when it is missing, ValueError when it is not a table or its last line is cut off: Headhunt ends
    every line with a line break.
    """
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise ValueError("its last line is cut off")
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **options)
    return table
