"""200 read requests a second on loopback while a search runs: how long answers take, and what it costs the search.

Windows with load stand between windows without it, since the machine's speed drifts, and each is compared with both its
neighbours. In further windows nothing is asked, and a process wastes the processor time that service and wrk took for asking and
answering: what the search loses then is what any neighbour costs it on this machine. Needs wrk, e.g. Debian's package.
`HEADHUNT_BENCH_REPEATS=2` runs a piece of it. Fails where a target is missed.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy.stats import bootstrap

from tests.service.serving import TOKEN, Service, configuration, work_directory

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk, e.g. Debian's package"),
]

RATE = 200
"""Requests a second."""

CONNECTIONS = 50
ANSWER_MS = 12
"""What a connection takes for an answer, wrk's own work included; with less of it more than RATE is asked."""

LEAST_RATE, MOST_P99_MS, MOST_LOSS = 195, 100, 0.05
"""Targets: requests a second, asked, what 99 of 100 answers take at most, the share of its trials that a search loses."""

SECONDS = 10
GENERATION = 4
REPEATS = int(os.environ.get("HEADHUNT_BENCH_REPEATS", "15"))

# wrk asks again as soon as it has an answer; each connection waits here, now long, now short, so that all of them together ask at
# the rate.
SCRIPT = """
local paths = {"/searches", "/searches/long", "/searches/long/top", "/searches/long/history", "/searches/short", "/healthz",
               "/searches/long/top?limit=100", "/metrics", "/", "/searches/long/promotions"}
local at = 0
function request()
  at = at + 1
  return wrk.format("GET", paths[at %% #paths + 1], {["Authorization"] = "Bearer %s"})
end
function delay() return math.random(0, %d) end
function done(summary, latency, requests)
  io.write(string.format("took %%d p50 %%.1f p99 %%.1f max %%.1f requests %%d faults %%d\\n", summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3, summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
"""


WASTE = """
import sys, time
until, share, began = time.monotonic() + float(sys.argv[1]), float(sys.argv[2]), time.monotonic()
while time.monotonic() < until:
    while time.process_time() < share * (time.monotonic() - began):
        pass
    time.sleep(0.002)
"""


def processor_seconds(process: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(service: Service, script: Path) -> dict[str, float]:
    """Asks at the rate for a window; what wrk says of it."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "10s", "-s", str(script), service.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"took (\d+) p50 (\S+) p99 (\S+) max (\S+) requests (\d+) faults (\d+)", done.stdout)
    assert found, done.stdout
    took, *values = map(float, found.groups())
    return dict(zip(("p50", "p99", "max", "requests", "faults"), values, strict=True)) | {"rate": values[3] / took}


@pytest.mark.parametrize("cores", ["one core for the search", "every core for the search"])
def test_reads_while_a_search_runs(cores: str, tmp_path: Path, tiny_backbone: Path, photos: Path) -> None:
    root = work_directory(tmp_path, tiny_backbone, photos)
    service = Service(root).start()
    try:
        assert service.submit(configuration("short")).status_code == 201
        assert service.over("short")["state"] == "finished"
        count = 1 if cores.startswith("one") else os.cpu_count()
        search = {
            "trials": 1_000_000, "generation": GENERATION, "epochs": 30, "sampler": "random",
            "space": {"head": {"layers": 1, "units": 64, "dropout": 0.2}, "batch_size": 4},
            "workers": {"executor": "local", "count": count, "cpus": 1},
        }  # fmt: skip
        raw = {**configuration("long", **search), "dataset": {"kind": "toy_cars", "image_size": 32}}
        assert service.submit(raw).status_code == 201
        service.wait("long", lambda found: found["trials"]["complete"] >= 32)  # programs are compiled by then
        script = tmp_path / "paths.lua"
        script.write_text(SCRIPT % (TOKEN, 2 * (1000 * CONNECTIONS / RATE - ANSWER_MS)))
        calm, loaded, wasted = [], [], []
        loads, used, shares = [], [], []

        def window(act: Callable[[], None], into: list[tuple[float, float]]) -> float:
            """Acts for a window; the processor seconds that it took, of the service and of what was started."""
            began, before = time.time(), processor_seconds(service.process.pid) + children_seconds()
            act()
            into.append((began, time.time()))
            return processor_seconds(service.process.pid) + children_seconds() - before

        for _ in range(REPEATS):
            idle = window(lambda: time.sleep(SECONDS), calm)
            alone = processor_seconds(service.process.pid)
            taken = window(lambda: loads.append(load(service, script)), loaded)
            used.append((processor_seconds(service.process.pid) - alone - idle) / loads[-1]["requests"])
            window(lambda: time.sleep(SECONDS), calm)
            shares.append((taken - idle) / SECONDS)
            command = [sys.executable, "-c", WASTE, str(SECONDS), str(shares[-1])]
            window(lambda command=command: subprocess.run(command, check=True), wasted)  # type: ignore[misc]
        window(lambda: time.sleep(SECONDS), calm)
        time.sleep(5)
        ends = ends_of_generations(root)
        paces = {name: [pace(ends, *one) for one in kind] for name, kind in
                 {"calm": calm, "loaded": loaded, "wasted": wasted}.items()}  # fmt: skip
    finally:
        service.kill()
    around = [(one + next_one) / 2 for one, next_one in pairwise(paces["calm"])]
    losses = [1 - one / calm for one, calm in zip(paces["loaded"], around[::2], strict=True)]
    unasked = [1 - one / calm for one, calm in zip(paces["wasted"], around[1::2], strict=True)]
    print(f"\n{cores}: {REPEATS} windows of {SECONDS} s of each kind, medians")
    print(f"  asked {statistics.median(one['rate'] for one in loads):.0f} times a second")
    for name in ("p50", "p99", "max"):
        print(
            f"  {name} {statistics.median(one[name] for one in loads):.1f} ms ({[round(one[name], 1) for one in loads]})"
        )
    print(f"  refused or failed: {sum(one['faults'] for one in loads):.0f}")
    print(f"  the service's processor time: {1e3 * statistics.median(used):.2f} ms a request more than without")
    print(f"  service and wrk together: {statistics.median(shares):.0%} of a core more than without")
    print(
        f"  trials a minute without load {statistics.median(paces['calm']):.0f}, with it {statistics.median(paces['loaded']):.0f}"
    )
    print(f"  the search loses {spread(losses)}")
    print(f"  and to a process that wastes as much {spread(unasked)}")

    assert missed(loads, losses) == []


def spread(losses: list[float]) -> str:
    """The median of these losses, and how far it can be trusted: other programs on the host make a machine's speed drift."""
    low, high = bootstrap((losses,), np.median, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return (
        f"{statistics.median(losses):.1%} (95% interval {low:.1%} to {high:.1%}: {[f'{loss:.1%}' for loss in losses]})"
    )


def missed(loads: list[dict[str, float]], losses: list[float]) -> list[str]:
    """The targets that these windows miss: by the medians, but no request at all may fail."""
    rate, p99 = (statistics.median(one[name] for one in loads) for name in ("rate", "p99"))
    faults, loss = sum(one["faults"] for one in loads), statistics.median(losses)
    targets = {
        f"asked {rate:.1f} times a second; at least {LEAST_RATE}": rate >= LEAST_RATE,
        f"{faults:.0f} requests refused or failed; none": faults == 0,
        f"p99 {p99:.1f} ms; less than {MOST_P99_MS}": p99 < MOST_P99_MS,
        f"the search loses {loss:.1%}; less than {MOST_LOSS:.0%}": loss < MOST_LOSS,
    }
    return [target for target, is_met in targets.items() if not is_met]


def children_seconds() -> float:
    """Processor time of the processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ends_of_generations(root: Path) -> list[float]:
    """When each generation that is over was."""
    trials = optuna.load_study(study_name="long", storage=f"sqlite:///{root}/headhunt.db").get_trials(deepcopy=False)
    parts = [trials[start : start + GENERATION] for start in range(0, len(trials), GENERATION)]
    over = [[trial.datetime_complete.timestamp() for trial in part if trial.datetime_complete] for part in parts]
    return [max(times) for times in over if len(times) == GENERATION]


def pace(ends: list[float], began: float, ended: float) -> float:
    """Trials a minute in a window, from the end of its first generation to the end of its last."""
    within = [moment for moment in ends if began <= moment <= ended]
    return 60 * GENERATION * (len(within) - 1) / (max(within) - min(within))
