"""The base of every section of the configuration, and the types of text that users write in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path of the configuration; `~` is the user's home."""

UserText = Annotated[str, AfterValidator(lambda text: str(Path(text).expanduser()) if text.startswith("~") else text)]
"""A name, an address or a path."""


class Section(BaseModel):
    """Base of every section: frozen, comparable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
