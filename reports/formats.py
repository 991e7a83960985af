"""The formats of a single section or figure."""

from __future__ import annotations

from typing import Literal

Format = Literal["html", "png", "json"]
