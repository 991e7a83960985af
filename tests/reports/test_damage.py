"""Truncated, missing or foreign files in a run: the page is still built, with a line about each."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.build import build
from reports.config import Run
from reports.study import workers
from search.driver.worklog import load_work
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
    """Truncates a file to about half, in the middle of a line."""
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half.rstrip(b"\n0123456789"))


def scribble(path: Path) -> None:
    path.write_bytes(b'\x00\xff{"a' * 9)


def write(content: str) -> Callable[[Path], None]:
    """Creates a file, and its folder, with this content."""

    def damage(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    return damage


def edit(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda path: path.write_text(change(path.read_text()))


def without_val(text: str) -> str:
    metrics = json.loads(text)
    del metrics["tuned"]["val"]
    return json.dumps(metrics)


def without_losses(text: str) -> str:
    return pd.read_csv(io.StringIO(text)).assign(val_loss=np.nan).to_csv(index=False)


def without_last_line(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:-1])


def with_class_1x(text: str) -> str:
    """Photos of class c are predicted as a class from 10 on."""
    return text.replace(",c,", ",c,1")


def built(run: Run) -> tuple[list[str], str]:
    """The sections that are left out, and the page's text as one line."""
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
        (f"{PROMOTION}/model.keras", GONE, [], [r"Left out: \S*model.keras is missing. Delete its folder, then rerun"]),
        ("confirm.json", CUT, ["confirmed"], [r"Confirmed leaders : \S*confirm.json is not used: it cannot be read \("]),
        ("trials/work.csv", scribble, ["workers"], ["Workers : The workers' log .* is missing or empty"]),
        ("baselines.json", CUT, [], [r"Left out: \S*baselines.json is damaged \(", "No verdict: \\S*baselines.json is damaged"]),
        ("dataset/skipped.csv", scribble, [], ["Data: could not be checked: \\S*skipped.csv is damaged"]),
        ("test_ledger.csv", scribble, [], ["It is unknown how often the test photos were used: .*test_ledger.csv is damaged"]),
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


STUDY = ["confirmed", "curves", "history", "leaders", "parameters", "promotions", "pruning", "rates"]
CURVES, MANIFEST, SHARD = "trials/{best}/curves.csv", "cache/*/manifest.json", "cache/*/test-*.tfrecord"
FIDELITY, PREDICTIONS = "fidelity/results.json", f"{PROMOTION}/predictions.csv"
CURVES_SAID = r"harder task\. Confirmed [^.]* order\. Left out: \S*curves.csv is damaged \("
DATABASE = r"Leaders : search.storage: the database at \S*study.db cannot be used: "
OTHER = r"Mistakes : \S*predictions.csv is damaged or does not match the index: "


@pytest.mark.parametrize(
    ("damages", "left_out", "lines"),
    [
        (
            {
                f"{PROMOTION}/history.csv": edit(without_losses),
                FIDELITY: write('{"version": 3}'),
                CURVES: CUT,
                SHARD: GONE,
            },
            [],
            [
                r"Left out: \S*history.csv cannot be read \(columns or values are missing\)",
                r"Fidelity : \S*results.json is damaged: it lacks .* Rerun headhunt reports fidelity to rewrite it",
                rf"{CURVES_SAID}its last line is cut off\).",
                r"The nearest training photos are left out: .*test-\S*.tfrecord",
            ],
        ),
        (
            {f"{PROMOTION}/metrics.json": edit(without_val), FIDELITY: write("[]"), CURVES: scribble, MANIFEST: CUT},
            [*ERRORS, "cache"],
            [
                r"No verdict: \S*metrics.json is damaged \(",
                r"Fidelity : \S*results.json cannot be read: it is not a JSON object",
                CURVES_SAID,
                "Feature cache : No feature cache is complete: run headhunt features cache",
            ],
        ),
        (
            {PREDICTIONS: CUT, FIDELITY: write("null"), CURVES: write(""), MANIFEST: GONE},
            [*ERRORS, "cache"],
            [
                r"No verdict: \S*predictions.csv is damaged \(its last line is cut off\)",
                r"33.3 % test, trial \d, recipe 0a1b2c3d, fine-tuned, when it was promoted – test, linear probe: unknown",
                r"Mistakes : \S*predictions.csv is damaged \(its last line is cut off\)",
                r"Fidelity : \S*results.json cannot be read: it is not a JSON object",
                f"{CURVES_SAID}No columns",
            ],
        ),
        (
            {PREDICTIONS: edit(without_last_line), "study.db": scribble},
            [*ERRORS, *STUDY],
            [f"{DATABASE}file is not a database", f"{OTHER}it has 2 test photos, the index 3"],
        ),
        (
            {PREDICTIONS: edit(with_class_1x), "study.db": GONE},
            [*ERRORS, *STUDY],
            [
                r"Leaders : there is no study 'tiny' in \S*study.db. Run headhunt search run",
                f"{OTHER}it contains a label that is not one of the 3 classes",
            ],
        ),
        (
            {"study.db": CUT, MANIFEST: scribble},
            [*STUDY, "cache"],
            [
                f"{DATABASE}database disk image is malformed",
                r"No verdict: \S*manifest.json is damaged \(.* Run `headhunt features repair`",
                r"The nearest training photos are left out: \S*manifest.json is damaged",
            ],
        ),
    ],
)
def test_damages_that_do_not_influence_each_other(
    whole: Run, damages: dict[str, Callable[[Path], None]], left_out: list[str], lines: list[str]
) -> None:
    best = next(whole.workdir.glob(PROMOTION)).name.split("-")[0]
    for pattern, damage in damages.items():
        file = pattern.format(best=best)
        damage(next(whole.workdir.glob(file), whole.workdir / file))
    found, words = built(whole)
    assert found == sorted([*ABSENT, *left_out])
    for line in lines:
        assert re.search(line, words), f"{line} is not in {words[:1500]} … {words[-3000:]}"


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
    assert re.search(rf"Data set : \S*{Path(file).name} .*Rerun headhunt features prepare", words), words[-3000:]
