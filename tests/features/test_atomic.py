"""Files are either complete or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.runtime.atomic import atomic_folder, atomic_path, make_folder, write_text
from features.runtime.errors import HeadhuntError, UsageError


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    write_text(file, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(file) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_temporary_name_keeps_the_suffix_and_is_hidden(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.weights.h5") as temporary:
        assert temporary.suffix == ".h5"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"x")


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    write_text(file, "old")
    body = (
        "import os, sys\nfrom pathlib import Path\nfrom features.runtime.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", body, str(file)], check=False)
    assert done.returncode == -9
    assert file.read_text() == "old"


def test_an_unwritable_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(
        UsageError, match=r"cannot create the folder .*runs/cars: Not a directory\. Choose another `workdir`"
    ):
        make_folder(tmp_path / "runs" / "cars")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(
            HeadhuntError,
            match=r"cannot write .*No space left on device\. Free some space, or choose another `workdir`",
        ),
        atomic_path(tmp_path / "x.csv"),
    ):
        Path("/dev/full").write_text("x")


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("old", "new"):
        with atomic_folder(target) as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / "file").write_text(text)
            assert not target.exists() or (target / "inner" / "file").read_text() == "old"
        assert (target / "inner" / "file").read_text() == text
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert (target / "inner" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
