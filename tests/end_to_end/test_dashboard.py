"""`headhunt search dashboard` in a browser, and on a port that is taken."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect

from reports.config import Run
from search.leaderboard import load_study
from tests.search.storages import free_port

HEADHUNT = str(Path(sys.executable).with_name("headhunt"))


@contextmanager
def ended(server: subprocess.Popen[str]) -> Iterator[None]:
    """Kills the server if the block fails: otherwise leaving it would wait forever."""
    try:
        yield
    finally:
        server.kill()


def test_the_dashboard_shows_the_study_and_the_review_of_a_trial(searched: Run, browser: Browser) -> None:
    facts = load_study(searched).trials[5].user_attrs
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [HEADHUNT, "search", "dashboard", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server, ended(server):
        assert server.stderr is not None
        assert f"http://127.0.0.1:{port}/dashboard/" in server.stderr.readline()
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(180_000)
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/dashboard/studies/1/trials?numbers=5")
        expect(page.get_by_text("Trial 5 (trial_id=6)")).to_be_visible()
        expect(page.get_by_text(f"at epoch {facts['best_epoch']}. ")).to_be_visible()
        expect(page.get_by_role("cell", name=facts["head"])).to_be_visible()
        expect(page.get_by_text(f"head {facts['head']}", exact=True)).to_be_attached()
        expect(page.get_by_text(f"schedule {facts['schedule']}", exact=True)).to_be_attached()
        pictures = page.locator("img[src*='/artifacts/']")
        expect(pictures).to_have_count(2)  # in the note, and among the artifacts
        for picture in pictures.all():
            expect(picture).to_have_js_property("naturalWidth", 640)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200  # long attributes wrap
        assert faults == []
        page.close()
        server.send_signal(signal.SIGINT)
        assert server.wait(120) == 130


def test_a_port_in_use(searched: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [HEADHUNT, "search", "dashboard", "--port", port], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert (
        f"port {port} on 127.0.0.1 cannot be used: Address already in use. Choose another one with --port."
        in done.stderr
    )
    assert "Traceback" not in done.stderr
