"""The evidence for the default space and the default pruner: `python -m tests.benchmarks.evidence --help`.

python -m tests.benchmarks.evidence trials --space todays --trials 80      random trials on every data set
python -m tests.benchmarks.evidence replay --space todays                  those studies under every pruner
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from tests.benchmarks.evidence.datasets import DATA_SETS
from tests.benchmarks.evidence.pruning import table
from tests.benchmarks.evidence.trials import SPACES, names, run_trials


def main() -> None:
    """One command for each step; a step that is done is not done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["trials", "replay"])
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--sets", help=f"comma-separated; default: all of {', '.join(DATA_SETS)}")
    parser.add_argument("--space", choices=SPACES, default="wide")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--resamplings", type=int, default=100)
    given = parser.parse_args()
    study = f"{given.space}_{given.epochs}"
    if given.step == "trials":
        for name in names(given.sets):
            run_trials(given.out, name, study, SPACES[given.space], given.trials, given.epochs)
        return
    studies = [given.out / name / study for name in names(given.sets)]
    found = table([each for each in studies if (each / "curves.npz").exists()], given.resamplings)
    pd.set_option("display.width", 200, "display.max_rows", 200, "display.max_columns", 20)
    print(found.round(2).to_string(index=False))
    print(found.groupby("pruner", sort=False).mean(numeric_only=True).round(2).to_string())


if __name__ == "__main__":
    main()
