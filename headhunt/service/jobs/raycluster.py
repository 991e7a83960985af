"""The service's interface to Ray: a job server that queues, runs and stops jobs, and a private Ray if no address is given."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.runtime.atomic import write_text
from features.runtime.commands.stages import end_with_parent
from features.runtime.errors import LostError
from features.runtime.log import log

SLOT = "headhunt_jobs"
"""Custom resource of which each job takes one, on a cluster that defines it; further jobs wait in Ray's queue."""

STOP_SECONDS = 60
"""How long a stopped job has to save its state, on a Ray that the service starts."""

QUEUE_SECONDS = 10 * 365 * 86400
"""How long a job may wait in the queue, on a Ray that the service starts."""

START_SECONDS = 300
"""Timeout for a Ray that the service starts to come up."""

NODE_TIMEOUT_MESSAGE = "timed out during startup"
"""Part of Ray's message when the head exits because its node took longer than Ray's 30 s limit; starting again may help."""

ANSWER_SECONDS = (10, 60)
"""Timeouts to connect to Ray's job server and to read its answer: Ray's own client would wait forever."""

PREFIX = "headhunt-ray-"
"""Prefix of the folder of a Ray that the service starts."""


class RayJobs:
    """Ray's job server at an address, for the jobs of one root. Methods that contact it raise LostError if it does not answer."""

    def __init__(self, address: str, root: Path) -> None:
        self.address = address.rstrip("/")
        self._root, self._suffix = root, "-" + hashlib.sha256(str(root).encode()).hexdigest()[:8]
        self._client: Any = None
        self._slots: bool | None = None

    def statuses(self) -> dict[str, str]:
        """The status (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED) of every job of this root that Ray knows, by `Job.ray_id`."""

        def listed(client: Any) -> dict[str, str]:
            known = {job.submission_id or "": str(job.status.value) for job in client.list_jobs()}
            return {
                name.removesuffix(self._suffix): status for name, status in known.items() if name.endswith(self._suffix)
            }

        found: dict[str, str] = self._ask(listed)
        return found

    def submission_id(self, ray_id: str) -> str:
        """The id of a job in Ray: the suffix separates it from searches of the same name in other roots on the same Ray."""
        return ray_id + self._suffix

    def submit(self, ray_id: str, folder: Path) -> None:
        """Submits a job to Ray; no effect if Ray already has it."""
        program = [sys.executable, "-P", "-m", "headhunt.service.jobs.job", str(folder)]
        entrypoint = f"cd {shlex.quote(str(self._root))} && exec {shlex.join(program)}"

        def give(client: Any) -> None:
            resources = {SLOT: 1.0} if self._has_slots() else None
            try:
                client.submit_job(
                    entrypoint=entrypoint, submission_id=self.submission_id(ray_id), entrypoint_resources=resources
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise

        self._ask(give)

    def stop(self, ray_id: str) -> None:
        """Stops a job: SIGTERM, then SIGKILL after Ray's grace period."""

        def end(client: Any) -> None:
            try:
                client.stop_job(self.submission_id(ray_id))
            except RuntimeError as error:
                if "does not exist" not in str(error):
                    raise

        self._ask(end)

    def _has_slots(self) -> bool:
        """Whether any node of the cluster defines SLOT; queried once."""
        if self._slots is None:
            import requests
            from ray.dashboard.modules.dashboard_sdk import get_auth_headers_if_auth_enabled

            headers = get_auth_headers_if_auth_enabled({})
            answer = requests.get(f"{self.address}/api/v0/nodes?detail=true", headers=headers, timeout=30)
            answer.raise_for_status()
            nodes = answer.json()["data"]["result"]["result"]
            if not nodes:
                raise LostError(f"the Ray cluster at {self.address} has no nodes yet")
            self._slots = any(SLOT in node["resources_total"] for node in nodes)
        return self._slots

    def _ask(self, question: Any) -> Any:
        import requests
        from ray.exceptions import RayError

        try:
            self._client = self._client or _client(self.address)
            return question(self._client)
        except (ConnectionError, requests.RequestException, RayError, RuntimeError, ValueError, OSError) as error:
            self._client = None
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise LostError(f"Ray's job server at {self.address} does not answer: {said[0]}") from error


def _client(address: str) -> Any:
    """Ray's job client, with timeouts."""
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(*arguments, **{"timeout": ANSWER_SECONDS, **options})

    return Client(address)


class OwnRay:
    """A private Ray head on this machine, on loopback and with its own token; it ends with this process.

    `keep` restarts it if it has died. The token exists only in the environment of this process and of Ray's processes.
    """

    def __init__(self, root: Path, jobs: int) -> None:
        self._root, self._jobs = root, jobs
        note = root / ".ray"
        if note.is_file():  # left by a killed service, whose Ray ended with it
            left = note.read_text().strip()
            if re.fullmatch(PREFIX + r"\w+", left):
                shutil.rmtree(Path("/tmp") / left, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))  # socket paths must be short
        write_text(note, self._folder.name + "\n")
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        self.port = _free_port()
        self._head: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The address of its job server."""
        return f"http://127.0.0.1:{self.port}"

    def keep(self) -> None:
        """Starts Ray, or restarts it if it has died; LostError if it does not come up."""
        if self._head is not None and self._head.poll() is None:
            return
        if self._head is not None:
            log.print("Ray has died; restarting it.", style="yellow")
        jobs, until = RayJobs(self.address, self._root), time.monotonic() + START_SECONDS
        head = self._start()
        while True:
            try:
                jobs.statuses()
                return
            except LostError as error:
                ended = head.poll() is not None
                said_last = (self._folder / "ray.log").read_text(errors="replace").strip().splitlines()[-1:]
                said = " ".join(said_last)
                if time.monotonic() > until or (ended and NODE_TIMEOUT_MESSAGE not in said):
                    raise LostError(f"Ray did not start: {(ended and said) or error}") from error
                if ended:
                    log.print("Ray did not come up in time; restarting it.", style="yellow")
                    head = self._start()
                time.sleep(0.5)

    def _start(self) -> subprocess.Popen[bytes]:
        options = {
            "--port": str(_free_port()),
            "--node-ip-address": "127.0.0.1",
            "--dashboard-host": "127.0.0.1",
            "--dashboard-port": str(self.port),
            "--dashboard-agent-listen-port": str(_free_port()),
            "--ray-client-server-port": str(_free_port()),
            "--temp-dir": str(self._folder),
            "--resources": f'{{"{SLOT}": {self._jobs}}}',
        }
        program = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        arguments = [part for option in options.items() for part in option]
        with (self._folder / "ray.log").open("ab") as said:
            self._head = subprocess.Popen(
                [*program, "--include-dashboard=true", "--disable-usage-stats", *arguments],
                env={**os.environ, **_environment()},
                stdout=said,
                stderr=said,
                process_group=0,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )
        return self._head

    def end(self) -> None:
        """Stops Ray and everything that it runs."""
        if self._head is not None and self._head.poll() is None:
            self._head.send_signal(signal.SIGTERM)
            try:
                self._head.wait(20)
            except subprocess.TimeoutExpired:
                self._head.kill()
                self._head.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment() -> Mapping[str, str]:
    return {
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
        "RAY_JOB_START_TIMEOUT_SECONDS": str(QUEUE_SECONDS),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
