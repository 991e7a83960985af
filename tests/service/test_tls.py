"""HTTPS with a self-signed certificate: clients that trust it are answered, others send nothing to the service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.runtime.errors import LostError, UsageError
from headhunt.service.client.client import Client
from tests.service.in_process import Served, served
from tests.service.serving import TOKEN

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")

HEADHUNT = str(Path(sys.executable).with_name("headhunt"))


def certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate, and its key."""
    paths = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=headhunt"]
    command += ["-addext", f"subjectAltName={name}", "-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    with served(tmp_path_factory.mktemp("root"), certificate=cert, key=key) as service:
        yield service


def test_a_client_that_trusts_the_certificate_is_answered(service: Served) -> None:
    url = str(service.http.base_url)
    assert url.startswith("https://")
    assert Client(url, TOKEN, service.settings.certificate).searches().searches == []


def test_a_client_that_does_not_trust_it_sends_nothing(service: Served) -> None:
    with pytest.raises(
        UsageError, match=r"is not trusted: self-signed certificate\. For a self-signed certificate, use"
    ):
        Client(str(service.http.base_url), TOKEN).searches()


def test_a_certificate_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "DNS:elsewhere.example")
    (tmp_path / "root").mkdir()
    said = r"is not trusted: IP address mismatch.*a host name that the certificate contains"
    with served(tmp_path / "root", certificate=cert, key=key) as service, pytest.raises(UsageError, match=said):
        Client(str(service.http.base_url), TOKEN, cert).searches()


def test_browsers_are_to_come_back_by_https_alone(service: Served) -> None:
    assert service.http.get("/searches").headers["strict-transport-security"] == "max-age=31536000"
    cookie = service.anonymous().post("/login", data={"token": TOKEN}).headers["set-cookie"]
    assert "Secure" in cookie and "HttpOnly" in cookie


def test_plain_http_is_not_answered(service: Served) -> None:
    with pytest.raises(LostError):
        Client(str(service.http.base_url).replace("https", "http"), TOKEN).searches()


def test_what_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing of the kind")
    with pytest.raises(UsageError, match=r"--tls-certificate .*cert\.pem: cannot be read as PEM certificates"):
        Client("https://127.0.0.1:1", None, tmp_path / "cert.pem").searches()


@pytest.mark.parametrize("fault", ["no certificate", "another key"])
def test_the_service_does_not_start_with_what_does_not_fit(tmp_path: Path, fault: str) -> None:
    cert, key = certificate(tmp_path)
    if fault == "no certificate":
        cert.write_text("nothing of the kind")
    else:
        (tmp_path / "other").mkdir()
        _, key = certificate(tmp_path / "other")
    options = ["--root", str(tmp_path / "root"), "--port", "0", "--tls-certificate", str(cert), "--tls-key", str(key)]
    done = subprocess.run([HEADHUNT, "serve", *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "--tls-certificate" in done.stderr and "cannot be used" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
