"""A study's identity: the settings that its results depend on, stored with it, so that it is not resumed with others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from features.runtime.errors import UsageError
from search.driver.objective import Objective

if TYPE_CHECKING:
    import optuna


def check_identity(study: optuna.Study, objective: Objective[Any]) -> None:
    """Stores the settings that results depend on with a study that has no trials yet; UsageError if one with trials has other
    settings."""
    known = study.user_attrs.get("identity") if study.get_trials(deepcopy=False) else None
    identity = objective.identity(known)
    if known is None:
        study.set_user_attr("identity", identity)
        return
    changed = [name for name in identity if known.get(name) != identity[name]]
    if changed:
        shown = ", ".join(
            f"{name} (was {json.dumps(known.get(name))}, is {json.dumps(identity[name])})"
            if name != "space"
            else f"space ({', '.join(_changed_paths(known.get(name), identity[name]))})"
            for name in changed
        )
        raise UsageError(
            f"the study {study.study_name!r} was started with other settings: {shown}. Use another `name` and `workdir` for a "
            "new study, or restore the old values to resume this one."
        )


def _changed_paths(before: Any, now: Any, path: str = "") -> list[str]:
    """The dotted key paths at which two spaces differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [path]
    return [
        changed
        for name in dict.fromkeys([*before, *now])
        for changed in _changed_paths(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    ]
