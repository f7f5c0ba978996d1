"""``heimdall runs``: trainings as they went, and as they go.

Belongs here: the commands. Does not belong here: following one that runs (``following``), what is judged
(``evaluation.assessment``), where trainings are found (``pipeline.runs``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heimdall_assets.cli.terminal.homes import look_home, open_home, show_home
from heimdall_assets.cli.terminal.output import (
    json_option,
    write_fields,
    write_json,
    write_line,
    write_notice,
    write_table,
    write_text,
)
from heimdall_assets.counts import say_count
from heimdall_assets.errors import InvalidSetting

if TYPE_CHECKING:
    from heimdall_assets.evaluation.assessment import Assessment
    from heimdall_assets.pipeline.runs import TrainingRun
    from heimdall_assets.specs import AssessmentSpec
    from heimdall_assets.stores.home import Stores

SHOWN_EPOCHS = 12
DIGEST_LENGTH = 12
_RUN = click.argument("run", metavar="RUN")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def runs() -> None:
    """Look at trainings, under way or over. RUN is an id or its beginning, a release such as v1.0.0, or latest."""


@runs.command("list")
@json_option
def list_runs(as_json: bool) -> None:
    """List trainings, the newest first."""
    from heimdall_assets.pipeline.runs import list_trainings

    stores = look_home()
    found = [] if stores is None else list_trainings(stores)
    if stores is not None and not found:
        write_notice(f"{show_home()}: no training yet; heimdall train makes one")
    rows = [] if stores is None else [_describe(stores, run) for run in found]
    if as_json:
        write_json(rows)
        return
    columns = ["id", "began (UTC)", "status", "model", "epochs", "best val_loss", "at epoch", "checkpoint", "release"]
    cells = [
        [
            row["id"],
            _show_moment(row["started"]),
            row["status"],
            row["kind"],
            row["epochs"],
            row["val_loss"],
            _from_one(row["best_epoch"]),
            (row["checkpoint"] or "-")[:DIGEST_LENGTH],
            ", ".join(row["releases"]),
        ]
        for row in rows
    ]
    write_table(say_count(len(rows), "training"), columns, cells)


@runs.command()
@_RUN
@json_option
def show(run: str, as_json: bool) -> None:
    """Show a training: who asked for it, from what, its last epochs."""
    from heimdall_assets.pipeline.runs import find_training, read_training_tables
    from heimdall_assets.training_tables import EPOCHS, take

    stores = open_home()
    found = find_training(stores, run)
    tables = read_training_tables(stores, found)
    if as_json:
        write_json({**found.told, "releases": found.releases, "folder": _locate(stores, found), "tables": tables})
        return
    told = found.told
    row = _describe(stores, found)
    write_fields(
        {
            "training": found.id,
            "status": told["status"],
            "error": told.get("error"),
            "began": _show_moment(told.get("started")),
            "ended": _show_moment(told.get("ended")),
            "started by": told.get("started_by"),
            "reason": told.get("reason"),
            "interrupted": say_count(len(told.get("attempts", [])) - 1, "time") if told.get("attempts") else None,
            "model": row["kind"],
            "epochs": f"{row['epochs']} of at most {row['max_epochs']}",
            "best val_loss": None if row["val_loss"] is None else f"{row['val_loss']:.4f}",
            "at epoch": _from_one(row["best_epoch"]),
            "checkpoint": told.get("checkpoint"),
            "release": ", ".join(found.releases),
            "dagster run": told.get("dagster_run_id"),
            "mlflow run": told.get("mlflow_run_id"),
            "data": told.get("data"),
            "versions": told.get("versions"),
            "folder": _locate(stores, found),
        }
    )
    shown = take(tables[EPOCHS])[-SHOWN_EPOCHS:]
    names = ["train_loss", "val_loss", "val_error_m", "learning_rate", "epoch_time", "samples_per_s"]
    cells = [[_from_one(row["epoch"]), *(_number(row[name]) for name in names)] for row in shown]
    write_table("last epochs", ["epoch", *names], cells)


@runs.command()
@click.argument("run", metavar="RUN", required=False)
@click.option("--latest", is_flag=True, help="The newest training, as without RUN.")
@json_option
def watch(run: str | None, latest: bool, as_json: bool) -> None:
    """Follow a training until it ends: in a terminal a table that changes, else lines; with --json an object a line."""
    from heimdall_assets.cli.training.following import follow
    from heimdall_assets.pipeline.runs import LATEST, find_training

    if run is not None and latest:
        raise click.UsageError("RUN and --latest: expected one of them")
    stores = open_home()
    follow(stores, find_training(stores, run or LATEST), as_json)


@runs.command()
@click.argument("names", metavar="RUN RUN...", nargs=-1, required=True)
@json_option
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Compare trainings: settings that differ, figures side by side, the best epoch of each."""
    from heimdall_assets.pipeline.runs import find_training, list_setting_differences

    if len(names) < 2:
        raise click.UsageError(f"RUN RUN...: found {say_count(len(names), 'training')}, expected at least 2")
    stores = open_home()
    found = [find_training(stores, name) for name in names]
    rows = [_describe(stores, run) for run in found]
    settings = list_setting_differences(found)
    same_data = all(run.told.get("data") == found[0].told.get("data") for run in found)
    best = [row["id"] for row in rows if row["val_loss"] is not None]
    winner = min(rows, key=lambda row: row["val_loss"])["id"] if len(best) == len(rows) and same_data else None
    if as_json:
        write_json({"runs": rows, "settings": settings, "same_data": same_data, "best": winner})
        return
    ids = [run.id for run in found]
    write_table(
        "settings that differ" if settings else "the same settings",
        ["setting", *ids],
        [[name, *(_show(value) for value in values)] for name, values in settings.items()],
    )
    figures = ["epochs", "val_loss", "train_loss", "val_error_m", "span_f1", "epoch_s", "samples_per_s"]
    cells = [[name, *(_number(row[name]) for row in rows)] for name in figures]
    cells.insert(1, ["best epoch", *(_number(_from_one(row["best_epoch"])) for row in rows)])
    write_table("figures at the best epoch", ["figure", *ids], cells)
    if winner is not None:
        write_line(f"Lowest val_loss: {winner}, epoch {_from_one(_pick(rows, winner)['best_epoch'])}.")
    elif not same_data:
        write_line("Their validation sessions differ: one's val_loss says nothing of the other's.")


@runs.command()
@_RUN
@click.option("--thresholds", "file", type=_FILE, help="YAML with fields of AssessmentSpec; the others stay.")
@click.option("--profile", metavar="NAME|FILE", help="Judge by what a profile calls a success.")
@json_option
def assess(run: str, file: Path | None, profile: str | None, as_json: bool) -> None:
    """Judge a training: convergence, how far it came, and red flags with what to set."""
    from heimdall_assets.evaluation.assessment import assess_training
    from heimdall_assets.pipeline.runs import find_training, read_training_tables

    spec = _read_thresholds(file, profile)
    stores = open_home()
    found = find_training(stores, run)
    judged = assess_training(read_training_tables(stores, found), found.told, spec)
    if as_json:
        write_json({"id": found.id, "status": found.told["status"], **judged.dump()})
        return
    _write_assessment(found, judged)


def _write_assessment(run: "TrainingRun", judged: "Assessment") -> None:
    answers = {True: "yes", False: "no", None: "not measured"}
    write_text(f"training {run.id}, {run.told['status']}, {say_count(int(judged.figures['epochs'] or 0), 'epoch')}")
    write_table(
        "convergence", ["", ""], [[name.replace("_", " "), answers[so]] for name, so in judged.convergence.items()]
    )
    rows = [[name, "; ".join(lacking) or "nothing: reached"] for name, lacking in judged.tiers.items()]
    write_table("success", ["degree", "lacks"], rows)
    if judged.flags:
        rows = [[flag.name, flag.seen, flag.advice] for flag in judged.flags]
        write_table(say_count(len(judged.flags), "red flag"), ["what", "seen", "advice"], rows)
    else:
        write_text("no red flag")
    if judged.not_measured:
        write_text(f"not measured: {', '.join(judged.not_measured)}")


def _read_thresholds(file: Path | None, profile: str | None) -> "AssessmentSpec":
    """Return the thresholds in a file or of a profile.

    Raises:
        InvalidSetting: it is no YAML of them, there is no such profile, or both are named.
    """
    from pydantic import ValidationError

    from heimdall_assets.specs import AssessmentSpec, describe_invalid

    if file is not None and profile is not None:
        raise InvalidSetting("--thresholds and --profile: expected one of them")
    if profile is not None:
        from heimdall_assets.profiles.reading import read_profile

        return AssessmentSpec.model_validate(read_profile(profile).profile.assessment.model_dump())
    if file is None:
        return AssessmentSpec()
    import yaml

    try:
        given = yaml.safe_load(file.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidSetting(f"{file}: found no YAML ({' '.join(str(error).split()):.120})") from error
    try:
        return AssessmentSpec.model_validate(given)
    except ValidationError as error:
        raise InvalidSetting(f"{file}: {describe_invalid('AssessmentSpec', error)}") from error


def _describe(stores: "Stores", run: "TrainingRun") -> dict[str, Any]:
    from heimdall_assets.pipeline.runs import read_training_tables, summarize_training

    told = run.told
    return {
        "id": run.id,
        "started": told.get("started"),
        "ended": told.get("ended"),
        "status": told["status"],
        "kind": told.get("settings", {}).get("ModelSpec", {}).get("kind"),
        "checkpoint": told.get("checkpoint"),
        "releases": list(run.releases),
        "is_here": run.is_here,
        **summarize_training(told, read_training_tables(stores, run)),
    }


def _locate(stores: "Stores", run: "TrainingRun") -> str | None:
    return str(stores.runs.locate(run.id)) if run.is_here and stores.runs is not None else None


def _pick(rows: Sequence[Mapping[str, Any]], run_id: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["id"] == run_id)


def _show_moment(moment: str | None) -> str | None:
    return None if moment is None else moment[:19].replace("T", " ")


def _from_one(epoch: Any) -> int | None:
    return None if epoch is None else int(epoch) + 1


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, int | float) else None


def _show(value: Any) -> str:
    return "-" if value is None else str(value)
