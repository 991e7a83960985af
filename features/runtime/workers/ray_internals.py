"""All uses of Ray's private API.

`tests/features/test_internals.py` shows which of them changed in a new version of Ray.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

IDLE = 4
"""Death reason of a node that an autoscaler removed because it was idle (NodeDeathInfo in Ray's gcs.proto)."""


class Node(NamedTuple):
    """A node that the cluster has or had."""

    number: str
    address: str
    alive: bool
    idle: bool
    """Whether an autoscaler removed it because it was idle."""
    resources: dict[str, float]


class OwnNode(NamedTuple):
    """Addresses of this driver's node: its raylet's socket and the cluster's head (GCS)."""

    raylet_socket: str
    gcs_address: str


def own_node() -> OwnNode | None:
    """The node that this driver is on; None for a ray:// client."""
    from ray._private import worker

    node = worker._global_node
    return None if node is None else OwnNode(node.raylet_socket_name, node.gcs_address)


def all_nodes(seconds: float) -> list[Node] | None:
    """All nodes, including lost ones; None when the head does not answer in `seconds`.

    `ray.nodes()` would wait for the head forever, ignoring Ctrl-C.
    """
    import ray
    from ray._private import worker
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.exceptions import RayError

    if own_node() is None:
        return [
            Node(n["NodeID"], n["NodeManagerAddress"], n["Alive"], n.get("DeathReason") == IDLE, n["Resources"])
            for n in ray.nodes()
        ]
    try:
        found = worker.global_worker.gcs_client.get_all_node_info(timeout=seconds)
    except RayError:
        return None
    return [
        Node(
            number.hex(), info.node_manager_address, info.state == GcsNodeInfo.ALIVE, info.death_info.reason == IDLE,
            dict(info.resources_total),
        )
        for number, info in found.items()
    ]  # fmt: skip


def print_messages_with(say: Callable[[dict[str, Any], bool], None]) -> None:
    """Routes what Ray prints in a driver to this function instead."""
    from ray._private import worker

    worker.print_to_stdstream = say


def kill_half_started(error: Exception) -> None:
    """Kills the processes of a node whose start raised this error. Ray itself would do so only when this process ends."""
    from ray._private.node import Node as RayNode

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, RayNode):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            return
