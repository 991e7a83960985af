"""Tables that Headhunt wrote are read completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.runtime.own_tables import read_whole_table

pytestmark = pytest.mark.unit


def test_a_table_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    whole = b"name,number\na,0.125\nNA,0.5\n"
    path.write_bytes(whole)
    assert read_whole_table(path)["number"].tolist() == [0.125, 0.5]
    assert read_whole_table(path, {"keep_default_na": False})["name"].tolist() == ["a", "NA"]
    for length in range(len(whole) - 1, 22, -1):  # within the last line, where the number stays valid: 0.5, 0.
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="its last line is cut off"):
            read_whole_table(path)
    for content in (b"", b"\x00\xff{\n", b'"a,1\n'):
        path.write_bytes(content)
        with pytest.raises(ValueError):
            read_whole_table(path)
    with pytest.raises(FileNotFoundError):
        read_whole_table(tmp_path / "none.csv")
