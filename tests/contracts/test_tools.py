"""Where every test must run, none is skipped because of a missing program."""

from __future__ import annotations

import shutil

import pytest

from tests import conftest


def test_a_missing_program_is_an_error_where_every_test_has_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "CHROMIUM", None)
    monkeypatch.setattr(conftest, "binaries", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("HEADHUNT_TESTS_NEED_ALL", "1")
    with pytest.raises(pytest.UsageError, match="apt-get install chromium openssl postgresql"):
        conftest.pytest_configure()
    monkeypatch.delenv("HEADHUNT_TESTS_NEED_ALL")
    conftest.pytest_configure()


def test_what_is_here_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "CHROMIUM", "/usr/bin/chromium")
    monkeypatch.setattr(conftest, "binaries", lambda: "/usr/lib/postgresql/17/bin")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("HEADHUNT_TESTS_NEED_ALL", "1")
    assert conftest.missing_tools() == []
    conftest.pytest_configure()
