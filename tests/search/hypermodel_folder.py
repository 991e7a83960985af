"""Studies of hypermodels in the working directory of the fixture `searched`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
import yaml

from features.runtime.errors import UsageError
from reports.config import Run
from tests.forks import run_command


def study_of(run: Run, folder: Path, function: str, **search: Any) -> list[optuna.trial.FrozenTrial]:
    """The trials of a new study of a hypermodel whose module is in `folder`, by `headhunt search run`, whose standard error is
    forwarded to this process's. UsageError if the search is refused."""
    (run.workdir / "study.db").unlink(missing_ok=True)
    for module in folder.glob("*.py"):
        Path(module.name).write_text(module.read_text())
    raw = Path("headhunt.yaml").read_text()
    assert "space:" in raw
    config = yaml.safe_load(raw)
    config["search"] = {
        **{key: value for key, value in config["search"].items() if key != "space"},
        "hypermodel": function,
        "sampler": "random",
        "pruner": "none",
        **search,
    }
    Path("headhunt.yaml").write_text(yaml.safe_dump(config))
    done = run_command(Path(), ("search", "run"))
    print(done.stderr, file=sys.stderr)
    Path("headhunt.yaml").write_text(raw)
    if done.returncode == 2:
        raise UsageError(done.stderr.partition("headhunt: ")[2].strip())
    assert done.returncode == 0, done.stderr
    return optuna.load_study(study_name=run.name, storage=f"sqlite:///{run.workdir}/study.db").trials
