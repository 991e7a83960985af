"""Ports that Ray's agents are told to listen on; `python -m features.ports` is the command `ray` with what that needs.

Left to choose their own, they have to say which within 15 seconds of the start, or Ray's scheduler on the machine (raylet) ends
itself: on a machine that has much to do, importing what they need takes longer.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

PATIENCE = {"RAY_agent_register_timeout_ms": "300000"}
"""The variable of how long the scheduler then tries to reach its agents."""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, below those that Linux gives to outgoing connections and above those of Ray's workers."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 12_000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


@contextmanager
def named_ports() -> Iterator[dict[str, int]]:
    """In the block, `ray.init` of a cluster of its own names the ports of its agents; yields the option that it has for one."""
    from ray._private import parameter

    usual = parameter.RayParams
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    exported, *ports = free_ports(1 + len(names))
    parameter.RayParams = partial(usual, **dict(zip(names, ports, strict=True)))
    try:
        with _told():
            yield {"_metrics_export_port": exported}
    finally:
        parameter.RayParams = usual


@contextmanager
def _told() -> Iterator[None]:
    """In the block, a scheduler is told the port that its agent listens on for HTTP: Ray tells it all of them but that."""
    from ray._private import services

    start = services.start_ray_process

    def tell(command: list[str], *given: Any, **named: Any) -> Any:
        if command[0] == services.RAYLET_EXECUTABLE and (port := re.search(r"--listen-port=(\d+)", " ".join(command))):
            command = [*command, f"--dashboard_agent_listen_port={port[1]}"]
        return start(command, *given, **named)

    services.start_ray_process = tell
    try:
        yield
    finally:
        services.start_ray_process = start


if __name__ == "__main__":
    from ray.scripts.scripts import main

    with _told():
        main()
