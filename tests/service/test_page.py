"""The start page in a browser, with a service in this process whose jobs the tests start and end through their records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from features.runtime.atomic import make_folder
from features.runtime.processes import this_process
from headhunt.service.jobs.records import Ended, Files, Started, job_files, now
from search.driver.storage import open_storage
from tests.service.in_process import Served, served
from tests.service.serving import TOKEN
from tests.service.stand_in import PLENTY, searched_trial


class Search:
    """A search whose last job is run by the test, in the name of this process."""

    def __init__(self, service: Served, name: str) -> None:
        self._service, self.name, self.job = service, name, 0
        self.post("", {"name": name, "dataset": {"kind": "toy_cars"}})

    def post(self, what: str, body: Any = None) -> None:
        """Sends a request as a client other than the page."""
        answer = self._service.http.post(f"/searches/{self.name}{what}" if what else "/searches", json=body)
        assert answer.is_success, answer.text
        self.job = answer.json()["jobs"][-1]["number"]

    @property
    def files(self) -> Files:
        return job_files(self._service.root, self.name, self.job)

    def begin(self, stage: str = "search", text: str = "", look: bool = True) -> None:
        me = this_process()
        self.files.log.write_text(text)
        self.files.write_stage(stage)
        self.files.begin(
            Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id=f"{self.name}-1.1", time=now())
        )
        if look:
            self._service.board.look()

    def end(self, state: str) -> None:
        self.files.write_ended(Ended.model_validate({"state": state, "message": None, "time": now()}))
        self._service.board.look()

    def say(self, text: str) -> None:
        with self.files.log.open("a") as log:
            log.write(text)

    def export(self, trial: int) -> None:
        folder = make_folder(self._service.root / self.name / "exports" / str(trial))
        (folder / "model.onnx").write_text("a network")
        (folder / "labels.txt").write_text("a\nb\n")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Only one log at a time can be followed."""
    root = make_folder(tmp_path_factory.mktemp("page") / "root")
    with served(root, reads=PLENTY, writes=PLENTY, logins=PLENTY, followers=1) as service:
        yield service


@pytest.fixture(scope="module")
def logged_in(browser: Browser, service: Served) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=str(service.http.base_url), viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    log_in(page)
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(logged_in: BrowserContext) -> Iterator[Page]:
    page = logged_in.new_page()
    yield page
    page.close()


def log_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("Submit a search")).to_be_visible()


def card_of(page: Page, name: str) -> Locator:
    return page.locator(f'[id="search-{name}"]')


def shows(card: Locator, state: str) -> None:
    expect(card).to_have_attribute("data-state", state)


@contextmanager
def two_polls(page: Page) -> Iterator[None]:
    """Returns after the page has polled, and been answered, twice: requests caused by the first answer are complete."""
    yield
    for _ in range(2):
        with page.expect_response("**/searches"):
            pass


def test_stop_after_a_stop_whose_answer_was_lost_stops_the_job_that_came_after(service: Served, page: Page) -> None:
    search = Search(service, "lost-answer")
    search.begin()
    page.goto("/")
    card = card_of(page, search.name)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/stop", lose, times=1)
    card.get_by_role("button", name="Stop").click()
    shows(card, "stopping")
    search.end("stopped")
    shows(card, "stopped")
    search.post("/resume")
    search.begin()
    shows(card, "running")
    card.get_by_role("button", name="Stop").click()
    shows(card, "stopping")
    assert search.job == 2 and search.files.stop.exists()


def test_the_second_half_of_a_double_click_on_stop_does_not_resume(service: Served, page: Page) -> None:
    search = Search(service, "double-click")
    page.goto("/")
    card = card_of(page, search.name)
    shows(card, "queued")
    posts = card.evaluate("""async (card) => {
        const posts = [], fetched = window.fetch;
        window.fetch = (path, options) => {
            if (options?.method === "POST") posts.push(path);
            return fetched(path, options);
        };
        const [stop, resume] = [".stop", ".resume"].map((one) => card.querySelector(one));
        stop.click();
        while (resume.hidden) await new Promise(requestAnimationFrame);
        resume.click();
        return posts;
    }""")
    assert posts == ["/searches/double-click/stop"]
    card.evaluate("""async (card) => {  // and some time later it does
        for (; card.dataset.state !== "queued"; await new Promise(requestAnimationFrame)) card.querySelector(".resume").click();
    }""")
    assert len(service.http.get("/searches/double-click").json()["jobs"]) == 2


def test_what_is_being_typed_outlives_a_login_that_expires_until_it_is_submitted(
    service: Served, browser: Browser
) -> None:
    context = browser.new_context(base_url=str(service.http.base_url))
    page = context.new_page()
    log_in(page)
    page.get_by_text("Submit a search").click()
    text = "name: typed\ndataset: {kind: toy_cars}\n"
    configuration = page.get_by_label("Configuration, in YAML")
    configuration.fill(text)
    context.clear_cookies()
    expect(page).to_have_url(re.compile("/login$"))
    log_in(page)
    expect(configuration).to_be_visible()
    expect(configuration).to_have_value(text)
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator("#submitted")).to_have_text("Submitted: typed.")
    page.goto("/")
    shows(card_of(page, "typed"), "queued")
    expect(configuration).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    context.close()


@pytest.mark.parametrize(
    ("objective", "values", "labels", "beyond"),
    [
        ("val_loss", [1.201, 1.2035, 1.204], ["1.201", "1.202", "1.203", "1.204"], False),
        ("val_loss", [120.0, 180.0, 240.0], ["150", "200"], False),
        ("val_accuracy", [0.9951, 0.9958], ["99.52 %", "99.54 %", "99.56 %", "99.58 %"], False),
        ("val_accuracy", [0.2, 0.9], ["20 %", "40 %", "60 %", "80 %"], False),
        ("val_loss", [0.5, 0.5, 0.9], ["0.5", "0.6", "0.7", "0.8", "0.9"], False),
        ("val_loss", [0.5, 0.6, 900.0], ["0.5", "0.6", "0.7", "0.8", "0.9"], True),
    ],
)
def test_the_axis_of_a_curve(objective: str, values: list[float], labels: list[str], beyond: bool, page: Page) -> None:
    page.goto("/")
    drawn = page.evaluate(
        """async ({ objective, values }) => {
            const { draw } = await import("/assets/curve.js");
            const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
            const beyond = draw(svg, { objective, points: values.map((value, number) => ({ number, value, best: value })) }, 600);
            const labels = [...svg.querySelectorAll("text[text-anchor=end]")].map((label) => label.textContent);
            return { beyond, labels, hollow: svg.querySelectorAll(".beyond").length };
        }""",
        {"objective": objective, "values": values},
    )
    assert drawn["labels"] == labels
    assert (bool(drawn["beyond"]), drawn["hollow"]) == (beyond, int(beyond))


def test_a_log_of_a_job_that_waits_is_not_the_one_before_it(service: Served, page: Page) -> None:
    search = Search(service, "next-log")
    search.begin(text="of the first job\n")
    search.end("stopped")
    page.goto("/")
    log = card_of(page, search.name).locator(".log")
    log.get_by_text("Log", exact=True).click()
    expect(log.locator("pre")).to_have_text("of the first job\n")
    search.post("/resume")
    expect(log.locator(".note")).to_have_text("The job has not started yet.")
    expect(log.locator("pre")).to_have_text("")
    search.begin(text="of the second job\n")
    expect(log.locator("pre")).to_have_text("of the second job\n")


def test_logs_are_read_where_no_more_can_be_followed(service: Served, page: Page) -> None:
    over, other, live = (Search(service, name) for name in ("log-over", "log-other", "log-live"))
    for search in (over, other, live):
        search.begin(text=f"of {search.name}\n")
    over.end("finished")
    page.goto("/")
    logs = {search: card_of(page, search.name).locator(".log") for search in (over, live)}
    with service.http.stream("GET", "/searches/log-other/logs?follow=true") as following:
        assert following.status_code == 200
        logs[over].get_by_text("Log", exact=True).click()
        expect(logs[over].locator(".note")).to_have_text("end of the log")
        expect(logs[over].locator("pre")).to_have_text("of log-over\n")
        logs[live].get_by_text("Log", exact=True).click()
        expect(logs[live].locator(".note")).to_contain_text("too many logs are being followed")
        expect(logs[live].locator("pre")).to_have_text("of log-live\n")
        live.say("größer\n")
        expect(logs[live].locator("pre")).to_have_text("of log-live\ngrößer\n")
    expect(logs[live].locator(".note")).to_have_text("following")
    live.say("the last line\n")
    live.end("finished")
    expect(logs[live].locator(".note")).to_have_text("end of the log")
    expect(logs[live].locator("pre")).to_have_text("of log-live\ngrößer\nthe last line\n")


def test_a_fault_goes_when_the_job_it_was_about_has_changed(service: Served, page: Page) -> None:
    search = Search(service, "fault")
    search.begin()
    page.goto("/")
    card = card_of(page, search.name)
    page.route("**/stop", lambda route: route.abort())
    card.get_by_role("button", name="Stop").click()
    expect(card.get_by_role("alert")).to_have_text("The service cannot be reached.")
    search.end("finished")
    shows(card, "finished")
    expect(card.get_by_role("alert")).to_have_count(0)


def test_what_is_being_sent_is_told(service: Served, page: Page) -> None:
    search = Search(service, "sending")
    page.goto("/")
    card = card_of(page, search.name)
    held: list[Route] = []
    page.route("**/stop", lambda route: held.append(route))
    card.get_by_role("button", name="Stop").click()
    expect(card.locator(".sending")).to_have_text("Sending…")
    held[0].continue_()
    shows(card, "stopped")
    expect(card.locator(".sending")).to_have_text("")


def test_exports_are_asked_for_in_view_and_offered_whole(service: Served, page: Page) -> None:
    far = Search(service, "exported")
    far.export(3)
    for number in range(4):
        Search(service, f"above-{number}")
    service.board.look()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/exports") else None)
    page.set_viewport_size({"width": 1200, "height": 300})
    page.goto("/")
    card = card_of(page, far.name)
    with two_polls(page):
        expect(card).to_be_attached()
    assert asked == []
    card.scroll_into_view_if_needed()
    expect(card.locator(".exports")).to_have_text("Download trial 3: onnx, everything (zip)")
    with page.expect_download() as downloaded:
        card.get_by_role("link", name="everything (zip)").click()
    assert downloaded.value.suggested_filename == "exported-trial-3-bundle.zip"
    assert len(asked) == 1


def test_a_promotion_that_no_epoch_made_better_is_called_frozen(service: Served, page: Page) -> None:
    search = Search(service, "promoted")
    folder = make_folder(service.root / search.name / "promotions" / "3-0a1b2c3d")
    (folder / "metrics.json").write_text("{}")
    tuned = {"val_accuracy": 0.5, "test_accuracy": 0.4, "test_top5_accuracy": 0.9}
    row = {
        "trial": 3,
        "recipe": "0a1b2c3d",
        "stage": "frozen",
        "frozen": {"val_accuracy": 0.5},
        "tuned": tuned,
        "seconds": 3,
    }
    page.route("**/searches/promoted/promotions", lambda route: route.fulfill(json={"promotions": [row]}))
    service.board.look()
    page.goto("/")
    promotions = card_of(page, search.name).locator(".promotions")
    promotions.locator("summary").click()
    titles = ["trial", "recipe", "model", "validation, frozen", "validation", "test", "test top-5", "time"]
    expect(promotions.locator("th")).to_have_text(titles)
    expect(promotions.locator("td").nth(2)).to_have_text("frozen")


def test_an_older_answer_does_not_count_after_a_newer_one(service: Served, page: Page) -> None:
    search = Search(service, "newer")
    held: list[Route] = []
    page.route("**/searches", lambda route: held.append(route), times=2)
    page.goto("/")
    look_again = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(look_again)
    wait_for(page, lambda: len(held) == 2)
    page.evaluate(look_again)
    card = card_of(page, search.name)
    shows(card, "queued")
    page.evaluate("""() => {
        window.seen = [];
        const look = () => {
            if (!document.getElementById("connection").hidden) seen.push(document.getElementById("connection").textContent);
            if (!document.getElementById("empty").hidden) seen.push("no searches");
        };
        new MutationObserver(look).observe(document.querySelector("main"), { subtree: true, childList: true, attributes: true });
    }""")
    with two_polls(page):
        held[0].fulfill(body=json.dumps({"searches": []}), content_type="application/json")
        held[1].abort()
    assert page.evaluate("seen") == []


def test_all_that_changed_at_once_is_told_to_who_does_not_see_it(service: Served, page: Page) -> None:
    searches = [Search(service, name) for name in ("pair-a", "pair-b")]
    page.goto("/")
    for search in searches:
        shows(card_of(page, search.name), "queued")
    for search in searches:
        search.begin(look=False)
    service.board.look()
    expect(page.locator("#changes")).to_have_text("pair-b: running, pair-a: running")


def test_a_search_that_is_not_at_work_has_no_trials_that_run(service: Served, page: Page) -> None:
    search = Search(service, "left")
    storage = open_storage(service.settings.storage_url, service.root)
    study = optuna.create_study(study_name=search.name, storage=storage, direction="maximize")
    study.add_trial(searched_trial(0.5))
    study.ask()
    search.begin()
    page.goto("/")
    counts = card_of(page, search.name).locator(".counts")
    expect(counts).to_contain_text("1 complete, 1 running")
    search.end("interrupted")
    expect(counts).to_contain_text("1 complete, 1 unfinished")


def test_resume_says_what_it_goes_on_with(service: Served, page: Page) -> None:
    search = Search(service, "going-on")
    search.post("/stop")
    page.goto("/")
    resume = card_of(page, search.name).get_by_role("button", name="Resume")
    expect(resume).to_have_accessible_description("Resume the search")
    search.post("/promotions", {"top": 1})
    search.post("/stop")
    expect(resume).to_have_accessible_description("Resume the promotion")
    search.post("/resume")
    search.begin(stage="promote")
    search.end("finished")
    expect(resume).to_have_accessible_description("Resume the search")


def wait_for(page: Page, wanted: Callable[[], bool]) -> None:
    """Waits for a condition while processing the page's events."""
    while not wanted():
        page.wait_for_timeout(50)
