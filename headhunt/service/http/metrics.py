"""The Prometheus metrics at /metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily

from headhunt.service.board.board import Board
from headhunt.service.jobs.records import State


class Collector:
    """The searches of a board as gauges, collected on request."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields every metric."""
        statuses = [entry.status for entry in self._board.entries()]
        trials = GaugeMetricFamily("headhunt_trials", "Trials of a search by state", labels=["search", "state"])
        for status in statuses:
            for state in ("complete", "pruned", "failed", "running"):
                trials.add_metric([status.name, state], getattr(status.trials, state))
        yield trials
        values: dict[str, tuple[str, Any]] = {
            "headhunt_trials_per_minute": (
                "Trials of a search ended per minute, recently",
                lambda status: status.trials_per_minute or 0.0,
            ),
            "headhunt_best_value": (
                "Best value of the objective in a search",
                lambda status: status.best.value if status.best else None,
            ),
            "headhunt_images_per_second": (
                "Views of photos per second through the backbone, in the latest build of a search's cache",
                lambda status: status.images_per_second,
            ),
        }
        for name, (words, value) in values.items():
            gauge = GaugeMetricFamily(name, words, labels=["search"])
            for status in statuses:
                found = value(status)
                if found is not None:
                    gauge.add_metric([status.name], found)
            yield gauge
        counts = Counter(job.state for status in statuses for job in status.jobs)
        jobs = GaugeMetricFamily("headhunt_jobs", "Jobs by state", labels=["state"])
        for state in get_args(State):
            jobs.add_metric([state], counts[state])
        yield jobs
        yield GaugeMetricFamily("headhunt_queue_length", "Queued jobs", value=counts["queued"])
        health = self._board.health()
        up = GaugeMetricFamily("headhunt_up", "Whether Ray and the storage respond", labels=["part"])
        up.add_metric(["ray"], health.ray == "ok")
        up.add_metric(["storage"], health.storage == "ok")
        yield up


def registry(board: Board) -> CollectorRegistry:
    """The registry of /metrics."""
    found = CollectorRegistry()
    found.register(Collector(board))
    ProcessCollector(registry=found)
    return found
