"""One interface, two executors: the same results, the same errors, the workers' own environment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from features import executors
from features.cluster import Cluster
from features.config import Workers
from features.errors import CacheError, LostError, UsageError
from features.executors import Executor, RayExecutor, _address, check_wanted, open_executor


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
        check_wanted()
        time.sleep(0.01)
    raise AssertionError("nobody said that the result is not wanted")


def backend(_: int) -> tuple[str, str, str]:
    return os.environ["KERAS_BACKEND"], os.environ["OMP_NUM_THREADS"], os.getcwd()  # noqa: PTH109


@pytest.fixture(scope="module")
def ray_executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    workdir = tmp_path_factory.mktemp("run")
    with open_executor(Workers(count=2, cpus=1), workdir, {"KERAS_BACKEND": "jax"}) as executor:
        yield executor


@pytest.fixture(params=["local", "threads", "ray"])
def executor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_executor")
        return
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC", "TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "1")  # what the local executor sets is undone after the test
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
    """Python drops what a handler raises while the garbage collector calls back."""
    body = (
        "import gc, os, signal\nfrom features.executors import LocalExecutor, interrupt\n"
        "signal.signal(signal.SIGINT, interrupt)\n"
        "def collect(phase, info):\n    os.kill(os.getpid(), signal.SIGINT)\n    sum(range(1000))\n"
        "def task(number):\n    gc.callbacks.append(collect)\n    gc.collect()\n    gc.callbacks.clear()\n    return number\n"
        "try:\n    print(list(LocalExecutor().map(task, [1, 2])))\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert "Exception ignored" in done.stderr
    assert done.stdout == "interrupted\n"


def test_an_interrupt_that_python_dropped_ends_the_wait_for_ray_workers(
    ray_executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()
    monkeypatch.setattr(executors, "_INTERRUPTED", interrupted)
    done = ray_executor.map(square, [1, 2, 3])
    next(done)
    interrupted.set()
    with pytest.raises(KeyboardInterrupt):
        next(done)


def test_a_worker_that_is_killed_is_replaced(ray_executor: Executor, tmp_path: Path) -> None:
    results = dict(ray_executor.map(die_once, [str(tmp_path / "died")]))
    assert results[0] != os.getpid()


def test_ray_workers_have_their_environment_and_an_empty_folder(ray_executor: Executor) -> None:
    ((_, (name, threads, folder)),) = list(ray_executor.map(backend, [0]))
    assert (name, threads) == ("jax", "1")
    assert Path(folder) != Path.cwd()


def test_more_cores_than_there_are(ray_executor: Executor, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"each worker asks for 5000 CPUs, but .* in all\. Lower `workers\.cpus`"),
        open_executor(Workers(cpus=5000), tmp_path, {}),
    ):
        pass


def test_a_users_own_train_py_does_not_shadow_ours(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('the wrong train')")
    (tmp_path / "features.py").write_text("raise SystemExit('the wrong features')")
    body = (
        "from pathlib import Path\nfrom features.config import Workers\nfrom features.executors import open_executor\n"
        "from features.atomic import make_folder\n"
        "with open_executor(Workers(), Path('run'), {}) as executor:\n"
        "    print(list(executor.map(make_folder, [Path('found')])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "found" in done.stdout


def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    body = (
        "from pathlib import Path\nfrom features.config import Workers\nfrom features.executors import open_executor\n"
        "with open_executor(Workers(address='127.0.0.1:1'), Path('run'), {}): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr
    assert "Correct `workers.address`, or leave it out to start Ray on this machine." in done.stderr


@pytest.mark.parametrize(
    ("named", "variable", "joined"),
    [
        (None, "", "local"),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        (None, "http://127.0.0.1:8265", "local"),  # where `ray job submit` sends jobs
    ],
)
def test_the_cluster_of_the_environment_is_joined_where_none_is_named(
    named: str | None, variable: str, joined: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert _address(Workers(address=named)) == joined


def test_no_cluster_at_the_address_of_the_environment(tmp_path: Path) -> None:
    body = (
        "from pathlib import Path\nfrom features.config import Workers\nfrom features.executors import open_executor\n"
        "with open_executor(Workers(), Path('run'), {}): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "answers at '127.0.0.1:1': " in done.stderr
    assert "Correct RAY_ADDRESS in the environment, or leave it" in done.stderr


def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done(ray_executor: Executor) -> None:
    executor = RayExecutor(Workers(count=2, cpus=1), 1, Cluster(own=True), retries=0)
    done = dict(executor.map(die_on_one, [0, 1, 2], lambda task, reason: f"{task} is given up: {reason}"))
    assert done[0] == "0 is done"
    assert done[2] == "2 is done"
    assert done[1].startswith("1 is given up: its workers died, as they do when memory is out: ")
    with pytest.raises(LostError, match="its workers died"):
        list(executor.map(die_on_one, [1]))


def test_a_ray_that_does_not_come_up_says_what_to_do(tmp_path: Path) -> None:
    body = (
        "import ray\nfrom pathlib import Path\nfrom features.config import Workers\n"
        "from features.executors import open_executor\n"
        "def late(**_): raise Exception('The current node timed out during startup.')\n"
        "ray.init = late\n"
        "with open_executor(Workers(), Path('run'), {}): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert "LostError: Ray did not start: The current node timed out during startup." in done.stderr
    assert "set `workers.executor: local`" in done.stderr
