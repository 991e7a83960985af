"""`train export`: exports a promotion as a ModelBundle: the network in every format, its configuration, labels, a model card."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augmentation.policies import configured, section_of
from features.backbones.keras_file import keras_file_damage
from features.backbones.table import image_size
from features.cache.feature_cache import cache_for
from features.dataset.images import load_images
from features.dataset.index import load_index
from features.runtime.atomic import (
    atomic_folder,
    atomic_path,
    file_sha256,
    make_folder,
    only_process,
    remove_leftovers,
    write_text,
)
from features.runtime.commands.template import commented_yaml
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log, relative
from search.leaderboard import Leader, check_cache, leaders, load_study
from search.space import fixed_space
from search.trial import TrialConfig
from train.config import TrainRun
from train.exports.convert import convert
from train.exports.hyperparameters import keras_tuner_config, optuna_trial
from train.exports.model_card import model_card
from train.exports.record import BundleFiles, ExportedConfig, ExportedFormat, ExportResult, holds_another
from train.exports.runtimes import EXTRA, RUNTIMES, Pixels, load_model, missing, packages
from train.promotion.artifact import MODEL, Promotion, damaged_promotions, find_promotion, find_promotions
from train.promotion.predictions import read_predictions
from train.verdict import verdict_of

TOLERANCE = {"keras": 1e-4, "savedmodel": 1e-4, "onnx": 1e-4, "litert": 1e-4}
"""Largest allowed difference in probability between an export, loaded by its stock runtime, and the promotion's predictions, by
format: all compute in float32 and differ in the order of sums."""

TOLERANCE_GPU = 5e-3
"""The same for a promotion evaluated on a GPU, which may multiply with a 10-bit mantissa; exports are compared on the CPU."""

PHOTOS = 64
"""Number of validation photos, evenly spread, on which every export is compared."""

BATCH = 16


@dataclass(frozen=True)
class Originals:
    """What an export must reproduce: `pixels` (n, h, w, 3) uint8 of validation photos, the promotion's top classes for each,
    (n, 1…5), most probable first, and their probabilities."""

    pixels: Pixels
    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bundle:
    """Everything that the formats are written from."""

    run: TrainRun
    leader: Leader
    folder: Path
    promotion: Promotion

    @property
    def network(self) -> Path:
        """The promotion's `.keras` file."""
        return self.promotion.folder / MODEL

    @cached_property
    def sha256(self) -> str:
        """The sha256 (hex) of the network's bytes."""
        return file_sha256(self.network)

    @cached_property
    def files(self) -> BundleFiles:
        """The files in `folder`; deletes those of another network when first used."""
        return BundleFiles(self.folder, self.promotion.folder.name, self.sha256)

    @cached_property
    def originals(self) -> Originals:
        """What its networks must reproduce."""
        return _originals(self.run, self.promotion)

    @property
    def tolerance(self) -> dict[str, float]:
        """The largest allowed difference in probability, by format."""
        return dict.fromkeys(TOLERANCE, TOLERANCE_GPU) if self.promotion.backend == "jax" else TOLERANCE


def export(
    run: TrainRun, trial: int | None, formats: Sequence[str] | None = None, recipe: str | None = None
) -> ExportResult:
    """Writes `exports/<number>/` for a promoted trial (default: the best).

    `formats` defaults to `train.formats`, or else to all formats whose packages are installed; skipped formats are logged. If a
    trial is promoted with several recipes, the best is taken, or the one given. labels.txt and model_card.md are always written.
    Raises UsageError for an unknown format, one whose packages are not installed, or a trial that is not promoted; HeadhuntError
    if an export's predictions differ from the promotion's. One process at a time exports from a run.
    """
    chosen = _formats(run.train.formats if formats is None else formats)
    promotion = _choose(run, trial, recipe)
    lock = make_folder(run.workdir) / ".export.lock"
    with only_process(lock, f"another process is exporting models of {run.name!r}"):
        return _export(run, promotion, chosen)


def _export(run: TrainRun, promotion: Promotion, chosen: Sequence[str]) -> ExportResult:
    number = promotion.trial
    leader = next((leader for leader in leaders(run) if leader.number == number), None)
    if leader is None:
        raise UsageError(f"trial {number} is not in the study {run.name!r}; its promotion belongs to another study.")
    check_cache(run, leader)
    cache = cache_for(run, configured(run.features, leader.config.views.policy))
    folder = run.workdir / "exports" / str(number)
    run = run.model_copy(update={"train": run.train.model_copy(update={"finetune": promotion.finetune})})
    bundle = Bundle(run, leader, folder, promotion)
    _check_network(bundle)
    remove_leftovers(make_folder(folder))
    files, written = bundle.files, {}
    for name in chosen:
        written[name] = FORMATS[name](bundle)
        files.add(name, written[name].max_abs_difference)
    for name, path in files.unrecorded():
        log.print(
            f"Kept {relative(path)}: there is no record of the promotion it belongs to. To export it from this promotion, run "
            f"`headhunt train export --trial {number} --format {name}`.",
            style="yellow",
        )
    verdict = verdict_of(run, promotion)
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in cache.class_names))
    write_text(folder / "model_card.md", model_card(run, leader, cache, promotion, verdict, files.paths()))
    return ExportResult(
        verdict=verdict,
        trial=number,
        recipe=promotion.recipe or None,
        folder=relative(folder),
        photos=len(_compared(run)),
        formats=written,
    )


def _formats(wanted: Sequence[str] | None) -> list[str]:
    """The formats to write: the wanted ones, or all whose packages are installed."""
    if wanted is None:
        lacking = {name: missing(name, writing=True) for name in RUNTIMES}
        left_out = [name for name, modules in lacking.items() if modules]
        if left_out:
            needed = list(dict.fromkeys(module for name in left_out for module in lacking[name]))
            log.print(
                f"Skipped {' and '.join(left_out)}: {packages(needed)} must be installed. "
                f"Run `{EXTRA}`, then `headhunt train export`.",
            )
        return [name for name in FORMATS if name not in left_out]
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise UsageError(f"--format: received {(*unknown, '')[0]!r}; allowed: {', '.join(FORMATS)}.")
    for name in wanted:
        modules = missing(name, writing=True) if name in RUNTIMES else []
        if modules:
            raise UsageError(
                f"--format: {name} needs {packages(modules)}, not installed. Run `{EXTRA}`, or leave {name} out."
            )
    return list(dict.fromkeys(wanted))


def _choose(run: TrainRun, trial: int | None, recipe: str | None) -> Promotion:
    if trial is not None:
        return find_promotion(run, trial, recipe)
    found = [each for each in find_promotions(run) if recipe is None or each.recipe.startswith(recipe)]
    if found:
        return found[0]
    for damage in damaged_promotions(run):
        raise HeadhuntError(damage)
    what = "nothing is promoted" if recipe is None else f"nothing is promoted with the recipe {recipe!r}"
    raise UsageError(f"{what} in {run.workdir}. Run `headhunt train promote`.")


def _check_network(bundle: Bundle) -> None:
    """Raises HeadhuntError if the promotion's network is missing or damaged, or if it would replace exports of another network
    although its predictions differ from the promotion's."""
    network = bundle.network
    again = f"Delete {relative(network.parent)}, then rerun `headhunt train promote --trial {bundle.promotion.trial}`."
    if not network.exists():
        raise HeadhuntError(f"{relative(network)} is missing. {again}")
    if damage := keras_file_damage(network):
        raise HeadhuntError(f"{relative(network)} is damaged ({damage}). {again}")
    if holds_another(bundle.folder, bundle.sha256):
        originals, tolerance = bundle.originals, bundle.tolerance["keras"]
        difference = _difference(network, "keras", originals)
        if not difference <= tolerance:
            raise HeadhuntError(
                f"{relative(network)} is not the promoted network: {_differ(difference, tolerance, originals)}. {again}"
            )


def _differ(difference: float, tolerance: float, originals: Originals) -> str:
    return (
        f"its predictions differ from the promotion's: probabilities differ by {difference:.2e}, but at most {tolerance:g} is "
        f"allowed ({len(originals.pixels)} validation photos)"
    )


def _originals(run: TrainRun, promotion: Promotion) -> Originals:
    index = load_index(run)
    rows, places = index.of_split("val").index.to_numpy(), _compared(run)
    predictions = read_predictions(run, promotion, "val")
    crop = bool(getattr(run.dataset, "crop_to_bbox", False))
    pixels = load_images(index, rows[places].tolist(), image_size(run.features), crop, os.cpu_count() or 1)
    return Originals(pixels, predictions.predicted[places], predictions.probabilities[places])


def _compared(run: TrainRun) -> npt.NDArray[np.int64]:
    """The positions of the compared photos among those of validation."""
    count = len(load_index(run).of_split("val"))
    return np.unique(np.linspace(0, count - 1, min(PHOTOS, count)).astype(np.int64))


def _export_model(name: str, bundle: Bundle) -> ExportedFormat:
    """Writes the network in one format, reloads it with the stock runtime and compares; a file that differs is not kept. Does
    nothing for a file that was compared and is unchanged."""
    target, tolerance = bundle.folder / RUNTIMES[name].file, bundle.tolerance[name]
    exported = partial(ExportedFormat, path=relative(target), tolerance=tolerance)
    known = bundle.files.difference(name)
    if known is not None and known <= tolerance:
        return exported(max_abs_difference=known)
    if bundle.files.is_current(name):  # compare again, but convert again only if that fails
        with suppress(HeadhuntError):
            difference = _difference(target, name, bundle.originals)
            if difference <= tolerance:
                return exported(max_abs_difference=difference)
    atomic = atomic_path if target.suffix else atomic_folder
    with atomic(target) as temporary:
        convert(_converted_from(bundle, name), temporary, name)
        try:
            difference = _difference(temporary, name, bundle.originals)
        except HeadhuntError as error:
            raise HeadhuntError(str(error).replace(str(temporary), relative(target))) from error
        if not difference <= tolerance:
            raise HeadhuntError(
                f"{relative(target)} was not written: in {RUNTIMES[name].name} "
                f"{_differ(difference, tolerance, bundle.originals)}. Promote the trial again, or leave {name} out of --format."
            )
    return exported(max_abs_difference=difference)


def _converted_from(bundle: Bundle, name: str) -> Path:
    """The network, or for LiteRT the SavedModel that was exported from it, so that none is written twice."""
    has_saved = name == "litert" and bundle.files.is_current("savedmodel")
    return bundle.folder / RUNTIMES["savedmodel"].file if has_saved else bundle.network


def _difference(model_file: Path, format_: str, originals: Originals) -> float:
    """Largest difference of the listed probabilities. The first photo runs alone, the others in batches: both must work."""
    model = load_model(model_file, format_)
    starts = [0, *range(1, len(originals.pixels), BATCH), len(originals.pixels)]
    outputs = [model.run(originals.pixels[start:end]) for start, end in pairwise(starts)]
    found = np.take_along_axis(np.concatenate(outputs), originals.classes, axis=1)
    return float(np.abs(found - originals.probabilities).max())


def _export_config(bundle: Bundle) -> ExportedConfig:
    """Writes the run's configuration with the search space narrowed to the winner, for `headhunt run -c` to retrain it, and the
    winner's hyperparameters for Optuna and KerasTuner."""
    run, leader, folder, is_current = bundle.run, bundle.leader, bundle.folder, bundle.files.is_current("config")
    name = f"{run.name}-trial-{leader.number}"
    features = section_of(run.features, configured(run.features, leader.config.views.policy))
    search = run.search.model_copy(
        update={
            **_fixed(leader.config),
            "first": ("probe",) if leader.config.is_probe else (),
            "views": leader.config.views,
            "trials": 1,
            "confirm": None,
            "pruner": "none",
            "sampler": "random",
        }
    )
    winner = run.model_copy(
        update={
            "name": name,
            "workdir": run.workdir.with_name(f"{run.workdir.name}-trial-{leader.number}"),
            "features": features,
            "search": search,
            "train": run.train.model_copy(update={"top": 1}),
        }
    )
    head = (
        f"# Trial {leader.number} of the study {run.name!r} ({run.search.objective} {leader.value:.4f} on cached features).\n"
        f"# Retrain it from the folder that its paths are relative to:  headhunt run -c {relative(folder / 'headhunt.yaml')}\n"
    )
    write_text(folder / "headhunt.yaml", head + commented_yaml(winner))
    trial = load_study(run).get_trials(deepcopy=False)[leader.number]
    optuna_file, tuner_file = folder / "optuna.json", folder / "keras_tuner.json"
    drawn = json.dumps(optuna_trial(trial, run.name), indent=1) + "\n"
    if not (is_current and optuna_file.read_text(encoding="utf-8") == drawn):  # importing KerasTuner takes seconds
        write_text(optuna_file, drawn)
        write_text(tuner_file, json.dumps(keras_tuner_config(trial), indent=1) + "\n")
    return ExportedConfig(
        path=relative(folder / "headhunt.yaml"), optuna=relative(optuna_file), keras_tuner=relative(tuner_file)
    )


def _fixed(config: TrialConfig) -> dict[str, Any]:
    """The keys of the `search` section that narrow it to this one trial."""
    if config.hypermodel is not None:
        return {"hypermodel": config.hypermodel.function, "hypermodel_values": config.hypermodel.values}
    return {} if config.is_probe else {"space": fixed_space(config)}


FORMATS: dict[str, Callable[[Bundle], ExportedFormat | ExportedConfig]] = {
    **{name: partial(_export_model, name) for name in RUNTIMES},
    "config": _export_config,
}
"""Every exporter by its name in `--format`."""
