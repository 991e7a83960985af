"""A trial's curves as a small picture: accuracy (or loss) on the left, learning rate on the right, by epoch.

Drawing the axes takes ten times as long as drawing the curves. So scales are rounded to a few values, and the empty axes for each
are drawn once and cached; this also makes trials with the same scales easy to compare by eye.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from search.metric import Metric, is_share
from search.trial import EpochMetrics

WIDTH, HEIGHT = 640, 360
"""Size of the picture in pixels."""

LINES = {
    "val_accuracy": (("accuracy", "training"), ("val_accuracy", "validation")),
    "val_top5_accuracy": (("accuracy", "training"), ("val_top5_accuracy", "validation, top-5")),
    "val_loss": (("loss", "training"), ("val_loss", "validation")),
}
"""The metrics shown for each objective, with their labels."""

COLOURS = ("#8c8c8c", "#1f6fb4", "#d1495b")
"""For training, validation, and the best epoch."""


class Scales(NamedTuple):
    """What the empty axes depend on: `top` is the upper limit on the left, `low` and `high` are powers of ten on the right."""

    objective: Metric
    epochs: int
    top: float
    low: int
    high: int


class CurvesInfo(NamedTuple):
    """A trial's curves: `shown` (2, epochs trained) is training and validation, `rates` (epochs trained,); both float.

    `best_epoch` counts from 1; 0 if there is none.
    """

    scales: Scales
    shown: npt.NDArray[np.float64]
    rates: npt.NDArray[np.float64]
    best_epoch: int


def collect(curves: Sequence[EpochMetrics], best_epoch: int, epochs: int, objective: Metric) -> CurvesInfo:
    """The curves of a trial: one or more epochs of at most `epochs`."""
    shown = np.array([[getattr(metrics, name) for metrics in curves] for name, _ in LINES[objective]], np.float64)
    rates = np.array([metrics.learning_rate for metrics in curves], np.float64)
    top = _round_up(float(np.nanmax(shown, initial=0.0))) if not is_share(objective) else 1.0
    return CurvesInfo(Scales(objective, max(epochs, len(curves)), top, *_decades(rates)), shown, rates, best_epoch)


def draw(info: CurvesInfo) -> bytes:
    """The picture as PNG, WIDTH × HEIGHT."""
    return _axes(info.scales).draw(info)


class _Axes:
    """Empty axes for given scales, and the lines that are redrawn for every trial."""

    _canvas: Any  # untyped in matplotlib
    _empty: Any

    def __init__(self, scales: Scales) -> None:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with mpl.rc_context(
            {**mpl.rcParamsDefault, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        ):
            figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)
            self._canvas = FigureCanvasAgg(figure)
            left, right = figure.subplots(1, 2)
            figure.subplots_adjust(left=0.085, right=0.985, bottom=0.13, top=0.9, wspace=0.22)
            self._lines = self._measured(left, scales)
            self._lines += right.plot([], [], color=COLOURS[1], markersize=4)
            right.set(yscale="log", ylim=(10.0**scales.low, 10.0**scales.high), title="learning rate, after the epoch")
            right.minorticks_off()  # their labels would overlap the other panel
            for panel in (left, right):
                panel.set(xlim=(0, scales.epochs), xlabel="epoch")
                panel.xaxis.get_major_locator().set_params(integer=True)
                panel.grid(color="#e6e6e6", linewidth=0.8)
            for line in self._lines:
                line.set_animated(True)  # not drawn with the axes
            self._canvas.draw()
            self._empty = self._canvas.copy_from_bbox(figure.bbox)

    @staticmethod
    def _measured(panel: Any, scales: Scales) -> list[Any]:
        lines = [
            panel.plot([], [], color=colour, label=label, markersize=4)[0]
            for (_, label), colour in zip(LINES[scales.objective], COLOURS, strict=False)
        ]
        lines += panel.plot([], [], color=COLOURS[2], marker="o", markersize=6, linestyle="", label="best epoch")
        panel.set(ylim=(0, scales.top), ylabel="loss" if not is_share(scales.objective) else "accuracy")
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.99), "ncols": 3, "frameon": False, "borderpad": 0}
        panel.legend(**above, handlelength=1, handletextpad=0.5, columnspacing=1)
        return lines

    def draw(self, info: CurvesInfo) -> bytes:
        epochs = np.arange(1, len(info.rates) + 1)
        best = slice(max(0, info.best_epoch - 1), info.best_epoch)
        series = [
            *((epochs, values) for values in info.shown),
            (epochs[best], info.shown[1][best]),
            (epochs, info.rates),
        ]
        self._canvas.restore_region(self._empty)
        for line, (x, y) in zip(self._lines, series, strict=True):
            line.set_data(x, y)
            if line.get_label() != "best epoch":
                line.set_marker("o" if len(x) == 1 else "")  # a line needs two points
            line.axes.draw_artist(line)
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3]
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png", compress_level=1)
        return file.getvalue()


_axes = lru_cache(maxsize=24)(_Axes)


def _decades(rates: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Even powers of ten around the rates, at most six decades; rates of 0 are ignored."""
    positive = rates[rates > 0]
    if not len(positive):
        return -6, 0
    low, high = 2 * math.floor(math.log10(positive.min()) / 2), 2 * math.ceil(math.log10(positive.max()) / 2)
    return min(max(low, high - 6), high - 2), high


def _round_up(value: float) -> float:
    """Rounds up to the next of 1, 2, 5, 10, 20, ..."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if value <= power * step)
