"""The examples are valid, and search what they describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.run_file import load
from reports.config import Run
from search.config import SearchConfig
from search.searched_views import resolved_space

ROOT = Path(__file__).parents[2]


EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml"))


@pytest.mark.parametrize(
    "file", [*EXAMPLES, ROOT / "tests/end_to_end/stanford_cars_50.yaml"], ids=lambda file: file.stem
)
def test_example_configurations_are_valid(file: Path) -> None:
    assert load(Run, file).name


def test_the_seeds_five_experiments_are_one_trial_each_and_fine_tuned_by_its_recipe() -> None:
    runs = [load(Run, file) for file in EXAMPLES if file.parent.name == "seed_2021"]
    assert len({(run.name, run.workdir) for run in runs}) == 5
    for run in runs:
        assert (run.search.trials, run.search.epochs, run.train.finetune.preset) == (1, 300, "seed_2021")
        assert resolved_space(run).size() == 1
        assert run.train.baselines.simple_cnn is not None


def test_the_examples_search_the_default_space() -> None:
    for file in EXAMPLES:
        if file.parent.name != "seed_2021":
            assert load(Run, file).search.space == SearchConfig().space, file.name
