"""The augmentation policies that a run caches, each with its copies, from `features.augmentation`.

Each policy has its own cache. The caches share their clean shards, since they differ only in augmented copies.
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
    """The features section of each policy's cache, with only that policy and its copies; by policy name, in order."""
    value = config.augmentation
    listed = list(value) if is_several(value) else [value]
    return {augmentation_name(one): _section(config, one) for one in listed}


def policy_name(config: FeaturesConfig) -> str:
    """The name of the first policy, which is the default."""
    return next(iter(policy_sections(config)))


def policy_copies(config: FeaturesConfig) -> dict[str, int]:
    """The number of augmented copies of each policy, by name."""
    return {name: section.copies for name, section in policy_sections(config).items()}


def augmentation_of(config: FeaturesConfig, policy: str | None = None) -> Augmentation:
    """The policy of this name (default: the first), in the form of a single policy."""
    value: Any = section_of(config, policy).augmentation
    one: Augmentation = value.augmentation if isinstance(value, CachedPolicy) else value
    return one


def with_augmentation(config: FeaturesConfig, augmentation: Augmentation) -> FeaturesConfig:
    """The section with only this policy."""
    value = CachedPolicy.of(augmentation) if isinstance(augmentation, AugmentationConfig) else augmentation
    return config.model_copy(update={"augmentation": value})


def section_of(config: FeaturesConfig, policy: str | None = None, key: str = "views.policy") -> FeaturesConfig:
    """The features section of one policy's cache (default: the first). Raises UsageError, naming `key`, for a policy that is not
    configured."""
    sections = policy_sections(config)
    if policy is None:
        return next(iter(sections.values()))
    if policy not in sections:
        raise not_cached(policy, sections, key)
    return sections[policy]


def configured(config: FeaturesConfig, policy: str | None) -> str | None:
    """`policy` (of a trial's views) if it is configured; otherwise None, which means the first policy."""
    return policy if policy in policy_sections(config) else None


def of_policy(run: R, policy: str | None = None) -> R:
    """The run with only one of its policies (default: the first). Raises UsageError for a policy that is not configured."""
    return run.model_copy(update={"features": section_of(run.features, policy)})


def with_policies(config: FeaturesConfig, names: list[str], copies: int) -> FeaturesConfig:
    """The section with its own policies and those of these names, each with this number of copies."""
    sections = policy_sections(config)
    listed = [_listed(section.augmentation) for section in sections.values()]
    listed += [name for name in dict.fromkeys(names) if name not in sections]
    value = listed if len(listed) > 1 else section_of(config).augmentation
    return config.model_copy(update={"augmentation": value, "copies": copies})


def not_cached(policy: str, cached: Any, key: str = "views.policy") -> UsageError:
    """The error for views of a policy that is not cached."""
    return UsageError(
        f"{key}: received {policy!r}, but only these are cached: {', '.join(cached)}. Add it to `features.augmentation` and run "
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
