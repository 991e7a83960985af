"""Downloads from a search's folder: logs and exports."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from headhunt.service.http.dashboard import Pictures
from headhunt.service.jobs.downloads import download
from headhunt.service.jobs.records import Ended, job_files, now
from tests.service.in_process import Served, served
from tests.service.stand_in import eventually


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a finished search `cars` that has an export."""
    with served(tmp_path_factory.mktemp("root")) as service:
        fill(service)
        yield service


def fill(service: Served) -> None:
    assert service.http.post("/searches", json={"name": "cars", "dataset": {"kind": "toy_cars"}}).status_code == 201
    folder = service.root / "cars" / "exports" / "1"
    folder.mkdir(parents=True)
    for name in ("model.keras", "headhunt.yaml", "optuna.json", "keras_tuner.json"):
        (folder / name).write_text("some weights")
    files = job_files(service.root, "cars", 1)
    files.log.write_bytes(b"a log with \xff in it\n")
    files.write_ended(Ended(state="finished", message=None, time=now()))
    service.board.look()


def test_a_log_is_given_as_it_is(service: Served) -> None:
    answer = service.http.get("/searches/cars/logs")
    assert answer.content == b"a log with \xff in it\n"
    assert service.http.get("/searches/cars/logs?follow=true").content == answer.content  # its job has ended
    assert (
        service.http.get("/searches/cars/logs?job=7").json()["detail"]
        == "the search 'cars' has no job 7; existing jobs: 1."
    )


def test_downloads(service: Served) -> None:
    assert service.http.get("/searches/cars/exports").json() == {
        "exports": [{"trial": 1, "formats": ["keras", "config"]}]
    }
    one = service.http.get("/searches/cars/exports/1/keras")
    assert (one.content, one.headers["content-disposition"]) == (
        b"some weights",
        'attachment; filename="cars-trial-1.keras"',
    )
    before = set(Path(tempfile.gettempdir()).glob("headhunt-*.zip"))
    for format_, names in (
        ("config", {"headhunt.yaml", "optuna.json", "keras_tuner.json"}),
        ("bundle", {"headhunt.yaml", "optuna.json", "keras_tuner.json", "model.keras"}),
    ):
        answer = service.http.get(f"/searches/cars/exports/1/{format_}")
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        assert set(archive.namelist()) == names and archive.testzip() is None
    eventually(lambda: set(Path(tempfile.gettempdir()).glob("headhunt-*.zip")) <= before)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.read("model.keras") == b"some weights"
    missing = service.http.get("/searches/cars/exports/1/onnx")
    assert "is not exported as 'onnx'; available: keras, config, bundle" in missing.json()["detail"]


@pytest.mark.parametrize("wanted", ["bytes=0-3", "bytes=99999999-", "bytes=3-1", "bytes=", "lines=1-2", "x"])
def test_an_archive_is_always_sent_whole_and_leaves_nothing_behind(
    service: Served, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = service.http.get("/searches/cars/exports/1/bundle", headers={"Range": wanted})
    assert (answer.status_code, answer.headers["accept-ranges"]) == (200, "none")
    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None
    eventually(lambda: not list(tmp_path.iterdir()))


def test_an_archive_that_cannot_be_made_leaves_nothing_behind(
    service: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headhunt.service.jobs.downloads.zipfile.ZipFile.write", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        download(service.root, "cars", 1, "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["exports/1/keras", "report"])
def test_a_part_of_a_file(service: Served, path: str) -> None:
    (service.root / "cars" / "report").mkdir(exist_ok=True)
    (service.root / "cars" / "report" / "index.html").write_text("some weights")
    address = f"/searches/cars/{path}"
    part = service.http.get(address, headers={"Range": "bytes=5-7"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"wei", "bytes 5-7/12")
    beyond = service.http.get(address, headers={"Range": "bytes=12-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */12")
    assert beyond.json()["detail"].startswith(
        "the Range header is 'bytes=12-'; it must be bytes=FIRST-LAST, within the"
    )
    for wanted in ("bytes=3-1", "bytes=", "lines=1-2", "x"):
        refused = service.http.get(address, headers={"Range": wanted})
        assert refused.status_code == 400, wanted
        assert refused.json()["detail"].startswith(f"the Range header is {wanted!r}; it must be bytes=FIRST-LAST")


def test_pictures_of_trials_are_read_in_the_work_directory_alone(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "cars" / "artifacts"):
        folder.mkdir(parents=True)
    (outside / "0a").write_text("secret")
    (root / "cars" / "artifacts" / "1b").write_text("a picture")
    (root / "cars" / "artifacts" / "2c").symlink_to(outside / "0a")
    (root / "vans").mkdir()
    (root / "vans" / "artifacts").symlink_to(outside)
    pictures = Pictures(root)
    with pictures.open_reader("1b") as found:
        assert found.read() == b"a picture"
    (root / "cars" / "headhunt.yaml").write_text("secret")
    for number in ("2c", "0a", "../cars/headhunt.yaml", "../../cars/headhunt.yaml", "*", "", ".", str(outside / "0a")):
        with pytest.raises((ArtifactNotFound, OSError, ValueError)):
            pictures.open_reader(number)
    with pytest.raises(ArtifactNotFound):
        pictures.remove("0a")
    assert (outside / "0a").read_text() == "secret"


def test_a_report_that_is_a_link_is_not_promised(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "index.html").write_text("secret")
    (tmp_path / "root").mkdir()
    with served(tmp_path / "root") as service:
        fill(service)
        (service.root / "cars" / "report").symlink_to(tmp_path / "outside")
        assert not service.board.refresh("cars").status.report
        assert service.http.get("/searches/cars/report").status_code == 404
        (service.root / "cars" / "report").unlink()
        (service.root / "cars" / "report").mkdir()
        (service.root / "cars" / "report" / "index.html").write_text("page")
        assert service.board.refresh("cars").status.report
        assert service.http.get("/searches/cars/report").text == "page"
