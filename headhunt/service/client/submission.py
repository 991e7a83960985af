"""The configuration that a client submits."""

from __future__ import annotations

from typing import Any

import yaml

from features.runtime.errors import UsageError
from features.runtime.log import log


def submission(configuration: dict[str, Any], source: str) -> str:
    """The configuration as YAML, without the keys that the service sets; UsageError if it is recursive or nested too deeply."""
    try:
        text: str = yaml.dump(
            _without_places(configuration), Dumper=_WrittenOut, sort_keys=False, allow_unicode=True
        )  # fmt: skip
    except RecursionError:
        raise UsageError(
            f"{source}: nested too deeply, or an alias (*name) refers to a value that contains it. Write the value out."
        ) from None
    return text


class _WrittenOut(yaml.SafeDumper):
    """Writes repeated values out in full, because the service does not accept aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _without_places(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration without `workdir` and `search.storage`; logs what it removes."""
    kept = {key: value for key, value in configuration.items() if key != "workdir"}
    left_out = ["workdir"] if "workdir" in configuration else []
    search = configuration.get("search")
    if isinstance(search, dict) and "storage" in search:
        kept["search"] = {key: value for key, value in search.items() if key != "storage"}
        left_out.append("search.storage")
    if left_out:
        log.print(f"Removed, because the service has its own: {', '.join(left_out)}.")
    return kept
