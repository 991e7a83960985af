"""The commands as clients of a service whose Ray is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from features.atomic import make_folder
from features.processes import this_process
from reports.service.records import Ended, Started, job_files, now
from tests.service.in_process import served
from tests.service.serving import HEADHUNT, TOKEN
from tests.service.stand_in import eventually


@pytest.mark.parametrize(
    ("state", "message", "status", "said"),
    [("finished", None, 0, ""), ("failed", "the disk is full", 1, "cars: failed. the disk is full")],
)
def test_a_search_is_followed_to_its_end(
    state: str, message: str | None, status: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "headhunt.yaml").write_text(yaml.safe_dump({"name": "cars", "dataset": {"kind": "toy_cars"}}))
    with served(make_folder(tmp_path / "root")) as service:
        environment = {**os.environ, "HEADHUNT_URL": str(service.http.base_url), "HEADHUNT_TOKEN": TOKEN}
        command = [HEADHUNT, "submit", "--follow", "--json"]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as client:
            eventually(lambda: service.ray.submitted == ["cars-1.1"], 30)
            files, me = job_files(service.root, "cars", 1), this_process()
            files.log.write_text("features prepare\n")
            files.begin(
                Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id="cars-1.1", time=now())
            )
            files.write_ended(Ended.model_validate({"state": state, "message": message, "time": now()}))
            service.board.look()
            result, log = client.communicate(timeout=60)
    assert client.returncode == status, log
    assert json.loads(result)["state"] == state
    assert "features prepare" in log and said in log and "Traceback" not in log
