"""The first screen: its numbers against the files and Wilson's formula, and its layout on a phone."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from playwright.sync_api import Browser
from typer.testing import CliRunner

from features.dataset.config import CsvDataset
from features.dataset.index import load_index
from features.dataset.prepare import prepare
from features.runtime.log import log
from headhunt.run import _summary
from reports import configuration, top5
from reports.build import build
from reports.cli import app
from reports.config import Run
from reports.dataset import findings
from reports.headline import data_line, headline
from reports.models import phases
from reports.section import PageSection, Table
from search.cli import _leaderboard
from search.leaderboard import leaders
from search.top5 import is_informative
from tests.conftest import run_headhunt
from tests.fabricated import fabricate_confirmation, fabricate_promotion
from tests.reports.test_page import open_page
from train.baselines.comparison import comparison_table
from train.baselines.measure import measure_baselines
from train.cli import app as train_app
from train.promotion.artifact import find_promotions

CHOSEN = "optimistic, because trials and epochs were chosen on the validation photos"


def wilson(share: float, count: int) -> str:
    """The 95 % interval by Wilson's formula (1927), formatted like on the page."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return f"95 % interval {100 * (centre - half):.1f} % to {100 * (centre + half):.1f} %"


def test_the_tiles_are_the_model_the_probe_the_frozen_head_and_the_most_frequent_class(searched: Run) -> None:
    measure_baselines(searched)
    number = fabricate_promotion(searched)
    (folder,) = (searched.workdir / "promotions").glob(f"{number}-*")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["frozen"]["test"]["accuracy"] = 0.0
    (folder / "metrics.json").write_text(json.dumps(metrics))
    predictions = pd.read_csv(folder / "predictions.csv").query("split == 'test'")
    photos, right = len(predictions), float((predictions["label"] == predictions["predicted_1"]).mean())
    probe = json.loads((searched.workdir / "baselines.json").read_text())["linear_probe"]["test"]["accuracy"]
    index = pd.read_csv(searched.workdir / "dataset" / "index.csv")
    most = index.query("split == 'train'")["label"].mode()[0]
    frequent = float((index.query("split == 'test'")["label"] == most).mean())
    tiles = headline(searched)
    assert [value for value, _ in tiles] == [f"{100 * share:.1f} %" for share in (right, probe, 0.0, frequent)]
    told = [what for _, what in tiles]
    assert told[0] == f"test, trial {number}, recipe 0a1b2c3d, fine-tuned: {wilson(right, photos)} of {photos} photos"
    assert told[1] == f"test, linear probe: {wilson(probe, photos)}"
    gained = f"{100 * right:+.1f}"
    assert told[2] == f"test, frozen head: {wilson(0.0, photos)}; fine-tuning changed it by {gained} points"
    assert told[3] == "test, always predicting the most frequent of 3 classes"


def test_before_a_promotion_it_is_the_best_head(searched: Run) -> None:
    best, *_, worst = leaders(searched)
    above = f"{100 * (best.value - worst.value):.1f} points above the worst completed trial"
    (value, what), _ = headline(searched)
    assert value == f"{100 * best.value:.1f} %"
    assert what == f"validation, best head (trial {best.number}), {above}; {CHOSEN}"
    first = fabricate_confirmation(searched, 3).confirmed[0]
    assert first.mean is not None
    (value, what), _ = headline(searched)
    assert value == f"{100 * first.mean:.1f} %"
    assert what.startswith(f"validation, mean of 2 seeds, best head (trial {first.number}), ")


def test_what_is_not_measured_is_said(searched: Run) -> None:
    number = fabricate_promotion(searched, best_epoch=0)
    tiles = headline(searched)
    assert tiles[1] == ("–", "test, linear probe: not measured on these photos; run headhunt train baselines")
    assert tiles[2][1] == "test, frozen head: this is the model, since no epoch of fine-tuning was better"
    (promotion,) = find_promotions(searched)
    curve = phases.stitch(promotion.title, pd.read_csv(promotion.folder / "history.csv"))
    (block,) = phases.blocks([promotion], [curve])
    assert block.title == f"What fine-tuning tried: trial {number}, recipe 0a1b2c3d"
    metrics = json.loads((promotion.folder / "metrics.json").read_text())
    for stage in ("frozen", "tuned"):
        del metrics[stage]["test"]
    (promotion.folder / "metrics.json").write_text(json.dumps(metrics))
    what = headline(searched)[0][1]
    assert what == f"validation, trial {number}, recipe 0a1b2c3d, frozen, {CHOSEN}; not evaluated on test photos"


def test_a_chosen_models_validation_accuracy_is_called_optimistic_on_the_console(searched: Run) -> None:
    best = leaders(searched)[0]
    said = " ".join(run_headhunt(Path(), "search", "run").stdout.split())
    assert said.endswith(f"Best: trial {best.number}, val_accuracy {best.value:.4f}, which is {CHOSEN}.")
    accuracies = {"val_accuracy": 0.5, "test_accuracy": 0.25, "test_top5_accuracy": 1.0}
    promoted = {
        "trial": 3, "recipe": "0a1b2c3d", "stage": "frozen", "folder": "run/promotions/3-0a1b2c3d",
        "frozen": {"val_accuracy": 0.5}, "tuned": accuracies, "seconds": 1.0,
    }  # fmt: skip
    results = {
        "prepare": {"images": 24, "classes": 3},
        "cache": {"copies": 2, "policy": "mild", "records": 9, "bytes": 1},
        "search": {"trials": {"complete": 6}},
        "promote": {"promotions": [promoted]},
        "export": {"trial": 3, "formats": ["keras"]},
        "report": {"sections": []},
    }
    summary = _summary(searched, results, dict.fromkeys(results, 1.0))
    assert str(summary.caption).startswith(
        f"Values on validation photos are {CHOSEN}. Always predicting the most frequent"
    )
    assert list(summary.columns[1].cells)[3] == "trial 3: val 0.5000 frozen; test 0.2500"
    five = {**results, "prepare": {"images": 24, "classes": 6}}
    row = list(_summary(searched, five, dict.fromkeys(five, 1.0)).columns[1].cells)[3]
    assert row == "trial 3: val 0.5000 frozen; test 0.2500, top-5 1.0000"


def test_top5_is_shown_of_more_than_five_classes(searched: Run) -> None:
    assert [is_informative(classes) for classes in (2, 5, 6, 196)] == [False, False, True, True]
    fabricate_promotion(searched)
    for classes, shown in ((3, False), (6, True)):
        prepared = searched.workdir / "dataset" / "prepared.json"
        written = json.loads(prepared.read_text())
        prepared.write_text(json.dumps({**written, "class_names": [*"abcdef"][:classes]}))
        board = _leaderboard(searched, leaders(searched), None)
        table = comparison_table(searched, {}, find_promotions(searched))
        for each, column in ((board, "top-5"), (table, "test top-5")):
            assert (column in [heading.header for heading in each.columns]) == shown
            assert {len(list(heading.cells)) for heading in each.columns} == {each.row_count}


def test_an_export_says_that_a_confirmation_of_other_leaders_is_not_used(searched: Run) -> None:
    fabricate_confirmation(searched, 3)
    file = searched.workdir / "confirm.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "study": "another"}))
    with log.capture() as captured:
        done = CliRunner().invoke(train_app, ["export"])
    said = " ".join(captured.get().split())
    assert done.exit_code == 2  # nothing is promoted
    assert said.startswith(
        "run/confirm.json is not used: it belongs to the study 'another'. The promotion that is best on the validation photos is "
        "exported instead."
    )


def found_of(searched: Run, rows: dict[str, Any], skipped: dict[str, str] | None) -> findings.Findings:
    """The findings of the run's index with these columns changed in its first rows."""
    index = load_index(searched)
    for column, values in rows.items():
        index.table.loc[: len(values) - 1, column] = values
    return findings.collect(index, skipped)


def test_the_data_line_says_what_was_found(searched: Run) -> None:
    assert data_line(searched) == "3 classes have fewer than 10 photos; the smallest is a with 8."
    (searched.workdir / "dataset" / "skipped.csv").write_text(
        'path,reason\nx.jpg,missing\n"y, z.jpg",empty\nw.jpg,empty\n'
    )
    assert data_line(searched).startswith("3 photos are left out: 2 empty, 1 missing. 3 classes have")
    copies = found_of(searched, {"sha256": ["same"] * 3}, {})
    first = load_index(searched).table.iloc[:3]
    assert copies.copies == [first["path"].tolist()]
    labels = ", 1 of them under two labels" if first["label"].nunique() > 1 else ""
    assert copies.sentences[0] == f"2 photos are an exact duplicate of another{labels}."
    uneven = found_of(searched, {"label": [0] * 22 + [1, 2]}, {})
    assert (uneven.ratio, uneven.small) == (22.0, [("b", 1), ("c", 1)])
    assert uneven.sentences[-1] == "The largest class has 22.0 times as many photos as the smallest."
    sound = findings.Findings({}, [], 0, [], 1.0)
    assert sound.sentences == []
    assert sound.text == (
        "Nothing found: no photo or other file left out, no exact duplicates, no class with fewer than 10 photos, no class 5 "
        "times as large as another."
    )
    assert sound._replace(features=[]).text.endswith("as large as another, no uninformative features.")
    assert sound._replace(notes=None).nothing.startswith(
        "whether other files were left out is not recorded, no exact duplicates"
    )
    older = sound._replace(skipped=None, notes=None, small=[("b", 1)])
    assert older.text == (
        "1 class has fewer than 10 photos; the smallest is b with 1. Whether photos or other files were left out is not "
        "recorded: rerun `headhunt features prepare`."
    )


def test_the_data_line_says_what_was_not_read_or_used_and_which_features_say_nothing(
    searched: Run, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    shutil.copytree(searched.dataset.root, root)  # type: ignore[union-attr]
    (root / "b" / "raw.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    run = searched.model_copy(update={"dataset": searched.dataset.model_copy(update={"root": root})})
    prepare(run)
    left_out = "Left out files that cannot be read as photos: 1 .heic (`pip install pillow-heif` reads them)."
    assert data_line(run).startswith(f"{left_out} 3 classes have fewer than 10 photos")
    (variation,) = (run.workdir / "cache").glob("*/variation.json")
    variation.write_text(json.dumps({**json.loads(variation.read_text()), "constant": 2, "features": 6, "photos": 15}))
    assert data_line(run).endswith(" 2 of 6 features are constant over the 15 clean training photos.")
    page = build(run)["report"]
    assert "(<code>pip install pillow-heif</code> reads them)" in Path(page).read_text()
    earlier = run.workdir / "dataset" / "prepared.json"
    kept = json.loads(earlier.read_text())
    del kept["notes"]  # as written by an earlier version
    earlier.write_text(json.dumps(kept))
    assert "Whether other files were left out is not recorded: rerun `headhunt features prepare`." in data_line(run)
    assert left_out not in data_line(run)

    table = tmp_path / "photos.csv"
    lines = [f"{file.relative_to(root)},{file.parent.name},train" for file in sorted(root.glob("*/*.png"))]
    table.write_text("\n".join(["path,class_name,split", *lines]))
    listed = CsvDataset(kind="csv", file=table)
    run = run.model_copy(update={"dataset": listed.model_copy(update={"root": root})})
    prepare(run)
    unused = f"{table}: the column `split` is not used, because splits are drawn by shares."
    assert data_line(run).startswith(unused)


def test_skipped_photos_and_copies_are_listed(searched: Run) -> None:
    index = searched.workdir / "dataset" / "index.csv"
    table = pd.read_csv(index)
    table.loc[table["label"] == 1, "sha256"] = table["sha256"][0]
    table.to_csv(index, index=False)
    (searched.workdir / "dataset" / "skipped.csv").write_text("path,reason\nx.jpg,truncated\n")
    block = findings.block(searched)
    skipped, copies = block.tables
    assert (skipped.summary, skipped.rows) == ("The 1 photo that was left out", [["x.jpg", "truncated"]])
    same = table[table["sha256"] == table["sha256"][0]]
    assert copies.rows[0][0] == " = ".join(same["path"])
    assert copies.rows[0][1] == ", ".join(split for split in ("train", "val", "test") if split in set(same["split"]))


def test_the_configuration_makes_the_same_run_and_tells_no_password(searched: Run) -> None:
    (listing,) = configuration.section(searched).listings
    assert Run.model_validate(yaml.safe_load(listing.text)) == searched
    secret = searched.model_copy(
        update={"search": searched.search.model_copy(update={"storage": "postgresql://user:geheim@host/db"})}
    )
    section = configuration.section(secret)
    assert "geheim" not in section.listings[0].text
    assert "postgresql://user:***@host/db" in section.listings[0].text
    assert section.text.endswith("A password in it is shown as ***.")


def test_columns_of_top5_go_where_there_are_few_classes() -> None:
    table = Table(["model", "test", "test top-5", "seconds"], [["a", "1", "2", "3"]], {1, 2, 3})
    (narrow,) = top5.without(PageSection("x", "X", "", tables=[table])).tables
    assert narrow == Table(["model", "test", "seconds"], [["a", "1", "3"]], {1, 2})


def test_the_command_begins_with_the_verdict(searched: Run) -> None:
    number = fabricate_promotion(searched)
    done = CliRunner().invoke(app, ["build", "--json"])
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == ["verdict", "report", "sections", "left_out"]
    told = result["verdict"]["text"]
    assert told.startswith(f"Trial {number}, fine-tuned: ")
    assert told.endswith(
        "It was not compared with the linear probe and the k-nearest neighbours: run `headhunt train baselines`."
    )
    shown = " ".join(done.stderr.split())
    assert shown.startswith(f"{told} Report: {result['report']} (")
    assert told.replace(" %", "\u00a0%") in Path(result["report"]).read_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_first_screen_and_the_columns_of_test(searched: Run, browser: Browser, width: int) -> None:
    measure_baselines(searched)
    fabricate_promotion(searched)
    page, noise = open_page(browser, Path(build(searched)["report"]), width)
    assert noise == []
    tiles = page.locator(".numbers div")
    assert tiles.count() == 4
    for number in range(4):
        box = tiles.nth(number).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900
    box = page.locator(".data").bounding_box()
    assert box is not None
    assert box["y"] < 900
    heads = page.locator("#promotions thead th")
    assert heads.all_inner_texts()[:2] == ["model", "test"]
    box = heads.nth(1).bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= width - 20
    text = page.evaluate("document.body.innerText")
    assert "top-5" not in text
    assert "top5" not in text.replace("val_top5", "")
    assert "-0.0" not in text
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for axis in page.locator(".js-plotly-plot .xaxislayer-above, .js-plotly-plot .yaxislayer-above").all():
        for kind in (".xtick", ".ytick", ".x2tick", ".y2tick", ".y3tick"):
            labels = [label for label in axis.locator(f"{kind} text").all_text_contents() if label]
            assert len(labels) == len(set(labels)), labels
    epochs = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.querySelector('.xtitle')?.textContent == 'epoch')"
        ".flatMap(plot => [...plot.querySelectorAll('.xtick text')].map(tick => tick.textContent))"
    )
    assert len(epochs) > 5
    assert all(label.isdigit() for label in epochs), epochs
    percents = page.evaluate("[...document.querySelectorAll('.ytick text, .xtick text')].map(tick => tick.textContent)")
    assert not [
        label for label in percents if label.endswith("%") and not 0 <= float(label[:-1].replace("−", "-")) <= 100
    ]
    page.close()
