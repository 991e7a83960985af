"""Ray: which cluster is joined, and what is said when Ray does not start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.runtime.workers.config import Workers
from features.runtime.workers.executors import executor_of
from features.runtime.workers.ray_executor import address_of
from tests.forks import run_command


def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    body = (
        "from pathlib import Path\nfrom features.runtime.workers.config import Workers\n"
        "from features.runtime.workers.executors import open_executor\n"
        "with open_executor(Workers(address='127.0.0.1:1'), Path('run'), {}): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr
    assert "Fix `workers.address`, or remove it to use only this machine." in done.stderr


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
    assert address_of(Workers(address=named)) == joined


def test_no_cluster_at_the_address_of_the_environment(tmp_path: Path) -> None:
    body = (
        "from pathlib import Path\nfrom features.runtime.workers.config import Workers\n"
        "from features.runtime.workers.executors import open_executor\n"
        "with open_executor(Workers(), Path('run'), {}): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "answers at '127.0.0.1:1': " in done.stderr
    assert "Fix RAY_ADDRESS in the environment, or remove it" in done.stderr


@pytest.mark.parametrize(
    ("workers", "variable", "kind"),
    [
        (Workers(), "", "processes"),
        (Workers(), "http://127.0.0.1:8265", "processes"),  # where `ray job submit` sends jobs
        (Workers(), "10.0.0.1:6379", "ray"),  # in a Ray job
        (Workers(address="auto"), "", "ray"),
        (Workers(executor="ray"), "", "ray"),
        (Workers(executor="local"), "10.0.0.1:6379", "local"),
    ],
)
def test_auto_is_ray_where_a_cluster_is_named(
    workers: Workers, variable: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert executor_of(workers) == kind


def test_a_ray_that_does_not_come_up_is_tried_again(tmp_path: Path) -> None:
    body = (
        "import ray\nfrom pathlib import Path\nfrom features.runtime.workers.config import Workers\n"
        "from features.runtime.workers.executors import open_executor\nstart, tries = ray.init, []\n"
        "def late(**options):\n    tries.append(1)\n"
        "    if len(tries) < 4: raise Exception('The current node timed out during startup.')\n    return start(**options)\n"
        "ray.init = late\nworkers = Workers(executor='ray')\n"
        "try:\n    with open_executor(workers, Path('run'), {}): pass\nexcept Exception as error: print(type(error), error)\n"
        "with open_executor(workers, Path('run'), {}): print('started')\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "LostError'> Ray did not start in 3 attempts: The current node timed out during startup." in done.stdout
    assert "Or run without Ray: `workers.executor: auto` or `local`." in done.stdout
    assert "started" in done.stdout
    assert done.stderr.count("Attempt") == 2


LONG = "x" * 90


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"HOME": "/dev/null"},
            "Ray needs a writable HOME, but HOME is /dev/null. Set HOME to another folder.",
        ),
        ({"TMPDIR": LONG}, f"{LONG}, is too long for Ray's sockets. Set TMPDIR to a shorter one."),
        (
            {"RAY_TMPDIR": "/proc/none"},
            "a writable temporary folder with free space. Set TMPDIR to one other than /proc/none.",
        ),
    ],
)
def test_places_that_ray_cannot_use_are_named(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    (tmp_path / LONG).mkdir()
    values = {name: str(tmp_path / value) for name, value in variables.items()}
    cache = ("features", "cache", "--executor")
    text = "workdir: run\ndataset: {kind: toy_cars, classes: 3, per_class: 8, image_size: 32}\n"
    features = "features: {backbone: mobilenetv2, weights: random, image_size: [32, 32], copies: 0, pooling: avg}\n"
    (tmp_path / "headhunt.yaml").write_text(text + features)
    for arguments, status in ((("features", "prepare"), 0), ((*cache, "ray"), 2), ((*cache, "auto"), 0)):
        done = run_command(tmp_path, arguments, values)
        assert done.returncode == status, done.stderr
        if status:
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("headhunt: ")]
            assert line.startswith("headhunt: Ray cannot start here: ")
            assert line.endswith(f"{said} Or run without Ray: `workers.executor: auto` or `local`.")
            assert "Traceback" not in done.stderr
