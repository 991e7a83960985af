"""`headhunt serve`, and its clients `submit`, `jobs`, `logs` and `stop`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from features.runtime.commands.frame import DEFAULT_CONFIG, ConfigOption, JsonOption, SetOption, command
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log, shown
from headhunt.service.client.access import DEFAULT_URL, read_token

if TYPE_CHECKING:
    from rich.table import Table

    from headhunt.service.board.schemas import SearchStatus

UrlOption = Annotated[str, typer.Option("--url", envvar="HEADHUNT_URL", help="The service's URL.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with the service's token; or set HEADHUNT_TOKEN."),
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-certificate", metavar="FILE", help="Certificate to trust, for a service with a self-signed one."
    ),
]
SERVE = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "a2wsgi": "a2wsgi",
    "limits": "limits",
    "prometheus-client": "prometheus_client",
}
"""The packages of the extra `serve`, with the module that each provides."""

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The search.")]


def add_commands(app: typer.Typer) -> None:
    """Adds the service commands to the root command."""
    app.command("serve")(serve_command)
    app.command("submit")(submit_command)
    app.command("jobs")(jobs_command)
    app.command("logs")(logs_command)
    app.command("stop")(stop_command)


def serve_command(
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="The work directory, with searches, data sets and weights.")
    ] = Path(),
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    token_file: TokenOption = None,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key (PEM).")] = None,
    storage: Annotated[
        str, typer.Option(metavar="URL", help="Storage of all studies, without a password; default: SQLite in DIR.")
    ] = "",
    ray: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ray job server, e.g. http://head:8265; default: start Ray on this machine."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Concurrent jobs, if the service starts Ray.")] = 1,
    hypermodel: Annotated[
        list[str], typer.Option(metavar="MODULE", help="Module that search.hypermodel may use. Repeatable.")
    ] = [],  # noqa: B006
    store: Annotated[
        list[str], typer.Option(metavar="URL", help="Allowed prefix of features.store URLs. Repeatable.")
    ] = [],  # noqa: B006
    allowed_host: Annotated[
        list[str], typer.Option(metavar="NAME", help="Another host name of the service. Repeatable.")
    ] = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Serve searches, promotions and exports over HTTP, with Optuna's dashboard, in front of Ray Jobs."""
    from pydantic import SecretStr

    with command(json_) as output:
        _check_installed()
        from headhunt.service.http.serve import serve
        from headhunt.service.settings import Settings

        token = read_token(token_file)
        settings = Settings(
            root=Path(os.path.realpath(root)),
            host=host,
            port=port,
            token=SecretStr(token) if token else None,
            token_file=token_file,
            certificate=certificate,
            key=key,
            storage=storage,
            ray=ray,
            jobs=jobs,
            hypermodels=tuple(hypermodel),
            stores=tuple(store),
            hosts=tuple(allowed_host),
        )
        serve(settings, output.result)


def submit_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Resume this search instead; needs no configuration file.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print the log until the job ends.")] = False,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
    json_: JsonOption = False,
) -> None:
    """Start a search on the service; paths in the configuration are relative to the service's work directory."""
    with command(json_, "") as output:
        from features.runtime.configfile import merged
        from headhunt.service.client.client import Client
        from headhunt.service.client.following import job_of, stream_log, wait_until_ended
        from headhunt.service.client.submission import submission

        client = Client(url, read_token(token_file), certificate)
        if resume is None:
            status = client.submit(submission(merged(config, set_), str(config)))
        elif set_ or _is_given(context, "config"):
            raise UsageError(
                "--resume uses the search's own configuration. Remove --config and --set, or submit a search with another "
                "`name`."
            )
        else:
            status = client.resume(resume)
        name, number = status.name, status.jobs[-1].number
        follow_it = _at(context, "logs", name, "--follow")
        output.resume_hint = f"{name} keeps running at {client.url}. To follow it:\n  {follow_it}"
        hint = "" if follow else f" To follow it: {follow_it}"
        output.console.print(f"{name} is {status.state}.{hint}")
        try:
            if follow:
                _write(stream_log(client, name, number), sys.stderr.buffer)
                status = wait_until_ended(client, name, number)
        finally:
            output.result(status.model_dump(mode="json"))
        job = job_of(status, number)
        if follow and job.state != "finished":
            raise HeadhuntError(f"{name}: {job.state}. {job.message or ''}".rstrip())


def jobs_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="List the jobs of this search.")] = None,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
    json_: JsonOption = False,
) -> None:
    """List the service's searches, or the jobs of one."""
    with command(json_, "") as output:
        from headhunt.service.client.client import Client

        client = Client(url, read_token(token_file), certificate)
        if name is not None:
            status = client.search(name)
            output.console.print(_jobs_table(status))
            output.result(status.model_dump(mode="json"))
            return
        found = client.searches()
        if found.searches:
            output.console.print(_searches_table(found.searches))
        else:
            output.console.print("No searches yet. To start one: headhunt submit -c headhunt.yaml")
        output.result(found.model_dump(mode="json"))


def logs_command(
    name: NameArgument,
    job: Annotated[int | None, typer.Option(min=1, help="Job number; default: the latest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the job ends.")] = False,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
) -> None:
    """Print the log of a search's job."""
    with command(False, ""):
        from headhunt.service.client.client import Client
        from headhunt.service.client.following import stream_log

        client = Client(url, read_token(token_file), certificate)
        if follow:
            number = client.search(name).jobs[-1].number if job is None else job
            _write(stream_log(client, name, number), sys.stdout.buffer)
        else:
            _write(client.logs(name, job, follow=False), sys.stdout.buffer)


def stop_command(
    context: typer.Context,
    name: NameArgument,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the job has ended.")] = False,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
    json_: JsonOption = False,
) -> None:
    """Ask a search to save its state and stop; `headhunt submit --resume NAME` resumes it."""
    with command(json_, "") as output:
        from headhunt.service.client.client import Client
        from headhunt.service.client.following import job_of, wait_until_ended
        from headhunt.service.jobs.records import ACTIVE

        client = Client(url, read_token(token_file), certificate)
        status = client.stop(name)
        number = status.jobs[-1].number
        waits = not no_wait and job_of(status, number).state in ACTIVE
        try:
            if waits:
                output.resume_hint = f"{name} is still stopping. To check on it:\n  {_at(context, 'jobs', name)}"
                log.print(f"{name} is saving its state …")
                status = wait_until_ended(client, name, number)
        finally:
            output.result(status.model_dump(mode="json"))
        job = job_of(status, number)
        state = job.state
        if waits and state not in ("stopped", "finished"):
            raise HeadhuntError(f"{name} did not stop as requested; its state is {state}. {job.message or ''}".rstrip())
        hint = ""
        if state != "finished":
            go_on = "To resume it once it has ended" if state in ACTIVE else "To resume it"
            hint = f" {go_on}: {_at(context, 'submit', '--resume', name)}"
        output.console.print(f"{name} is {state}.{hint}")


def _check_installed() -> None:
    """Raises UsageError if packages of the extra `serve` are missing."""
    missing = [package for package, module in SERVE.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"the service needs these missing packages: {', '.join(missing)}. Run `pip install 'headhunt[serve]'`. Its clients "
            "(submit, jobs, logs, stop) work without them."
        )


def _is_given(context: typer.Context, parameter: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _at(context: typer.Context, *words: str) -> str:
    """A command for the same service: repeats the options that select the service, if given here."""
    options = {"url": "--url", "token_file": "--token-file", "certificate": "--tls-certificate"}
    given = [
        part
        for parameter, option in options.items()
        if _is_given(context, parameter)
        for part in (option, str(context.params[parameter]))
    ]
    return shown([*words, *given])


def _write(pieces: Iterable[bytes], to: BinaryIO) -> None:
    for piece in pieces:
        to.write(piece)
        to.flush()


def _searches_table(searches: list[SearchStatus]) -> Table:
    from rich.table import Table

    table = Table("search", "state", "stage", "trials", "best", "trials/min", "created (UTC)")
    for one in searches:
        trials, best, pace = one.trials, one.best, one.trials_per_minute
        ended = trials.complete + trials.pruned + trials.failed + trials.added
        cells = (
            one.name,
            one.state,
            one.stage or "",
            f"{ended} of {trials.total}",
            f"{one.objective} {best.value:.4f} (trial {best.number})" if best else "",
            f"{pace:.1f}" if pace else "",
            one.created[:19].replace("T", " "),
        )
        table.add_row(*cells)
    return table


def _jobs_table(status: SearchStatus) -> Table:
    from rich.table import Table

    columns = ("job", "kind", "state", "stage", "started (UTC)", "ended (UTC)", "message")
    table = Table(*columns, title=status.name)
    for job in status.jobs:
        times = [(time or "")[:19].replace("T", " ") for time in (job.started, job.ended)]
        cells = (str(job.number), job.kind, job.state, job.stage or "", *times, job.message or "")
        table.add_row(*cells)
    return table
