"""Whether the Ray cluster under a run still lives.

Left to itself, Ray waits for a scheduler that is gone, and ends the driver's process without a word a minute after the cluster's
head went away. So a driver looks for itself whenever it waits.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from features.errors import LostError

PATIENCE = 20.0
"""Seconds for which the head of a cluster may be away (it may be restarted elsewhere); Ray's own limit is 60."""


class Cluster:
    """The cluster that this process has joined; `own` when it was started by this process and for it."""

    def __init__(self, own: bool) -> None:
        self._own = own
        self._away_since: float | None = None
        self.is_lost = False

    def check(self) -> None:
        """LostError when the cluster is gone."""
        node = _node()
        if node is None:  # a ray:// client, whose calls raise ConnectionError
            return
        if not _answers(socket.AF_UNIX, node.raylet_socket_name):
            self._lose("its scheduler on this machine (raylet) has ended")
        host, _, port = node.gcs_address.rpartition(":")
        if _answers(socket.AF_INET6 if ":" in host else socket.AF_INET, (host.strip("[]"), int(port))):
            self._away_since = None
            return
        now = time.monotonic()
        self._away_since = self._away_since or now
        if self._own or now - self._away_since > PATIENCE:
            self._lose(f"its head (gcs_server at {node.gcs_address}) has ended")

    def _lose(self, what: str) -> None:
        self.is_lost = True
        raise LostError(f"the Ray cluster is gone: {what}. What is finished is saved.")


def _node() -> Any:
    from ray._private import worker

    return worker._global_node


def _answers(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
