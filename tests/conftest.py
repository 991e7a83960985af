"""What every test needs: one Keras backend for the process, set before Keras is imported; and a tiny data set, backbone, cache
and study, made by the real code."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault(
    "HEADHUNT_RAISE_FAULTS", "1"
)  # in tests, internal errors are raised instead of becoming a line of the report
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if "benchmark" not in sys.argv and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Tests compile more than they compute: half as long without optimisation (but see test_population.py), and each program once.
    programs = tempfile.mkdtemp(prefix="headhunt-programs-")
    atexit.register(shutil.rmtree, programs, ignore_errors=True)
    os.environ |= {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0"),
        "JAX_COMPILATION_CACHE_DIR": programs,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from features.building.build import build_cache
from features.config import FeaturesRun
from features.dataset.prepare import prepare
from reports.config import Run
from tests.forks import run_command
from tests.search.storages import binaries

MakeRun = Callable[..., FeaturesRun]


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: tests that wait (for Ray, a browser, a signal) leave a core free."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs whole pipelines first: they take longest, and would otherwise keep a single core busy at the end."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run of only unit tests fails if one of them has loaded what they must do without."""
    units = bool(session.items) and all(item.get_closest_marker("unit") for item in session.items)
    loaded = [name for name in ("keras", "tensorflow", "jax", "ray") if name in sys.modules]
    if units and loaded:
        print(f"\nunit tests have imported {', '.join(loaded)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


expect.set_options(timeout=60_000)  # pages wait for whatever else the machine does


def missing_tools() -> list[str]:
    """The Debian packages of programs that tests use and that are missing on this machine."""
    programs = {"chromium": CHROMIUM, "openssl": shutil.which("openssl"), "postgresql": binaries()}
    return [package for package, program in programs.items() if program is None]


def pytest_configure() -> None:
    """Where every test must run, as in CI, a missing program is an error instead of a reason to skip tests."""
    missing = missing_tools()
    if missing and os.environ.get("HEADHUNT_TESTS_NEED_ALL"):
        raise pytest.UsageError(
            f"HEADHUNT_TESTS_NEED_ALL is set, but some tests need programs that are not here: {', '.join(missing)}. Install "
            f"them (Debian: apt-get install {' '.join(missing)}), or unset it to skip those tests."
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, e.g. Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=180_000)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .keras file: (32, 32, 3) to a map (8, 8, 6), with a BatchNormalization."""
    import keras

    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(6, 3, strides=2, padding="same"),
        ]
    )
    functional = keras.Model(model.inputs, model.outputs)
    path = tmp_path_factory.mktemp("backbone") / "tiny.keras"
    functional.save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of noise on three tints, in folders a, b, c."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (root / name).mkdir()
        for number in range(8):
            pixels = random.integers(0, 120, (20, 24, 3), np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def make_run(tmp_path: Path, tiny_backbone: Path, photos: Path) -> MakeRun:
    """A prepared run on `photos` and `tiny_backbone`; keywords change its `features` section."""

    def make(folder: str = "run", prepared: bool = True, **features: Any) -> FeaturesRun:
        section = {
            "backbone": str(tiny_backbone),
            "preprocessing": "resnet_v2",
            "image_size": 32,
            "compute": "float32",
            "copies": 1,
            "augmentation": "flip_rotate_zoom",
            "batch_size": 4,
            "images_per_shard": 6,
            "workers": {"executor": "local"},
            **features,
        }
        run = FeaturesRun.model_validate(
            {"workdir": tmp_path / folder, "dataset": {"kind": "folder", "root": photos}, "features": section}
        )
        if prepared:
            prepare(run)
        return run

    return make


@pytest.fixture
def cached_run(make_run: MakeRun) -> FeaturesRun:
    """A run whose cache is built: 1 augmented copy."""
    run = make_run()
    build_cache(run)
    return run


def tiny_sections() -> dict[str, dict[str, Any]]:
    """The sections `features`, without its backbone, and `search` of a run of 6 trials that takes seconds."""
    return {
        "features": {
            "preprocessing": "resnet_v2",
            "image_size": 32,
            "copies": 2,
            "augmentation": "flip_rotate_zoom",
            "batch_size": 4,
            "workers": {"executor": "local"},
        },
        "search": {
            "trials": 6,
            "first": [],  # tests/search/test_first_trials.py and the demo have them
            "generation": 3,
            "epochs": 4,
            "pruner": "none",
            "views": {},
            "space": {
                "head": {"layers": [0, 1], "units": [8], "dropout": 0.2},
                "optimizer": {"kind": "adam"},
                "batch_size": 4,
                "schedule": {
                    "kind": ["constant", "step_decay", "triangular2", "cosine_restarts", "warmup_cosine"],
                    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                },
            },
            "workers": {"executor": "local"},
        },
    }


@pytest.fixture(scope="session")
def searched_once(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, photos: Path) -> Path:
    """A folder with headhunt.yaml and its run up to a study of 6 trials; not to be written to, see `searched`."""
    folder = tmp_path_factory.mktemp("searched")
    tiny = tiny_sections()
    tiny["features"]["backbone"] = str(tiny_backbone)
    raw = {
        "name": "tiny",
        "workdir": "run",
        "dataset": {"kind": "folder", "root": str(photos)},
        **tiny,
        "train": {"finetune": {"epochs": 3, "batch_size": 4, "unfreeze_conv_layers": 1, "learning_rate": 1e-3}},
    }
    (folder / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    for stage in (("features", "prepare"), ("features", "cache"), ("search", "run")):
        run_headhunt(folder, *stage)
    return folder


@pytest.fixture
def searched(searched_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a study, in its own folder, which is the working directory."""
    shutil.copytree(searched_once, tmp_path / "searched")
    monkeypatch.chdir(tmp_path / "searched")
    return Run.model_validate(yaml.safe_load(Path("headhunt.yaml").read_text()))


def run_headhunt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `headhunt` in a folder, in a process of its own. Fails with the command's output."""
    done = run_command(folder, arguments)
    assert done.returncode == 0, done.stderr
    return done
