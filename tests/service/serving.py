"""`headhunt serve` as a process, with the user's tools: an HTTP client, the command line, a log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import tiny_sections

HEADHUNT = str(Path(sys.executable).with_name("headhunt"))
TOKEN = "a-token-for-the-tests-alone"

OVER = ("finished", "stopped", "failed", "interrupted")


class Service:
    """A service on its own root. `start` starts it (again), `kill` ends it like a power failure."""

    def __init__(self, root: Path, *options: str, variables: dict[str, str] | None = None) -> None:
        self.root, self._options = root, options
        self._log = root.parent / f"{root.name}.serve.txt"
        names = ("KERAS_BACKEND", "RAY_ADDRESS", "HEADHUNT_URL")
        self._environment = {name: value for name, value in os.environ.items() if name not in names}
        self._environment |= {"HEADHUNT_TOKEN": TOKEN, "COLUMNS": "120", **(variables or {})}
        self._port = 0
        self.url = ""

    def start(self) -> Service:
        """Starts the service; on the same port after the first time."""
        command = [HEADHUNT, "serve", "--root", str(self.root), "--port", str(self._port), "--json", *self._options]
        with self._log.open("a") as said:
            self.process = subprocess.Popen(
                command, env=self._environment, stdout=subprocess.PIPE, stderr=said, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said
        self.ready = json.loads(line)
        self.url = self.ready["url"]
        self._port = int(self.url.rpartition(":")[2])
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
        return self

    @property
    def said(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self._close()

    def interrupt(self) -> int:
        """Sends Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(300)
        self._close()
        return status

    def _close(self) -> None:
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.http.close()

    def headhunt(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a client command in a folder unrelated to the service's."""
        environment = {**self._environment, "HEADHUNT_URL": self.url, **variables}
        return subprocess.run(
            [HEADHUNT, *arguments],
            cwd=self.root.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, raw: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post(
            "/searches", content=yaml.safe_dump(raw), headers={"Content-Type": "application/yaml", **headers}
        )

    def wait(self, name: str, wanted: Callable[[dict[str, Any]], bool], seconds: float = 900) -> dict[str, Any]:
        """Waits until the search's status meets a condition; returns the status."""
        until = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = self.get(f"/searches/{name}")
            if wanted(found):
                return found
            assert time.monotonic() < until and found["state"] != "failed", (found, self.log_of(name), self.said)
            time.sleep(0.2)

    def over(self, name: str) -> dict[str, Any]:
        """Waits until the search's job has ended; returns the status."""
        return self.wait(name, lambda found: found["state"] in OVER)

    def log_of(self, name: str) -> str:
        return self.http.get(f"/searches/{name}/logs").text


def work_directory(folder: Path, backbone: Path, photos: Path) -> Path:
    """A root with photos and a backbone."""
    root = folder / "root"
    root.mkdir()
    shutil.copytree(photos, root / "photos")
    shutil.copy(backbone, root / "tiny.keras")
    return root


def configuration(name: str, **search: Any) -> dict[str, Any]:
    """A tiny search on them; keywords change its section `search`."""
    tiny = tiny_sections()
    return {
        "name": name,
        "dataset": {"kind": "folder", "root": "photos"},
        "features": {**tiny["features"], "backbone": "tiny.keras"},
        "search": {**tiny["search"], **search},
        "train": {
            "finetune": {"epochs": 2, "batch_size": 4, "unfreeze_conv_layers": 1, "learning_rate": 1e-3},
            "workers": {"executor": "local"},
        },
    }
