"""``heimdall demo`` and ``train``: the graph run in this process."""

from typing import Any

import click

from heimdall_assets.cli.settings.choosing import Asked, find_dataset, settings_options
from heimdall_assets.cli.terminal.homes import begin_home, check_trainable
from heimdall_assets.cli.terminal.output import (
    json_option,
    write_comparison,
    write_json,
    write_line,
    write_text,
)
from heimdall_assets.cli.terminal.progress import show_progress, without_asset
from heimdall_assets.cli.training.starting import Starting, read_started, starting_options
from heimdall_assets.counts import say_count
from heimdall_assets.places import read_places
from heimdall_assets.specs import DEMO, DEMO_MODEL, DatasetSpec, Spec
from heimdall_assets.stores.experiment_entries import Intent


def _summarize(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(summary)
        return
    write_comparison(say_count(summary["num_sessions"], "test session"), summary["comparison"], summary["worse_than"])
    if summary.get("profile"):
        write_line(f"Profile: {summary['profile']}")
    write_line(f"trained: {'yes' if summary['trained'] else 'no'} ({summary['training']})")
    parity = summary["parity"]
    write_line(
        f"ONNX {summary['variant']} {summary['onnx_bytes'] / 1e6:.2f} MB ({summary['because']}), parity with PyTorch "
        f"{'holds' if parity['passed'] else 'FAILS'} "
        f"(largest difference {parity['max_position_error_sigma']:.2g} sigma)"
    )
    computed = ", ".join(f"{name} {count}" for name, count in summary["computed"].items() if count) or "nothing"
    write_line(f"Computed now: {computed}.")
    write_line(f"Release {summary['version']}: {summary['folder']}")
    standing = "Champion" if summary["champion"] == summary["version"] else "Challenger"
    standing = "Rejected" if summary["rejected"] else standing
    write_line(f"{standing}: {summary['promotion']['reason']}")
    for warning in summary["warnings"]:
        write_line(f"Warning: {warning}")


@click.command(short_help="Simulate seven stations and run the whole graph on them.")
@click.option(
    "--sessions", "num_sessions", default=DEMO.num_sessions, show_default=True, type=click.IntRange(20, 100_000)
)
@click.option("--seed", default=42, show_default=True, type=click.IntRange(0))
@json_option
def demo(num_sessions: int, seed: int, as_json: bool) -> None:
    """Simulate a network of seven stations, approve its sessions and run the whole graph."""
    places, stores = begin_home()
    spec = DEMO.model_copy(update={"num_sessions": num_sessions, "seed": seed})
    with show_progress(f"A simulated network of seven Italian stations, below {places.home}") as listener:
        from heimdall_assets.pipeline.intake.simulated import import_simulated
        from heimdall_assets.running.graph_run import run_graph

        made = import_simulated(stores, spec, campaign="demo", progress=without_asset(listener))
        # Alone in its home, the demo is what the page's job of that name would make; beside others it keeps apart.
        alone = {row["campaign"] for row in stores.measurements.list_sessions()} == {"demo"}
        chosen: list[Spec] = [DEMO_MODEL] if alone else [DEMO_MODEL, DatasetSpec(campaigns=["demo"])]
        summary = run_graph(places, "release", chosen, listener)
    _summarize({**summary, "signals": made}, as_json)
    if not as_json:
        write_text("Open the graph: make ui (or: heimdall ui), then http://127.0.0.1:3000/asset-groups")
        write_text("Its job demo makes this model again; with the default settings one sees spectrograms too: minutes.")


@click.command(short_help="Run the graph on the approved sessions; release a model.")
@settings_options
@starting_options
@click.option("--reason", metavar="TEXT", help="Why you train; it stands in the lineage of what is made.")
@click.option(
    "--intent",
    type=click.Choice([intent.value for intent in Intent]),
    default=Intent.PRODUCTION_CANDIDATE.value,
    show_default=True,
    help="What the training is for, in the name of its MLflow run; it decides nothing.",
)
@json_option
def train(asked: Asked, starting: Starting, reason: str | None, intent: str, as_json: bool) -> None:
    """Materialize the graph on the approved sessions and release the model."""
    stores, chosen, resumes = read_started(asked, starting)
    check_trainable(stores, find_dataset(chosen.specs))
    from heimdall_assets.pipeline.planning import foresee_rejection

    if (rejection := foresee_rejection(chosen.specs)) is not None:  # before an hour of training, not after it
        write_text(f"Warning: {rejection}", err=True)
    with show_progress("Materializing the graph") as listener:
        from heimdall_assets.defs.origins import tag_intent, tag_profile, tag_resumed
        from heimdall_assets.running.graph_run import run_graph

        told = {**tag_profile(chosen.read), **tag_intent(intent), **tag_resumed(resumes)}
        summary = run_graph(read_places(), "release", chosen.specs, listener, reason, told)
    _summarize({**summary, "profile": None if chosen.read is None else chosen.read.title}, as_json)
