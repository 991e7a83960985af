"""A node of a Ray cluster is lost in each stage: the command continues, with the result of an undisturbed run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.conftest import run_headhunt
from tests.features.test_kills import contents, finished, index_noise
from tests.nodes import Node, Nodes, ray_nodes
from tests.search.test_search_kills import COMMAND, everything, forget

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


LOST = re.compile(r"The Ray cluster lost (?:a|(\d+)) nodes? \([0-9.]+\); tasks that ran there will be retried\.")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with ray_nodes(workers=2) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """A head that runs no tasks, and two live nodes of one core each."""
    while len(cluster.living) < 2:
        cluster.add()
    return cluster


def start(nodes: Nodes, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command whose stage has two workers on the cluster; its output goes to said.txt."""
    command = [str(Path(sys.executable).with_name("headhunt")), *arguments]
    for setting in (f"address={nodes.address}", "executor=ray", "count=2", "cpus=1"):
        command += ["--set", f"{arguments[0]}.workers.{setting}"]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            command, cwd=folder, env=environment, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=said
        )


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()


def wait(process: subprocess.Popen[str], folder: Path, until: Callable[[], Any], what: str) -> None:
    last = time.monotonic() + 150
    while not until():
        assert process.poll() is None, f"the process ended before {what}: {said(folder)}"
        assert time.monotonic() < last, f"not in time: {what}: {said(folder)}"
        time.sleep(0.02)


def stopped_at_work(nodes: Nodes, task: str) -> Node | None:
    """A node that was frozen while it ran a task with this name."""
    for node in nodes.living:
        if node.tasks(task):
            node.freeze()
            if node.tasks(task):
                return node
            node.thaw()
    return None


def lose_one(nodes: Nodes, process: subprocess.Popen[str], folder: Path, task: str) -> None:
    """Kills a node while it runs a task with this name."""
    found: list[Node] = []
    wait(process, folder, lambda: found or found.extend(filter(None, [stopped_at_work(nodes, task)])), f"a {task} runs")
    found[0].lose()


def end(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """Waits until the command has succeeded; its `--json` object."""
    printed, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said(folder)
    assert "Traceback" not in said(folder)
    assert len(printed.splitlines()) == 1, f"more on standard output than the result: {printed}"
    return dict(json.loads(printed))


def assert_told_once(folder: Path) -> None:
    """One line, or none if the run ended before the cluster's head declared the node dead, which takes 15 seconds."""
    lines = [line for line in said(folder).splitlines() if "node" in line or "Ray" in line]
    assert len(lines) <= 1, said(folder)
    assert all(LOST.fullmatch(line) for line in lines), lines


@pytest.fixture
def indexed(tmp_path: Path, tiny_backbone: Path) -> Path:
    return index_noise(tmp_path, tiny_backbone)


@pytest.fixture
def unsearched(searched_once: Path, tmp_path: Path) -> Path:
    """headhunt.yaml and the cache, without a study."""
    shutil.copytree(searched_once, tmp_path / "search")
    forget(tmp_path / "search" / "run")
    return tmp_path / "search"


def test_a_node_is_lost_while_the_cache_is_built(nodes: Nodes, indexed: Path) -> None:
    run_headhunt(indexed, "features", "prepare", "--set", "workdir=calm")
    run_headhunt(indexed, "features", "cache", "--executor", "local", "--set", "workdir=calm")
    process = start(nodes, indexed, "features", "cache", "--json")
    wait(process, indexed, lambda: finished(indexed), "a shard is written")
    lose_one(nodes, process, indexed, "write_block")
    before = finished(indexed)
    result = end(process, indexed)
    assert len(before) < result["shards_written"], "it was through when the node was lost"
    assert contents(indexed / "run") == contents(indexed / "calm")
    assert_told_once(indexed)


def test_a_node_is_lost_during_a_search(nodes: Nodes, unsearched: Path, tmp_path: Path) -> None:
    shutil.copytree(unsearched, tmp_path / "calm")
    run_headhunt(tmp_path / "calm", *COMMAND)
    process = start(nodes, unsearched, *COMMAND)
    wait(process, unsearched, lambda: list(unsearched.glob("run/trials/*/curves.csv")), "a trial is through")
    lose_one(nodes, process, unsearched, "train_trials")
    assert end(process, unsearched)["ended"] == "trials"
    assert everything(unsearched / "run") == everything(tmp_path / "calm" / "run")
    assert_told_once(unsearched)


def test_a_node_is_lost_while_two_trials_are_promoted(nodes: Nodes, searched_once: Path, tmp_path: Path) -> None:
    folder, calm = tmp_path / "promote", tmp_path / "calm"
    shutil.copytree(searched_once, folder)
    raw = yaml.safe_load((folder / "headhunt.yaml").read_text())
    phases = [
        {"unfreeze": "head", "epochs": 40, "learning_rate": 1e-3},
        {"unfreeze": 1, "epochs": 40, "learning_rate": 1e-3},
    ]
    raw["train"] = {"top": 2, "finetune": {"batch_size": 4, "phases": phases}, "workers": {"executor": "local"}}
    (folder / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    shutil.copytree(folder, calm)
    undisturbed = json.loads(run_headhunt(calm, "train", "promote", "--json").stdout.splitlines()[-1])["promotions"]
    process = start(nodes, folder, "train", "promote", "--json")

    def under_way() -> bool:
        histories = list(folder.glob("run/promotions/*/history.csv"))
        return len(histories) == 2 and all(len(path.read_text().splitlines()) > 5 for path in histories)

    wait(process, folder, under_way, "both promotions have had some epochs")
    lose_one(nodes, process, folder, "promote_trial")
    promoted = end(process, folder)["promotions"]
    for mine, other in zip(promoted, undisturbed, strict=True):
        assert mine["trial"] == other["trial"]
        assert {**mine["tuned"], **mine["frozen"]} == pytest.approx({**other["tuned"], **other["frozen"]}, rel=1e-5)
        history, expected = (
            pd.read_csv(root / row["folder"] / "history.csv") for root, row in ((folder, mine), (calm, other))
        )
        columns = [name for name in expected if name != "seconds"]
        pd.testing.assert_frame_equal(history[columns], expected[columns], rtol=1e-5)
    assert_told_once(folder)


def test_without_nodes_a_search_waits_and_says_so_and_goes_on_with_a_new_one(
    nodes: Nodes, unsearched: Path, tmp_path: Path
) -> None:
    shutil.copytree(unsearched, tmp_path / "calm")
    run_headhunt(tmp_path / "calm", *COMMAND)
    process = start(nodes, unsearched, *COMMAND)
    wait(process, unsearched, lambda: list(unsearched.glob("run/trials/*/curves.csv")), "a trial is through")
    lose_one(nodes, process, unsearched, "train_trials")
    for node in nodes.living:
        node.lose()
    waits = "Each worker needs 1 CPU, but the Ray cluster's nodes have at most 0 CPUs."
    wait(process, unsearched, lambda: waits in said(unsearched), "it says that tasks wait")
    assert sum(int(count or 1) for count in LOST.findall(said(unsearched))) == 2
    nodes.add()
    wait(
        process, unsearched, lambda: "The Ray cluster now has a node for the tasks" in said(unsearched), "it continues"
    )
    assert end(process, unsearched)["ended"] == "trials"
    assert everything(unsearched / "run") == everything(tmp_path / "calm" / "run")
    assert said(unsearched).count(waits) == 1


def test_a_task_too_large_for_every_node_waits_and_can_be_interrupted(nodes: Nodes, unsearched: Path) -> None:
    process = start(nodes, unsearched, *COMMAND, "--set", "search.workers.gpus=1")
    waits = "Each worker needs 1 CPU and 1 GPU, but the Ray cluster's nodes have at most 1 CPU and 0 GPUs."
    wait(process, unsearched, lambda: waits in said(unsearched), "it says that tasks wait")
    assert "press Ctrl-C and lower `workers.cpus` or `workers.gpus`." in said(unsearched)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130, said(unsearched)
    assert "interrupted; finished work is saved" in said(unsearched)
    assert "Traceback" not in said(unsearched)
