"""The objective as a task: other processes find its compiled programs; tasks that do not fit into memory are split in half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from features.cache.feature_cache import cache_for
from reports.config import Run
from search.population.task import Task, failed_results
from search.trial import EpochMetrics, TrialConfig, TrialState
from tests.forks import run_python

BODY = """
import json, os, sys
from pathlib import Path
import jax
from features.cache.views import Views
from search.heads import HeadConfig
from search.population.task import Task, train_trials
from search.population.program import Program
from search.schedules import Constant
from search.population.sources import Source
from search.trial import TrialConfig

cache, compiled, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # the tests share one
counted, wide = {"cache_hits": 0, "cache_misses": 0}, []
jax.monitoring.register_event_listener(
    lambda event, **_: counted.update({event.rpartition("/")[2]: counted.get(event.rpartition("/")[2], 0) + 1}))
alone = Program.train

def train(self, configs, *others):
    if len(configs) > room:
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: Out of memory allocating {len(configs)} lanes")
    wide.append(len(configs))
    return alone(self, configs, *others)

Program.train = train
configs = tuple(TrialConfig(head=HeadConfig(units=(6,), dropout=0.2), schedule=Constant(learning_rate=1e-2), batch_size=4,
                            views=Views(copies=1), epochs=3, seed=seed) for seed in range(5))
task = Task(configs, (None,) * 5, (Source("p", cache, 1),), compiled, 3, "val_loss", 0, 1, (0, 1, 2, 3, 4))
done = [(p.failure, p.state is None, [list(m) for m in p.curves], sorted(p.weights)) for p in train_trials(task)]
print(json.dumps({"done": done, "wide": wide, **counted}))
"""


def process(cache: Path, compiled: Path, room: int) -> Any:
    done = run_python(BODY, str(cache), str(compiled), str(room), folder=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tasks_find_programs_again_and_fit_into_memory(searched: Run, tmp_path: Path) -> None:
    cache, compiled = cache_for(searched).folder.resolve(), tmp_path / "compiled"
    first = process(cache, compiled, 5)
    assert first["wide"] == [5]
    assert [failure for failure, *_ in first["done"]] == [None] * 5
    assert all(over and len(curves) == 3 and weights for _, over, curves, weights in first["done"])
    assert len(list(compiled.glob("*train_and_measure*-cache"))) == 1
    halved = process(cache, compiled, 2)
    assert halved["wide"] == [2, 1, 2]
    assert halved["done"] == first["done"]
    assert halved["cache_hits"] > 0
    none_fits = process(cache, compiled, 0)
    assert {failure for failure, *_ in none_fits["done"]} == {
        "out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 1 lanes"
    }
    assert not any(weights for *_, weights in none_fits["done"])


FOLDERS = """
from pathlib import Path
import jax
from search.population.task import _keep_programs
for name in ("one", "two"):
    _keep_programs(Path(name))
    print(Path(jax.config.jax_compilation_cache_dir).name)
"""


def test_programs_are_kept_with_the_study_unless_jax_is_told_where(tmp_path: Path) -> None:
    """A worker may serve one study after another."""
    for given, kept in (("", ["one", "two"]), (str(tmp_path / "shared"), ["shared", "shared"])):
        done = run_python(FOLDERS, environment={"JAX_COMPILATION_CACHE_DIR": given})
        assert done.stdout.split() == kept, done.stderr


def test_trials_that_are_given_up_are_failures_after_the_epochs_that_they_had(tmp_path: Path) -> None:
    had = TrialState([], [], [], [], [], [EpochMetrics(1, 2.0, 0.1, 2.1, 0.2, 0.5, 1e-3)], best_epoch=1)
    task = Task((TrialConfig(), TrialConfig()), (None, had), (), tmp_path, 3, "val_accuracy", 0, 1)
    fresh, begun = failed_results(task, "its workers died")
    assert (fresh.failure, fresh.curves, fresh.best_epoch) == ("its workers died", (), 0)
    assert (begun.failure, len(begun.curves), begun.best_epoch, begun.weights) == ("its workers died", 1, 1, {})
