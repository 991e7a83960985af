"""A trial's configuration as text: one line per part, for the dashboard and the terminal."""

from __future__ import annotations

from typing import Any, NamedTuple

from features.backbones.table import pooling
from features.cache.views import Views
from features.config import FeaturesConfig
from search.heads import HeadConfig
from search.optimizers import LBFGS, OptimizerConfig
from search.schedules.base import ScheduleConfig
from search.top5 import is_informative
from search.trial import TrialConfig, values_of


class Description(NamedTuple):
    """A trial's configuration in words: its parts by name, and in one to three lines. `attributes` are the parts that the
    dashboard shows as the trial's attributes, the others being parameters of every space; `solved` is whether it is solved
    instead of trained; `top5` whether its top-5 accuracy can be below 100 %."""

    parts: dict[str, str]
    short: list[str]
    attributes: dict[str, str]
    solved: bool = False
    top5: bool = True


def described(config: TrialConfig, classes: int) -> Description:
    """A trial on features of so many classes in words."""
    parts = describe(config)
    attributes = {name: text for name, text in parts.items() if name not in ("batch_size", "views")}
    seed = {} if config.is_probe else {"seed": str(config.seed)}
    return Description({**parts, **seed}, short(config), attributes, config.is_probe, is_informative(classes))


def describe(config: TrialConfig) -> dict[str, str]:
    """The parts that apply to this trial, by name: features (if the head sees only some of them), head, optimizer, schedule,
    batch_size, views. A hypermodel has hypermodel and values instead of head, optimizer and schedule; a linear probe only has
    head, optimizer and views."""
    if config.hypermodel is not None:
        drawn = ", ".join(f"{name} {show(value)}" for name, value in config.hypermodel.values.items())
        parts = {"hypermodel": config.hypermodel.function, "values": drawn or "none"}
    elif config.is_probe:
        head = f"linear probe, {head_line(config.head)}"
        return {"head": head, "optimizer": optimizer_line(config.optimizer), "views": views_line(config.views)}
    else:
        parts = {
            "head": head_line(config.head),
            "optimizer": optimizer_line(config.optimizer),
            "schedule": schedule_line(config.schedule),
        }
    seen = {"features": config.features.parts} if config.features.parts is not None else {}
    return {**seen, **parts, "batch_size": str(config.batch_size), "views": views_line(config.views)}


def short(config: TrialConfig) -> list[str]:
    """A trial at a glance, in one to three lines: features, head and schedule, or the hypermodel's values."""
    parts = describe(config)
    return [parts[name] for name in ("features", "head", "schedule", "values") if name in parts]


def shown_values(config: TrialConfig, features: FeaturesConfig) -> dict[str, str]:
    """The values that apply to this trial, as text, by their names in a space; `features` is the run's section."""
    if config.hypermodel is not None:
        values = {"batch_size": config.batch_size, **config.hypermodel.values}
    else:
        values = {**values_of(config), "features.parts": parts_line(config.features.parts, features)}
    unmeant = set() if config.head.units or config.hypermodel else {"head.activation"}
    unmeant |= set() if config.views.copies != 0 else {"views.policy", "views.draw"}
    return {name: show(value) for name, value in values.items() if value is not None and name not in unmeant}


def parts_line(parts: str | None, features: FeaturesConfig) -> str:
    """The cached features that a head sees: `all`, or the parts as written in the configuration."""
    return "all" if parts is None or set(parts.split("+")) == set(pooling(features).split("+")) else parts


def head_line(head: HeadConfig) -> str:
    """For example `512-256-relu, dropout 0.3, l2 1e-4`."""
    words = ["-".join([*map(str, head.units), head.activation]) if head.units else "no hidden layer"]
    words += [f"{name} {show(value)}" for name, value in (("dropout", head.dropout), ("l2", head.l2)) if value]
    words += ["batch normalisation"] if head.batch_norm else []
    words += [f"label smoothing {show(head.label_smoothing)}"] if head.label_smoothing else []
    words += [] if head.standardize else ["features not standardised"]
    return ", ".join(words)


def optimizer_line(optimizer: OptimizerConfig) -> str:
    """For example `adamw, weight decay 0.004`."""
    if isinstance(optimizer, LBFGS):
        return f"lbfgs, L2 by cross-validation over {optimizer.folds} folds" if optimizer.folds else "lbfgs"
    return ", ".join(_with_settings(optimizer.model_dump()))


def schedule_line(schedule: ScheduleConfig) -> str:
    """For example `step_decay, learning rate 1e-3, factor 0.5, every 10 epochs, floor 1e-6`."""
    settings = schedule.model_dump()
    if not settings["warmup_epochs"]:
        del settings["warmup_epochs"]
    if settings.get("rise_factor", 1) is None:  # a plateau that never rises
        settings = {name: value for name, value in settings.items() if not name.startswith("rise_")}
    return ", ".join(_with_settings(settings))


def views_line(views: Views) -> str:
    """For example `8 copies, per image, 25 % clean`."""
    if not views.copies:
        return "clean photos" if views.copies == 0 else "all copies"
    words = ["1 copy"] if views.copies == 1 else [f"{views.copies} copies", views.draw.replace("_", " ")]
    words += [f"{show(100 * views.clean_share)} % clean"] if views.clean_share else []
    words += [views.policy] if views.policy else []
    return ", ".join(words)


def show(value: Any) -> str:
    """A number with at most three significant digits, `1e-4` rather than `0.0001`; anything else unchanged."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 < abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


SHARES = {"start_share": "from {}", "rise_share": "rising for {}", "floor_share": "down to {}"}
"""Text for shares of the highest rate or of the training."""


def _with_settings(settings: dict[str, Any]) -> list[str]:
    """The kind, then its settings with their units."""
    words = [settings["kind"]]
    ordered = sorted(settings, key=lambda name: name != "learning_rate")  # the rate first, the others as declared
    for name in ordered:
        value = settings[name]
        if name == "kind" or value is None:
            continue
        if name in SHARES:
            words.append(SHARES[name].format(f"{show(100 * value)} %" if value else "0"))
        elif name.endswith("_epochs"):
            unit = "epoch" if value == 1 else "epochs"
            words.append(f"{name.removesuffix('_epochs').replace('_', ' ')} {show(value)} {unit}")
        else:
            words.append(f"{name.replace('_', ' ')} {show(value)}")
    return words
