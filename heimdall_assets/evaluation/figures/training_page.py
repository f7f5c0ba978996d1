"""Training page: how a training goes, or went, as one page that looks again by itself while it runs.

Belongs here: wording and layout of a training and of the list of them. Every number was measured before; the page has
its styles and its picture inside and runs nothing: a browser asks again because the page's head says so.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.evaluation.assessment import Assessment
from heimdall_assets.evaluation.figures.loss_curve import plot_losses
from heimdall_assets.evaluation.figures.templates import load_template
from heimdall_assets.training_tables import EPOCHS, Row, take

REFRESH_S = 5
SHOWN_EPOCHS = 20
SHOWN = ("train_loss", "val_loss", "val_error_m", "learning_rate", "epoch_time", "samples_per_s")
FIGURES = ("initial_val_loss", "best_val_loss", "best_epoch")


def render_training(
    told: Mapping[str, Any], tables: Mapping[str, list[Row]], judged: Assessment, links: Mapping[str, str]
) -> str:
    """Return the page of a training.

    Args:
        told: its metadata.
        tables: table -> rows so far.
        judged: how it stands.
        links: text -> address, shown below the title.
    """
    epochs = take(tables.get(EPOCHS, []))
    names = ("status", "error", "started", "ended", "started_by", "reason", "checkpoint", "dagster_run_id")
    facts = [[name.replace("_", " "), told[name]] for name in names if told.get(name)]
    facts.append(["epochs", f"{len(epochs)} of at most {_find_most(told)}"])
    last = [[int(row["epoch"] or 0) + 1, *(_show(row[name]) for name in SHOWN)] for row in epochs[-SHOWN_EPOCHS:]]
    flags = [[flag.name, flag.seen, flag.advice] for flag in judged.flags]
    answers = {True: "yes", False: "no", None: "not measured"}
    shown = [
        {"title": "Last epochs", "columns": ["epoch", *SHOWN], "rows": last},
        {"title": "Red flags", "columns": ["what", "seen", "advice"], "rows": flags},
        {
            "title": "Convergence",
            "columns": ["question", "answer"],
            "rows": [[name.replace("_", " "), answers[so]] for name, so in judged.convergence.items()],
        },
        {"title": "Facts", "columns": ["what", ""], "rows": facts},
    ]
    picture = draw_losses(told, tables) if epochs else None
    return load_template("training_page.html.jinja").render(
        title=f"Training {told['id']}",
        links=links,
        refresh_s=REFRESH_S if told["status"] == "running" else None,
        picture=None if picture is None else base64.b64encode(picture).decode(),
        tables=shown,
    )


def render_trainings(rows: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> str:
    """Return the page of all trainings, those given first.

    Args:
        rows: ``id``, ``started``, ``status``, ``kind``, ``epochs``, ``val_loss``, ``releases`` of each.
        links: text -> address, shown below the title.
    """
    names = ("started", "status", "kind", "epochs", "val_loss")
    cells = [
        [
            {"text": row["id"], "address": f"/runs/{row['id']}"},
            *(_show(row[name]) for name in names),
            ", ".join(row["releases"]) or "-",
        ]
        for row in rows
    ]
    columns = ["training", "began", "status", "model", "epochs", "best val_loss", "release"]
    return load_template("training_page.html.jinja").render(
        title="Trainings",
        links=links,
        refresh_s=REFRESH_S if any(row["status"] == "running" for row in rows) else None,
        picture=None,
        tables=[{"title": say_count(len(rows), "training"), "columns": columns, "rows": cells}],
    )


def draw_losses(told: Mapping[str, Any], tables: Mapping[str, list[Row]]) -> bytes:
    """Return the losses of a training so far as SVG, the best epoch marked."""
    keys = ("epoch", "train_loss", "val_loss")
    history = [
        {name: float(row[name] or 0.0) for name in keys}
        for row in take(tables.get(EPOCHS, []))
        if all(isinstance(row[name], int | float) for name in keys)
    ]
    if "best_val_loss" in told:
        return plot_losses(history, {name: told.get(name) for name in FIGURES})
    best = min(history, key=lambda row: row["val_loss"], default=None)
    facts: dict[str, Any] = {"best_epoch": None, "best_val_loss": None}
    if best is not None:
        facts = {"best_epoch": int(best["epoch"]), "best_val_loss": best["val_loss"]}
    return plot_losses(history, facts)


def _find_most(told: Mapping[str, Any]) -> Any:
    return told.get("settings", {}).get("TrainingSpec", {}).get("max_epochs", "?")


def _show(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
