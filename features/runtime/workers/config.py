"""The section `workers` of every stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from features.runtime.section import Section


class Workers(Section):
    """How many workers a stage uses, and the resources of each."""

    executor: Literal["auto", "ray", "local"] = Field(
        "auto",
        description="auto: processes on this machine, or Ray if `address` or RAY_ADDRESS names a cluster; ray: Ray, on this "
        "machine or a cluster; local: in this process",
    )
    count: int = Field(1, ge=1)
    cpus: float | None = Field(
        None, gt=0, description="cores per worker; default: an equal share of this machine's cores"
    )
    gpus: float = Field(0, ge=0, description="GPUs per worker; fractions are allowed")
    address: str | None = Field(
        None,
        description="a Ray cluster to join, e.g. `auto` or ray://head:10001; default: RAY_ADDRESS, otherwise only this machine",
    )
