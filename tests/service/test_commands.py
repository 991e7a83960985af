"""The commands as clients of whatever answers at a URL: a service, a proxy, another program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from features.runtime.commands.template import commented_yaml
from features.runtime.errors import LostError, UsageError
from headhunt.service.cli import add_commands
from headhunt.service.client import following
from headhunt.service.client.access import read_token
from headhunt.service.client.client import ATTEMPTS, Client
from headhunt.service.client.following import stream_log, wait_until_ended
from reports.config import Run
from tests.service.scripted import Answer, Scripted, log, scripted, status

CONFIGURATION = "name: cars\ndataset: {kind: toy_cars}\n"
HTML = Answer(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In a folder with a configuration, and without this user's settings for a service."""
    (tmp_path / "headhunt.yaml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    for name in ("HEADHUNT_URL", "HEADHUNT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield


def headhunt(*arguments: str, **variables: str) -> Result:
    app = typer.Typer()
    add_commands(app)
    return CliRunner().invoke(app, list(arguments), env=variables)


def at(service: Scripted, *arguments: str) -> Result:
    """Runs a command with the URL in the environment: an option would appear in the printed commands."""
    return headhunt(*arguments, HEADHUNT_URL=service.url)


# answers that are not from a service


@pytest.mark.parametrize(
    "arguments", [["jobs"], ["logs", "cars"], ["logs", "cars", "--follow"], ["stop", "cars"], ["submit"]]
)
def test_a_redirect_is_no_answer(arguments: list[str]) -> None:
    moved = Answer(301, b"<html>301 Moved</html>", {"Location": "https://elsewhere.example/searches"})
    with scripted(moved) as proxy:
        done = at(proxy, *arguments)
    assert done.exit_code == 2
    assert f"{proxy.url} answered 301, a redirect to 'https://elsewhere.example/searches'" in done.stderr
    assert "--url" in done.stderr and done.stdout == ""
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("arguments", [["jobs"], ["jobs", "cars"], ["logs", "cars"], ["stop", "cars"], ["submit"]])
@pytest.mark.parametrize("answer", [HTML, Answer(200, b"[1, 2]"), Answer(200, b'{"hello": "world"}'), Answer(204)])
def test_another_program_is_no_service(answer: Answer, arguments: list[str]) -> None:
    with scripted(answer) as other:
        done = at(other, *arguments)
    assert done.exit_code == 2, done.output
    assert f"{other.url} is not a Headhunt service" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize("arguments", [["jobs"], ["logs"], ["stop"], ["submit", "--resume"]])
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "cars\n"])
def test_what_is_no_name_is_not_asked_for(arguments: list[str], name: str) -> None:
    with scripted(status()) as service:
        done = at(service, *arguments, name)
    assert done.exit_code == 2
    assert f"NAME: received {name!r}" in done.stderr
    assert service.asked == []


@pytest.mark.parametrize("url", ["http://h:abc", "ftp://host", "host:8000", "http://" + "a" * 70 + ".example"])
def test_what_is_no_url(url: str) -> None:
    done = headhunt("jobs", "--url", url)
    assert done.exit_code == 2
    assert f"--url: received {url!r}" in done.stderr and "It must look like http://127.0.0.1:8000" in done.stderr


def test_a_password_in_the_url_is_not_printed() -> None:
    done = headhunt("jobs", "--url", "http://me:secret@127.0.0.1:1")
    assert done.exit_code == 1 and "no service answers at http://me:***@127.0.0.1:1" in done.stderr
    assert "secret" not in done.output and "Resume with" not in done.stderr


# retries


def test_a_service_that_takes_a_request_later_is_asked_again() -> None:
    busy = Answer(429, b'{"detail": "too many requests"}', {"Retry-After": "0"})
    with scripted(busy, status()) as service:
        done = at(service, "jobs", "cars", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["name"] == "cars"
    assert "answered 429; retrying in 0 s" in done.stderr
    with scripted(busy, busy, log(b"so far\n")) as service:
        done = at(service, "logs", "cars")
    assert done.exit_code == 0 and done.stdout == "so far\n"


def test_what_was_sent_again_has_the_same_key() -> None:
    with scripted(Answer(503, b"{}", {"Retry-After": "0"}), status()) as service:
        assert at(service, "submit").exit_code == 0
    first, second = service.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] and first.body == second.body


@pytest.mark.parametrize(
    ("answer", "times", "said"),
    [
        (Answer(429, b'{"detail": "too many requests."}', {"Retry-After": "0"}), ATTEMPTS, "Retry after 0 s."),
        (Answer(429, b'{"detail": "too many requests."}', {"Retry-After": "61"}), 1, "Retry after 61 s."),
        (Answer(429, b'{"detail": "too many requests."}'), 1, "429: too many requests.\n"),
        (Answer(408, b'{"detail": "the body did not arrive in time."}'), 1, "408: the body did not arrive in time."),
        (Answer(500, b"oh no"), 1, "500: oh no"),
    ],
)
def test_what_the_command_is_not_to_blame_for_is_no_wrong_command(answer: Answer, times: int, said: str) -> None:
    for arguments in (["jobs"], ["logs", "cars"]):
        with scripted(answer) as service:
            done = at(service, *arguments)
        assert done.exit_code == 1 and said in done.stderr
        assert len(service.asked) == times


# output


def test_what_the_service_says_is_printed_as_it_is() -> None:
    message = "pip install 'headhunt[gp]', then look at [/data/x]"
    with scripted(status("failed", message)) as service:
        done = at(service, "jobs", "cars")
    assert done.exit_code == 0 and message in done.stdout


def test_the_list_of_searches() -> None:
    one = status("failed").body
    with scripted(Answer(body=b'{"searches": [' + one.replace(b'"cars"', b'"[/cars]"') + b"]}")) as service:
        done = at(service, "jobs")
    assert done.exit_code == 0 and "[/cars]" in done.stdout and "0 of 6" in done.stdout


def test_commands_that_are_printed_are_for_the_same_service(tmp_path: Path) -> None:
    token = tmp_path / "my token"
    token.write_text("a-token\n")
    token.chmod(0o600)
    with scripted(status("queued")) as service:
        options = ["--url", service.url, "--token-file", str(token)]
        started = headhunt("submit", *options)
    assert (
        f"cars is queued. To follow it: headhunt logs cars --follow --url {service.url} --token-file '{token}'"
        in started.stdout
    )
    assert service.asked[0].headers["authorization"] == "Bearer a-token"
    with scripted(status("stopped")) as service:
        done = headhunt("stop", "cars", "--url", service.url)
    assert done.stdout == f"cars is stopped. To resume it: headhunt submit --resume cars --url {service.url}\n"
    with scripted(status("queued")) as service:
        done = at(service, "submit")
    assert done.stdout == "cars is queued. To follow it: headhunt logs cars --follow\n"


# submit


def test_what_resume_has_no_use_for_is_refused() -> None:
    for option in (["-c", "headhunt.yaml"], ["--set", "search.trials=9"]):
        with scripted(status()) as service:
            done = at(service, "submit", "--resume", "cars", *option)
        assert done.exit_code == 2 and "--resume uses the search's own configuration" in done.stderr
        assert service.asked == []
    with scripted(status()) as service:
        assert at(service, "submit", "--resume", "cars").exit_code == 0
    assert service.asked[0].path == "/searches/cars/resume"


def test_a_configuration_as_init_writes_it_is_sent_without_what_the_service_decides(tmp_path: Path) -> None:
    run = Run.model_validate({"name": "cars", "workdir": "runs/cars", "dataset": {"kind": "toy_cars"}})
    text = commented_yaml(
        run.model_copy(update={"search": run.search.model_copy(update={"storage": "sqlite:///x.db"})})
    )
    (tmp_path / "headhunt.yaml").write_text(text, encoding="utf-8")
    with scripted(status()) as service:
        done = at(service, "submit")
    assert done.exit_code == 0, done.stderr
    assert "Removed, because the service has its own: workdir, search.storage." in done.stderr
    sent, whole = yaml.safe_load(service.asked[0].body), yaml.safe_load(text)
    whole.pop("workdir"), whole["search"].pop("storage")
    assert sent == whole and sent["search"]


def test_anchors_are_written_out(tmp_path: Path) -> None:
    anchored = "search:\n  space: {a: &lr {low: 1, high: 2}, b: *lr, c: &again [1, 2], d: *again}\n"
    (tmp_path / "headhunt.yaml").write_text(CONFIGURATION + anchored)
    with scripted(status()) as service:
        done = at(service, "submit")
    assert done.exit_code == 0, done.stderr
    sent = service.asked[0].body.decode()
    assert "&" not in sent and "*" not in sent
    space = yaml.safe_load(sent)["search"]["space"]
    assert space["a"] == space["b"] == {"low": 1, "high": 2} and space["c"] == space["d"] == [1, 2]


def test_an_anchor_that_holds_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "headhunt.yaml").write_text(CONFIGURATION + "search: &all {space: *all}\n")
    with scripted(status()) as service:
        done = at(service, "submit")
    assert done.exit_code == 2 and service.asked == []
    assert "headhunt.yaml: nested too deeply, or an alias (*name) refers to a value that contains it" in done.stderr


# following


def test_a_log_that_breaks_off_goes_on_where_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSES_SECONDS", (0, 0, 0))  # the retries start over with every new byte
    gone = Answer(502, b"<html>Bad Gateway</html>")
    pieces = [log(b"one\ntw", True), gone, log(b"one\n", True), log(b"one\ntwo\nthr", True), gone, gone]
    with scripted(status(), *pieces, log(b"one\ntwo\nthree\n")) as service:
        done = at(service, "logs", "cars", "--follow")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "one\ntwo\nthree\n"
    assert "incomplete response from the service" in done.stderr and "Retrying" in done.stderr
    assert {one.path for one in service.asked[1:]} == {"/searches/cars/logs?follow=true&job=1"}


def test_a_service_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSES_SECONDS", (0, 0))
    with scripted(log(b"one\n", True)) as service:
        told = stream_log(Client(service.url, None), "cars", 1)
        assert next(told) == b"one\n"
        with pytest.raises(LostError, match="incomplete response from the service"):
            next(told)
        assert len(service.asked) == 3
    with pytest.raises(LostError, match="no service answers"):
        wait_until_ended(Client(service.url, None), "cars", 1)


def test_a_search_that_is_no_longer_followed_goes_on_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSES_SECONDS", (0,))
    with scripted(status("queued"), log(b"one\n", True)) as service:
        done = headhunt("submit", "--follow", "--json", "--url", service.url)
    assert done.exit_code == 1
    assert done.stderr.count("one\n") == 1
    assert (
        f"cars keeps running at {service.url}. To follow it:\n  headhunt logs cars --follow --url {service.url}"
        in done.stderr
    )
    assert "Resume with" not in done.stderr and "cars is queued.\n" in done.stderr
    assert json.loads(done.stdout)["state"] == "queued"


def test_a_search_that_is_followed_by_a_service_with_another_token_is_told() -> None:
    refused = Answer(401, b'{"detail": "that is not the token of this service"}')
    with scripted(status("queued"), log(b""), refused) as service:
        done = at(service, "submit", "--follow", "--json")
    assert done.exit_code == 2 and json.loads(done.stdout)["state"] == "queued"


# stop


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (status("stopped"), 0, "cars is stopped. To resume it: headhunt submit --resume cars\n"),
        (status("finished"), 0, "cars is finished.\n"),
        (
            status("failed", "the disk is full"),
            1,
            "cars did not stop as requested; its state is failed. the disk is full\n",
        ),
    ],
)
def test_stop_waits_until_it_is_over(ended: Answer, code: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0)
    monkeypatch.setattr(following, "PAUSES_SECONDS", (0,))
    with scripted(status("stopping"), status("stopping"), Answer(502), status("stopping"), ended) as service:
        done = at(service, "stop", "cars")
    assert done.exit_code == code
    assert "cars is saving its state …\n" in done.stderr
    assert (done.stderr if code else done.stdout).endswith(said)
    assert [one.method for one in service.asked] == ["POST", "GET", "GET", "GET", "GET"]


def test_stop_may_be_told_not_to_wait() -> None:
    with scripted(status("stopping")) as service:
        done = at(service, "stop", "cars", "--no-wait", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["state"] == "stopping"
    assert "cars is stopping. To resume it once it has ended: headhunt submit --resume cars" in done.stderr
    assert len(service.asked) == 1


def test_stop_says_how_stands_what_is_over() -> None:
    with scripted(status("finished")) as service:
        done = at(service, "stop", "cars")
    assert done.exit_code == 0 and done.stdout == "cars is finished.\n" and len(service.asked) == 1


# the token


def test_the_token_of_a_file_that_others_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    file.write_text("a-token\n")
    file.chmod(0o644)
    assert read_token(file) == "a-token"
    assert f"{file} is readable by others. Fix it: `chmod 600 {file}`." in capsys.readouterr().err
    file.chmod(0o600)
    assert read_token(file) == "a-token"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "held", [b"secret-1\nsecret-2\n", b"secret two", "secret-ü".encode(), b"secret-\xff", b"secret-\x00"]
)
def test_what_is_no_token_is_not_printed(held: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(held)
    (tmp_path / "token").chmod(0o600)
    done = headhunt("jobs", "--token-file", "token")
    assert done.exit_code == 2
    assert "--token-file token: must contain one token and nothing else" in done.stderr
    assert "secret" not in done.output


@pytest.mark.parametrize("held", ["secret-1\nsecret-2", "secret-ü"])
def test_a_variable_that_is_no_token_is_not_printed(held: str) -> None:
    done = headhunt("jobs", HEADHUNT_TOKEN=held)
    assert done.exit_code == 2 and "HEADHUNT_TOKEN: must contain one token" in done.stderr
    assert "secret" not in done.output


def test_a_token_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing: cannot be read"):
        read_token(tmp_path / "missing")
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(UsageError, match=r"empty: the file is empty\. Write a token"):
        read_token(tmp_path / "empty")
