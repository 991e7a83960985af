"""The service in this process, on its own root: everything is real except Ray, which is replaced by an object with a list."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import optuna
import yaml

from features.runtime.errors import LostError
from features.runtime.processes import this_process
from headhunt.service.http.serve import assemble
from headhunt.service.jobs.raycluster import RayJobs
from headhunt.service.jobs.records import Ended, Files, Started, job_files, now
from headhunt.service.settings import Settings
from search.driver.storage import open_storage
from tests.service.serving import configuration

PLENTY = "1000000/second"


@cache
def _empty_storage() -> bytes:
    """A storage file before its first study; creating one takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "headhunt.db"
        storage = open_storage(f"sqlite:///{file}", Path(folder))
        storage.remove_session()
        return file.read_bytes()


def searched_trial(value: float | None = None, top5: Any = 0.9, **others: Any) -> optuna.trial.FrozenTrial:
    """A trial as left by a search: complete if it has a value, else in the given state, by default PRUNED."""
    state = optuna.trial.TrialState.PRUNED if value is None else optuna.trial.TrialState.COMPLETE
    attributes = {"config": "{}", "top5": top5}
    return optuna.trial.create_trial(**{"state": state, "value": value, "user_attrs": attributes, **others})


class StandIn(RayJobs):
    """Records requests, and returns canned `statuses`; `silent` means that it does not answer."""

    def __init__(self) -> None:
        super().__init__("http://stand-in.invalid:8265", Path("/root"))
        self.known: dict[str, str] = {}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.silent = False

    def statuses(self) -> dict[str, str]:
        self._answer()
        return dict(self.known)

    def submit(self, ray_id: str, folder: Path) -> None:
        self._answer()
        self.submitted.append(ray_id)
        self.known.setdefault(ray_id, "PENDING")

    def stop(self, ray_id: str) -> None:
        self._answer()
        self.stopped.append(ray_id)

    def _answer(self) -> None:
        if self.silent:
            raise LostError("Ray does not answer at http://stand-in.invalid:8265.")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one event loop for all applications, as in a server: their locks belong to the loop that they first used."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="applications", daemon=True).start()
    return loop


class Http:
    """Sends requests to an application without a socket, from any thread."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._request("POST", path, **options)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **options)

        return asyncio.run_coroutine_threadsafe(ask(), _loop()).result()


class Place:
    """A root with the service on it; `restart` creates a new service on the same root."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.root = Path(os.path.realpath(folder)) / "root"
        (self.root / "photos").mkdir(parents=True)
        (self.root / "tiny.keras").write_bytes(b"")
        chosen = {"reads": PLENTY, "writes": PLENTY, "logins": PLENTY, **settings}
        self.settings = Settings(root=self.root, **chosen)
        self.ray = StandIn()
        (self.root / "headhunt.db").write_bytes(_empty_storage())
        self.restart()

    url = ""
    """The service's address, if it listens."""

    def restart(self) -> None:
        self.jobs, self.board, self.app = assemble(self.settings, self.ray, "1.2.3")
        self.http = Http(self.app)
        self.board.look()

    def submit(self, name: str = "cars", key: str | None = None, **search: Any) -> httpx.Response:
        headers = {"Content-Type": "application/yaml"} | ({"Idempotency-Key": key} if key else {})
        return self.http.post("/searches", content=yaml.safe_dump(configuration(name, **search)), headers=headers)

    def files(self, name: str = "cars", number: int = 1) -> Files:
        return job_files(self.root, name, number)

    def state(self, name: str = "cars") -> str:
        """The state of the search's last job, after a check."""
        self.board.look()
        found: str = self.http.get(f"/searches/{name}").json()["state"]
        return found

    def begin(self, name: str = "cars", number: int = 1, **changed: Any) -> bool:
        """Starts a job in the name of this process."""
        files = self.files(name, number)
        me = this_process()
        begun = {"host": me.host, "pid": me.pid, "place": me.place, "birth": me.birth, "ray_id": files.job().ray_id}
        return files.begin(Started.model_validate({**begun, "time": now(), **changed}))

    def finish(self, state: str, message: str | None = None, name: str = "cars", number: int = 1) -> None:
        self.files(name, number).write_ended(Ended.model_validate({"state": state, "message": message, "time": now()}))


def eventually(wanted: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for a condition: Ray is called in another thread."""
    until = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < until
        time.sleep(0.01)
