"""The life of a job according to its records, whatever happens to the service, to Ray or to the job's process."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.runtime.errors import HeadhuntError
from headhunt.service.jobs import jobs as jobs_module
from headhunt.service.jobs.records import Ended, Files, now
from tests.service.stand_in import Place, eventually


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    assert found.submit().status_code == 201
    eventually(lambda: found.ray.submitted == ["cars-1.1"] and not found.jobs._asking)
    return found


@pytest.mark.parametrize("state", ["finished", "failed", "stopped", "interrupted"])
def test_a_job_is_queued_and_running_and_over(place: Place, state: str) -> None:
    assert place.state() == "queued"
    assert place.begin()
    place.files().write_stage("cache")
    assert place.state() == "running"
    assert place.http.get("/searches/cars").json()["stage"] == "cache"
    place.finish(state, "why it ended")
    assert place.state() == state
    assert place.http.get("/searches/cars").json()["message"] == "why it ended"
    place.restart()
    assert place.state() == state


def test_a_job_whose_process_is_gone_is_interrupted(place: Place) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert place.begin(pid=gone.pid, birth="long ago")
    assert place.state() == "interrupted"
    assert place.http.get("/searches/cars").json()["message"] == (
        "its process was killed; finished work is saved and the job can be resumed"
    )


def test_a_job_elsewhere_is_interrupted_when_ray_has_not_had_it_for_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.begin(place="another machine")
    place.ray.known["cars-1.1"] = "RUNNING"
    assert place.state() == "running"
    place.ray.known["cars-1.1"] = "FAILED"
    assert place.state() == "running"
    monkeypatch.setattr(jobs_module, "GRACE_SECONDS", 0)
    assert place.state() == "interrupted"


def test_a_job_that_ray_lost_is_given_to_it_again(place: Place) -> None:
    place.ray.known.clear()
    assert place.state() == "queued"
    eventually(lambda: place.ray.submitted == ["cars-1.1", "cars-1.1"])
    for _ in range(3):
        place.board.look()
    assert len(place.ray.submitted) == 2


def test_a_job_that_ended_without_beginning_is_a_new_attempt(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ray.known["cars-1.1"] = "FAILED"
    place.board.look()
    assert place.files().job().attempt == 1
    monkeypatch.setattr(jobs_module, "GRACE_SECONDS", 0)
    place.board.look()
    eventually(lambda: place.ray.submitted == ["cars-1.1", "cars-1.2"])
    place.board.look()
    assert place.files().job().attempt == 2
    assert place.http.get("/searches/cars").json()["jobs"][0]["ray_id"] == place.ray.submission_id("cars-1.2")


def test_a_job_is_begun_once_however_many_try(place: Place) -> None:
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda number: place.begin(pid=number), range(1, 33)))
    assert won.count(True) == 1
    started = place.files().started()
    assert started is not None
    assert started.pid == won.index(True) + 1
    assert not list(place.files().folder.glob(".started*"))


def test_a_queued_job_that_is_stopped_never_begins(place: Place) -> None:
    answer = place.http.post("/searches/cars/stop")
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["message"]) == (
        "stopped",
        "stopped before it started; it can be resumed",
    )
    assert not place.begin()
    assert place.http.post("/searches/cars/resume").json()["state"] == "queued"
    eventually(lambda: place.ray.submitted == ["cars-1.1", "cars-2.1"])


def test_a_running_job_is_asked_to_stop(place: Place) -> None:
    assert place.begin()
    place.ray.known["cars-1.1"] = "RUNNING"
    assert place.http.post("/searches/cars/stop").json()["state"] == "stopping"
    eventually(lambda: place.ray.stopped[:1] == ["cars-1.1"])
    refused = place.http.post("/searches/cars/resume")
    assert refused.status_code == 409
    assert (
        "already has a stopping job (search). It is saving its state: wait until it ends, then resume it."
        in refused.json()["detail"]
    )
    place.finish("stopped")
    assert place.state() == "stopped"
    assert place.http.post("/searches/cars/stop").json()["state"] == "stopped"


@pytest.mark.parametrize("state", ["stopped", "failed", "interrupted"])
def test_resume_goes_on_with_promotions_that_did_not_finish(place: Place, state: str) -> None:
    def last() -> tuple[str, tuple[str, ...]]:
        job = place.files(number=len(place.jobs.of("cars"))).job()
        return job.kind, job.arguments

    place.begin()
    place.finish("finished")
    place.board.look()
    none = place.http.post("/searches/cars/resume?kind=promotions")
    assert none.status_code == 409
    assert none.json()["detail"].startswith("the search 'cars' has no promotions job. Start one: POST")
    promoted = place.http.post("/searches/cars/promotions", json={"top": 2})
    assert promoted.status_code == 202
    place.begin(number=2)
    place.finish(state, number=2)
    place.board.look()
    assert place.http.post("/searches/cars/resume", headers={"Idempotency-Key": "again"}).status_code == 202
    assert last() == ("promotions", ("--top", "2"))
    place.begin(number=3)
    place.finish("finished", number=3)
    place.board.look()
    assert place.http.post("/searches/cars/resume", headers={"Idempotency-Key": "again"}).status_code == 202
    assert len(place.jobs.of("cars")) == 3, "the same request, sent again"
    assert place.http.post("/searches/cars/resume").status_code == 202
    assert last() == ("search", ())
    place.http.post("/searches/cars/stop")
    assert place.http.post("/searches/cars/resume?kind=promotions").status_code == 202
    assert last() == ("promotions", ("--top", "2"))
    place.http.post("/searches/cars/stop")
    assert place.http.post("/searches/cars/resume?kind=search").status_code == 202
    assert last() == ("search", ())


def test_nothing_is_lost_while_ray_is_silent(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    place.ray.silent = True
    assert place.submit("boats").status_code == 201
    for _ in range(3):
        assert place.state("boats") == "queued"
    assert capfd.readouterr().err.count("Ray does not answer") == 1
    place.ray.silent = False
    eventually(lambda: place.state("boats") == "queued" and "boats-1.1" in place.ray.submitted)


def test_what_a_killed_service_left_half_made_is_swept(place: Place) -> None:
    left = place.root / ".boats.1.tmp" / "jobs"
    left.mkdir(parents=True)
    place.restart()
    assert not left.parent.exists()
    assert place.jobs.names() == ["cars"]


def test_the_process_of_a_job_says_why_it_failed(place: Place) -> None:
    command = [sys.executable, "-P", "-m", "headhunt.service.jobs.job", str(place.files().folder)]
    (place.root / "cars" / "headhunt.yaml").write_text("name: cars\nunheard: 1\n")
    done = subprocess.run(command, cwd=place.root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    ended = place.files().ended()
    assert ended is not None
    assert ended.state == "failed"
    assert ended.message is not None
    assert "unheard" in ended.message
    assert "unheard" in place.http.get("/searches/cars/logs").text
    again = subprocess.run(command, cwd=place.root, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0
    assert "Job cars-1.1 was already started by another process; nothing to do." in again.stdout + again.stderr


def test_a_log_is_given_byte_by_byte(place: Place) -> None:
    assert place.http.get("/searches/cars/logs").content == b""
    said = b"\xff\xfe not UTF-8 \x00\r\n" + bytes(range(256)) * 1000
    place.files().log.write_bytes(said)
    answer = place.http.get("/searches/cars/logs?job=1")
    assert answer.content == said
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    missing = place.http.get("/searches/cars/logs?job=2")
    assert (missing.status_code, missing.json()["detail"]) == (404, "the search 'cars' has no job 2; existing jobs: 1.")


def test_a_log_is_followed_until_the_job_is_over(place: Place) -> None:
    assert place.begin()
    place.files().log.write_bytes(b"one\n")
    with ThreadPoolExecutor(1) as threads:
        followed = threads.submit(place.http.get, "/searches/cars/logs?follow=true")
        with pytest.raises(TimeoutError):
            followed.result(1)
        with place.files().log.open("ab") as log:
            log.write(b"two\n")
        place.finish("finished")
        place.board.look()
        assert followed.result(10).content == b"one\ntwo\n"


def test_only_so_many_logs_are_followed(tmp_path: Path) -> None:
    place = Place(tmp_path, followers=1)
    place.submit()
    assert place.begin()
    follow = "/searches/cars/logs?follow=true"
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(place.http.get, follow) for _ in range(3)]
        try:
            eventually(lambda: sum(one.done() for one in asked) == 2)
            refused = [one.result() for one in asked if one.done()]
            assert [answer.status_code for answer in refused] == [503, 503]
            assert refused[0].json()["detail"] == (
                "the maximum of 1 logs are being followed already. Read this one without `follow`."
            )
            assert place.http.get("/searches/cars/logs").status_code == 200
        finally:  # the threads end with the job
            place.finish("finished")
            place.board.look()
        assert {one.result(10).status_code for one in asked} == {200, 503}
    assert place.http.get(follow).status_code == 200  # a finished reader frees a place


def test_what_was_said_first_of_a_jobs_end_stands(place: Place) -> None:
    assert place.begin()
    place.finish("finished")
    stands = place.files().write_ended(Ended(state="interrupted", message="a later word", time=now()))
    assert stands == place.files().ended()
    assert (stands.state, place.state()) == ("finished", "finished")
    assert not list(place.files().folder.glob(".ended*"))


def test_the_other_jobs_are_looked_after_when_the_end_of_one_cannot_be_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    place.submit("boats")
    for name in ("cars", "boats"):
        assert place.begin(name, pid=gone.pid, birth="long ago")
    write = Files.write_ended

    def full(files: Files, ended: Ended) -> Ended:
        if "cars" in files.folder.parts:
            raise HeadhuntError("cannot write ended.json: No space left on device.")
        return write(files, ended)

    with monkeypatch.context() as patched:
        patched.setattr(Files, "write_ended", full)
        assert place.state("boats") == "interrupted"
        assert place.state("cars") == "queued"  # the last known state
    assert "job 1 of the search 'cars': cannot write ended.json" in capfd.readouterr().err
    assert place.state("cars") == "interrupted"


def test_a_full_disk_does_not_hold_a_job_up() -> None:
    """A full pipe that nobody reads blocks its writer."""
    script = (
        "from pathlib import Path\nfrom headhunt.service.jobs.job import _logged\n"
        "with _logged(Path('/dev/full')):\n    print('x' * 300_000, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout + done.stderr == "x" * 300_000 + "\n"


def test_what_is_submitted_one_after_the_other_reaches_ray_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long Ray takes for the first."""
    place = Place(tmp_path)
    take = place.ray.submit
    slow = {"a-1.1": 0.2, "b-1.1": 0.1}

    def submit(ray_id: str, folder: Path) -> None:
        time.sleep(slow.get(ray_id, 0))
        take(ray_id, folder)

    monkeypatch.setattr(place.ray, "submit", submit)
    for name in "abc":
        assert place.submit(name).status_code == 201
    eventually(lambda: len(place.ray.submitted) >= 3 and not place.jobs._asking)
    assert place.ray.submitted == ["a-1.1", "b-1.1", "c-1.1"]
    assert place.jobs.names() == ["c", "b", "a"]
    place.ray.known.clear()  # a restarted Ray
    place.ray.submitted.clear()
    place.board.look()
    eventually(lambda: len(place.ray.submitted) >= 3 and not place.jobs._asking)
    assert place.ray.submitted == ["a-1.1", "b-1.1", "c-1.1"]
