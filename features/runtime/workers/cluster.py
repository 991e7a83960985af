"""A driver's view of its Ray cluster: whether it is alive, which nodes it lost, and whether any node can run the tasks.

Ray by itself waits forever for a dead scheduler, silently ends the driver a minute after the cluster's head died, and silently
queues tasks that no node can run. So a driver checks the cluster itself whenever it waits.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

from features.runtime.errors import LostError
from features.runtime.log import log
from features.runtime.workers.ray_internals import Node, all_nodes, own_node, print_messages_with

PATIENCE = 20.0
"""Seconds the cluster's head may be unreachable (it may be restarting elsewhere); Ray's own limit is 60."""

LOOK_SECONDS = 5.0
"""Seconds between checks of the nodes."""

ANSWER_SECONDS = 5.0
"""Timeout for the head's list of nodes."""

REMIND_SECONDS = 600.0
"""Seconds between reminders that tasks are waiting for a node."""

SUPPRESSED_MESSAGES = ("has been marked dead", "node it was running on is dead")
"""Fragments of Ray's own messages about lost nodes, suppressed because `Cluster.look` reports them."""


class Cluster:
    """The cluster that this process has joined; `own` if this process started it for itself.

    `cpus` and `gpus` are what one task needs, all on one node.
    """

    def __init__(self, own: bool, cpus: float = 0, gpus: float = 0) -> None:
        self._own = own
        self._needs = {"CPU": cpus, "GPU": gpus}
        self._away_since: float | None = None
        self._looked: float | None = None
        self._waits_since: float | None = None
        self._reminded = 0.0
        self.is_lost = False
        self.lost_nodes: frozenset[str] = frozenset()
        """Nodes known to be lost."""

    def check(self) -> None:
        """Raises LostError when the cluster is gone."""
        node = own_node()
        if node is None:  # a ray:// client, whose calls raise ConnectionError
            return
        if not _answers(socket.AF_UNIX, node.raylet_socket):
            self._lose("its scheduler on this machine (raylet) died")
        host, _, port = node.gcs_address.rpartition(":")
        if _answers(socket.AF_INET6 if ":" in host else socket.AF_INET, (host.strip("[]"), int(port))):
            self._away_since = None
            return
        now = time.monotonic()
        self._away_since = self._away_since or now
        if self._own or now - self._away_since > PATIENCE:
            self._lose(f"its head (gcs_server at {node.gcs_address}) is down")

    def look(self, now: bool = False) -> None:
        """Logs nodes lost since the last check, and when tasks start and stop waiting for a node that can run them.

        Checks at most every LOOK_SECONDS, unless `now`.
        """
        if self._own or self._away_since is not None:
            return
        if not now and self._looked is not None and time.monotonic() - self._looked < LOOK_SECONDS:
            return
        nodes = all_nodes(ANSWER_SECONDS)
        if nodes is None:
            return
        lost = {node.number: node for node in nodes if not node.alive}
        new = [node for number, node in lost.items() if number not in self.lost_nodes and not node.idle]
        if new and self._looked is not None:
            _log_lost(new)
        self.lost_nodes |= frozenset(lost)
        self._looked = time.monotonic()
        self._log_waiting([node for node in nodes if node.alive])

    def _log_waiting(self, nodes: list[Node]) -> None:
        now = time.monotonic()
        if any(all(node.resources.get(name, 0) >= need for name, need in self._needs.items()) for node in nodes):
            if self._waits_since is not None:
                log.print(f"The Ray cluster now has a node for the tasks, after {now - self._waits_since:.0f} s.")
            self._waits_since = None
        elif self._waits_since is None or now - self._reminded > REMIND_SECONDS:
            self._waits_since = self._waits_since or now
            self._reminded = now
            wanted = {name: need for name, need in self._needs.items() if need}
            most = {name: max((node.resources.get(name, 0) for node in nodes), default=0) for name in wanted}
            keys = " or ".join(f"`workers.{name.lower()}s`" for name in wanted)
            log.print(
                f"Each worker needs {_amounts(wanted)}, but the Ray cluster's nodes have at most "
                f"{_amounts(most)}. "
                f"Tasks wait until a larger node joins. If none will, press Ctrl-C and lower {keys}.",
                style="yellow",
            )

    def _lose(self, what: str) -> None:
        self.is_lost = True
        raise LostError(f"the Ray cluster is gone: {what}. Finished work is saved.")


def shorten_ray() -> None:
    """Shortens Ray's messages to one line each, on standard error. By default they are paragraphs on standard output."""

    def say(data: dict[str, Any], ignore_prefix: bool) -> None:
        for text in data["lines"]:
            if not any(known in text for known in SUPPRESSED_MESSAGES):
                log.print(f"Ray: {text.strip().splitlines()[0][:300]}")

    print_messages_with(say)


def _log_lost(nodes: list[Node]) -> None:
    where = ", ".join(sorted({node.address for node in nodes}))
    what = "a node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    log.print(f"The Ray cluster lost {what} ({where}); tasks that ran there will be retried.", style="yellow")


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in resources.items())


def _answers(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
