"""200 read requests a second on loopback while a search runs: how long answers take, and what it costs the search.

Windows with and without load alternate in the same search, since the machine's speed drifts; the loss is the median over pairs.
Needs wrk, e.g. Debian's package. `HEADHUNT_BENCH_REPEATS=2` runs a piece of it.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import optuna
import pytest

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

SECONDS = 30
REPEATS = int(os.environ.get("HEADHUNT_BENCH_REPEATS", "6"))

# wrk asks again as soon as it has an answer; each connection waits here so that all of them together ask at the rate.
SCRIPT = """
local paths = {"/searches", "/searches/long", "/searches/long/top", "/searches/long/history", "/searches/short", "/healthz",
               "/searches/long/top?limit=100", "/metrics", "/", "/searches/long/promotions"}
local at = 0
function request()
  at = at + 1
  return wrk.format("GET", paths[at %% #paths + 1], {["Authorization"] = "Bearer %s"})
end
function delay() return %d end
function done(summary, latency, requests)
  io.write(string.format("took %%d p50 %%.1f p99 %%.1f max %%.1f requests %%d faults %%d\\n", summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3, summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
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
            "trials": 1_000_000, "generation": 8, "epochs": 30, "sampler": "random",
            "space": {"head": {"layers": 1, "units": 64, "dropout": 0.2}, "batch_size": 4},
            "workers": {"executor": "local", "count": count, "cpus": 1},
        }  # fmt: skip
        raw = {**configuration("long", **search), "dataset": {"kind": "toy_cars", "image_size": 32}}
        assert service.submit(raw).status_code == 201
        service.wait("long", lambda found: found["trials"]["complete"] >= 32)  # programs are compiled by then
        script = tmp_path / "paths.lua"
        script.write_text(SCRIPT % (TOKEN, 1000 * CONNECTIONS / RATE - ANSWER_MS))
        windows: list[tuple[float, float]] = []
        loads, used = [], []
        for _ in range(REPEATS):
            began = time.time()
            time.sleep(SECONDS)
            windows.append((began, time.time()))
            began, before = time.time(), processor_seconds(service.process.pid)
            loads.append(load(service, script))
            windows.append((began, time.time()))
            used.append((processor_seconds(service.process.pid) - before) / loads[-1]["requests"])
        time.sleep(5)
        paces = [pace(root, *window) for window in windows]
    finally:
        service.kill()
    losses = [1 - loaded / calm for calm, loaded in zip(paces[::2], paces[1::2], strict=True)]
    print(f"\n{cores}: {REPEATS} pairs of windows of {SECONDS} s, medians")
    print(f"  asked {statistics.median(one['rate'] for one in loads):.0f} times a second")
    for name in ("p50", "p99", "max"):
        print(
            f"  {name} {statistics.median(one[name] for one in loads):.1f} ms ({[round(one[name], 1) for one in loads]})"
        )
    print(f"  refused or failed: {sum(one['faults'] for one in loads):.0f}")
    print(f"  the service's processor time: {1e3 * statistics.median(used):.2f} ms a request")
    print(
        f"  trials a minute without load {statistics.median(paces[::2]):.0f}, with it {statistics.median(paces[1::2]):.0f}"
    )
    print(f"  the search loses {statistics.median(losses):.1%} ({[f'{loss:.1%}' for loss in losses]})")


def pace(root: Path, began: float, ended: float) -> float:
    """Trials a minute that ended in a window."""
    trials = optuna.load_study(study_name="long", storage=f"sqlite:///{root}/headhunt.db").get_trials(deepcopy=False)
    times = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    within = [moment for moment in times if began <= moment <= ended]
    return 60 * (len(within) - 1) / (max(within) - min(within))
