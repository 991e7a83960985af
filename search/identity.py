"""What a study is: the settings that its results depend on, kept with it, so that it does not go on with others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from features.cache.views import Views
from features.runtime.errors import UsageError
from search.config import SearchRun
from search.hypermodels.space import HypermodelSpace
from search.parameters import Space
from search.population.sources import Caches
from search.searched_views import resolved_space

if TYPE_CHECKING:
    import optuna


def check_identity(run: SearchRun, study: optuna.Study, caches: Caches, space: Space) -> None:
    """Marks a new study with the settings that its results depend on; UsageError when it was made with others."""
    identity = _identity(run, caches, space)
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
        return
    if isinstance(space, HypermodelSpace) and known.get("function") == space.earlier_digest[:16]:
        identity["function"] = known["function"]  # of before the whole module counted
    # A study that is older than the first trials has none, and goes on without.
    identity = {name: value for name, value in identity.items() if name != "first" or name in known}
    changed = [name for name in identity if known.get(name) != identity[name]]
    if changed:
        shown = ", ".join(
            f"{name} (was {json.dumps(known.get(name))}, is {json.dumps(identity[name])})"
            if name != "space"
            else f"space ({', '.join(_changed_leaves(known.get(name), identity[name]))})"
            for name in changed
        )
        raise UsageError(
            f"the study {run.name!r} was made with other settings: {shown}. Give the new study another `name` and "
            "`workdir`, or set the old values to go on."
        )


def _identity(run: SearchRun, caches: Caches, space: Space) -> dict[str, Any]:
    """What a study's results depend on, besides the number of its trials."""
    shared = {"seed", "epochs", "objective", "generation", "sampler", "pruner", "lanes"}
    views = {"views": (run.search.views or Views()).model_dump(mode="json")}
    if isinstance(space, HypermodelSpace):
        plain = run.search.model_dump(mode="json", include={"hypermodel", *shared})
        return {**plain, **views, "function": space.digest[:16], "cache": caches.key}
    copies = {"copies": caches.limits} if caches.limits else {}
    drawn = resolved_space(run).model_dump(mode="json")
    if not drawn["features"]:  # as in the studies of before there were parts
        del drawn["features"]
    return {
        **run.search.model_dump(mode="json", include={"first", *shared}),
        **views,
        "space": drawn,
        "cache": caches.key,
        **copies,
    }


def _changed_leaves(before: Any, now: Any, path: str = "") -> list[str]:
    """The dotted paths at which two spaces differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [path]
    return [
        leaf
        for name in dict.fromkeys([*before, *now])
        for leaf in _changed_leaves(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    ]
