"""`headhunt search`: run, top, confirm, dashboard."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from features.runtime.commands.frame import (
    DEFAULT_CONFIG,
    ConfigOption,
    ExecutorOption,
    JsonOption,
    SetOption,
    WorkersOption,
    command,
)
from features.runtime.errors import CacheError, UsageError
from features.runtime.log import log

if TYPE_CHECKING:
    from rich.table import Table

    from search.config import SearchRun
    from search.confirm.ranking import Confirmation
    from search.leaderboard import Leader
    from search.parameters import Space

app = typer.Typer(no_args_is_help=True, help="Stage 2: feature cache in, study out.")

SAMPLES = 10
"""Number of trials that `--dry-run` draws."""


@app.command("run")
def run_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    trials: Annotated[int | None, typer.Option(min=1, help="Total number of trials; default: search.trials.")] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="Start no new trials after this many hours, summed over all runs; default: search.hours."),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Stop once the objective reaches this value; default: search.target.")
    ] = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the space, its size and ten samples; train nothing.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Start the study, or resume it until all its trials are done."""
    with command(json_) as output:
        from features.run_file import settings
        from search.config import SearchRun
        from search.confirm.ranking import confirmed_first
        from search.first_trials import label_of
        from search.ranking import OPTIMISTIC
        from search.study import run_search

        given = {"trials": trials, "hours": hours, "target": target}
        chosen = _chosen({**given, "workers.count": workers, "workers.executor": executor})
        run = settings(context, SearchRun, config, [*set_, *chosen])
        if dry_run:
            output.result(_dry_run(run, output.console))
            return
        result = run_search(run)
        counts = ", ".join(f"{count} {state}" for state, count in result["trials"].items())
        best = result["best"]
        output.console.print(f"Study {result['study']} in {result['storage']}: {counts}; {result['seconds']:.1f} s.")
        if best:
            output.console.print(
                f"Best: trial {best['number']}, {run.search.objective} {best['value']:.4f}, which is {OPTIMISTIC}."
            )
            (first, *_), confirmation = confirmed_first(run)
            if confirmation is not None and first.number != best["number"]:
                named = label_of(first.number, first.first)
                output.console.print(
                    f"By `headhunt search confirm`, trial {named} ranks first: promotion follows that."
                )
        output.result(result)


@app.command("top")
def top_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    top: Annotated[int, typer.Option(min=1, help="Number of trials to show.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Show the leaderboard, confirmed leaders first."""
    with command(json_) as output:
        from features.run_file import settings
        from search.config import SearchRun
        from search.confirm.ranking import by_confirmation, load_confirmation
        from search.leaderboard import leaders, load_study
        from search.ranking import is_external

        run = settings(context, SearchRun, config, set_)
        ranked = leaders(run)
        confirmation = load_confirmation(run, ranked)
        if confirmation is not None:
            ranked = by_confirmation(ranked, confirmation)
        best = ranked[:top]
        output.console.print(_leaderboard(run, best, confirmation))
        if confirmation is not None:
            output.console.print(confirmation.order)
        added = [
            trial
            for trial in load_study(run).get_trials(deepcopy=False)
            if trial.state.name == "COMPLETE" and is_external(trial)
        ]
        if added:
            shown = ", ".join(f"{trial.number} ({_short(trial.value)})" for trial in added[:top])
            output.console.print(f"Added to the study from outside this search, not ranked: trial {shown}.")
        output.result({"trials": [_row(leader, confirmation) for leader in best]})


@app.command("confirm")
def confirm_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    top: Annotated[int | None, typer.Option(help="Number of leaders; default: search.confirm.top.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Seeds per leader, at least 2; default: search.confirm.seeds.")
    ] = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    json_: JsonOption = False,
) -> None:
    """Retrain the leaders with several seeds and rank them by their mean."""
    with command(json_) as output:
        from features.run_file import settings
        from search.config import SearchRun
        from search.confirm.rerun import confirm
        from search.confirm.table import confirmation_table

        chosen = _chosen({"workers.count": workers, "workers.executor": executor})
        run = settings(context, SearchRun, config, [*set_, *chosen])
        result = confirm(run, top, seeds)
        output.console.print(confirmation_table(run, result))
        output.result(result)


@app.command("dashboard")
def dashboard_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8080,
    json_: JsonOption = False,
) -> None:
    """Serve Optuna's dashboard on the study until Ctrl-C."""
    with command(json_) as output:
        from features.run_file import settings
        from search.config import SearchRun
        from search.leaderboard import load_study
        from search.review.dashboard import dashboard

        run = settings(context, SearchRun, config, set_)
        load_study(run)
        _check_port(host, port)
        if host not in ("127.0.0.1", "localhost", "::1"):
            log.print(
                f"The dashboard has no password: anyone who can reach {host} can change the study.", style="yellow"
            )
        application = dashboard(run.search.storage, run.workdir)
        output.result({"url": f"http://{host}:{port}/dashboard/", "study": run.name})
        log.print(f"Optuna's dashboard: http://{host}:{port}/dashboard/ (Ctrl-C stops it)")
        _serve(application, host, port)


def _serve(application: Any, host: str, port: int) -> None:
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged."""

    with make_server(host, port, application, Server, Quiet) as server:
        server.serve_forever()


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"port {port} on {host} cannot be used: {error.strerror}. Choose another one with --port."
            ) from None


def _chosen(given: Mapping[str, Any]) -> list[str]:
    """Command-line options as configuration overrides."""
    return [f"search.{key}={value}" for key, value in given.items() if value is not None]


def _row(leader: Leader, confirmation: Confirmation | None) -> dict[str, Any]:
    """A trial of `search top --json`: `params` holds the drawn values, `config` what it was trained with. If the study has a
    confirmation, `confirmed` holds the trial's entry, or null."""
    row = {
        "number": leader.number,
        "value": leader.value,
        "top5": leader.top5,
        "params": leader.params,
        "config": leader.config.model_dump(mode="json"),
        "first": leader.first,
    }
    if confirmation is None:
        return row
    found = confirmation.of(leader.number)
    return {**row, "confirmed": found and found.model_dump(mode="json")}


def _dry_run(run: SearchRun, console: Any) -> dict[str, Any]:
    import optuna
    import yaml

    from features.cache.views import Views
    from features.dataset.index import index_path
    from search.first_trials import TITLES
    from search.objectives import open_space
    from search.population.sources import Caches
    from search.samplers.choice import make_sampler
    from search.searched_views import check_choices

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_choices(run)
    if index_path(run).exists():
        with suppress(CacheError):  # the cache may not exist yet
            Caches(run)
    space = open_space(run)
    study = optuna.create_study()
    samples = []
    for number in range(SAMPLES):
        study.sampler = make_sampler("random", space, run.search.seed, number)
        trial = study.ask()
        space.suggest(trial, run.search.views or Views(), run.search.epochs, 0)
        samples.append(trial.params)
    shown = _declared(space)
    console.print(yaml.safe_dump({"space": shown}, sort_keys=False).rstrip())
    console.print(f"\nSize: {_show_size(space.size())}. {SAMPLES} samples:")
    for sample in samples:
        console.print("  " + ", ".join(f"{name}={_short(value)}" for name, value in sample.items()))
    if run.search.first and run.search.hypermodel is None:
        console.print(f"Tried before these: {', '.join(TITLES[name] for name in run.search.first)} (search.first).")
    size = space.size()
    return {"space": shown, "size": None if math.isinf(size) else size, "samples": samples}


def _show_size(size: float) -> str:
    return "infinite: it has continuous ranges" if math.isinf(size) else f"{size:,.0f}"


def _declared(space: Space) -> dict[str, Any]:
    """A space as written in YAML; for a hypermodel, its parameters with their conditions."""
    from search.parameters import Range
    from search.space import SearchSpace

    if isinstance(space, SearchSpace):
        return space.model_dump(mode="json")
    shown: dict[str, Any] = {}
    for parameter in space.parameters():
        domain = parameter.domain
        shown[parameter.name] = domain.model_dump(exclude_defaults=True) if isinstance(domain, Range) else list(domain)
        if parameter.when:
            shown[parameter.name] = {"values": shown[parameter.name], "when": {n: list(v) for n, v in parameter.when}}
    return shown


def _leaderboard(run: SearchRun, best: list[Leader], confirmation: Confirmation | None) -> Table:
    from rich.table import Table

    from search.confirm.table import show_confirmed
    from search.first_trials import label_of
    from search.ranking import OPTIMISTIC
    from search.review.describe import shown_values
    from search.top5 import is_shown

    names = list(dict.fromkeys(name for leader in best for name in leader.params))
    added = [] if confirmation is None else [f"confirmed, {len(confirmation.confirmed[0].seeds)} seeds"]
    top5 = ["top-5"] if is_shown(run) else []
    columns = ["trial", run.search.objective, *top5, *added, *(name.removeprefix("head.") for name in names)]
    table = Table(*columns, title=run.name, caption=f"{run.search.objective} is {OPTIMISTIC}.")
    for leader in best:
        marked = [] if confirmation is None else [show_confirmed(confirmation.of(leader.number))]
        own = shown_values(leader.config, run.features)
        values = (own.get(name, "") for name in names)
        measured = [f"{leader.value:.4f}", *([f"{leader.top5:.4f}"] if top5 else [])]
        table.add_row(label_of(leader.number, leader.first), *measured, *marked, *values)
    return table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
