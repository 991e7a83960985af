"""The GPUs that JAX finds on this machine. JAX trains on them, and by default silently falls back to the CPU without them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from functools import lru_cache

from features.runtime.errors import UsageError

COUNT = "import jax; print(len(jax.local_devices(backend='gpu')))"

SECONDS = 120
"""Timeout for JAX to find GPUs."""


def check_gpus(wanted: float) -> None:
    """Raises UsageError when a worker needs more GPUs than JAX finds here."""
    found = len(find_gpus())
    if found < math.ceil(wanted):
        raise UsageError(
            f"each worker needs {wanted:g} GPU{'' if wanted <= 1 else 's'} (`workers.gpus`), but JAX finds "
            f"{found or 'none'} on this machine. Install JAX for GPUs (`pip install 'headhunt[gpu]'`) and a driver, or set "
            f"`workers.gpus: {found}`."
        )


@lru_cache(maxsize=1)
def find_gpus() -> tuple[str, ...]:
    """The GPUs that JAX finds, as named in CUDA_VISIBLE_DEVICES. A subprocess looks, so this process touches no GPU."""
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    looked = subprocess.run(
        [sys.executable, "-P", "-c", COUNT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    count = int(looked.stdout) if looked.returncode == 0 else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count] if len(named) >= count else map(str, range(count)))
