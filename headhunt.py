"""headhunt: the four stages' command-line apps as one command.

`run` and `demo` start every stage as a process of its own, since a process has one Keras backend for its life: the search
trains on JAX, the convolutional stages on TensorFlow.
"""

from __future__ import annotations

import signal

signal.signal(
    signal.SIGINT, signal.SIG_DFL
)  # Ctrl-C during the imports below ends quietly; main() takes over after them

import json
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from features.atomic import write_text
from features.cli import app as features_app
from features.command import (
    DEFAULT_CONFIG,
    INTERRUPTED,
    ConfigOption,
    JsonOption,
    Output,
    SetOption,
    command,
    log,
    relative,
    settings,
)
from features.configfile import validate
from features.dataset import load_index
from features.errors import UsageError
from features.executors import check_devices
from features.interrupts import interrupt
from features.stages import run_stage
from features.template import commented_yaml
from reports.cli import app as reports_app
from reports.config import Run
from reports.dataset.section import collect as dataset_facts
from reports.service.cli import add_commands
from search.cli import app as search_app
from search.leaderboard import leaders
from search.confirm.ranking import Confirmed
from search.confirm.table import show_interval
from search.ranking import OPTIMISTIC
from search.searched_views import check_choices
from search.top5 import says_something
from train.cli import app as train_app

STAGES = {
    "prepare": ("features", "prepare"),
    "cache": ("features", "cache"),
    "search": ("search", "run"),
    "confirm": ("search", "confirm"),
    "promote": ("train", "promote"),
    "export": ("train", "export"),
    "report": ("reports", "build"),
}
"""What `run` runs, by its key in the `--json` object, in order."""

DATASETS: dict[str, dict[str, Any]] = {
    "stanford_cars": {"root": "data/stanford_cars"},
    "folder": {"root": "data/photos"},
    "csv": {"file": "data/photos.csv"},
    "toy_cars": {},
}
"""What `init` writes below `dataset` for each kind; everything else is the defaults."""

DEMO: dict[str, Any] = {
    "name": "demo",
    "dataset": {"kind": "toy_cars", "image_size": 224},
    "features": {"backbone": "efficientnet_lite0", "copies": 2, "workers": {"count": 2, "cpus": 1}},
    "search": {
        "trials": 24,
        "pruner": "none",  # so that the worst head has had its chance
    },
    "train": {
        "workers": {"count": 2, "cpus": 1},
        "finetune": {
            "augmentation": "mild",
            "unfreeze_conv_layers": 12,
            "epochs": 5,
            "schedule": {"kind": "warmup_cosine", "learning_rate": 3e-4, "warmup_epochs": 1},
        },
    },
    "reports": {
        "fidelity": {  # for `headhunt reports fidelity`, which the demo does not run
            "configurations": 6,
            "seeds": 2,
            "epochs": 3,
            "copies": [0, 1, 2],
            "clean_shares": [0.5],
            "policies": [],
            "finetuned": 3,
            "finetune": {
                "augmentation": "mild",
                "unfreeze_conv_layers": 3,
                "epochs": 2,
                "learning_rate": 3e-4,
                "activation_copies": 1,
            },
            "cost_photos": 16,
        }
    },
}
"""What `demo` runs: drawn cars, the backbone whose weights are installed, few trials."""


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(features_app, name="features")
app.add_typer(search_app, name="search")
app.add_typer(train_app, name="train")
app.add_typer(reports_app, name="reports")


def main() -> None:
    """Entry point of the console script. SIGTERM (a scheduler's preemption) and SIGHUP (a terminal that was closed, unless under
    nohup) are treated as Ctrl-C: state saved, exit 130."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    try:
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {signal.SIGINT}
        )  # a stage starts with it blocked, see features.stages
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    app(prog_name="headhunt")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"headhunt {metadata.version('headhunt')}\n")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = (
        False
    ),
) -> None:
    """Find the best classifier head for a frozen vision backbone, and the learning-rate schedule to train it with."""
    context.obj = Run


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write.")] = Path(),
    dataset: Annotated[
        Literal["stanford_cars", "folder", "csv", "toy_cars"], typer.Option(help="The kind of data set.")
    ] = "stanford_cars",
    json_: JsonOption = False,
) -> None:
    """Write a commented headhunt.yaml with every default, and its JSON Schema for the editor."""
    with command(json_) as output:
        file = folder / DEFAULT_CONFIG
        if file.exists():
            raise UsageError(f"{relative(file)} exists already. Edit it, or name another folder: `headhunt init DIR`.")
        run = _configuration({"dataset": {"kind": dataset, **DATASETS[dataset]}})
        schema = folder / "headhunt.schema.json"
        write_text(schema, json.dumps(Run.model_json_schema(), indent=2) + "\n")
        write_text(file, f"# yaml-language-server: $schema={schema.name}\n{commented_yaml(run)}")
        output.console.print(f"Wrote {relative(file)} and {schema.name}. Next: edit `dataset`, then `headhunt run`.")
        output.result({"config": relative(file), "schema": relative(schema)})


@app.command()
def run(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Prepare, cache, search, confirm, promote, export and report; skips what is already done."""
    with command(json_) as output:
        checked = settings(context, Run, config, set_)
        _run_stages(checked, config, set_, output)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run's folder goes.")] = Path("headhunt-demo"),
    json_: JsonOption = False,
) -> None:
    """The whole pipeline on drawn cars: no download, a few minutes on two cores."""
    with command(json_) as output:
        file = out / DEFAULT_CONFIG
        checked = _configuration({**DEMO, "workdir": str(out / "run")})
        text = f"# The configuration of `headhunt demo`.\n{commented_yaml(checked)}"
        if not file.exists():
            write_text(file, text)
        elif file.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{relative(file)} exists and is not this demo's. Run it with `headhunt run -c {relative(file)}`, or "
                "name another folder with --out."
            )
        _run_stages(checked, file, (), output)


def _configuration(raw: dict[str, Any]) -> Run:
    return validate(Run, raw, "of the defaults")


def _run_stages(checked: Run, file: Path, overrides: Sequence[str], output: Output) -> None:
    """Runs every stage, prints the summary, and gives the `--json` object."""
    results: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    settings_ = ["--config", str(file), *(part for override in overrides for part in ("--set", override))]
    stages = {key: words for key, words in STAGES.items() if key != "confirm" or checked.search.confirm is not None}
    for workers in (checked.features.workers, checked.search.workers, checked.promotion_workers):
        check_devices(workers)
    check_choices(checked)
    for position, (key, words) in enumerate(stages.items(), start=1):
        log.rule(f"{position}/{len(stages)}  {' '.join(words)}", align="left")
        started = time.monotonic()
        results[key] = run_stage([*words, *settings_, "--json"])
        seconds[key] = time.monotonic() - started
    verdict = results["export"]["verdict"]
    output.console.print(verdict["text"])
    output.console.print(_summary(checked, results, seconds))
    output.console.print(f"\nreport  {results['report']['report']}\nexport  {results['export']['folder']}")
    output.result({"verdict": verdict, **dict.fromkeys(STAGES), **results, "seconds": seconds})


def _summary(checked: Run, results: dict[str, Any], seconds: dict[str, float]) -> Table:
    """A row for each stage: what came of it and how long it took."""
    prepared, cached, searched = results["prepare"], results["cache"], results["search"]
    counts = ", ".join(f"{count} {state}" for state, count in searched["trials"].items())
    ranked = [leader.value for leader in leaders(checked)]
    objective = checked.search.objective
    rows = {
        "prepare": f"{prepared['images']} photos of {prepared['classes']} classes",
        "cache": _cached([cached, *cached.get("others", {}).values()], prepared["images"]),
        "search": f"{counts}; {objective} of the best head {ranked[0]:.4f}, of the worst that ran to its end {ranked[-1]:.4f}",
        **({"confirm": _confirmed(results["confirm"], objective)} if "confirm" in results else {}),
        "promote": "\n".join(
            _promoted(row, says_something(prepared["classes"])) for row in results["promote"]["promotions"]
        ),
        "export": f"trial {results['export']['trial']}: {', '.join(results['export']['formats'])}",
        "report": f"{len(results['report']['sections'])} sections",
    }
    table = Table("stage", "result", "seconds", title=checked.name)
    for stage, text in rows.items():
        table.add_row(stage, text, f"{seconds[stage]:.0f}")
    frequent = dataset_facts(load_index(checked)).most_frequent
    table.caption = (
        f"Values on validation photos are {OPTIMISTIC}. Always naming the most frequent class would be right for "
        f"{frequent:.4f} of the test photos."
    )
    return table


def _cached(built: Sequence[dict[str, Any]], images: int) -> str:
    """The caches of all policies in a line; they share the records of the clean images."""
    copies = ", ".join(f"{one['copies']} augmented copies of {one['policy']}" for one in built)
    records = images + sum(one["records"] - images for one in built)
    size = records * built[0]["bytes"] / built[0]["records"]
    return f"{records} feature vectors, {copies}, {size / 1e6:.1f} MB"


def _promoted(row: dict[str, Any], top5: bool) -> str:
    """A promotion in a line; without test accuracies where the test photos were left alone, with `top5` accuracy or without."""
    tuned = row["tuned"]
    before = "" if row["stage"] == "frozen" else f"{row['frozen']['val_accuracy']:.4f} frozen, "
    told = f"trial {row['trial']}: val {before}{tuned['val_accuracy']:.4f} {row['stage']}"
    if tuned["test_accuracy"] is None:
        return told
    five = f", top-5 {tuned['test_top5_accuracy']:.4f}" if top5 else ""
    return f"{told}; test {tuned['test_accuracy']:.4f}{five}"


def _confirmed(result: dict[str, Any], objective: str) -> str:
    """The best of the confirmed leaders in a line."""
    best, *others = map(Confirmed.model_validate, result["confirmed"])
    spread = show_interval(best, "{:.4f}".format)
    how = f"over {len(best.seeds)} seeds (95 % interval {spread})" if best.interval else f"({spread})"
    return f"trial {best.number} of {1 + len(others)} leaders: {objective} {best.mean:.4f} {how}"


add_commands(app)

if __name__ == "__main__":
    main()
