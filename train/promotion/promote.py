"""`train promote`: takes the best trials through parity check, fine-tuning and evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from features.augmentation.policies import augmentation_of, configured, section_of, with_augmentation
from features.building.build import build_cache
from features.cache.feature_cache import FeatureCache, cache_for
from features.cache.keys import for_workers
from features.config import Augmentation, FeaturesConfig
from features.dataset.index import DatasetIndex, load_index
from features.runtime.atomic import make_folder, only_process, read_text, write_text
from features.runtime.errors import CacheError, HeadhuntError, LostError, UsageError
from features.runtime.log import counted, log, relative
from features.runtime.workers.executors import check_devices, in_own_process, open_executor
from search.certificate import load_certificate
from search.confirm.ranking import by_confirmation, confirmed_first, load_confirmation
from search.driver.storage import storage_faults
from search.first_trials import label_of
from search.leaderboard import Leader, check_cache, leaders, load_study
from search.retrain import trial_weights
from train.config import TrainRun
from train.finetuning.activations import activation_features
from train.finetuning.history import HISTORY
from train.finetuning.journal import PROGRESS, Reader
from train.promotion.artifact import MARK, METRICS, Promotion, promotion_folder, read_promotion, recipe_digest
from train.promotion.follow import follow
from train.promotion.record import PromotionStudy
from train.promotion.worker import PromotionOutcome, Task, promote_trial


@dataclass(frozen=True)
class _PromotionRequest:
    """A requested promotion: its trial, its folder, and the sha256 of everything that its numbers depend on."""

    leader: Leader
    folder: Path
    made_from: str


def promote(run: TrainRun, numbers: Sequence[int] = ()) -> list[Promotion]:
    """Promotes the trials with these numbers, or the best `train.top`, with the recipe of `train.finetune`.

    A finished promotion is not repeated; an interrupted one resumes after its last epoch; a failed one does not stop the others.
    Raises UsageError for a trial that does not exist, CacheError for a damaged cache, HeadhuntError if a network's outputs differ
    from those of its head on the cached features.
    """
    check_devices(run.promotion_workers)
    cache = cache_for(run)
    wanted = [_wanted(run, cache, leader) for leader in _choose(run, cache, numbers)]
    _log_fidelity(run)
    lock = make_folder(run.workdir / "promotions") / ".lock"
    with (
        only_process(lock, f"another process is promoting trials of {run.name!r}"),
        storage_faults(run.search.storage, run.workdir),
    ):
        done = {each.leader.number: _finished(run, each) for each in wanted}
        waiting = [each for each in wanted if done[each.leader.number] is None]
        record = PromotionStudy(run)
        for each in wanted:
            if finished := done[each.leader.number]:
                record.finish(each.leader, finished, Reader(each.folder).accuracies())
        if waiting:
            _run(run, cache, waiting, record)
    return [_promotion(each.folder) for each in wanted]


def _wanted(run: TrainRun, cache: FeatureCache, leader: Leader) -> _PromotionRequest:
    made_from = _identity(run, cache, leader)
    recipe = recipe_digest(run, _augmentation(run, leader))
    return _PromotionRequest(leader, promotion_folder(run, leader.number, recipe, made_from), made_from)


def _promotion(folder: Path) -> Promotion:
    """The promotion that was just finished."""
    found = read_promotion(folder)
    if found is None:
        raise HeadhuntError(f"{relative(folder / METRICS)} is missing. Rerun `headhunt train promote`.")
    return found


def _run(run: TrainRun, cache: FeatureCache, waiting: Sequence[_PromotionRequest], record: PromotionStudy) -> None:
    """Runs the missing promotions; when all have ended, raises the first of their errors."""
    tasks, errors = [], []

    def failed(wanted: _PromotionRequest | Task, error: HeadhuntError) -> None:
        record.fail(wanted.leader, wanted.folder, wanted.made_from, str(error))
        errors.append(error)
        if len(waiting) > 1:
            log.print(f"Trial {wanted.leader.number} failed: {error}", style="yellow")

    for each in waiting:
        try:
            tasks.append(_task(run, cache, each))
        except (CacheError, LostError):  # not specific to one promotion
            raise
        except HeadhuntError as error:
            failed(each, error)
    variables = {"KERAS_BACKEND": run.backend}
    with (
        open_executor(run.promotion_workers, run.workdir, variables) if tasks else nullcontext() as executor,
        follow(tasks, record) as followed,
    ):
        for position, ended in executor.map(promote_trial, tasks, _failed_promotion) if executor else ():
            task = tasks[position]
            followed.catch_up(task)
            if ended.error is None:
                found = _promotion(task.folder)
                record.finish(task.leader, found, Reader(task.folder).accuracies())
                log.print(f"Trial {task.leader.number} promoted: {relative(task.folder)}{_note(found)}")
            else:
                failed(task, ended.error)
    if errors:
        raise errors[0]


def _failed_promotion(task: Task, reason: str) -> PromotionOutcome:
    return PromotionOutcome(HeadhuntError(f"the promotion of trial {task.leader.number} failed: {reason}"))


def _task(run: TrainRun, cache: FeatureCache, wanted: _PromotionRequest) -> Task:
    """The task that makes this promotion; the weights and activations that it needs are on disk afterwards."""
    leader, folder = wanted.leader, make_folder(wanted.folder.resolve())
    trial_weights(run, leader)
    augmentation = _augmentation(run, leader)
    activations = _activations(run, leader) if run.train.finetune.activation_copies else None
    index = load_index(run)
    index = DatasetIndex(index.table, index.class_names, index.root.resolve())
    task = Task(
        for_workers(run),
        leader,
        folder,
        Path.cwd(),
        index,
        cache.folder.resolve(),
        augmentation,
        wanted.made_from,
        activations,
    )
    (folder / METRICS).unlink(missing_ok=True)  # from another trial with this number, or without test metrics
    _clear(task)
    return task


def _clear(task: Task) -> None:
    """Deletes files of another configuration, and the progress file of a killed process."""
    (task.folder / PROGRESS).unlink(missing_ok=True)
    mark = task.folder / MARK
    advice = f"Delete {relative(task.folder)}, then rerun `headhunt train promote`."
    if not mark.exists() or read_text(mark, advice).strip() != task.made_from:
        (task.folder / HISTORY).unlink(missing_ok=True)
        write_text(mark, task.made_from + "\n")


def _activations(run: TrainRun, leader: Leader) -> Path:
    """The folder of the activation cache for the layers frozen in all phases; built if it does not exist.

    The cut is determined in a separate process: Keras numbers layer names per process, and on a GPU it would keep memory that a
    worker needs.
    """
    tuning = run.train.finetune
    own = with_augmentation(_own_section(run, leader), _augmentation(run, leader))
    variables = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    features = in_own_process(variables, activation_features, own, tuning.plan, tuning.activation_copies)
    behind = " and ".join(features.cuts) or "the pooling"
    log.print(
        f"Computing the frozen layers once, up to {behind}, for {counted(tuning.activation_copies, 'copy', 'copies')}:"
    )
    built = build_cache(run.model_copy(update={"features": features}))
    return Path(built["cache"]).resolve()


def _choose(run: TrainRun, cache: FeatureCache, numbers: Sequence[int]) -> list[Leader]:
    ranked = leaders(run)
    by_number = {leader.number: leader for leader in ranked}
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        shown = ", ".join(str(leader.number) for leader in confirmed_first(run, 10)[0])
        raise UsageError(
            f"trial {unknown[0]} is not a completed trial of the study {run.name!r}. The best completed trials: {shown}."
        )
    chosen = [by_number[number] for number in dict.fromkeys(numbers)] or _winners(run, ranked)
    for leader in chosen:
        check_cache(run, leader)
    return chosen


def _log_fidelity(run: TrainRun) -> None:
    """Logs the study's fidelity certificate, if it has one."""
    certificate = load_certificate(load_study(run))
    for line in certificate.lines(run.train.finetune.digest, run.train.fidelity_floor) if certificate else ():
        log.print(line, style="yellow" if line.startswith("Warning") else None)


def _winners(run: TrainRun, ranked: Sequence[Leader]) -> list[Leader]:
    """The best `train.top`: by `search confirm` if it has been run, else by the search."""
    confirmation = load_confirmation(run, ranked)
    if confirmation is None:
        return list(ranked[: run.train.top])
    chosen = by_confirmation(ranked, confirmation)[: run.train.top]
    seeds = len(confirmation.confirmed[0].seeds)
    shown = ", ".join(label_of(leader.number, leader.first) for leader in chosen)
    log.print(f"Promoting by the ranking of `headhunt search confirm` (mean of {seeds} seeds): trial {shown}.")
    return chosen


def _identity(run: TrainRun, cache: FeatureCache, leader: Leader) -> str:
    """sha256 (hex) of everything that a promotion's numbers depend on."""
    parts = [
        cache.key,
        leader.config.model_dump_json(),
        run.train.finetune.model_dump_json(),
        *(phase.model_dump_json() for phase in run.train.finetune.plan),
        run.backend,
        run.promotion_devices,
        _augmentation(run, leader),
        *([] if run.search.objective == "val_accuracy" else [run.search.objective]),  # absent in earlier versions
    ]
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def _augmentation(run: TrainRun, leader: Leader) -> Augmentation:
    """The augmentation for fine-tuning: from its section, or else the policy of the views that the trial was trained on."""
    if run.train.finetune.augmentation is not None:
        return run.train.finetune.augmentation
    return augmentation_of(_own_section(run, leader))


def _own_section(run: TrainRun, leader: Leader) -> FeaturesConfig:
    """The features section of the policy that a trial was trained on; of the first policy if that is no longer configured."""
    return section_of(run.features, configured(run.features, leader.config.views.policy))


def _finished(run: TrainRun, wanted: _PromotionRequest) -> Promotion | None:
    """The finished promotion, if it exists with metrics for all configured splits."""
    try:
        found = read_promotion(wanted.folder)
    except HeadhuntError as error:
        log.print(f"Promoting trial {wanted.leader.number} again: {error}", style="yellow")
        return None
    if found is None or found.made_from != wanted.made_from:
        return None
    if not set(run.evaluated_splits) <= set(found.tuned.evaluated()):
        return None
    log.print(f"Trial {found.trial} is already promoted: {relative(found.folder)}")
    return found


def _note(promotion: Promotion) -> str:
    frozen = "No epoch of fine-tuning was better than the frozen network, which is kept." if promotion.is_frozen else ""
    return "".join(f". {said.removesuffix('.')}" for said in (frozen, promotion.rounding) if said)
