"""Importing any module is cheap, and packages and rooms import only to the right (contract 9 and the layers)."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import features
import headhunt
import reports
import search
import train

HEAVY = (
    "tensorflow",
    "keras",
    "jax",
    "ray",
    "optuna",
    "optuna_dashboard",
    "keras_tuner",
    "plotly",
    "sklearn",
    "scipy",
    "fsspec",
    "onnx",
    "onnxruntime",
    "ai_edge_litert",
)
MODULES = sorted(
    module.name
    for package in (features, search, train, reports, headhunt)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


def test_no_module_imports_a_heavy_library() -> None:
    body = (
        "import importlib, json, sys\nloaded = {}\n"
        f"for name in {MODULES!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded[name] = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert set(loaded) == set(MODULES)
    assert {name: heavy for name, heavy in loaded.items() if heavy} == {}


def test_help_needs_no_stage() -> None:
    """Every `--help` answers at once: heavy imports happen when a command runs."""
    body = "import sys, headhunt.cli; print([name for name in ('numpy', 'pandas', 'yaml', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_layer_contract_holds_and_is_checked() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout
