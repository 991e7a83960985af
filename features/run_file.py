"""The configuration file as a stage loads it: its sections, and whether their backbone, policies and store are to be had."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from features.augmentation.augment import resolve_policy
from features.augmentation.policies import augmentation_of, policy_sections
from features.backbones.table import check_backbone, image_size, preprocessing
from features.cache.store import open_store
from features.config import FeaturesRun, is_several
from features.runtime import configfile

R = TypeVar("R", bound=FeaturesRun)


def settings(context: typer.Context, model: type[R], file: Path, overrides: Sequence[str]) -> R:
    """Loads the configuration for a stage.

    Under the joined command `headhunt`, whose root puts a function that gives the whole file's model into `context.obj`, every
    section is checked, also those of later stages; a stage's app by itself checks the sections up to its own.
    """
    whole: type[R] = context.obj() if callable(context.obj) else model
    return load(whole, file, overrides)


def load(model: type[R], file: Path, overrides: Sequence[str] = ()) -> R:
    """Reads `file`, applies `key.path=value` overrides and validates it as `model`.

    Raises UsageError naming every wrong key path, what was received and what is allowed; also for files of backbone and weights
    that are there and of no use.
    """
    run = validate(model, configfile.merged(file, overrides, tuple(model.model_fields)), str(file))
    check_backbone(run.features)
    return run


def validate(
    model: type[R],
    raw: dict[str, Any],
    source: str,
    given: dict[str, Any] | None = None,
    decided: Container[str] = (),
) -> R:
    """Validates a parsed configuration as `runtime.configfile.validate`, and then the names of backbone, policies and store."""
    run = configfile.validate(model, raw, source, given, decided)
    preprocessing(run.features)
    several = is_several(run.features.augmentation)
    for place, section in enumerate(policy_sections(run.features).values()):
        key = f"features.augmentation.{place}" if several else "features.augmentation"
        resolve_policy(augmentation_of(section), key, image_size(run.features))
    open_store(run.features.store, "")
    return run
