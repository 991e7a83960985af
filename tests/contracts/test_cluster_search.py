"""The search of examples/cluster, its RayJob, and the page that walks through it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from features.run_file import load, validate
from features.runtime.configfile import merged
from headhunt.service.jobs.admission import admit, parse
from headhunt.service.settings import Settings
from reports.config import Run
from tests.contracts.cluster_files import (
    CLUSTERS,
    HERE,
    RAY_JOB,
    README,
    ROOT,
    SEARCH,
    SERVES,
    WORK,
    parsed,
)


def test_the_service_takes_the_search(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, storage=parsed(SERVES[0])["storage"])
    admitted = admit(parse(SEARCH.read_bytes(), is_json=False), settings)
    assert admitted.run.search.storage == settings.storage
    assert admitted.run.name in README


@pytest.mark.parametrize("file", CLUSTERS)
def test_every_stage_of_the_search_fits_the_cluster(file: str) -> None:
    run = load(Run, SEARCH)
    groups = CLUSTERS[file]["workerGroupSpecs"]
    limits = [
        (group["replicas"], group["template"]["spec"]["containers"][0]["resources"]["limits"]) for group in groups
    ]
    cpus, gpus = (sum(count * int(limit[key]) for count, limit in limits) for key in ("cpu", "nvidia.com/gpu"))
    assert gpus == 8
    for workers in (run.features.workers, run.search.workers, run.promotion_workers):
        assert workers.cpus is not None  # by default a share of the head's
        assert workers.count * workers.gpus == gpus
        assert workers.count * workers.cpus <= cpus
        assert workers.gpus <= max(int(limit["nvidia.com/gpu"]) for _, limit in limits)
    assert run.search.generation >= run.search.workers.count * (run.search.lanes or 64)
    assert all(group["minReplicas"] == group["replicas"] == group["maxReplicas"] for group in groups)


def test_the_ray_job_runs_the_same_search_in_the_work_directory() -> None:
    given = parsed(shlex.split(RAY_JOB["spec"]["entrypoint"]))
    assert given["config"] == Path(WORK) / SEARCH.name
    run = validate(Run, merged(SEARCH, given["set_"]), "the job's")
    assert run.workdir.is_relative_to(WORK)
    assert str(run.dataset.root) == f"{WORK}/{load(Run, SEARCH).dataset.root}"
    assert run.search.storage == parsed(SERVES[0])["storage"]


def test_what_the_page_names_exists() -> None:
    for link in re.findall(r"\]\(([\w.]+)\)", README):
        assert (HERE / link).exists(), link
    for path in re.findall(r"(?<![\w/])(examples/[\w./-]+)", README):
        assert (ROOT / path).exists() or path.startswith("examples/cluster/secrets/"), path
    for file in HERE.iterdir():
        if file.is_file() and file.suffix in (".yml", ".yaml", ".py"):
            assert f"]({file.name})" in README, file.name


def test_the_pages_numbers_are_those_of_the_configuration() -> None:
    run = load(Run, SEARCH)
    photos, training = 16185, 10520
    views = photos + run.features.copies * training
    assert README.count(f"{views:,}") == 3
    assert run.features.pooling == "avg+max+covariance:64"
    numbers = 2048 + 2048 + 64 * 65 // 2  # of ResNet101V2's 2,048 channels, and the upper triangle of a covariance
    assert f"× {numbers:,} numbers × 2 bytes × 1.02 = {views * numbers * 2 * 1.02 / 1e9:.2f} GB" in README
    assert f"{run.search.trials:,} / (60 × *s*)" in README
    assert f"{run.train.top} / 8 × {run.train.finetune.epochs} × *p*" in README
    assert README.count(f"{run.features.images_per_shard} photos") == 2
    for workers in (run.features.workers, run.search.workers, run.promotion_workers):
        assert f"`{{count: {workers.count}, gpus: {workers.gpus:g}, cpus: {workers.cpus:g}}}`" in README
    assert f"`generation: {run.search.generation}`, `lanes: {run.search.lanes}`" in README
