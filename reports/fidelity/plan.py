"""What the fidelity study runs: a run of its own below the run's folder, and the cells of its experiment.

The study is an ordinary run, `fidelity/headhunt.yaml`: its caches hold enough copies for a fresh view in every epoch, its search
draws configurations spread evenly over the space (a Sobol sequence, no pruning), and its promotions fine-tune some of them. So
everything in it is resumed, read and reviewed as in any other run.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from features.augmentation.policies import augmentation_of, policy_name, policy_sections, with_policies
from features.cache.keys import sound_manifests
from features.cache.takeover import take_over
from features.cache.views import Views
from features.run_file import load
from features.runtime.atomic import make_folder, write_text
from features.runtime.commands.template import commented_yaml
from features.runtime.errors import UsageError
from features.runtime.log import log, relative
from reports.config import FidelityConfig, ReportsConfig, Run
from search.leaderboard import leaders, load_study
from search.population.sources import Caches
from search.review.describe import views_line
from search.searched_views import as_made, resolved_space
from train.config import BaselinesConfig


class Cell(NamedTuple):
    """A way to train a head: from which views, for how long, and on which share of the training photos.

    `copies` as many as `epochs` means a fresh view in every epoch; 0 are the clean photos alone.
    """

    policy: str
    copies: int
    draw: Literal["rotation", "per_image"]
    clean_share: float
    epochs: int
    train_share: float = 1.0

    @property
    def is_fresh(self) -> bool:
        """Whether every epoch shows a view that no other does."""
        return self.draw == "rotation" and 0 < self.copies == self.epochs

    @property
    def views(self) -> Views:
        """The views that it trains from."""
        return Views(policy=self.policy, copies=self.copies, clean_share=self.clean_share, draw=self.draw)


class Plan(NamedTuple):
    """The study's run, its configuration file, and the cells; `own` is how the run's search itself trains, `half_epochs` and
    `half_data` the same for less. `full` gives the fresh views that a cell is compared with."""

    run: Run
    file: Path
    epochs: int
    own: Cell
    half_epochs: Cell
    half_data: Cell
    cells: tuple[Cell, ...]

    def full(self, cell: Cell) -> Cell:
        """The full frozen run with the policy and share of clean views of a cell (clean photos: of the search): a fresh view in
        every epoch."""
        if cell.copies == 0:
            return _fresh(self.own.policy, self.own.clean_share, self.epochs)
        return _fresh(cell.policy, cell.clean_share, self.epochs)


def make_plan(run: Run) -> Plan:
    """The plan of a run whose features are cached; UsageError for a run that it cannot be made of."""
    settings = run.reports.fidelity
    if run.search.hypermodel is not None:
        raise UsageError(
            "search.hypermodel: the fidelity study spreads its configurations over `search.space` and trains heads of it in "
            "several ways; it has no models of a function. Measure it on a run with a space."
        )
    if run.search.objective != "val_accuracy":
        raise UsageError(
            f"search.objective: received {run.search.objective}; the fidelity study compares rankings by val_accuracy, and would "
            "certify one that this study does not use."
        )
    epochs = settings.epochs or run.search.epochs
    views = _own_views(run)
    own = Cell(views.policy or policy_name(run.features), views.copies or 0, views.draw, views.clean_share, epochs)
    own = _plain(own)
    if own.is_fresh and epochs < run.search.epochs:
        raise UsageError(
            f"reports.fidelity.epochs: in {epochs} epochs the search's {own.copies} views are fresh ones throughout, in its "
            f"{run.search.epochs} they are not. Set more epochs than views."
        )
    derived = _derived(run, settings, epochs, views)
    cells = [own, *_grid(settings, list(policy_sections(derived.features)), own, epochs)]
    less = own._replace(epochs=max(1, epochs // 2)), own._replace(train_share=0.5)
    return Plan(derived, derived.workdir / "headhunt.yaml", epochs, own, *less, tuple(dict.fromkeys(cells)))


def _own_views(run: Run) -> Views:
    """The views that the run's search trains on; where its trials draw their own, those of its best trial."""
    study = load_study(run)
    run = as_made(run, study)
    if not resolved_space(run).views:
        return Caches(run).views
    best = leaders(run, 1)
    if not best:
        raise UsageError(f"the study {run.name!r} has no completed trials. Run `headhunt search run` first.")
    views = best[0].config.views
    log.print(
        f"Trials draw their own views; those of the best trial, {best[0].number}, are certified: {views_line(views)}."
    )
    return views


def _grid(settings: FidelityConfig, policies: list[str], own: Cell, epochs: int) -> list[Cell]:
    """Every cell once: clean photos have no policy, one copy no draw, and a fresh view no draw either."""
    cells = [_plain(own._replace(copies=0))]
    for policy in policies:
        shares = {*settings.clean_shares, *([own.clean_share] if policy == own.policy else [])}
        for share in sorted(shares):
            fewer = sorted(copies for copies in settings.copies if 0 < copies < epochs)
            cells += [
                _plain(Cell(policy, copies, draw, share, epochs)) for copies, draw in product(fewer, settings.draws)
            ]
            cells.append(_fresh(policy, share, epochs))
    return cells


def _fresh(policy: str, clean_share: float, epochs: int) -> Cell:
    return Cell(policy, epochs, "rotation", clean_share, epochs)


def _plain(cell: Cell) -> Cell:
    """The cell by its simplest name: the same views may be had in several ways."""
    if cell.draw == "rotation" and cell.copies > cell.epochs:
        cell = cell._replace(copies=cell.epochs)
    if cell.copies == 0 or cell.clean_share == 1:
        return cell._replace(copies=0, draw="rotation", clean_share=0.0)
    return cell._replace(draw="rotation") if cell.copies == 1 else cell


def _derived(run: Run, settings: FidelityConfig, epochs: int, views: Views) -> Run:
    """The study's run."""
    features = with_policies(run.features, list(settings.policies), max(epochs, views.copies or 0))
    search = run.search.model_copy(
        update={
            "sampler": "qmc",
            "pruner": "none",
            "trials": settings.configurations,
            "keep": settings.configurations,
            "hours": None,
            "target": None,
            "epochs": epochs,
            "objective": "val_accuracy",
            "views": views,
            "space": run.search.space.model_copy(update={"views": {}}),
        }
    )
    finetune = settings.finetune or run.train.finetune.model_copy(
        update={"activation_copies": settings.activation_copies}
    )
    # Nothing is chosen by the test photos: they stay unseen here.
    train = run.train.model_copy(update={"finetune": finetune, "baselines": BaselinesConfig(), "evaluate_test": False})
    return run.model_copy(
        update={
            "name": f"{run.name}-fidelity",
            "workdir": run.workdir / "fidelity",
            "features": features,
            "search": search,
            "train": train,
            "reports": ReportsConfig(),
        }
    )


SETTLED = ("dataset", "features", "search")
"""The sections that a study's numbers depend on throughout; its copies, policies and trials may grow."""


def lay_out(plan: Plan, run: Run) -> None:
    """Makes the study's folder: its configuration, the run's index, and the shards that the run's caches have already.

    Raises UsageError where the folder holds a study of other settings.
    """
    folder = make_folder(plan.run.workdir)
    if plan.file.exists():
        _check_settled(load(Run, plan.file), plan.run, plan.file)
    header = f"# The fidelity study of {run.name}, written by `headhunt reports fidelity`.\n"
    write_text(plan.file, header + commented_yaml(plan.run))
    index = folder / "dataset"
    if not index.is_symlink():
        index.symlink_to(Path("..") / "dataset")
    for cache, manifest in sound_manifests(run):
        take_over(cache, manifest, make_folder(folder / "cache" / cache.name), augmented=True)


def _check_settled(before: Run, now: Run, file: Path) -> None:
    growing = {
        "features": {"copies", "workers", "augmentation"},
        "search": {"trials", "keep", "workers"},
    }
    changed = []
    for section in SETTLED:
        old, new = (getattr(each, section).model_dump(mode="json") for each in (before, now))
        names = sorted({*old, *new} - growing.get(section, set()))
        changed += [f"{section}.{name}" for name in names if old.get(name) != new.get(name)]
    if augmentation_of(before.features) != augmentation_of(now.features):  # others may come and go
        changed.append("features.augmentation")
    if changed:
        raise UsageError(
            f"{relative(file)} is a fidelity study of other settings: {', '.join(changed)}. Set them back, or move "
            f"{relative(file.parent)} away to measure again."
        )
