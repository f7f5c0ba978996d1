"""``heimdall search``: settings searched through the graph; what past searches found."""

import json
from pathlib import Path
from typing import Any

import click

from heimdall_assets.cli.settings.choosing import Asked, build_spec, find_dataset, read_chosen, settings_options
from heimdall_assets.cli.terminal.homes import check_trainable, look_home, open_home
from heimdall_assets.cli.terminal.output import (
    json_option,
    write_fields,
    write_json,
    write_notice,
    write_table,
    write_text,
)
from heimdall_assets.cli.terminal.progress import show_progress
from heimdall_assets.counts import say_count
from heimdall_assets.places import read_places
from heimdall_assets.specs import SearchSpec, Spec

SHOWN = 12
"""Characters of a digest, and trials of a search, that people are shown."""

_OPTIONS = {
    "num_trials": ("--trials", click.IntRange(1), "Fits; a grid ends with its last point."),
    "sampler": ("--sampler", click.Choice(["grid", "tpe", "random"]), "How values are drawn."),
    "pruner": ("--pruner", click.Choice(["none", "asha", "hyperband"]), "What stops trials that do worse."),
    "max_epochs": ("--trial-epochs", click.IntRange(1), "Of a trial."),
    "objective": ("--objective", click.Choice(["val_loss", "val_median_m"]), "What is made small, on validation."),
    "num_workers": ("--workers", click.IntRange(1), "Steps that share the trials."),
}
"""Setting of ``SearchSpec`` -> the option that says it."""


def _search_options(command: Any) -> Any:
    for name, (option, kind, text) in reversed(_OPTIONS.items()):
        command = click.option(option, name, type=kind, help=text)(command)
    return click.option(
        "--space",
        multiple=True,
        metavar="Spec.field=VALUES",
        help="A setting that is tried: a|b|c, log(low,high) or uniform(low,high); may be repeated.",
    )(command)


@click.group(invoke_without_command=True, short_help="Try settings, judged on the validation split.")
@_search_options
@settings_options
@click.option("--reason", metavar="TEXT", help="Why you search; it stands in the lineage of what is made.")
@json_option
@click.pass_context
def search(
    context: click.Context,
    /,
    asked: Asked,
    reason: str | None,
    as_json: bool,
    **said: Any,
) -> None:
    """Try settings through the graph, each with a fit of its own, judged on the validation split alone.

    A search that was stopped or killed goes on with the same command. `heimdall train --search latest` trains with what
    was found.
    """
    if context.invoked_subcommand is not None:
        return
    chosen = _choose(read_chosen(asked).specs, said)
    check_trainable(open_home(), find_dataset(chosen))
    with show_progress("Searching settings") as listener:
        from heimdall_assets.defs.jobs import SEARCH
        from heimdall_assets.kinds import HYPERPARAMETER_SEARCH
        from heimdall_assets.running.graph_run import run_job

        ran = run_job(read_places(), SEARCH, chosen, listener, reason)
    found = ran.manifests[HYPERPARAMETER_SEARCH]
    told = {"search": found.digest, **found.summary, "computed": ran.count_computed()[HYPERPARAMETER_SEARCH] > 0}
    if as_json:
        write_json(told)
        return
    write_fields(_describe(told))
    write_text("Train with it: heimdall train --search latest; more: heimdall search show")


def _choose(chosen: list[Spec], said: dict[str, Any]) -> list[Spec]:
    """Return the chosen specs with what the command's own options say of the search, which wins."""
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items() if value}
    before = next((spec for spec in chosen if isinstance(spec, SearchSpec)), None)
    kept = {} if before is None else {name: getattr(before, name) for name in before.model_fields_set}
    others = [spec for spec in chosen if spec is not before]
    return [*others, build_spec(SearchSpec.__name__, {**kept, **given})]


def _describe(told: dict[str, Any]) -> dict[str, Any]:
    states = ", ".join(f"{told[f'num_{state}']} {state}" for state in ("complete", "pruned", "failed"))
    return {
        "search": told["search"],
        "made": told.get("made_at"),
        "trials": f"{told['num_trials']} ({states})",
        "best": f"trial {told['best_trial']}: {told['objective']} {told['best_value']:.6g}",
        "settings": told["best"],
    }


@search.command("list")
@json_option
def list_searches(as_json: bool) -> None:
    """List searches, those that have not ended too."""
    stores = look_home()
    ended, under_way = list[dict[str, Any]](), list[dict[str, Any]]()
    if stores is not None:
        from heimdall_assets.pipeline.tracing import searches

        ended = [one.describe() for one in searches.list_searches(stores)]
        under_way = searches.list_unfinished(stores)
    if as_json:
        write_json({"searches": ended, "not_ended": under_way})
        return
    rows = [
        [one["search"][:SHOWN], one["made_at"][:16], one["num_trials"], one["best_value"], one["best"]] for one in ended
    ]
    write_table(say_count(len(rows), "search"), ["search", "made at", "trials", "best value", "best settings"], rows)
    for one in under_way:
        left = one["waiting"] + one["under way"]
        write_text(f"study {one['study'][:SHOWN]}: {say_count(left, 'trial')} of {one['num_trials']} not ended")


@search.command()
@click.argument("named", metavar="[SEARCH]", default="latest")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write its table (Parquet), best settings and figures (SVG) to this folder.",
)
@json_option
def show(named: str, output: Path | None, as_json: bool) -> None:
    """Show what SEARCH (latest, or first digits) found: best settings, what mattered, each trial."""
    stores = open_home()
    from heimdall_assets.pipeline.stages.hyperparameter_search import read_importance
    from heimdall_assets.pipeline.tracing.searches import find_past, list_trial_rows

    past = find_past(stores, named)
    told = past.describe()
    importance = read_importance(stores.objects, past.manifest)
    trials = list_trial_rows(stores.objects, past.manifest)
    files = _write_files(stores, past.manifest, output) if output is not None else []
    if as_json:
        write_json({**told, "importance": importance, "trials": trials, "files": files})
        return
    write_fields(_describe(told))
    ranked = sorted(importance.items(), key=lambda item: -item[1])
    write_table("what mattered", ["setting", "importance"], [[name, value] for name, value in ranked])
    _write_trials(trials)
    if not files:
        write_notice(f"figures: heimdall search show {told['search'][:SHOWN]} --output FOLDER writes them")
    for file in files:
        write_text(f"wrote {file}", err=True)


def _write_trials(trials: list[dict[str, Any]]) -> None:
    best = sorted((one for one in trials if one["value"] is not None), key=lambda one: (one["value"], one["number"]))
    others = [one for one in trials if one["value"] is None]
    rows = [
        [
            one["number"],
            one["state"],
            one["value"],
            len(one["val_losses"]),
            one["reason"] or ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(one["params"].items())),
        ]
        for one in [*best, *others]
    ]
    columns = ["trial", "state", "value", "epochs", "settings"]
    write_table(f"{say_count(len(rows), 'trial')}, the best first", columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        write_notice(f"{len(rows) - SHOWN} more, see --json")


def _write_files(stores: Any, search: Any, folder: Path) -> list[str]:
    from heimdall_assets.stores.plain_files import make_plain_folder, write_named_file

    make_plain_folder(folder)
    written = []
    for name, artifact in sorted(search.artifacts.items()):
        file = folder / (name if "." in name else f"{name}.parquet")
        write_named_file(file, stores.objects.read_bytes(artifact.digest))
        written.append(str(file))
    return written
