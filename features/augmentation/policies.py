"""The augmentation policies that a run caches, each with its copies: `features.augmentation` taken apart.

Every policy has a cache of its own. They share their clean shards, since they differ in their augmented copies alone.
"""

from __future__ import annotations

from typing import Any, TypeVar

from features.config import (
    Augmentation,
    AugmentationConfig,
    CachedPolicy,
    FeaturesConfig,
    FeaturesRun,
    augmentation_name,
    is_several,
)
from features.runtime.errors import UsageError

R = TypeVar("R", bound=FeaturesRun)


def policy_sections(config: FeaturesConfig) -> dict[str, FeaturesConfig]:
    """The features section of each policy's cache by the policy's name, in their order: of one policy with its copies."""
    value = config.augmentation
    listed = list(value) if is_several(value) else [value]
    return {augmentation_name(one): _section(config, one) for one in listed}


def policy_name(config: FeaturesConfig) -> str:
    """What the first policy is called: the configuration's own."""
    return next(iter(policy_sections(config)))


def policy_copies(config: FeaturesConfig) -> dict[str, int]:
    """The augmented copies of each policy, by its name."""
    return {name: section.copies for name, section in policy_sections(config).items()}


def augmentation_of(config: FeaturesConfig, policy: str | None = None) -> Augmentation:
    """The policy of this name, or the first one, as a single policy is written."""
    value: Any = section_of(config, policy).augmentation
    one: Augmentation = value.augmentation if isinstance(value, CachedPolicy) else value
    return one


def with_augmentation(config: FeaturesConfig, augmentation: Augmentation) -> FeaturesConfig:
    """The section with this policy alone."""
    value = CachedPolicy.of(augmentation) if isinstance(augmentation, AugmentationConfig) else augmentation
    return config.model_copy(update={"augmentation": value})


def section_of(config: FeaturesConfig, policy: str | None = None, key: str = "views.policy") -> FeaturesConfig:
    """The features section of one policy's cache: of this name, or the first. UsageError, naming `key`, for a policy that is not
    cached."""
    sections = policy_sections(config)
    if policy is None:
        return next(iter(sections.values()))
    if policy not in sections:
        raise not_cached(policy, sections, key)
    return sections[policy]


def configured(config: FeaturesConfig, policy: str | None) -> str | None:
    """The policy of a trial's views where the configuration has it; None, which means the first one, where it has not."""
    return policy if policy in policy_sections(config) else None


def of_policy(run: R, policy: str | None = None) -> R:
    """The run with one of its policies, of this name or the first; UsageError for a policy that is not cached."""
    return run.model_copy(update={"features": section_of(run.features, policy)})


def with_policies(config: FeaturesConfig, names: list[str], copies: int) -> FeaturesConfig:
    """The section with this number of copies of each of its policies, and of the policies of these names."""
    sections = policy_sections(config)
    listed = [_listed(section.augmentation) for section in sections.values()]
    listed += [name for name in dict.fromkeys(names) if name not in sections]
    value = listed if len(listed) > 1 else section_of(config).augmentation
    return config.model_copy(update={"augmentation": value, "copies": copies})


def not_cached(policy: str, cached: Any, key: str = "views.policy") -> UsageError:
    """The error for views of a policy that is not among those cached."""
    return UsageError(
        f"{key}: received {policy!r}; cached are {', '.join(cached)}. Add it to `features.augmentation` and run "
        "`headhunt features cache`."
    )


def _section(config: FeaturesConfig, value: Any) -> FeaturesConfig:
    if not isinstance(value, CachedPolicy):
        return config.model_copy(update={"augmentation": value})
    copies = config.copies if value.copies is None else value.copies
    return config.model_copy(update={"augmentation": value.model_copy(update={"copies": None}), "copies": copies})


def _listed(value: Any) -> str | CachedPolicy:
    """A single policy as an entry of a list of policies."""
    return CachedPolicy(layers=value) if isinstance(value, list) else value
