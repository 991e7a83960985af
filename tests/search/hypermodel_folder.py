"""Studies of hypermodels in the working directory of the fixture `searched`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna

from features.runtime.errors import UsageError
from reports.config import Run

BODY = """
import sys
from pathlib import Path
from features.run_file import load
from features.runtime.errors import UsageError
from search.config import SearchRun
from search.study import run_search
try:
    run_search(load(SearchRun, Path("headhunt.yaml"), sys.argv[1:]))
except UsageError as error:
    sys.exit(f"UsageError: {error}")
assert "tensorflow" not in sys.modules
"""


def study_of(run: Run, folder: Path, function: str, **search: Any) -> list[optuna.trial.FrozenTrial]:
    """The trials of a new study of a hypermodel whose module is in `folder`, searched in a separate process whose standard error
    is forwarded to this one's. UsageError if the search is refused."""
    (run.workdir / "study.db").unlink(missing_ok=True)
    for module in folder.glob("*.py"):
        Path(module.name).write_text(module.read_text())
    raw = Path("headhunt.yaml").read_text()
    assert "space:" in raw
    import yaml

    config = yaml.safe_load(raw)
    config["search"] = {
        **{key: value for key, value in config["search"].items() if key != "space"},
        "hypermodel": function,
        "sampler": "random",
        "pruner": "none",
        **search,
    }
    Path("headhunt.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run([sys.executable, "-c", BODY], capture_output=True, text=True, check=False)
    print(done.stderr, file=sys.stderr)
    Path("headhunt.yaml").write_text(raw)
    if done.returncode and "UsageError: " in done.stderr:
        raise UsageError(done.stderr.partition("UsageError: ")[2].strip())
    assert done.returncode == 0, done.stderr
    return optuna.load_study(study_name=run.name, storage=f"sqlite:///{run.workdir}/study.db").trials
