"""What a part of the report can be written as."""

from __future__ import annotations

from typing import Literal

Format = Literal["html", "png", "json"]
