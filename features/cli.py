"""`headhunt features`: prepare, cache, info, verify, repair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from features.runtime.errors import HeadhuntError
from features.runtime.log import log, relative

if TYPE_CHECKING:
    from features.cache.feature_cache import FeatureCache
    from features.config import FeaturesRun
    from features.dataset.index import DatasetIndex

app = typer.Typer(no_args_is_help=True, help="Stage 1: photos in, feature cache out.")


@app.command("prepare")
def prepare_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    materialize: Annotated[
        Literal["link", "copy"] | None, typer.Option(help="Also create class folders, with links or copies.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check and split the photos, and write dataset/index.csv."""
    with command(json_) as output:
        from features.config import FeaturesRun
        from features.dataset.prepare import prepare
        from features.run_file import settings

        result = prepare(settings(context, FeaturesRun, config, set_), materialize)
        splits = ", ".join(f"{count} {split}" for split, count in result["splits"].items())
        skipped = f" ({result['skipped']} skipped)" if result["skipped"] else ""
        output.console.print(
            f"{result['images']} photos of {result['classes']} classes{skipped}: {splits}. Index: {result['index']}"
        )
        output.result(result)


@app.command("cache")
def cache_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    json_: JsonOption = False,
) -> None:
    """Build, resume or grow the feature cache."""
    with command(json_) as output:
        from features.building.build import build_caches

        result = build_caches(_settings(context, config, set_, workers, executor))
        for built in (result, *result.get("others", {}).values()):
            _print_build(output.console, built)
        output.result(result)


@app.command("info")
def info_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    image: Annotated[
        int | None, typer.Option(help="Row of the index whose views to show on the contact sheet.", metavar="N")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show what is cached, and draw a training photo's views as the backbone saw them."""
    with command(json_) as output:
        from rich.table import Table

        from features.audit.view_accuracies import view_accuracies
        from features.augmentation.policies import of_policy, policy_sections
        from features.building.info import cache_facts, lines
        from features.cache.feature_cache import cache_for
        from features.config import FeaturesRun
        from features.dataset.index import load_index
        from features.run_file import settings

        run = settings(context, FeaturesRun, config, set_)
        index = load_index(run)
        caches = {name: cache_for(run, name) for name in policy_sections(run.features)}
        facts = cache_facts(run, index, next(iter(caches.values())))
        facts["policies"] = {name: cache.copies for name, cache in caches.items()}
        facts["views"] = view_accuracies(caches)
        sheets = {name: _sheet(of_policy(run, name), index, cache, image) for name, cache in caches.items()}
        facts["contact_sheet"] = next(iter(sheets.values()))
        facts["contact_sheets"] = sheets
        table = Table(show_header=False, box=None)
        for name, value in lines(facts):
            table.add_row(name, value)
        output.console.print(table)
        output.result(facts)


@app.command("verify")
def verify_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Read every byte of the cache and check it against manifest and index; exit status 1 on any fault."""
    with command(json_) as output:
        from features.building.doctor import verify
        from features.config import FeaturesRun
        from features.run_file import settings

        result = verify(settings(context, FeaturesRun, config, set_))
        for fault in result["faults"]:
            record = "" if fault["record"] is None else f", record {fault['record']}"
            policy = f"{fault['policy']}: " if "policy" in fault else ""
            output.console.print(f"{policy}{fault['shard'] or 'input'}{record}: {fault['what']}")
        entering = ", ".join(f"{name} {value:g}" for name, value in result["input"].items())
        output.console.print(f"Read {result['bytes'] / 1e6:.1f} MB. Backbone input: {entering}.")
        output.console.print("The cache is intact." if result["ok"] else "Fix it with `headhunt features repair`.")
        output.result(result)
        if not result["ok"]:
            raise typer.Exit(1)


@app.command("repair")
def repair_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    json_: JsonOption = False,
) -> None:
    """Recompute damaged shards; the others are kept."""
    with command(json_) as output:
        from features.building.doctor import repair

        result = repair(_settings(context, config, set_, workers, executor))
        for built in (result, *result.get("others", {}).values()):
            _print_build(output.console, built)
        output.result(result)


def _sheet(run: FeaturesRun, index: DatasetIndex, cache: FeatureCache, image: int | None) -> str | None:
    """Path of the contact sheet of one policy's cache; None, after logging why, if the default photo cannot be read."""
    from features.building.contact_sheet import sheet_of, write_contact_sheet

    try:
        return relative(write_contact_sheet(sheet_of(run, index, cache.folder, cache.copies), image))
    except HeadhuntError as error:
        if image is not None:
            raise
        log.print(f"No contact sheet: {error}", style="yellow")
        return None


def _settings(
    context: typer.Context, config: Path, set_: list[str], workers: int | None, executor: str | None
) -> FeaturesRun:
    from features.config import FeaturesRun
    from features.run_file import settings

    given = {"count": workers, "executor": executor}
    chosen = [f"features.workers.{key}={value}" for key, value in given.items() if value is not None]
    return settings(context, FeaturesRun, config, [*set_, *chosen])


def _print_build(console: Any, result: dict[str, Any]) -> None:
    console.print(
        f"{result['records']} records in {result['shards_written'] + result['shards_reused']} shards "
        f"({result['shards_written']} new), {result['bytes'] / 1e6:.1f} MB, copies of {result['policy']}: {result['copies']}, "
        f"{result['seconds']:.1f} s. Cache: {result['cache']}"
    )
