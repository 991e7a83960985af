"""`headhunt serve`, and its clients `submit`, `jobs`, `logs` and `stop`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import SecretStr
from rich.table import Table

from features.command import DEFAULT_CONFIG, ConfigOption, JsonOption, Output, SetOption, command, log
from features.configfile import merged
from features.errors import HeadhuntError
from reports.service.client import DEFAULT_URL, Client, read_token
from reports.service.records import ACTIVE
from reports.service.serve import serve
from reports.service.settings import Settings

UrlOption = Annotated[str, typer.Option("--url", envvar="HEADHUNT_URL", help="Where the service is.")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="A file with the service's token; or HEADHUNT_TOKEN."),
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option("--tls-certificate", metavar="FILE", help="Trust this certificate, of a service with one of its own."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The search.")]


def add_commands(app: typer.Typer) -> None:
    """Adds the commands to the root command."""
    app.command("serve")(serve_command)
    app.command("submit")(submit_command)
    app.command("jobs")(jobs_command)
    app.command("logs")(logs_command)
    app.command("stop")(stop_command)


def serve_command(
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="The work directory: searches, data sets and weights are in it.")
    ] = Path(),
    host: Annotated[str, typer.Option(help="The address to listen on; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0: any that is free.")] = 8000,
    token_file: TokenOption = None,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key (PEM).")] = None,
    storage: Annotated[
        str, typer.Option(metavar="URL", help="Where all studies are kept, without a password; default: SQLite in DIR.")
    ] = "",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ray's job server, e.g. http://head:8265; default: start Ray on this machine."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs at a time, on a Ray that is started here.")] = 1,
    hypermodel: Annotated[
        list[str], typer.Option(metavar="MODULE", help="A module that search.hypermodel may name. Repeatable.")
    ] = [],  # noqa: B006
    store: Annotated[
        list[str], typer.Option(metavar="URL", help="A prefix that features.store may have. Repeatable.")
    ] = [],  # noqa: B006
    allowed_host: Annotated[
        list[str], typer.Option(metavar="NAME", help="Another name that the service is known by. Repeatable.")
    ] = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Serve searches, promotions and exports over HTTP, with Optuna's dashboard, in front of Ray Jobs."""
    with command(json_) as output:
        token = read_token(token_file)
        settings = Settings(
            root=Path(os.path.realpath(root)),
            host=host,
            port=port,
            token=SecretStr(token) if token else None,
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
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with this search instead; needs no configuration file.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print its log until it is over.")] = False,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
    json_: JsonOption = False,
) -> None:
    """Start a search on the service; paths in the configuration start at the service's work directory."""
    with command(json_) as output:
        client = Client(url, read_token(token_file), certificate)
        if resume is None:
            configuration = _without_places(merged(config, set_))
            status = client.submit(yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True))
        else:
            status = client.resume(resume)
        name = status["name"]
        output.console.print(f"{name} is {status['state']}. Follow it: headhunt logs {name} --follow", markup=False)
        if follow:
            _print_logs(client, name, None, True, sys.stderr.buffer)
            status = _over(client, name, output)
        output.result(status)


def jobs_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The jobs of this search.")] = None,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
    json_: JsonOption = False,
) -> None:
    """List the service's searches, or the jobs of one."""
    with command(json_) as output:
        client = Client(url, read_token(token_file), certificate)
        if name is not None:
            status = client.search(name)
            output.console.print(_jobs_table(status))
            output.result(status)
            return
        found = client.searches()
        if found:
            output.console.print(_searches_table(found))
        else:
            output.console.print("No searches yet. Start one: headhunt submit -c headhunt.yaml")
        output.result({"searches": found})


def logs_command(
    name: NameArgument,
    job: Annotated[int | None, typer.Option(min=1, help="The job's number; default: the latest.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
) -> None:
    """Print what a search's job says."""
    with command(False):
        _print_logs(Client(url, read_token(token_file), certificate), name, job, follow, sys.stdout.buffer)


def stop_command(
    name: NameArgument,
    url: UrlOption = DEFAULT_URL,
    token_file: TokenOption = None,
    certificate: AuthorityOption = None,
    json_: JsonOption = False,
) -> None:
    """Ask a search to save its state and end; `headhunt submit --resume NAME` goes on with it."""
    with command(json_) as output:
        status = Client(url, read_token(token_file), certificate).stop(name)
        resume = (
            f" Go on with it: headhunt submit --resume {name}" if status["state"] in ("stopping", "stopped") else ""
        )
        output.console.print(f"{name} is {status['state']}.{resume}", markup=False)
        output.result(status)


def _without_places(configuration: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what a service decides; a line says what was left out."""
    kept = {key: value for key, value in configuration.items() if key != "workdir"}
    left_out = ["workdir"] if "workdir" in configuration else []
    search = configuration.get("search")
    if isinstance(search, dict) and "storage" in search:
        kept["search"] = {key: value for key, value in search.items() if key != "storage"}
        left_out.append("search.storage")
    if left_out:
        log.print(f"Left out, since the service has its own: {', '.join(left_out)}.")
    return kept


def _print_logs(client: Client, name: str, job: int | None, follow: bool, to: Any) -> None:
    for piece in client.logs(name, job, follow):
        to.write(piece)
        to.flush()


def _over(client: Client, name: str, output: Output) -> dict[str, Any]:
    """How a search that was followed to its end stands; HeadhuntError when that is no good one."""
    while (status := client.search(name))["state"] in ACTIVE:  # its log may end before the service has seen its end
        time.sleep(0.2)
    if status["state"] != "finished":
        output.result(status)
        raise HeadhuntError(f"{name}: {status['state']}. {status['message'] or ''}".rstrip())
    return status


def _searches_table(searches: list[dict[str, Any]]) -> Table:
    table = Table("search", "state", "stage", "trials", "best", "trials/min", "created (UTC)")
    for one in searches:
        trials, best, pace = one["trials"], one["best"], one["trials_per_minute"]
        ended = trials["complete"] + trials["pruned"] + trials["failed"]
        table.add_row(
            one["name"],
            one["state"],
            one["stage"] or "",
            f"{ended} of {trials['total']}",
            f"{one['objective']} {best['value']:.4f} (trial {best['number']})" if best else "",
            f"{pace:.1f}" if pace else "",
            one["created"][:19].replace("T", " "),
        )
    return table


def _jobs_table(status: dict[str, Any]) -> Table:
    table = Table("job", "kind", "state", "stage", "started (UTC)", "ended (UTC)", "message", title=status["name"])
    for job in status["jobs"]:
        times = [(job[key] or "")[:19].replace("T", " ") for key in ("started", "ended")]
        table.add_row(str(job["number"]), job["kind"], job["state"], job["stage"] or "", *times, job["message"] or "")
    return table
