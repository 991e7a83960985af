"""What a promoted network said about validation and test photos: the predictions.csv of its promotion."""

from __future__ import annotations

import pandas as pd

from features.command import relative
from features.errors import HeadhuntError
from train.evaluate import TOP
from train.promotion.artifact import Promotion

PREDICTIONS = "predictions.csv"


def read_predictions(promotion: Promotion, split: str) -> pd.DataFrame:
    """The rows of a split as `train.evaluate.prediction_table` wrote them; HeadhuntError where they are missing or damaged."""
    path = promotion.folder / PREDICTIONS
    again = "Delete its folder, then run `headhunt train promote` again."
    ranks = range(1, TOP + 1)
    try:
        table = pd.read_csv(
            path,
            keep_default_na=False,  # a class may be called NA
            na_values={f"probability_{rank}": [""] for rank in ranks},
            dtype={"path": str, "class_name": str},
        )
    except FileNotFoundError:
        raise HeadhuntError(f"{relative(path)} is missing. {again}") from None
    except (ValueError, OSError) as error:  # what pandas raises for a file that is cut off
        raise HeadhuntError(f"{relative(path)} is damaged ({str(error).splitlines()[0]}). {again}") from None
    needed = {"path", "split", "label", "class_name", "predicted_1", "probability_1"}
    if not needed <= set(table):
        raise HeadhuntError(
            f"{relative(path)} is damaged (it has no {', '.join(sorted(needed - set(table)))}). {again}"
        )
    rows = table[table["split"] == split]
    numbers = rows[[name for name in rows if str(name).startswith(("label", "predicted_", "probability_"))]]
    texts = list(numbers.select_dtypes(exclude="number"))
    if texts and len(rows):
        raise HeadhuntError(f"{relative(path)} is damaged ({texts[0]} is not a number everywhere). {again}")
    return rows.reset_index(drop=True)
