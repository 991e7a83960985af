"""The plan of the fidelity study: a separate run inside the run's folder, and the cells of its experiment.

The study is an ordinary run, `fidelity/headhunt.yaml`: its caches have enough copies for a fresh view every epoch, its search
draws configurations evenly from the space (a Sobol sequence, no pruning), and its promotions fine-tune some of them. So it can be
resumed, read and reviewed like any other run.
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
from search.searched_views import resolved_space, with_stored_views
from train.config import BaselinesConfig


class Cell(NamedTuple):
    """A way to train a head: the views, the number of epochs, and the share of the training photos.

    `copies` equal to `epochs` means a fresh view every epoch; 0 means clean photos only.
    """

    policy: str
    copies: int
    draw: Literal["rotation", "per_image"]
    clean_share: float
    epochs: int
    train_share: float = 1.0

    @property
    def is_fresh(self) -> bool:
        """Whether every epoch shows a fresh augmented view."""
        return self.draw == "rotation" and 0 < self.copies == self.epochs

    @property
    def views(self) -> Views:
        """The views to train on."""
        return Views(policy=self.policy, copies=self.copies, clean_share=self.clean_share, draw=self.draw)


class Plan(NamedTuple):
    """The study's run, its configuration file, and the cells. `own` is how the run's search trains; `half_epochs` and `half_data`
    are the same with half the epochs or photos. `full` returns the cell with fresh views that a cell is compared with."""

    run: Run
    file: Path
    epochs: int
    own: Cell
    half_epochs: Cell
    half_data: Cell
    cells: tuple[Cell, ...]

    def full(self, cell: Cell) -> Cell:
        """The full frozen run, with fresh views every epoch, for the policy and clean share of a cell (for clean photos: those of
        the search)."""
        if cell.copies == 0:
            return _fresh(self.own.policy, self.own.clean_share, self.epochs)
        return _fresh(cell.policy, cell.clean_share, self.epochs)


def make_plan(run: Run) -> Plan:
    """The plan for a run whose features are cached; UsageError for a run that the study does not support."""
    settings = run.reports.fidelity
    if run.search.hypermodel is not None:
        raise UsageError(
            "search.hypermodel: the fidelity study draws heads from `search.space` and does not support hypermodels. Measure "
            "fidelity on a run with a search space."
        )
    if run.search.objective != "val_accuracy":
        raise UsageError(
            f"search.objective: received {run.search.objective}; it must be val_accuracy, because the fidelity study certifies "
            "rankings by val_accuracy only. Use a run with that objective."
        )
    epochs = settings.epochs or run.search.epochs
    views = _own_views(run)
    own = Cell(views.policy or policy_name(run.features), views.copies or 0, views.draw, views.clean_share, epochs)
    own = _plain(own)
    if own.is_fresh and epochs < run.search.epochs:
        raise UsageError(
            f"reports.fidelity.epochs: in {epochs} epochs all of the search's {own.copies} views are fresh, but not in its own "
            f"{run.search.epochs} epochs. Set more epochs than views."
        )
    derived = _derived(run, settings, epochs, views)
    cells = [own, *_grid(settings, list(policy_sections(derived.features)), own, epochs)]
    less = own._replace(epochs=max(1, epochs // 2)), own._replace(train_share=0.5)
    return Plan(derived, derived.workdir / "headhunt.yaml", epochs, own, *less, tuple(dict.fromkeys(cells)))


def _own_views(run: Run) -> Views:
    """The views that the run's search trains on; if trials draw their own, those of the best trial."""
    study = load_study(run)
    run = with_stored_views(run, study)
    if not resolved_space(run).views:
        return Caches(run).views
    best = leaders(run, 1)
    if not best:
        raise UsageError(f"the study {run.name!r} has no completed trials. Run `headhunt search run` first.")
    views = best[0].config.views
    log.print(
        f"Trials draw their own views; certifying those of the best trial, {best[0].number}: {views_line(views)}."
    )
    return views


def _grid(settings: FidelityConfig, policies: list[str], own: Cell, epochs: int) -> list[Cell]:
    """The cells of the experiment in canonical form: clean photos have no policy, one copy and fresh views have no draw."""
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
    """The canonical form of a cell: different parameters can give the same views."""
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
    # The test photos stay unseen here.
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
"""The sections that must not change in a study; only copies, policies, trials and workers may."""


def lay_out(plan: Plan, run: Run) -> None:
    """Creates the study's folder with its configuration, the run's index, and the shards that the run's caches already have.

    Raises UsageError if the folder contains a study with other settings.
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
    if augmentation_of(before.features) != augmentation_of(now.features):  # other policies may change
        changed.append("features.augmentation")
    if changed:
        raise UsageError(
            f"{relative(file)} is a fidelity study with different settings: {', '.join(changed)}. Restore them, or move "
            f"{relative(file.parent)} away to measure again."
        )
