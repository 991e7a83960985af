"""A folder where a file should be, and text that is not UTF-8: one message that names the file and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from features.cache.manifest import read_manifest
from features.dataset.config import ToyCars
from features.dataset.readers.toy_cars import write_toy_cars
from features.runtime.atomic import only_process, read_text, write_text
from features.runtime.commands.frame import command
from features.runtime.errors import CacheError, HeadhuntError, UsageError
from search.records import claim_trials
from train.exports.record import holds_another
from train.finetuning.journal import Reader

pytestmark = pytest.mark.unit

NOT_UTF8 = "café".encode("latin-1")


def lock_twice(folder: Path) -> None:
    with only_process(folder / ".lock", "another process is searching"):
        (folder / ".lock").write_bytes(NOT_UTF8)
        with only_process(folder / ".lock", "another process is searching"):
            pass


@pytest.mark.parametrize("is_folder", [True, False])
@pytest.mark.parametrize(
    ("name", "read", "advice"),
    [
        ("labels.txt", lambda folder: read_text(folder / "labels.txt", "Export again."), "Export again."),
        (
            "trials/study.txt",
            lambda folder: claim_trials(folder, "cars"),
            "belong to 'cars', delete this file and rerun",
        ),
        ("drawn.json", lambda folder: write_toy_cars(ToyCars(), folder), "Delete it; the photos will be drawn again."),
    ],
)
def test_a_text_file_that_cannot_be_read(
    tmp_path: Path, is_folder: bool, name: str, read: Callable[[Path], object], advice: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(NOT_UTF8)
    reason = "it is a folder" if is_folder else "it is not UTF-8 text"
    with pytest.raises(HeadhuntError, match=rf"{name} is damaged .{reason}.\. ") as error:
        read(tmp_path)
    assert advice in str(error.value)


def test_a_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "labels.txt", "")


def test_a_file_cannot_be_written_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "confirm.json").mkdir()
    with pytest.raises(
        HeadhuntError, match=r"cannot write .*confirm\.json: it is a folder\. .* delete or rename the folder"
    ):
        write_text(tmp_path / "confirm.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["confirm.json"]


def test_a_folder_that_a_command_meets_is_no_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / ".search.lock"
    lock.mkdir()
    for touch in (lambda: only_process(lock, "").__enter__(), lock.unlink, lock.read_text):
        with pytest.raises(typer.Exit) as ended, command(False):
            touch()
        said = capsys.readouterr().err
        assert ended.value.exit_code == 1
        assert said.startswith("headhunt: ") and said.endswith(
            "/.search.lock is a folder. Headhunt needs a file of this name: delete or rename the folder, then rerun the same "
            "command.\n"
        )


def test_a_lock_is_held_whatever_is_in_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"another process is searching \(process .*Wait for it or stop it"):
        lock_twice(tmp_path)


def test_a_manifest_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(
        CacheError, match=r"manifest\.json is damaged \(it is a folder\)\. Delete it, then run .*repair"
    ):
        read_manifest(tmp_path)


def test_an_unreadable_record_of_a_bundle_names_no_files(tmp_path: Path) -> None:
    (tmp_path / ".bundle.json").write_bytes(NOT_UTF8)
    (tmp_path / "model.keras").write_bytes(b"kept")
    assert not holds_another(tmp_path, "some sha256")


def test_foreign_bytes_in_the_log_of_a_promotion_are_shown_as_such(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(NOT_UTF8 + b"\n")
    reader = Reader(tmp_path)
    log.write_bytes(log.read_bytes() + b"epoch 1 " + NOT_UTF8 + b"\n")
    assert reader.sentences() == ["epoch 1 caf\ufffd"]
