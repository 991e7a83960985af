"""Ray clusters of several nodes on this machine: each node is a separate raylet that can be lost like a machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kills import descendants


class Node:
    """A node: the processes of a `ray start --block`."""

    def __init__(self, options: list[str], variables: dict[str, str], log: Path) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *options]
        with log.open("a") as said:
            self._process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=said, stderr=said)
        self.log = log

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def processes(self) -> list[tuple[int, str]]:
        """The PIDs and command lines of the node's processes."""
        return list(descendants(self._process.pid))

    def tasks(self, name: str) -> list[int]:
        """The workers that currently run a task with this name."""
        return [number for number, line in self.processes() if line.startswith(f"ray::{name}")]

    def lose(self) -> None:
        """SIGKILL to all of them. They are stopped first, so that none notices another's end or starts a process."""
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stops all of them: connections stay open and nobody answers, as when a machine loses power or its network."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, wanted: signal.Signals) -> None:
        for number, _ in self.processes():
            with suppress(ProcessLookupError):
                os.kill(number, wanted)


class Nodes:
    """A cluster, by default with a head that runs no tasks; `address` is its host:port, `dashboard` the address for Ray jobs."""

    def __init__(
        self, folder: Path, head_cpus: int, dashboard: bool, variables: dict[str, str], more: list[str]
    ) -> None:
        self._folder = folder
        self._variables = variables
        ports = _free_ports(3)
        self.address = f"127.0.0.1:{ports[0]}"
        self.dashboard = f"http://127.0.0.1:{ports[1]}"
        self._head = [
            "--head", f"--port={ports[0]}", f"--num-cpus={head_cpus}", f"--include-dashboard={str(dashboard).lower()}",
            f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}", f"--temp-dir={folder}", *more,
        ]  # fmt: skip
        self.head = self._start(self._head)
        self.workers: list[Node] = []

    @property
    def living(self) -> list[Node]:
        """The worker nodes that are not lost."""
        return [node for node in self.workers if not node.ended]

    def add(self, cpus: int = 1) -> Node:
        """Starts another node, and waits until it has joined the cluster."""
        self.workers.append(self._start([f"--address={self.address}", f"--num-cpus={cpus}"]))
        return self.workers[-1]

    def start_again(self, workers: int) -> None:
        """After the head was lost, starts a new one, without its memory, at the same address, and as many new worker nodes."""
        for node in [self.head, *self.living]:
            node.lose()
        self.head = self._start(self._head)
        for _ in range(workers):
            self.add()

    def _start(self, options: list[str]) -> Node:
        log = self._folder / f"node{len(list(self._folder.glob('node*.txt')))}.txt"
        common = [
            "--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--disable-usage-stats",
            "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
        ]  # fmt: skip
        node = Node([*options, *common], self._variables, log)
        until = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert not node.ended and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        return node


@contextmanager
def ray_nodes(
    workers: int = 2,
    head_cpus: int = 0,
    dashboard: bool = False,
    variables: dict[str, str] | None = None,
    more: tuple[str, ...] = (),
) -> Iterator[Nodes]:
    """A cluster with this many worker nodes of one core each; its processes are killed at the end of the block.

    It is in its own folder, where neither `address="auto"` nor another test's Ray finds it. The path is short because sockets are
    created below it."""
    folder = Path(tempfile.mkdtemp(prefix="nodes"))
    cluster = None
    try:
        variables = {"RAY_AUTH_MODE": "disabled", **(variables or {})}  # a token in the home folder would enable it
        cluster = Nodes(folder, head_cpus, dashboard, variables, list(more))
        for _ in range(workers):
            cluster.add()
        yield cluster
    finally:
        for node in [cluster.head, *cluster.workers] if cluster else []:
            node.lose()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
