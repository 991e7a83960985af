"""One study with 64 simulated workers and 10,000 trials, under the service: what the driver's work for a trial takes as the study
grows, whether service and dashboard still answer, and whether memory stays flat.

A simulated worker waits instead of training; all else is real: the driver, its storage, the files of the trials, the service, the
dashboard. `HEADHUNT_BENCH_TRIALS=2000 HEADHUNT_BENCH_SAMPLER=tpe` runs another one, `HEADHUNT_BENCH_STORAGE=postgresql` on that.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.benchmarks.searches import ROOT, drawn_cache
from tests.search.storages import postgresql

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(6 * 3600)]

TRIALS = int(os.environ.get("HEADHUNT_BENCH_TRIALS", "10000"))
SAMPLER = os.environ.get("HEADHUNT_BENCH_SAMPLER", "random")
STORAGE = os.environ.get("HEADHUNT_BENCH_STORAGE", "sqlite")
WORKERS = 64
READS = 20_000

MOST = {"dashboard": 5_000, "studies": 10_000, "new trials": 10_000}
"""Milliseconds that an answer may take; the service's own 1,000."""

TRIAL_KB = 20
"""Memory that a trial may take in the driver or in the service."""

READS_MB = 20
"""Memory that READS requests may take."""

DRIVER = """
import json, math, sys, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
import numpy as np
import search.driver.driver, search.population.sources, search.study
from features.cache.feature_cache import FeatureCache
from features.runtime.processes import this_process
from headhunt.service.jobs.records import Ended, Files, Started, now
from search.config import SearchRun
from search.trial import EpochMetrics, TrialResult, TrialState, WorkSpan

files, cache, section = Files(Path(sys.argv[1])), Path(sys.argv[2]), json.loads(sys.argv[3])
search.population.sources.cache_for = lambda run, policy=None: FeatureCache.open(cache)
rows = (files.folder / "pace.jsonl").open("a", buffering=1)
seconds, told = {}, 0

def timed(owner, name):
    function = getattr(owner, name)
    def call(*arguments):
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
    setattr(owner, name, call)

for name in ("_next_generation", "_report", "_judge", "_record", "_tell"):
    timed(search.driver.driver.Driver, name)
tell = search.driver.driver.Driver._tell

def tell_and_note(self, generation):
    global told
    tell(self, generation)
    told += len(generation)
    if told % 512 == 0:
        status = Path("/proc/self/status").read_text()
        rss = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        rows.write(json.dumps({"trials": told, "time": time.time(), "rss": rss, "seconds": dict(seconds)}) + "\\n")

search.driver.driver.Driver._tell = tell_and_note

def epoch(number, config):
    rate = config.schedule.learning_rate
    reached = (1 - math.exp(-number / 5)) * math.exp(-0.3 * math.log10(rate / 1e-3) ** 2)
    noise = np.random.default_rng([config.seed, number]).normal(0, 0.02)
    value = float(np.clip(0.8 * reached + noise, 0, 1))
    return EpochMetrics(number, 3 - 2 * value, value, 3 - 2 * value, value, min(1.0, value + 0.1), rate)

def train(numbered):
    worker, task = numbered
    began = time.time()
    time.sleep(float(np.random.default_rng(task.configs[0].seed).uniform(0.1, 0.5)))
    given = []
    for config, state in zip(task.configs, task.states):
        curves = list(state.curves) if state else []
        had = len(curves)
        curves += [epoch(number, config) for number in range(had + 1, task.until + 1)]
        best = max(curves, key=lambda metrics: metrics.val_accuracy).epoch
        ended = len(curves) >= config.epochs
        result = TrialResult(tuple(curves), best, {}, None, time.time() - began)
        state = None if ended else TrialState([], [], [], [], [], curves, best)
        span = WorkSpan(f"simulated {worker % %WORKERS%}", began, len(curves) - had)
        given.append(result._replace(state=state, span=span))
    return given

class Simulated:
    def __init__(self):
        self.pool = ThreadPoolExecutor(%WORKERS%)
    def map(self, function, tasks, on_task_failure=None):
        waiting = {self.pool.submit(train, (place, task)): place for place, task in enumerate(tasks)}
        for done in as_completed(waiting):
            yield waiting[done], done.result()

@contextmanager
def open_executor(*_):
    yield Simulated()

search.driver.driver.open_executor = open_executor
me = this_process()
files.begin(Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id="simulated", time=now()))
files.write_stage("search")
run = SearchRun.model_validate({"name": files.folder.parents[1].name, "workdir": files.folder.parents[1],
    "dataset": {"kind": "toy_cars"}, "features": {"copies": 0}, "search": section})
search.study.run_search(run)
files.write_ended(Ended(state="finished", message=None, time=now()))
""".replace("%WORKERS%", str(WORKERS))

SERVICE = """
import json, socket, subprocess, sys
from pathlib import Path
import uvicorn
from headhunt.service.jobs.admission import admit
from headhunt.service.http.serve import assemble
from headhunt.service.settings import Settings

root, cache, storage, driver, section = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5]

class Simulation:  # stands for Ray's job server: a job is a process
    address = "simulated"
    jobs = {}
    def statuses(self):
        return {name: "RUNNING" if job.poll() is None else "SUCCEEDED" for name, job in self.jobs.items()}
    def submission_id(self, ray_id):
        return ray_id
    def submit(self, ray_id, folder):
        if ray_id in self.jobs:
            return
        command = [sys.executable, "-c", Path(driver).read_text(), str(folder), cache, section]
        self.jobs[ray_id] = subprocess.Popen(command, stdout=sys.stderr)
    def stop(self, ray_id):
        self.jobs[ray_id].terminate()

settings = Settings(root=root, storage=storage, reads="100000/second")
jobs, board, app = assemble(settings, Simulation(), "0")
plain = {key: value for key, value in json.loads(section).items() if key != "storage"}
jobs.create(admit({"name": "scale", "dataset": {"kind": "toy_cars"}, "search": plain}, settings), None)
board.start()
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")).run(sockets=[listening])
"""

PATHS = {
    "searches": "/searches",
    "search": "/searches/scale",
    "top": "/searches/scale/top",
    "history": "/searches/scale/history",
    "metrics": "/metrics",
    "dashboard": "/dashboard/",
    "studies": "/api/studies",
    "new trials": "/api/studies/1?after={after}",
}
"""What is asked while the search runs. A dashboard's page asks for all trials once, and then for those after the last it has."""


@contextmanager
def database(root: Path) -> Iterator[str]:
    if STORAGE == "postgresql":
        with postgresql() as url:
            yield url
    else:
        yield f"sqlite:///{root / 'headhunt.db'}"


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def asked(http: httpx.Client, after: int) -> dict[str, float]:
    """Milliseconds that each answer took; each asked five times, the slowest of them."""
    taken: dict[str, list[float]] = {}
    for _ in range(5):
        for name, path in PATHS.items():
            began = time.perf_counter()
            answer = http.get(path.format(after=after))
            assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
            taken.setdefault(name, []).append(1e3 * (time.perf_counter() - began))
    return {name: round(max(values), 1) for name, values in taken.items()}


def test_ten_thousand_trials_by_64_workers(tmp_path: Path) -> None:
    cache = drawn_cache(tmp_path, 200, 50, 64, 10)
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "driver.py").write_text(DRIVER)
    with database(root) as storage:
        section: dict[str, Any] = {
            "sampler": SAMPLER, "pruner": "hyperband", "trials": TRIALS, "epochs": 30, "generation": WORKERS,
            "views": {"copies": 0}, "storage": storage, "workers": {"count": WORKERS},
        }  # fmt: skip
        arguments = [root, cache, storage, tmp_path / "driver.py", json.dumps(section)]
        with subprocess.Popen(
            [sys.executable, "-c", SERVICE, *map(str, arguments)],
            cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore", "KERAS_BACKEND": "jax"}, stdout=subprocess.PIPE, text=True,
        ) as service:  # fmt: skip
            try:
                assert service.stdout is not None
                url = f"http://127.0.0.1:{int(service.stdout.readline())}"
                with httpx.Client(base_url=url, timeout=120) as http:
                    _watch(http, service.pid, root)
            finally:
                service.kill()


def _watch(http: httpx.Client, service: int, root: Path) -> None:
    pace = root / "scale" / "jobs" / "0001" / "pace.jsonl"
    shown, before = 0, {"trials": 0, "time": time.time(), "seconds": {}}
    memory = []
    print(f"\n{TRIALS} trials, {SAMPLER}, hyperband, {WORKERS} simulated workers, {STORAGE}")
    while True:
        status = http.get("/searches/scale").json()
        assert status["state"] in ("queued", "running", "finished"), status
        rows = [json.loads(line) for line in pace.read_text().splitlines()] if pace.exists() else []
        for row in rows[shown:]:
            answers = asked(http, max(0, row["trials"] - 100))
            trials = row["trials"] - before["trials"]
            parts = {
                name.lstrip("_"): round(1e3 * (taken - before["seconds"].get(name, 0.0)) / trials, 2)
                for name, taken in row["seconds"].items()
            }
            wall = row["time"] - before["time"]
            memory.append((row["trials"], row["rss"], resident(service)))
            slow = {name: taken for name, taken in answers.items() if taken > MOST.get(name, 1_000)}
            assert not slow, slow
            print(
                f"{row['trials']:6}: {60 * trials / wall:5.0f} trials a minute; driver's ms a trial {parts}; slowest answers "
                f"{answers}; MB driver {row['rss']:.0f}, service {memory[-1][2]:.0f}",
                flush=True,
            )
            before = row
        shown = len(rows)
        if status["state"] == "finished":
            break
        time.sleep(1)
    ended = http.get("/searches/scale").json()["trials"]
    assert ended["complete"] + ended["pruned"] == TRIALS
    began = time.perf_counter()
    whole = http.get("/api/studies/1?after=0")
    print(
        f"all trials for the dashboard's page: {time.perf_counter() - began:.2f} s, {len(whole.content) / 1e6:.1f} MB"
    )
    before_reads = resident(service)
    own = [path for name, path in PATHS.items() if name not in ("dashboard", "studies", "new trials")]
    for number in range(READS):
        assert http.get(own[number % len(own)]).status_code == 200
    after_reads = resident(service)
    print(f"memory of the service before {READS} more reads: {before_reads:.0f} MB, after them {after_reads:.0f} MB")
    assert after_reads - before_reads < READS_MB
    half = len(memory) // 2
    if half < 2:  # too few to tell a slope by
        return
    for name, place in (("driver", 1), ("service", 2)):
        (trials, first), (more, second) = (
            (statistics.median(row[0] for row in part), statistics.median(row[place] for row in part))
            for part in (memory[:half], memory[half:])
        )
        each = 1024 * (second - first) / (more - trials)
        print(
            f"memory of the {name}: {first:.0f} MB in the first half, {second:.0f} MB in the second: {each:.1f} KB a trial"
        )
        assert each < TRIAL_KB, name
