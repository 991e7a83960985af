"""The space from which a study's trials are drawn, including how they see the cached copies.

If the configuration does not fix the views, each trial draws them: the share of clean photos, the policy and the number of
copies. All photos of an epoch use the same copy number (`draw: rotation`), which saves short searches one choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from features.augmentation.policies import policy_copies, section_of
from features.backbones.table import pooling
from features.cache.views import Views
from features.pooling import columns_of, parse_pooling
from features.runtime.log import log
from search.config import SearchRun
from search.space import Domains, SearchSpace

if TYPE_CHECKING:
    import optuna

R = TypeVar("R", bound=SearchRun)

CLEAN_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Searched shares of clean photos in an epoch; with 1 a trial has neither policy nor copies."""


def resolved_space(run: SearchRun) -> SearchSpace:
    """`search.space` with the views that its trials draw.

    Views are searched if neither `search.views` nor `search.space.views` is set and some policy has augmented copies. The choices
    depend only on the configuration, not on what else is cached.
    """
    search = run.search
    if search.space.views is not None:
        return search.space
    fixed = search.views is not None or search.hypermodel is not None
    views = {} if fixed else searched_views(policy_copies(run.features))
    return search.space.model_copy(update={"views": views})


def check_choices(run: SearchRun) -> None:
    """UsageError for drawn policies and parts that `features` does not have; needs no cache."""
    domains = {name: choices(domain) for name, domain in (resolved_space(run).views or {}).items()}
    given = [] if run.search.views is None else [run.search.views.policy]
    for key, policies in (("search.views", given), ("search.space.views", domains.get("policy", []))):
        for policy in filter(None, policies):
            section_of(run.features, policy, f"{key}.policy")
    record = tuple((part.name, 1) for part in parse_pooling(pooling(run.features)))
    for parts in filter(None, choices(run.search.space.features.get("parts", []))):
        columns_of(record, parts, "search.space.features.parts")


def choices(domain: Any) -> list[Any]:
    """The values to check in a domain of the space: its choices, the ends of its range, or the value itself."""
    if isinstance(domain, dict):
        return [domain["low"], domain["high"]]
    return domain if isinstance(domain, list) else [domain]


def searched_views(copies: Mapping[str, int]) -> Domains:
    """The domains of `search.space.views` for policies with these numbers of copies; empty if there are no copies.

    `copies` is drawn up to the largest number; a trial whose policy has fewer uses all of them.
    """
    cached = [policy for policy, count in copies.items() if count]
    if not cached:
        return {}
    most = max(copies.values())
    policy: Domains = {"policy": cached if len(cached) > 1 else cached[0]} if len(copies) > 1 else {}
    return {"clean_share": [*CLEAN_SHARES], **policy, "copies": {"low": 1, "high": most} if most > 1 else 1}


def with_stored_views(run: R, study: optuna.Study) -> R:
    """The run with which to resume a study: if the configuration leaves the views open, a study started with fixed views (by a
    version that did not search them) keeps them."""
    known = study.user_attrs.get("identity")
    space = resolved_space(run)
    if known is None or run.search.views is not None or space == run.search.space or not space.views:
        return run
    if known.get("space", {}).get("views") != {} or known.get("views") != Views().model_dump(mode="json"):
        return run
    log.print(f"The study {run.name!r} was started with fixed views (all cached copies) and continues with them.")
    search = run.search.model_copy(update={"views": Views()})
    return run.model_copy(update={"search": search})
