"""Loads the configuration file for a stage: validates its sections, and checks the backbone, policies and store."""

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

    Under the command `headhunt`, whose root sets `context.obj` to a function that returns the model of the whole file, all
    sections are checked, including those of later stages. A stage's app by itself checks the sections up to its own.
    """
    whole: type[R] = context.obj() if callable(context.obj) else model
    return load(whole, file, overrides)


def load(model: type[R], file: Path, overrides: Sequence[str] = ()) -> R:
    """Reads `file`, applies `key.path=value` overrides and validates it as `model`.

    Raises UsageError naming every wrong key path, what was received and what is allowed; also for existing files of backbone or
    weights that cannot be used.
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
    """Validates a parsed configuration with `runtime.configfile.validate`, then the names of backbone, policies and store."""
    run = configfile.validate(model, raw, source, given, decided)
    preprocessing(run.features)
    several = is_several(run.features.augmentation)
    for place, section in enumerate(policy_sections(run.features).values()):
        key = f"features.augmentation.{place}" if several else "features.augmentation"
        resolve_policy(augmentation_of(section), key, image_size(run.features))
    open_store(run.features.store, "")
    return run
