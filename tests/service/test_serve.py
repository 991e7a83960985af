"""The service as users see it: as a process, through its commands, HTTP and a browser."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect

from features.runtime.atomic import make_folder
from tests.kills import descendants
from tests.service.serving import HEADHUNT, TOKEN, Service, configuration


def written(service: Service, raw: dict[str, Any]) -> str:
    """A configuration file in the clients' folder."""
    path = service.root.parent / f"{raw['name']}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path.name


pytestmark = pytest.mark.timeout(3000)  # whole searches and promotions, next to whatever else the machine does


def watched(browser: Browser) -> tuple[Page, list[str]]:
    """A page, with its console messages."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(180_000)
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        of_no_gpu = "GPU stall due to ReadPixels" in message.text  # a machine without a GPU logs that, at any time
        if message.type in ("error", "warning") and not of_no_gpu:
            faults.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    return page, faults


def log_in(page: Page, service: Service) -> None:
    page.goto(service.url)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()


def card_of(page: Page, name: str) -> Locator:
    return page.locator("article").filter(has=page.get_by_role("heading", name=name))


@pytest.fixture(scope="module")
def promoted(service: Service, browser: Browser) -> str:
    """A search that was submitted and watched in a browser, and whose best trial was promoted there."""
    page, faults = watched(browser)
    log_in(page, service)
    page.get_by_text("Submit a search").click()
    raw = configuration("cars")
    page.get_by_label("Configuration, in YAML").fill(yaml.safe_dump({**raw, "search": {"trails": 6}}))
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator("#refusal")).to_contain_text("search.trails")
    faults.clear()  # the browser logs the rejection itself, a 422
    page.get_by_label("Configuration, in YAML").fill(yaml.safe_dump(raw))
    page.get_by_role("button", name="Submit", exact=True).click()
    card = card_of(page, "cars")
    expect(card.locator(".state")).to_have_text(re.compile("queued|running"))
    expect(card.locator(".stage")).to_have_text(re.compile("prepar|cache|searching"), timeout=900_000)
    expect(card.locator(".state")).to_have_text("finished", timeout=900_000)
    expect(card.locator(".counts")).to_contain_text("6 of 6")
    expect(card.locator("svg circle")).to_have_count(6)
    card.get_by_text("Log", exact=True).click()
    for stage in ("features prepare", "features cache", "search run"):
        expect(card.locator("details.log pre")).to_contain_text(stage)
    status = service.get("/searches/cars")
    assert status["trials"] == {"total": 6, "complete": 6, "pruned": 0, "failed": 0, "running": 0, "added": 0}
    card.get_by_role("button", name="Promote…").click()
    card.get_by_role("button", name="Promote", exact=True).click()
    expect(card.locator(".state")).to_have_text(re.compile("queued|running"))
    expect(card.locator(".state")).to_have_text("finished", timeout=900_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    assert faults == []
    page.close()
    return "cars"


def test_the_leaderboard_the_promotion_and_the_exports_of_a_search(service: Service, promoted: str) -> None:
    best = service.get("/searches/cars")["best"]
    top = service.get("/searches/cars/top?limit=3")["trials"]
    assert len(top) == 3 and top[0]["number"] == best["number"] and top[0]["value"] == best["value"]
    (promotion,) = service.get("/searches/cars/promotions")["promotions"]
    assert promotion["trial"] == best["number"]
    assert promotion["folder"] == f"cars/promotions/{best['number']}-{promotion['recipe']}"
    assert 0 <= promotion["tuned"]["test_accuracy"] <= promotion["tuned"]["test_top5_accuracy"] <= 1
    history = service.get("/searches/cars/history")
    assert [point["number"] for point in history["points"]] == list(range(6))
    (exported,) = service.get("/searches/cars/exports")["exports"]
    assert exported["trial"] == best["number"]
    assert {"keras", "savedmodel", "onnx", "litert", "config"} <= set(exported["formats"])


def test_an_export_is_downloaded_and_runs(service: Service, promoted: str) -> None:
    import onnxruntime

    trial = service.get("/searches/cars/exports")["exports"][0]["trial"]
    onnx = service.http.get(f"/searches/cars/exports/{trial}/onnx")
    assert onnx.headers["content-disposition"] == f'attachment; filename="cars-trial-{trial}.onnx"'
    session = onnxruntime.InferenceSession(onnx.content, providers=["CPUExecutionProvider"])
    (put,) = session.get_inputs()
    (given,) = session.run(None, {put.name: np.zeros((1, 32, 32, 3), np.uint8)})
    assert given.shape == (1, 3) and given.sum() == pytest.approx(1, abs=1e-4)
    bundle = zipfile.ZipFile(io.BytesIO(service.http.get(f"/searches/cars/exports/{trial}/bundle").content))
    assert bundle.testzip() is None
    assert {"model.onnx", "headhunt.yaml"} <= {Path(name).name for name in bundle.namelist()}
    missing = service.http.get(f"/searches/cars/exports/{trial}/tflite")
    assert missing.status_code == 404 and "available: keras" in missing.json()["detail"]


def test_the_commands_list_the_searches_and_the_jobs_of_one(service: Service, promoted: str) -> None:
    listed = service.headhunt("jobs")
    assert listed.returncode == 0, listed.stderr
    cells = r"│\s*".join([r"cars\s+", r"finished\s+", r"\s*", r"6 of 6\s+", r"val_accuracy \d\.\d{4} \(trial \d\)"])
    assert re.search(cells, listed.stdout), listed.stdout  # columns are as wide as the other searches need
    jobs = service.headhunt("jobs", "cars")
    for row in (r"1\s+│\s+search\s+│\s+finished", r"2\s+│\s+promotions\s+│\s+finished"):
        assert re.search(row, jobs.stdout), jobs.stdout
    first = service.headhunt("logs", "cars", "--job", "1")
    assert "features prepare" in first.stdout and "promote" not in first.stdout.splitlines()[0]
    assert first.stdout == service.http.get("/searches/cars/logs?job=1").text


def test_nothing_in_the_records_or_in_the_logs_is_the_token(service: Service, promoted: str) -> None:
    texts = [path for path in (service.root / "cars").rglob("*") if path.is_file() and path.stat().st_size < 1e6]
    assert len(texts) > 10
    assert all(TOKEN.encode() not in path.read_bytes() for path in texts)
    assert TOKEN not in service.said


def test_no_process_that_the_service_starts_has_the_token_in_its_environment(service: Service) -> None:
    """Jobs inherit it from Ray."""
    looked = 0
    for number, _ in descendants(service.process.pid):
        with suppress(OSError):  # it has ended
            assert TOKEN.encode() not in Path(f"/proc/{number}/environ").read_bytes()
            looked += 1
    assert looked > 5


def test_the_metrics_tell_the_search(service: Service, promoted: str) -> None:
    text = service.http.get("/metrics").text
    assert 'headhunt_trials{search="cars",state="complete"} 6.0' in text
    assert re.search(r'headhunt_best_value\{search="cars"\} (0\.\d+|1\.0)\n', text)
    rate = re.search(r'headhunt_images_per_second\{search="cars"\} (\S+)', text)
    assert rate and float(rate[1]) > 0
    assert 'headhunt_up{part="ray"} 1.0' in text and 'headhunt_up{part="storage"} 1.0' in text


def test_a_search_is_submitted_stopped_and_resumed_by_command_and_stopped_in_a_browser(
    service: Service, browser: Browser
) -> None:
    name = "long"
    submitted = service.headhunt("submit", "-c", written(service, configuration(name, trials=100_000, generation=4)))
    assert submitted.returncode == 0, submitted.stderr
    assert "follow it: headhunt logs long --follow" in submitted.stdout
    service.wait(name, lambda found: found["trials"]["complete"] >= 4)
    stopped = service.headhunt("stop", name)
    assert stopped.returncode == 0 and f"To resume it: headhunt submit --resume {name}" in stopped.stdout
    before = service.get(f"/searches/{name}")
    assert before["state"] == "stopped" and before["message"] == "stopped as requested; it can be resumed"
    ended = before["trials"]["complete"]
    resumed = service.headhunt("submit", "--resume", name)
    assert resumed.returncode == 0, resumed.stderr
    service.wait(name, lambda found: found["trials"]["complete"] >= ended + 4)
    twice = service.headhunt("submit", "--resume", name)
    assert twice.returncode == 2
    assert (
        f"the search '{name}' already has a running job (search). Wait until it ends, or stop it, then resume it."
        in (" ".join(twice.stderr.split()))
    )
    page, faults = watched(browser)
    log_in(page, service)
    card_of(page, name).get_by_role("button", name="Stop").click()
    expect(card_of(page, name).locator(".state")).to_have_text("stopped", timeout=900_000)
    assert faults == []
    page.close()
    after = service.over(name)
    assert [job["state"] for job in after["jobs"]] == ["stopped", "stopped"]
    assert "0 new" in service.log_of(name)  # the second job computed nothing again


def test_a_bad_configuration_is_refused_before_anything_starts(service: Service) -> None:
    raw = configuration("bad")
    raw["search"]["trails"] = raw["search"].pop("trials")
    raw["features"]["backbone"] = "../elsewhere.keras"
    done = service.headhunt("submit", "-c", written(service, raw))
    assert done.returncode == 2
    assert "search.trails" in done.stderr and "Traceback" not in done.stderr
    raw["search"]["trials"] = raw["search"].pop("trails")
    done = service.headhunt("submit", "-c", written(service, raw))
    assert "features.backbone: received '../elsewhere.keras', which is not in the service's work directory" in (
        " ".join(done.stderr.split())
    )
    assert not (service.root / "bad").exists()


def test_a_client_without_the_token_or_without_a_service(service: Service) -> None:
    done = service.headhunt("jobs", HEADHUNT_TOKEN="another-token-than-that")
    assert done.returncode == 2 and "401: wrong token" in " ".join(done.stderr.split())
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = service.headhunt("jobs", "--url", url)
    assert done.returncode == 1
    assert f"no service answers at {url}" in done.stderr and "headhunt serve" in done.stderr


def test_a_second_service_on_the_same_work_directory_is_refused(service: Service) -> None:
    done = subprocess.run(
        [HEADHUNT, "serve", "--root", str(service.root), "--port", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "another service is using the work directory" in " ".join(done.stderr.split())


def test_the_form_of_a_page_whose_script_is_still_on_its_way_sends_nothing(service: Service, browser: Browser) -> None:
    page, faults = watched(browser)
    held: list[Route] = []
    page.route("**/assets/submit.js", lambda route: held.append(route))
    with page.expect_request("**/assets/submit.js"):
        log_in(page, service)
    page.get_by_text("Submit a search").click()
    submit = page.get_by_role("button", name="Submit", exact=True)
    page.get_by_label("Configuration, in YAML").fill("name: early")
    for control in (submit, page.get_by_role("button", name="Fill in the example"), page.get_by_label("From a file")):
        expect(control).to_be_disabled()
    at = page.url
    held[0].continue_()
    expect(page.get_by_role("button", name="Fill in the example")).to_be_disabled()  # there is a text
    submit.click()
    expect(page.locator("#refusal p")).to_have_text("the configuration is not accepted:")
    expect(page.locator("#refusal li")).to_have_text("dataset: this key is required. Found there: name.")
    expect(page.get_by_label("Configuration, in YAML")).to_have_value("name: early")
    assert page.url == at, "the form was sent by the browser itself"
    assert all("422" in fault for fault in faults), faults
    page.close()


def test_a_browser_without_scripts_is_told_so(service: Service, browser: Browser) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.set_default_timeout(180_000)
    log_in(page, service)
    expect(page.locator("main")).to_contain_text("needs JavaScript")
    expect(page.get_by_text("Loading…")).to_be_hidden()
    expect(page.get_by_text("Submit a search")).to_be_hidden()
    page.close()


def test_an_export_is_downloaded_and_study_and_report_are_opened_in_a_browser(
    service: Service, promoted: str, browser: Browser, tmp_path: Path
) -> None:
    page, faults = watched(browser)
    log_in(page, service)
    card = card_of(page, promoted)
    trial = service.get(f"/searches/{promoted}/exports")["exports"][0]["trial"]
    with page.expect_download() as downloaded:
        card.get_by_role("link", name="onnx").click()
    downloaded.value.save_as(make_folder(tmp_path / "downloads") / "model.onnx")
    assert downloaded.value.suggested_filename == f"{promoted}-trial-{trial}.onnx"
    exported = service.root / promoted / "exports" / str(trial) / "model.onnx"
    assert (tmp_path / "downloads" / "model.onnx").read_bytes() == exported.read_bytes()
    card.get_by_role("link", name="Study in the dashboard").click()
    expect(page).to_have_url(re.compile(r"/dashboard/studies/\d+"))
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    study = page.url
    for view, plots in (("analytics", 4), ("smartSelection", 2)):  # the latter has parallel coordinates
        page.goto(f"{study}/{view}")
        expect(page.locator(".js-plotly-plot svg.main-svg").nth(3 * plots - 1)).to_be_attached()
    expect(page.locator("#plot-parallel-coordinate .parcoords")).to_have_count(1)
    # Plotly's message where a policy forbids its generated code
    expect(page.get_by_text("WebGL is not supported")).to_have_count(0)
    page.goto(f"{service.url}/dashboard/")
    expect(page.get_by_role("heading", name=re.compile(rf"\d+\. {promoted}$"))).to_be_visible()
    assert faults == []
    page.goto(f"{service.url}/searches/{promoted}/report")
    page.wait_for_function(
        "[...document.querySelectorAll('.js-plotly-plot')].every(plot => plot.querySelector('svg.main-svg'))"
    )
    assert page.locator("section h2").count() > 5
    assert faults == []
    page.goto(service.url)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(f"{study}?from=here")
    expect(page.get_by_label("Token")).to_be_visible()
    page.get_by_label("Token").fill("another-token-than-that")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("Wrong token.")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{study}?from=here")
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    page.close()


def test_ctrl_c_ends_the_service_and_its_ray(service: Service) -> None:
    processes = list(descendants(service.process.pid))
    assert service.interrupt() == 130
    until = time.monotonic() + 120
    while left := [line for number, line in processes if Path(f"/proc/{number}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.2)
    service.start()
    assert service.get("/healthz")["status"] == "ok"


DROPPED = """
import gc, signal, sys, weakref
from headhunt.cli import main

class Kept: ...

def collect(collect=gc.collect):
    kept = Kept()
    left = weakref.ref(kept, lambda _: signal.raise_signal(signal.SIGINT))
    del kept  # Python drops what is raised in the callback
    return collect()

gc.collect = collect
sys.argv = ["headhunt", "serve", "--root", sys.argv[1], "--port", "0", "--ray", "http://127.0.0.1:9", "--json"]
main()
"""


def test_a_ctrl_c_that_python_drops_before_the_service_is_ready_ends_it(tmp_path: Path) -> None:
    """Like an interrupt that arrives during garbage collection."""
    program = [sys.executable, "-P", "-c", DROPPED, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert "Exception ignored in" in done.stderr, done.stderr
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""  # it never reported that it was ready
