"""Base class of the configuration's sections, and their path and text types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path; a leading `~` is expanded to the user's home."""

UserText = Annotated[str, AfterValidator(lambda text: str(Path(text).expanduser()) if text.startswith("~") else text)]
"""A name, an address or a path; a leading `~` is expanded."""


class Section(BaseModel):
    """Base of every section: frozen, comparable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
