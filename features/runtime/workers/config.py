"""The section `workers` of every stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from features.runtime.section import Section


class Workers(Section):
    """How many workers a stage uses, and what each is given."""

    executor: Literal["auto", "ray", "local"] = Field(
        "auto",
        description="auto: processes of this machine, or Ray where a cluster is named by address or RAY_ADDRESS; ray: Ray, here "
        "or on a cluster; local: in this process",
    )
    count: int = Field(1, ge=1)
    cpus: float | None = Field(
        None, gt=0, description="cores for each worker; default: an equal share of this machine's"
    )
    gpus: float = Field(0, ge=0, description="GPUs for each worker; fractions are allowed")
    address: str | None = Field(
        None,
        description="a Ray cluster to join, e.g. `auto` or ray://head:10001; default: RAY_ADDRESS, or else this machine alone",
    )
