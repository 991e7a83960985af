"""What Headhunt uses of Ray beyond its public interface, all in one place.

`tests/features/test_internals.py` says which of these has changed in another version of Ray.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

IDLE = 4
"""Why an autoscaler took a node away that had nothing to do (NodeDeathInfo in Ray's gcs.proto)."""


class Node(NamedTuple):
    """A node that the cluster has or had."""

    number: str
    address: str
    alive: bool
    idle: bool
    """Whether an autoscaler took it away because it had nothing to do."""
    resources: dict[str, float]


class OwnNode(NamedTuple):
    """Where this driver's part of the cluster answers."""

    raylet_socket: str
    gcs_address: str


def own_node() -> OwnNode | None:
    """The node that this driver is on; None for a ray:// client."""
    from ray._private import worker

    node = worker._global_node
    return None if node is None else OwnNode(node.raylet_socket_name, node.gcs_address)


def all_nodes(seconds: float) -> list[Node] | None:
    """All nodes, those that are gone too; None when the head does not say in time.

    `ray.nodes()` would wait for a head without end, deaf to Ctrl-C.
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
    """Gives what Ray prints for a driver to this function instead."""
    from ray._private import worker

    worker.print_to_stdstream = say


def kill_half_started(error: Exception) -> None:
    """Ends the processes of a node whose start raised this error; Ray itself would do so when this process ends."""
    from ray._private.node import Node as RayNode

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, RayNode):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            return
