"""The sizes of the photos, and the input size that they suggest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.dataset.index import BOX, DatasetIndex
from reports.style import figure, whole_ticks

if TYPE_CHECKING:
    import plotly.graph_objects as go

STRIDE = 32
"""Input pixels per cell of the last feature map of most backbones: multiples of it waste no edge."""

LARGEST = 640
"""Largest suggested size: time grows with the area, and backbones were pretrained on much smaller photos."""

BINS = 40


class PhotoSizes(NamedTuple):
    """Widths and heights in pixels: (width, height) mean and median, the median short side, and the suggested size.

    `edges` (bins + 1) with the number of photos per bin in `widths` and `heights`; all empty if all photos have the same size.
    """

    photos: int
    mean: tuple[float, float]
    median: tuple[float, float]
    short: float
    suggested: int
    edges: list[float]
    widths: list[int]
    heights: list[int]


def suggest(short: float) -> int:
    """The multiple of STRIDE nearest to the median short side in pixels, at least STRIDE and at most LARGEST.

    At this size the typical photo is hardly shrunk or enlarged on its short side.
    """
    return min(LARGEST, max(STRIDE, STRIDE * round(short / STRIDE)))


def collect(index: DatasetIndex, crop_to_bbox: bool) -> PhotoSizes:
    """Sizes of the photos with their orientation applied, cropped to their boxes if `crop_to_bbox`."""
    table = index.table
    width, height = table["width"].to_numpy(np.int64), table["height"].to_numpy(np.int64)
    if crop_to_bbox:
        boxed = table["x1"].notna().to_numpy()
        x1, y1, x2, y2 = (table[name].fillna(1).to_numpy(np.int64) for name in BOX)
        width = np.where(boxed, np.minimum(x2, width) - np.maximum(x1, 1) + 1, width)
        height = np.where(boxed, np.minimum(y2, height) - np.maximum(y1, 1) + 1, height)
    short = float(np.median(np.minimum(width, height)))
    several = len(np.unique(np.stack([width, height], 1), axis=0)) > 1
    edges = np.histogram_bin_edges(np.concatenate([width, height]), BINS) if several else np.zeros(0)
    return PhotoSizes(
        len(table),
        (float(width.mean()), float(height.mean())),
        (float(np.median(width)), float(np.median(height))),
        short,
        suggest(short),
        edges.tolist(),
        np.histogram(width, edges)[0].tolist() if several else [],
        np.histogram(height, edges)[0].tolist() if several else [],
    )


def draw(sizes: PhotoSizes) -> go.Figure:
    """Overlaid histograms of widths and heights, and a line at the suggested size."""
    drawn = figure("pixels", "photos")
    edges = np.asarray(sizes.edges)
    for name, photos in (("width", sizes.widths), ("height", sizes.heights)):
        drawn.add_bar(
            x=((edges[:-1] + edges[1:]) / 2).tolist(),
            y=photos,
            width=np.diff(edges).tolist(),
            name=name,
            opacity=0.6,
            customdata=np.stack([np.ceil(edges[:-1]), np.floor(edges[1:])], 1).astype(int).tolist(),
            hovertemplate="%{customdata[0]} to %{customdata[1]} pixels: %{y}",
        )
    drawn.add_scatter(
        x=[sizes.suggested] * 2,
        y=[0, max(sizes.widths + sizes.heights)],
        mode="lines",
        name=f"suggested size, {sizes.suggested}",
        line={"color": "#1e293b", "width": 2, "dash": "dash"},
        hoverinfo="skip",
    )
    drawn.update_yaxes(whole_ticks([0, *sizes.widths, *sizes.heights]))
    drawn.update_layout(barmode="overlay", bargap=0)
    return drawn
