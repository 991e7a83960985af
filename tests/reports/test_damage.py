"""Files of a run that are cut off, missing or no files of ours: the page is there all the same, with a line about each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.build import build
from reports.config import Run
from reports.study import workers
from search.worklog import load_work
from tests.fabricated import fabricate_confirmation, fabricate_promotion


@pytest.fixture
def whole(searched: Run) -> Run:
    """A run with a promotion, a confirmation and a baseline."""
    fabricate_promotion(searched)
    fabricate_confirmation(searched, 3)
    share = {"loss": 1.0, "accuracy": 0.5, "top5_accuracy": 1.0}
    entry = {"chosen": {}, "train": share, "val": share, "seconds": 1, "made_from": "another"}
    (searched.workdir / "baselines.json").write_text(json.dumps({"linear_probe": entry}))
    (folder,) = (searched.workdir / "promotions").glob("*-*")
    (folder / "model.keras").write_bytes(b"")
    return searched


def cut(path: Path) -> None:
    """Leaves about half of a file, which ends within a line."""
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half.rstrip(b"\n0123456789"))


def scribble(path: Path) -> None:
    path.write_bytes(b'\x00\xff{"a' * 9)


def built(run: Run) -> tuple[list[str], str]:
    """The sections that are left out, and the text of the page in one line."""
    result = build(run)
    page = Path(result["report"]).read_text(encoding="utf-8")
    words = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    return result["left_out"], " ".join(words.split()).replace("&#34;", '"').replace("&#39;", "'")


ABSENT = ["fidelity", "first", "histories", "importance", "studies"]
ERRORS = ["calibration", "classes", "confusions", "mistakes"]
PROMOTION, CUT, GONE = "promotions/*-*", cut, Path.unlink


@pytest.mark.parametrize(
    ("file", "damage", "left_out", "lines"),
    [
        (f"{PROMOTION}/history.csv", scribble, [], [r"Left out: \S*history.csv cannot be read \("]),
        (f"{PROMOTION}/history.csv", GONE, [], [r"Left out: \S*history.csv cannot be read \("]),
        (f"{PROMOTION}/metrics.json", CUT, ERRORS, [r"Left out: \S*metrics.json is damaged \("]),
        (f"{PROMOTION}/metrics.json", scribble, ERRORS, [r"Left out: \S*metrics.json is damaged \("]),
        (f"{PROMOTION}/predictions.csv", GONE, ERRORS, [r"Mistakes : \S*predictions.csv is missing"]),
        (f"{PROMOTION}/predictions.csv", scribble, ERRORS, [r"Mistakes : \S*predictions.csv is damaged"]),
        (f"{PROMOTION}/model.keras", GONE, [], [r"Left out: \S*model.keras is missing. Delete its folder, then run"]),
        ("confirm.json", CUT, ["confirmed"], [r"Confirmed leaders : \S*confirm.json is not used: it cannot be read \("]),
        ("trials/work.csv", scribble, ["workers"], ["Workers : There is no log of the workers .*, or no whole line in it"]),
        ("baselines.json", CUT, [], [r"Left out: \S*baselines.json is damaged \(", "No verdict: \\S*baselines.json is damaged"]),
        ("dataset/skipped.csv", scribble, [], ["Data: not known whether anything is wrong: \\S*skipped.csv is damaged"]),
        ("test_ledger.csv", scribble, [], ["How often the test photos were used is not known: .*test_ledger.csv is damaged"]),
    ],
)  # fmt: skip
def test_damaged_files_leave_out_what_they_held(
    whole: Run, file: str, damage: Callable[[Path], None], left_out: list[str], lines: list[str]
) -> None:
    path = next(whole.workdir.glob(file), whole.workdir / file)
    if not path.exists():
        path.write_bytes(b"")
    damage(path)
    found, words = built(whole)
    assert found == sorted([*ABSENT, *left_out])
    for line in lines:
        assert re.search(line, words), f"{line} is not in {words[-3000:]}"


def test_half_a_log_of_workers_is_drawn_up_to_its_last_whole_line(whole: Run) -> None:
    before = load_work(whole.workdir)
    cut(whole.workdir / "trials" / "work.csv")
    kept = load_work(whole.workdir)
    assert 0 < len(kept) < len(before)
    assert len(workers.collect(kept).bars) == len(kept)


@pytest.mark.parametrize("damage", [cut, scribble])
@pytest.mark.parametrize("file", ["dataset/index.csv", "dataset/prepared.json"])
def test_without_a_readable_index_there_is_a_page_that_says_so(
    whole: Run, file: str, damage: Callable[[Path], None]
) -> None:
    damage(whole.workdir / file)
    found, words = built(whole)
    assert "dataset" in found
    assert re.search(rf"Data set : \S*{Path(file).name} .*Run headhunt features prepare", words), words[-3000:]
