"""The model card: what was trained on which data, and the results. Measured numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from features.backbones.table import image_size
from features.cache.feature_cache import FeatureCache
from features.cache.views import Views
from features.config import augmentation_name
from features.runtime.log import counted
from search.leaderboard import Leader
from search.ranking import OPTIMISTIC
from search.review.describe import show, views_line
from search.top5 import is_informative
from search.trial import TrialConfig
from train.config import TrainRun
from train.evaluate import wilson_interval
from train.ledger_summary import usage_of_test_photos
from train.promotion.artifact import Promotion
from train.verdict import Verdict


def model_card(
    run: TrainRun,
    leader: Leader,
    cache: FeatureCache,
    promotion: Promotion,
    verdict: Verdict,
    files: Mapping[str, str],
) -> str:
    """The model card as Markdown; `files` are the bundle's files by format."""
    height, width = image_size(run.features)
    phases, top5 = promotion.finetune.plan, is_informative(len(cache.class_names))
    kept = ("frozen backbone", promotion.tuned)  # the exported network itself, not its head on the cached features
    stages = [kept] if promotion.is_frozen else [("frozen backbone", promotion.frozen), ("fine-tuned", promotion.tuned)]
    rows = [
        f"| {stage} | {split} | {_accuracy(numbers.accuracy, split, cache)} | "
        f"{_accuracy(numbers.top5_accuracy, split, cache) + ' | ' if top5 else ''}{numbers.loss:.4f} | "
        f"{'not measured' if numbers.ece is None else f'{numbers.ece:.4f}'} |"
        for stage, splits in stages
        for split, numbers in splits.evaluated().items()
    ]
    sizes = ", ".join(f"{count} {split}" for split, count in cache.manifest.splits.items())
    parity = promotion.parity
    versions = ", ".join(f"{name} {version}" for name, version in promotion.versions.items())
    return "\n".join(
        [
            f"# {run.name}, trial {leader.number}",
            "",
            verdict.text,
            "",
            f"An image classifier for {len(cache.class_names)} classes: {run.features.backbone} with a head that was found by a "
            f"search on cached features{_then(promotion)}.",
            "",
            "## Use",
            "",
            "```python",
            "import keras",
            "",
            'model = keras.saving.load_model("model.keras")',
            f"probabilities = model.predict(photos)  # photos: (n, {height}, {width}, 3) uint8, RGB",
            "```",
            "",
            f"The bundle: {', '.join(f'`{Path(file).name}` ({name})' for name, file in files.items())}; `headhunt train predict "
            "IMAGE… --model .` runs any of them.",
            "",
            "Resize photos bilinearly to this size, ignoring the aspect ratio. Line n of `labels.txt` (from 0) names class n.",
            "",
            "## Data",
            "",
            f"- data set: `{run.dataset.kind}`, {sizes} photos; index fingerprint `{cache.manifest.key_parts['images'][:16]}`",
            f"- feature cache: `{cache.key[:16]}`; the head was trained on: {views_line(_views(leader.config, cache))}",
            "",
            "## Model",
            "",
            f"- backbone: `{run.features.backbone}`, weights `{cache.manifest.key_parts['weights']}`{_cut(run)}",
            f"- pooling: `{leader.config.features.parts or cache.manifest.key_parts['pooling']}`",
            *_head_lines(leader.config, len(cache.class_names)),
            f"- fine-tuning: {_tuned(promotion)} {_shown(promotion, leader.config, cache)}",
            *(
                f"  - {layers}: up to {counted(phase.epochs, 'epoch')} with {phase.optimizer.kind}, "
                f"`{type(phase.followed).__name__}` schedule, learning rate {phase.followed.learning_rate:.3g}"
                for phase, layers in zip(phases, trained(promotion), strict=True)
            ),
            "",
            "## Results",
            "",
            f"| stage | split | top-1 |{' top-5 |' if top5 else ''} loss | ECE |",
            f"|---|---|---|{'---|' if top5 else ''}---|---|",
            *rows,
            "",
            "In brackets: 95 % intervals of the test accuracy (Wilson). ECE: expected calibration error of the top class, in 15 "
            "bins.",
            "",
            f"Accuracy on the validation photos is {OPTIMISTIC}. {usage_of_test_photos(run)}",
            "",
            f"Before fine-tuning, network and head agreed on {parity.images} clean photos: largest difference in probability "
            f"{parity.max_abs_difference:.1e}.",
            "",
            "## Licence",
            "",
            "The weights derive from the backbone's pretrained weights and from the data set; the licences of both apply.",
            "",
            f"Made with {versions}.",
            "",
        ]
    )


def trained(promotion: Promotion) -> list[str]:
    """What each phase of fine-tuning trained, as text. A number of convolutional layers is a limit: the backbone may have fewer.
    A promotion records how many were trained only if fine-tuning changed the backbone."""
    phases, layers, texts = promotion.finetune.plan, len(promotion.unfrozen), []
    counts = [phase.unfreeze for phase in phases if phase.unfreeze not in ("head", 0)]
    fewer = layers > 0 and all(isinstance(count, int) and count > layers for count in counts)
    for phase in phases:
        text, count = phase.title, phase.unfreeze
        if isinstance(count, int) and count > layers:
            known = phase.model_copy(update={"unfreeze": layers}).title
            text = f"{known} (the backbone has no more)" if fewer else text.replace("the last", "at most the last")
        texts.append(text)
    return texts


def _cut(run: TrainRun) -> str:
    """The layers at which the backbone was cut; empty for its own last map."""
    layers = " and ".join(f"`{name}`" for name in run.features.cuts)
    return f", up to {layers}, each pooled" if len(run.features.cuts) > 1 else f", up to {layers}" if layers else ""


def _views(config: TrialConfig, cache: FeatureCache) -> Views:
    """The views that the head was trained on, with the cache's policy and copies filled in."""
    views, known = config.views, {"policy": config.views.policy or cache.manifest.policy}
    return views.model_copy(update=known if views.copies is not None else {**known, "copies": cache.copies})


def _shown(promotion: Promotion, config: TrialConfig, cache: FeatureCache) -> str:
    """One sentence on the photos used in fine-tuning, from its section or else from the trial's views."""
    tuning = promotion.finetune
    policy = cache.manifest.policy if tuning.augmentation is None else augmentation_name(tuning.augmentation)
    clean = config.views.clean_share if tuning.clean_share is None else tuning.clean_share
    if policy == "none" or clean == 1:
        return "Its photos were clean."
    return f"Its photos were augmented (`{policy}`)" + (f", {show(100 * clean)} % of them clean." if clean else ".")


def _then(promotion: Promotion) -> str:
    """What was done after the search."""
    if promotion.is_frozen:
        return ""
    return " and then fine-tuned" + (" alone" if promotion.is_head_alone else " together with the backbone")


def _tuned(promotion: Promotion) -> str:
    """What fine-tuning changed, and how long it took."""
    layers = len(promotion.unfrozen)
    if promotion.is_frozen:
        epochs = counted(promotion.epochs, "epoch")
        said = f"{epochs}. No epoch was better than the frozen network, which is kept. {promotion.rounding}"
        return said.rstrip()
    what = f"the head and {counted(layers, 'layer')} of the backbone" if layers else "the head alone"
    said = (
        f"{what}, {counted(promotion.epochs, 'epoch')}. The best was epoch {promotion.best_epoch}. {promotion.rounding}"
    )
    return said.rstrip()


def _head_lines(config: TrialConfig, classes: int) -> list[str]:
    """The head's layers and how it was trained."""
    if config.hypermodel is not None:
        values = ", ".join(f"{name} {show(value)}" for name, value in config.hypermodel.values.items())
        return [f"- head: the model of `{config.hypermodel.function}` with {values or 'no hyperparameters'}"]
    head = config.head
    layers = [*(f"Dense({units}, {head.activation})" for units in head.units), f"Dense({classes})"]
    lines = [
        f"- head: {' → '.join(layers)}, dropout {head.dropout:g}, L2 {head.l2:.3g}, label smoothing {head.label_smoothing:g}"
    ]
    if config.is_probe:
        return [
            *lines,
            "- head: a linear probe, solved by L-BFGS; its L2 was chosen by cross-validation",
        ]
    return [
        *lines,
        f"- head trained with {config.optimizer.kind}, `{config.schedule.kind}` schedule, learning rate "
        f"{config.schedule.learning_rate:.3g}, batch size {config.batch_size}",
    ]


def _accuracy(share: float, split: str, cache: FeatureCache) -> str:
    """The accuracy, on test with its interval; on the other splits an interval would mean nothing, since the model was chosen or
    trained on those photos."""
    if split != "test":
        return f"{100 * share:.1f} %"
    low, high = wilson_interval(share, cache.manifest.splits[split])
    return f"{100 * share:.1f} % ({100 * low:.1f} % to {100 * high:.1f} %)"
