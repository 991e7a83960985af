"""One interface, three executors: the same results, the same errors, the workers' own environment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.runtime import interrupts
from features.runtime.errors import CacheError, DeadWorkersError, UsageError
from features.runtime.interrupts import raise_if_cancelled
from features.runtime.processes import birth
from features.runtime.workers.cluster import Cluster
from features.runtime.workers.config import Workers
from features.runtime.workers.executors import Executor, gpu_shares, open_executor
from features.runtime.workers.gpus import find_gpus
from features.runtime.workers.process_executor import ProcessExecutor
from features.runtime.workers.ray_executor import RayExecutor


def square(value: int) -> int:
    return value * value


def fail_on_three(value: int) -> int:
    if value == 3:
        raise CacheError(f"task {value} is broken")
    return value


def die_once(marker: str) -> int:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), 9)
    return os.getpid()


def die_on_one(value: int) -> str:
    if value == 1:
        os.kill(os.getpid(), 9)
    return f"{value} is done"


def wait_until_left(value: int) -> int:
    if value == 0:
        raise CacheError("the first task is broken")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        raise_if_cancelled()
        time.sleep(0.01)
    raise AssertionError("nobody said that the result is not wanted")


def say_and_leave(_: int) -> None:
    os.write(2, b"the device is on fire\n")
    os._exit(3)


def divide(value: int) -> float:
    return 1 / value


class OddError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"of {one} and {two}")


def raise_oddly(_: int) -> None:
    raise OddError(1, 2)


def note_and_sleep(marker: Path) -> None:
    marker.with_suffix(".part").write_text(str(os.getpid()))
    marker.with_suffix(".part").rename(marker)
    time.sleep(300)


def backend(_: int) -> tuple[str, str, str]:
    return os.environ["KERAS_BACKEND"], os.environ["OMP_NUM_THREADS"], os.getcwd()  # noqa: PTH109


@pytest.fixture(scope="module")
def ray_executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    workdir = tmp_path_factory.mktemp("run")
    with open_executor(Workers(executor="ray", count=2, cpus=1), workdir, {"KERAS_BACKEND": "jax"}) as executor:
        yield executor


@pytest.fixture(scope="module")
def process_executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    workdir = tmp_path_factory.mktemp("run")
    with open_executor(Workers(count=2, cpus=1), workdir, {"KERAS_BACKEND": "jax"}) as executor:
        assert isinstance(executor, ProcessExecutor)
        yield executor


@pytest.fixture(params=["processes", "ray"])
def with_workers(request: pytest.FixtureRequest) -> Executor:
    """An executor with worker processes."""
    name = "process_executor" if request.param == "processes" else "ray_executor"
    found: Executor = request.getfixturevalue(name)
    return found


@pytest.fixture(params=["local", "threads", "processes", "ray"])
def executor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    if request.param in ("processes", "ray"):
        yield request.getfixturevalue("process_executor" if request.param == "processes" else "ray_executor")
        return
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC", "TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "1")  # undo the local executor's changes after the test
    workers = Workers(executor="local", count=2, cpus=1)
    with open_executor(workers, tmp_path, {}, threads=request.param == "threads") as local:
        assert os.environ["NPROC"] == ("2" if request.param == "threads" else "1")
        yield local


def test_results_come_with_their_position(executor: Executor) -> None:
    assert sorted(executor.map(square, [5, 6, 7, 8])) == [(0, 25), (1, 36), (2, 49), (3, 64)]


def test_no_tasks(executor: Executor) -> None:
    assert list(executor.map(square, [])) == []


def test_an_error_of_a_task_is_raised_as_itself(executor: Executor) -> None:
    with pytest.raises(CacheError, match="task 3 is broken"):
        list(executor.map(fail_on_three, [1, 2, 3, 4]))


def test_threads_give_up_when_their_executor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC", "TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "1")
    with open_executor(Workers(executor="local", count=3, cpus=1), tmp_path, {}, threads=True) as threads:
        with pytest.raises(CacheError, match="the first task is broken"):
            list(threads.map(wait_until_left, [1, 2, 0]))
        assert list(threads.map(square, [3])) == [(0, 9)]


def test_an_interrupt_that_falls_into_a_callback_is_not_lost() -> None:
    """Python drops exceptions that a handler raises during a garbage-collector callback."""
    body = (
        "import gc, os, signal\n"
        "from features.runtime.workers.executors import LocalExecutor\n"
        "from features.runtime.interrupts import interrupt\n"
        "signal.signal(signal.SIGINT, interrupt)\n"
        "def collect(phase, info):\n    os.kill(os.getpid(), signal.SIGINT)\n    sum(range(1000))\n"
        "def task(number):\n    gc.callbacks.append(collect)\n    gc.collect()\n    gc.callbacks.clear()\n    return number\n"
        "try:\n    print(list(LocalExecutor().map(task, [1, 2])))\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert "Exception ignored" in done.stderr
    assert done.stdout == "interrupted\n"


def test_an_interrupt_that_python_dropped_ends_the_wait_for_workers(
    with_workers: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()
    monkeypatch.setattr(interrupts, "_INTERRUPTED", interrupted)
    done = with_workers.map(square, [1, 2, 3])
    next(done)
    interrupted.set()
    with pytest.raises(KeyboardInterrupt):
        list(done)


def test_a_worker_that_is_killed_is_replaced(with_workers: Executor, tmp_path: Path) -> None:
    results = dict(with_workers.map(die_once, [str(tmp_path / "died")]))
    assert results[0] != os.getpid()


def test_workers_have_their_environment_and_an_empty_folder(with_workers: Executor) -> None:
    ((_, (name, threads, folder)),) = list(with_workers.map(backend, [0]))
    assert (name, threads) == ("jax", "1")
    assert Path(folder) != Path.cwd() and not list(Path(folder).iterdir())


@pytest.mark.parametrize("kind", ["auto", "ray"])
def test_more_cores_than_there_are(ray_executor: Executor, tmp_path: Path, kind: Any) -> None:
    with (
        pytest.raises(UsageError, match=r"each worker needs 5000 CPUs, but .* in total\. Lower `workers\.cpus`"),
        open_executor(Workers(executor=kind, cpus=5000), tmp_path, {}),
    ):
        pass


@pytest.mark.parametrize("kind", ["auto", "ray"])
def test_a_users_own_train_py_does_not_shadow_ours(tmp_path: Path, kind: str) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('the wrong train')")
    (tmp_path / "features.py").write_text("raise SystemExit('the wrong features')")
    body = (
        "from pathlib import Path\nfrom features.runtime.workers.config import Workers\n"
        "from features.runtime.workers.executors import open_executor\n"
        "from features.runtime.atomic import make_folder\n"
        f"with open_executor(Workers(executor='{kind}'), Path('run'), {{}}) as executor:\n"
        "    print(list(executor.map(make_folder, [Path('found')])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "found" in done.stdout


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done(
    ray_executor: Executor, tmp_path: Path, kind: str
) -> None:
    with contextlib.ExitStack() as stack:
        executor: Executor = RayExecutor(Workers(count=2, cpus=1), 1, Cluster(own=True), retries=0)
        if kind == "processes":
            executor = stack.enter_context(contextlib.closing(ProcessExecutor([{}, {}], tmp_path, retries=1)))
        give_up_on_one(executor)


def give_up_on_one(executor: Executor) -> None:
    done = dict(executor.map(die_on_one, [0, 1, 2], lambda task, reason: f"{task} is given up: {reason}"))
    assert done[0] == "0 is done"
    assert done[2] == "2 is done"
    assert done[1].startswith("1 is given up: a worker was killed repeatedly, probably out of memory")
    with pytest.raises(DeadWorkersError, match="a worker was killed repeatedly"):
        list(executor.map(die_on_one, [1]))


def test_what_a_dying_worker_said_last_is_told(process_executor: Executor) -> None:
    said = r"a worker died repeatedly \(exited with status 3; its last output: the device is on fire\)\. Finished work is saved"
    with pytest.raises(DeadWorkersError, match=said):
        list(process_executor.map(say_and_leave, [0]))


def test_workers_that_do_not_start_say_why(tmp_path: Path) -> None:
    """Here because Python's home folder does not exist."""
    with (
        contextlib.closing(ProcessExecutor([{"PYTHONHOME": "/nowhere"}], tmp_path, retries=1)) as executor,
        pytest.raises(
            DeadWorkersError, match=r"(exited with status 1; its last output: \S|worker processes fail to start)"
        ),
    ):
        list(executor.map(square, [1]))


def test_a_fault_in_a_task_shows_where_it_was(process_executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        list(process_executor.map(divide, [0]))
    assert "in divide" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="OddError: of 1 and 2"):
        list(process_executor.map(raise_oddly, [0]))


def test_tasks_that_nobody_waits_for_are_ended(process_executor: Executor, tmp_path: Path) -> None:
    """A failing task ends the others, which would run for a minute; the executor stays usable."""
    with pytest.raises(CacheError, match="the first task is broken"):
        list(process_executor.map(wait_until_left, [1, 0]))
    assert dict(process_executor.map(square, [2, 3])) == {0: 4, 1: 9}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends after its task")
def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    body = (
        "from pathlib import Path\nfrom features.runtime.workers.config import Workers\n"
        "from features.runtime.workers.executors import open_executor\n"
        "from tests.features.test_executors import note_and_sleep\n"
        "with open_executor(Workers(cpus=1), Path('run'), {}) as executor:\n"
        "    list(executor.map(note_and_sleep, [Path('worker').resolve()]))\n"
    )
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen([sys.executable, "-P", "-c", body], cwd=tmp_path, env={**os.environ, **path})
    until = time.monotonic() + 60
    while not (tmp_path / "worker").exists():
        assert time.monotonic() < until, "the task did not begin in a minute"
        time.sleep(0.05)
    worker = int((tmp_path / "worker").read_text())
    assert birth(worker)
    driver.kill()
    driver.wait()
    while birth(worker):
        assert time.monotonic() < until + 10, "the worker outlived its driver"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("count", "gpus", "shares"),
    [
        (2, 0, [[], []]),
        (2, 1, [["3"], ["5"]]),
        (4, 1, [["3"], ["5"], ["7"]]),
        (3, 2, [["3", "5"]]),
        (5, 0.5, [["3"], ["3"], ["5"], ["5"], ["7"]]),
        (2, 1.5, [["3", "5"]]),
    ],
)
def test_gpus_are_shared_out(count: int, gpus: float, shares: list[list[str]]) -> None:
    assert gpu_shares(count, gpus, ["3", "5", "7"]) == shares


@pytest.mark.parametrize("kind", ["auto", "local", "ray"])
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # even if there is one
    find_gpus.cache_clear()
    said = (
        r"each worker needs 1 GPU \(`workers\.gpus`\), but JAX finds none on this machine\. .*set `workers\.gpus: 0`\."
    )
    with (
        pytest.raises(UsageError, match=said),
        open_executor(Workers(executor=kind, gpus=1), tmp_path, {"KERAS_BACKEND": "jax"}),
    ):
        pass
    find_gpus.cache_clear()
