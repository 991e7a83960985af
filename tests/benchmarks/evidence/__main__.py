"""The evidence for the default space and the default pruner: `python -m tests.benchmarks.evidence --help`.

python -m tests.benchmarks.evidence trials --trials 80          random trials of the wide space on every data set
python -m tests.benchmarks.evidence factors                     what won in them, and fANOVA's importances
python -m tests.benchmarks.evidence replay                      those studies under every pruner
python -m tests.benchmarks.evidence compare --trials 40         searches: the default space against others
python -m tests.benchmarks.evidence batch_norm                  batch normalisation before and after the activation
python -m tests.benchmarks.evidence splits --sets cars_lite0    probe, whole defaults of before and now, over several splits
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import pandas as pd

from tests.benchmarks.evidence.batch_norm import batch_norm_rows
from tests.benchmarks.evidence.compare import compare
from tests.benchmarks.evidence.datasets import DATA_SETS
from tests.benchmarks.evidence.factors import factors_table, importances, load_trials
from tests.benchmarks.evidence.pruning import table
from tests.benchmarks.evidence.splits import SEARCHES, run_split, summed_up
from tests.benchmarks.evidence.trials import SPACES, names, run_trials


def main() -> None:
    """One command for each step; a step that is done is not done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["trials", "factors", "replay", "compare", "splits", "batch_norm"])
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--sets", help=f"comma-separated; default: all of {', '.join(DATA_SETS)}")
    parser.add_argument(
        "--space",
        choices=SPACES,
        action="append",
        help="may be given several times; default: wide, for compare: before",
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, help="default: 30 for trials, the search's own for compare")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--searches", help=f"of `splits`, comma-separated; default: {','.join(SEARCHES)}")
    parser.add_argument("--resamplings", type=int, default=100)
    given = parser.parse_args()
    pd.set_option("display.width", 200, "display.max_rows", 200, "display.max_columns", 20)
    spaces: list[str] = given.space or ["wide"]
    epochs: int = given.epochs or 30
    if given.step == "trials":
        for name in names(given.sets):
            for space in spaces:
                run_trials(given.out, name, f"{space}_{epochs}", SPACES[space], given.trials, epochs)
        return
    if given.step == "batch_norm":
        rows = [row for name in names(given.sets) for row in batch_norm_rows(given.out, name, given.seeds)]
        print(
            pd.DataFrame(rows).groupby(["set", "batch_norm"])[["val", "test"]].agg(["mean", "std"]).round(1).to_string()
        )
        return
    if given.step == "splits":
        wanted = given.searches.split(",") if given.searches else list(SEARCHES)
        answers = [
            row
            for name in names(given.sets)
            for split in range(1, given.seeds + 1)
            for row in run_split(given.out, name, split, wanted)
        ]
        print(pd.DataFrame(answers).round(1).to_string(index=False))
        print(summed_up(answers).round(3).to_string(index=False))
        return
    if given.step == "compare":
        rows = [
            compare(given.out, name, space, SPACES[space], seed, given.trials, given.epochs)
            for name in names(given.sets)
            for seed in range(1, given.seeds + 1)
            for space in dict.fromkeys(["default", *(given.space or ["before"])])
        ]
        found = pd.DataFrame(rows)
        print(found.round(4).to_string(index=False))
        print(found.groupby(["set", "space", "epochs"]).mean(numeric_only=True).round(4).to_string())
        return
    studies = [given.out / name / f"{space}_{epochs}" for name in names(given.sets) for space in spaces]
    studies = [each for each in studies if (each / "curves.npz").exists()]
    if not studies:
        raise SystemExit(f"no studies of {', '.join(spaces)} in {given.out}: run the step `trials` first")
    if given.step == "factors":
        print(factors_table(studies).round(2).to_string(index=False))
        shares = {f"{each.parent.name}/{each.name}": importances(load_trials(each)) for each in studies}
        print(pd.DataFrame(shares).fillna(0.0).mul(100).round().astype(int).to_string())
        for each in studies:
            print(each, load_trials(each).head(5).to_string(index=False), sep="\n")
        return
    found = table(studies, given.resamplings)
    print(found.round(2).to_string(index=False))
    print(found.groupby("pruner", sort=False).mean(numeric_only=True).round(2).to_string())


if __name__ == "__main__":
    main()
