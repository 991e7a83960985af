"""Commands as Ray jobs: submitted to a cluster, they run their tasks on it."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from tests.conftest import run_headhunt
from tests.nodes import Nodes, ray_nodes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with ray_nodes(workers=1, dashboard=True) as nodes:
        yield nodes


def submit(cluster: Nodes, folder: Path, *arguments: str) -> tuple[JobStatus, str]:
    """Runs `headhunt ARGUMENTS` as a job with its own folder and variables; returns its status and output."""
    client = JobSubmissionClient(cluster.dashboard)
    entry = shlex.join([sys.executable, "-P", "-m", "headhunt", *arguments])
    own = {"working_dir": str(folder), "env_vars": {"OMP_NUM_THREADS": "7", "TF_CPP_MIN_LOG_LEVEL": "2", "MINE": "1"}}
    job = client.submit_job(entrypoint=entry, runtime_env=own)
    until = time.monotonic() + 250
    while not client.get_job_status(job).is_terminal():
        assert time.monotonic() < until, client.get_job_logs(job)
        time.sleep(0.2)
    info = client.get_job_info(job)
    assert info.driver_info is not None, f"it has not joined the cluster: {client.get_job_logs(job)}"
    return client.get_job_status(job), client.get_job_logs(job)


def result(said: str) -> dict[str, Any]:
    return dict(json.loads(next(line for line in reversed(said.splitlines()) if line.startswith("{"))))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_joins_its_cluster_and_leaves_what_a_command_leaves(
    cluster: Nodes, searched_once: Path, tmp_path: Path
) -> None:
    raw = yaml.safe_load((searched_once / "headhunt.yaml").read_text())
    raw["workdir"] = str(tmp_path / "run")  # a job's working directory is a temporary copy
    for stage in ("features", "search"):
        raw[stage]["workers"] = {"count": 2, "cpus": 1}
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    run_headhunt(folder, "features", "prepare")
    for stage in (("features", "cache"), ("search", "run")):
        status, said = submit(cluster, folder, *stage, "--json")
        assert status == JobStatus.SUCCEEDED, said
        found = result(said)
    assert found["trials"]["complete"] == 6
    (cache,) = (tmp_path / "run" / "cache").iterdir()
    (calm,) = (searched_once / "run" / "cache").iterdir()
    shards = [path.name for path in calm.glob("*.tfrecord")]
    assert shards and all((cache / name).read_bytes() == (calm / name).read_bytes() for name in shards)
    best = result(run_headhunt(searched_once, "search", "run", "--json").stdout)["best"]
    assert found["best"] == best
