"""Keras training histories of earlier runs: reading, rejecting, and stitching resumed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.run_file import validate
from features.runtime.errors import UsageError
from reports.config import HistoryConfig, Run
from reports.models.histories import Part, collect, describe, section
from reports.section import LeftOutError

pytestmark = pytest.mark.unit

REAL = Path(__file__).parents[3] / "shared" / "data" / "seed_histories"

ARCH1 = "2021_07_20-13_14_36_resnet101_arch1_lrdecay_FINE_TUNE_{}_HISTORY.csv"
BLOCK5 = "2021_07_24-09_17_59_FINE_TUNE1_HALF_BLOCK5_EPOCHS_{}.csv"
CYCLIC = "2021_07_24-09_17_59_LR_DECAY_1_2e-3_6e-6_E300_OAdam_Cyclic_Decay_B32_HISTORY.csv"

real = pytest.mark.skipif(not REAL.exists(), reason="needs ../shared")


def write(path: Path, val_loss: list[float], val_accuracy: list[float], **more: list[float]) -> str:
    """A history with these validation values."""
    table = {"loss": val_loss, "accuracy": val_accuracy, "val_loss": val_loss, "val_accuracy": val_accuracy, **more}
    pd.DataFrame(table).to_csv(path, index=False)
    return str(path)


def run_with(histories: Any) -> Run:
    raw = {"dataset": {"kind": "toy_cars"}, "features": {"backbone": "efficientnet_lite0"}}
    return validate(Run, {**raw, "reports": {"histories": histories}}, "headhunt.yaml")


def run_of(*files: Any) -> HistoryConfig:
    return HistoryConfig(name="run", files=files)


@real
def test_the_seeds_fine_tuning_in_three_parts_went_on_from_the_lowest_validation_loss() -> None:
    files = [str(REAL / ARCH1.format(part)) for part in ("1_TO_20", "21_TO_40", "41_TO_80")]
    run = collect(run_of(*files), "here")
    assert [(part.epochs, part.resumed_from, part.thrown_away) for part in run.parts] == [
        ((1, 20), 0, 0),
        ((21, 40), 20, 2),
        ((39, 78), 38, 0),
    ]
    assert len(run.curve.table) == 80
    assert run.curve.kept["epoch"].tolist() == list(range(1, 79))
    assert (run.curve.best["epoch"], round(run.curve.best["val_accuracy"], 4)) == (67, 0.7177)
    assert (
        "Part 3 resumes from epoch 38, the lowest validation loss of part 2; the 2 later epochs of part 2"
        in describe(run)
    )


@real
def test_the_numbers_of_the_seeds_files_say_that_it_was_resumed_there() -> None:
    """The first training loss of a part compared with that of the previous part, by a linear fit of its last 10 epochs."""
    import numpy as np

    def distance(before: str, after: str, resumed_from: int) -> float:
        loss = pd.read_csv(REAL / ARCH1.format(before))["loss"].to_numpy()[-10:]
        line = np.polyfit(range(11, 21), loss, 1)
        noise = (loss - np.polyval(line, range(11, 21))).std(ddof=2)
        first = pd.read_csv(REAL / ARCH1.format(after))["loss"].iloc[0]
        return float(abs(first - np.polyval(line, resumed_from + 1)) / noise)

    assert distance("1_TO_20", "21_TO_40", 20) < 1 < 4 < distance("1_TO_20", "21_TO_40", 18)  # 18: the best accuracy
    assert distance("21_TO_40", "41_TO_80", 18) < distance("21_TO_40", "41_TO_80", 20)  # 20: the last


@real
def test_the_seeds_half_block_5_goes_on_without_a_gap_and_with_its_frozen_run_before_it() -> None:
    parts = [str(REAL / BLOCK5.format(part)) for part in ("1_to_15", "15_to_50")]
    run = collect(run_of(*parts), "here")
    assert [(part.epochs, part.resumed_from, part.thrown_away) for part in run.parts] == [
        ((1, 15), 0, 0),
        ((16, 50), 15, 0),
    ]
    whole = collect(run_of(str(REAL / CYCLIC), *parts), "here")
    assert [part.resumed_from for part in whole.parts] == [0, 293, 308]
    assert whole.parts[0].thrown_away == 7
    rates = whole.curve.table.groupby("part")["learning_rate"].first()
    assert rates.isna().tolist() == [True, False, False]


@real
def test_every_file_of_the_seed_is_a_history() -> None:
    histories = [{"name": path.stem, "files": [str(path)]} for path in sorted(REAL.glob("*.csv"))]
    made = section(run_with(histories))
    assert [len(made.blocks), len(made.tables[0].rows)] == [len(histories)] * 2 == [9, 9]
    names = [name for name, _ in made.every_figure()]
    assert names == ["earlier-runs", *(f"earlier-run-{number}" for number in range(1, 10))]


@pytest.mark.parametrize(
    ("resumed_from", "epoch", "thrown_away"),
    [(None, 2, 2), ("best", 2, 2), ("best_accuracy", 3, 1), ("last", 4, 0), (1, 1, 3)],
)
def test_a_part_goes_on_from_the_epoch_that_it_says(
    tmp_path: Path, resumed_from: Any, epoch: int, thrown_away: int
) -> None:
    first = write(tmp_path / "a.csv", [4, 1, 2, 3], [0.1, 0.2, 0.4, 0.3], lr=[1e-3] * 4)
    second = write(tmp_path / "b.csv", [0.9, 0.8], [0.5, 0.6], learning_rate=[1e-4] * 2)
    said = {} if resumed_from is None else {"resumed_from": resumed_from}
    run = collect(run_of(first, {"path": second, **said}), "here")
    assert run.parts[0] == Part("a.csv", (1, 4), thrown_away, 0, "")
    assert (run.parts[1].epochs, run.parts[1].resumed_from) == ((epoch + 1, epoch + 2), epoch)
    assert run.curve.kept["epoch"].tolist() == list(range(1, epoch + 3))
    assert run.curve.kept["learning_rate"].tolist() == [1e-3] * epoch + [1e-4] * 2
    assert run.curve.table["thrown_away"].sum() == thrown_away


def test_an_epoch_that_the_part_before_does_not_have_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [2, 1], [0.1, 0.2])
    with pytest.raises(UsageError) as refused:
        collect(run_of(file, {"path": file, "resumed_from": 3}), "reports.histories.0")
    assert str(refused.value) == (
        "reports.histories.0.files.1.resumed_from: received 3; the previous part has epochs 1 to 2, as the figure counts them. "
        "It must be one of these, best, best_accuracy or last."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "file not found"),
        (b"", "is not a CSV file (No columns to parse from file)"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not a CSV file"),
        (
            b"epoch,loss\n0,1\n",
            "lacks accuracy, val_loss, val_accuracy; its columns are epoch, loss. It must be a Keras training",
        ),
        (
            b"loss,accuracy,val_loss,val_accuracy\n1,1,1,1\n1,1,1,high\n",
            "line 3: val_accuracy is 'high', not a number.",
        ),
        (b"loss,accuracy,val_loss,val_accuracy\n", "has no epoch with a validation loss and accuracy."),
        (b"loss,accuracy,val_loss,val_accuracy\n1,1,1,1\n1,1,1,1,1,1\n", "is not a CSV file"),
    ],
)
def test_a_file_that_is_no_history_is_refused_in_one_message(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "a.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        section(run_with([{"name": "run", "files": [str(file)]}]))
    told = str(refused.value)
    assert told.startswith("reports.histories.0.files.0: ")
    assert message in told
    assert str(file) in told
    assert told.endswith("remove it from `reports.histories`.")
    assert "\n" not in told


def test_a_folder_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        collect(run_of(str(tmp_path)), "reports.histories.0")


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([{"name": "run", "files": []}], "reports.histories.0.files: "),
        ([{"name": "run", "files": [3]}], "it must be the path of a CSV file, or {path, resumed_from}"),
        (
            [{"name": "run", "files": [{"path": "a.csv", "resumed_from": "first"}]}],
            "allowed: 'best', 'best_accuracy' or 'last'",
        ),
        ([{"name": "run", "files": ["a.csv"]}] * 2, "the name 'run' is used 2 times"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(histories: Any, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        run_with(histories)
    assert message in str(refused.value)


def test_without_any_the_section_says_how_to_name_one() -> None:
    with pytest.raises(LeftOutError, match=r"`reports.histories: \[\{name: …, files: \[history.csv\]\}\]`"):
        section(run_with([]))
