"""The page's section about the data set: its numbers, and its look in headless Chromium for unusual data."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser

from features.building.contact_sheet import sheet_of, write_contact_sheet
from features.cache.feature_cache import cache_for
from features.dataset.index import BOX, DatasetIndex, load_index
from features.dataset.prepare import prepare
from features.runtime.atomic import file_sha256
from reports.build import build
from reports.config import Run
from reports.dataset import class_counts, photo_sizes, pictures
from reports.dataset.section import section


def index_of(root: Path, rows: list[tuple[int, str, int, int]], box: Any = None) -> DatasetIndex:
    """An index of (label, split, width, height) rows, class names c0, c1, …; the photos need not exist."""
    classes = max(label for label, *_ in rows) + 1
    table = pd.DataFrame(rows, columns=["label", "split", "width", "height"])
    table = table.assign(path=[f"{n}.jpg" for n in range(len(rows))], class_name="", sha256="")
    table[BOX] = pd.DataFrame([box or (pd.NA,) * 4] * len(rows), columns=BOX).astype("Int64")
    return DatasetIndex(table, tuple(f"c{label}" for label in range(classes)), root)


def test_classes_are_counted_by_split_the_largest_first(tmp_path: Path) -> None:
    rows = [(0, "train", 1, 1)] * 2 + [(1, "train", 1, 1)] * 3 + [(1, "val", 1, 1), (2, "test", 1, 1), (2, "val", 1, 1)]
    counts = class_counts.collect(index_of(tmp_path, rows))
    assert counts == (["c1", "c0", "c2"], [4, 2, 2], {"train": [3, 2, 0], "val": [1, 0, 1], "test": [0, 0, 1]})
    drawn = class_counts.draw(counts)
    assert [list(bar.x) for bar in drawn.data] == list(counts.splits.values())
    assert list(drawn.layout.yaxis.ticktext) == counts.names


def test_long_class_names_are_cut_beside_their_bars_so_that_they_differ_and_whole_when_pointed_at() -> None:
    names = ["Chevrolet Silverado 1500 Hybrid", "Chevrolet Silverado 1500 Regular"]
    drawn = class_counts.draw(class_counts.ClassCounts(names, [1, 1], {"train": [1, 1]}))
    assert list(drawn.layout.yaxis.ticktext) == ["Chevrolet …00 Hybrid", "Chevrolet …0 Regular"]
    assert list(drawn.data[0].customdata) == names
    assert list(drawn.data[0].y) == [0, 1]


def test_many_classes_become_a_histogram_that_counts_each_once() -> None:
    random = np.random.default_rng(0)
    for spread in (1, 10, 1000):
        totals = (20 + random.integers(0, spread, 196)).tolist()
        names = [f"c{n}" for n in range(196)]
        (bars,) = class_counts.draw(class_counts.ClassCounts(names, totals, {})).data
        assert sum(bars.y) == 196
        assert len(bars.y) <= class_counts.BINS
        places = np.asarray(bars.x)
        nearest = np.abs(np.asarray(totals)[:, None] - places).argmin(1)
        if spread == 10:  # one bar per number of photos
            assert np.bincount(nearest, minlength=len(places)).tolist() == list(bars.y)


@pytest.mark.parametrize(
    ("short", "size"), [(1, 32), (47, 32), (49, 64), (96, 96), (224, 224), (483, 480), (520, 512), (3000, 640)]
)
def test_the_suggested_size(short: float, size: int) -> None:
    assert photo_sizes.suggest(short) == size


def test_sizes_of_photos_and_of_their_boxes(tmp_path: Path) -> None:
    rows = [(0, "train", 300, 200), (0, "val", 100, 210), (1, "test", 500, 400)]
    sizes = photo_sizes.collect(index_of(tmp_path, rows), False)
    assert sizes.mean == (300, 270)
    assert sizes.median == (300, 210)
    assert (sizes.short, sizes.suggested) == (200, 192)
    assert sum(sizes.widths) == sum(sizes.heights) == sizes.photos == 3
    line = photo_sizes.draw(sizes).data[-1]
    assert set(line.x) == {192}
    boxed = photo_sizes.collect(index_of(tmp_path, rows, (11, 1, 110, 70)), True)
    assert boxed.mean == (pytest.approx((100 + 90 + 100) / 3), 70)  # the second photo is smaller than its box
    assert photo_sizes.collect(index_of(tmp_path, rows), True) == sizes


def test_photos_of_one_size_need_no_histogram(searched: Run) -> None:
    assert photo_sizes.collect(load_index(searched), False).edges == []
    sizes = next(block for block in section(searched).blocks if block.title == "Photo sizes")
    assert sizes.figures == {}
    assert sizes.text.startswith("The photos are all 24 × 20 pixels. Suggested input size: 32 × 32")
    assert sizes.text.endswith("This run resizes them to 32 × 32.")


def test_examples_are_the_first_training_photos_as_they_are_cut(tmp_path: Path) -> None:
    rows = [(label, split, 600, 300) for label in range(30) for split in ("val", "train")]
    index = index_of(tmp_path, rows, (301, 1, 600, 300))
    for number in range(0, 60, 3):
        image = Image.new("RGB", (600, 300), (250, 250, 250))
        image.paste((10, 10, 200), (300, 0, 600, 300))
        image.save(tmp_path / f"{number}.jpg")
    index.table["sha256"] = file_sha256(tmp_path / "0.jpg")  # they are equal
    examples = pictures.collect(index, True)
    shown = [picture.caption for picture in examples.pictures]
    assert (len(shown), shown[0], shown[-1], len(set(shown))) == (24, "c0", "c29", 24)
    there = [picture for picture in examples.pictures if (2 * int(picture.caption[1:]) + 1) % 3 == 0]
    assert [picture for picture in examples.pictures if picture.uri] == there
    assert examples.gone == 24 - len(there) > 0
    data = base64.b64decode((there[0].uri or "").partition("base64,")[2])
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (240, 240))
        assert (
            np.abs(np.asarray(thumbnail).astype(int) - (10, 10, 200)).max() < 40
        )  # a JPEG rings at the edge of the box; the other half is 240 away
    assert sum(len(picture.uri or "") for picture in there) < 24 * 30_000


@pytest.mark.parametrize("width", [1200, 390])
def test_the_section_in_a_browser_with_a_photo_gone_and_a_contact_sheet(
    searched: Run, browser: Browser, tmp_path: Path, width: int
) -> None:
    root = tmp_path / "photos"
    shutil.copytree(searched.dataset.root, root)  # type: ignore[union-attr]
    dataset = searched.dataset.model_copy(update={"root": root})
    run = searched.model_copy(update={"dataset": dataset})
    prepare(run)  # the same photos elsewhere give the same cache
    index = load_index(run)
    write_contact_sheet(sheet_of(run, index, cache_for(run).folder, 1))
    gone = index.of_split("train").query("label == 1")["path"].iloc[0]
    (root / gone).unlink()

    page = browser.new_page(viewport={"width": width, "height": 900})
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url) if request.url.startswith("http") else None)
    page.goto(Path(build(run)["report"]).resolve().as_uri())
    data = page.locator("section#dataset")
    titles = ["What may be wrong", "Photos per class", "Photo sizes", "Examples", "What the backbone saw"]
    assert data.locator("h3").all_inner_texts() == titles
    assert data.locator(".pictures").count() == 2
    assert data.locator(".pictures").first.locator("img").count() == 2
    assert data.locator(".gone").inner_text() == "not on disk"
    assert "1 of these 3 photos is no longer on disk." in data.inner_text()
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (page.title(), noise) == ("tiny · Headhunt", [])
    page.close()


def test_a_class_name_is_text_in_captions_and_beside_bars(searched: Run, browser: Browser) -> None:
    name = "<script>document.title=1</script>"
    prepared = searched.workdir / "dataset" / "prepared.json"
    prepared.write_text(prepared.read_text().replace('"a"', f'"{name}"'))
    page = browser.new_page()
    page.goto(Path(build(searched)["report"]).resolve().as_uri())
    data = page.locator("section#dataset")
    assert data.locator("figcaption").first.inner_text() == name
    assert data.locator("figure img").first.get_attribute("alt") == name
    page.wait_for_function("document.querySelector('#dataset .ytick text')")
    assert name[:19] + "…" in data.locator(".ytick text").all_text_contents()
    assert page.title() == "tiny · Headhunt"
    page.close()
