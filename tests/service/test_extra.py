"""The service's packages belong to an extra; its clients need none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WITHOUT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("fastapi", "limits") else find(name, *rest)
sys.modules.update(fastapi=None, limits=None)  # importing them fails
from headhunt.cli import main
main()
"""


def headhunt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_service_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    done = headhunt(tmp_path, "serve")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "headhunt: the service needs these missing packages: fastapi, limits. Run `pip install 'headhunt[serve]'`. Its clients "
    )


def test_the_clients_need_no_extra(tmp_path: Path) -> None:
    done = headhunt(tmp_path, "jobs", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no service answers at http://127.0.0.1:9" in done.stderr
