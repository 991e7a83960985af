"""A configuration as a client sends it."""

from __future__ import annotations

from typing import Any

import yaml

from features.runtime.errors import UsageError
from features.runtime.log import log


def submission(configuration: dict[str, Any], source: str) -> str:
    """The YAML of a configuration without what the service decides; UsageError when it has no end."""
    try:
        text: str = yaml.dump(
            _without_places(configuration), Dumper=_WrittenOut, sort_keys=False, allow_unicode=True
        )  # fmt: skip
    except RecursionError:
        raise UsageError(
            f"{source}: it is nested too deeply, or an alias (*name) stands inside what it is the name of. Write the value out."
        ) from None
    return text


class _WrittenOut(yaml.SafeDumper):
    """Writes a value at every place where it is: an alias in the file is nothing that a service takes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _without_places(configuration: dict[str, Any]) -> dict[str, Any]:
    """A line says what was left out."""
    kept = {key: value for key, value in configuration.items() if key != "workdir"}
    left_out = ["workdir"] if "workdir" in configuration else []
    search = configuration.get("search")
    if isinstance(search, dict) and "storage" in search:
        kept["search"] = {key: value for key, value in search.items() if key != "storage"}
        left_out.append("search.storage")
    if left_out:
        log.print(f"Left out, since the service has its own: {', '.join(left_out)}.")
    return kept
