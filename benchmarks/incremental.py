"""What a run costs that has nothing, or little, to do: `make bench-incremental`.

A home with simulated sessions with IQ is filled, the whole graph runs once with a small model, then again without
changes (in the same process and in a new one), then with ten more approved sessions. Wall time and processor time of
each run, and what each computed, as measured.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import EvaluationSpec, FeatureSpec, ModelSpec, SimulationSpec, Spec, TrainingSpec
from heimdall_assets.variables import Places

HERE = Path(__file__).resolve().parent
NUM_MORE = 10
MORE = f"{NUM_MORE} sessions more"
SMALL: list[Spec] = [
    FeatureSpec(hop=256),  # so that 32 frames fit into half a second
    ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2),
    TrainingSpec(max_epochs=2, num_threads=1),
    EvaluationSpec(num_bootstrap=100),
]


def ignore(*_: Any) -> None:
    """Hear of progress and do nothing."""


def open_places(home: Path) -> Places:
    return read_places({"HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off"})


def fill(places: Places, num_sessions: int, options: argparse.Namespace) -> None:
    spec = SimulationSpec(
        num_sessions=num_sessions,
        min_receivers=options.receivers,
        max_receivers=options.receivers,
        duration_s=options.seconds,
    )
    import_simulated(places.open_stores(), spec, "demo", ignore)


def read_cpu_s() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(what: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    load, wall_s, cpu_s = os.getloadavg()[0], time.monotonic(), read_cpu_s()
    summary = act()
    row = {
        "run": what,
        "wall_s": time.monotonic() - wall_s,
        "cpu_s": read_cpu_s() - cpu_s,
        "load_before": load,
        "version": summary["version"],
        "computed": {name: count for name, count in summary["computed"].items() if count},
    }
    print(json.dumps(row), flush=True)
    return row


def run_here(places: Places) -> dict[str, Any]:
    return run_graph(places, "release", SMALL, ignore)


def run_apart(places: Places) -> dict[str, Any]:
    """Run the graph as `heimdall train` does, in a process of its own."""
    settings = [f"{type(spec).__name__}.{name}={value}" for spec in SMALL for name, value in spec.dump().items()]
    changed = [part for setting in settings if not setting.endswith("=None") for part in ("--set", setting)]
    environment = {**os.environ, "HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"}
    command = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", "train", "--json", *changed]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run_all(home: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    places = open_places(home)
    fill(places, options.sessions, options)
    rows = [
        measure("first", lambda: run_here(places)),
        measure("without changes, same process", lambda: run_here(places)),
        measure("without changes, new process, loading included", lambda: run_apart(places)),
    ]
    fill(places, options.sessions + NUM_MORE, options)
    rows.append(measure(MORE, lambda: run_here(places)))
    rows.append(measure("without changes again, same process", lambda: run_here(places)))
    return rows


def render(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    spectrograms, arrivals = NUM_MORE * options.receivers, NUM_MORE
    lines = [
        "# Incremental runs: what nothing, and what little, costs",
        "",
        "Written by `make bench-incremental`; figures as measured.",
        "",
        f"{options.sessions} simulated sessions with IQ, {options.receivers} receivers each, {options.seconds:g} s at "
        f"24 kHz ({options.sessions * options.receivers} recordings); the whole graph, release and promotion included, "
        f"with a small model (width 16, one layer, two epochs), {os.cpu_count()} cores. Wall time depends on what else "
        "the machine does: the load average of the minute before stands beside it, processor time depends on it less.",
        "",
        "| run | wall s | processor s | load before | release | computed |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        computed = ", ".join(f"{name} {count}" for name, count in row["computed"].items()) or "nothing"
        lines.append(
            f"| {row['run']} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['load_before']:.1f} | {row['version']} "
            f"| {computed} |"
        )
    if any(row["run"] == MORE for row in rows):
        lines += [
            "",
            f"{MORE} are {spectrograms} recordings: their spectrograms and the delays of {arrivals} sessions are "
            "computed (as far as a recording is usable), nothing of the others.",
        ]
    lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--home", type=Path, help="a home to fill and keep; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run_all(options.home or Path(folder), options)
    (HERE / "incremental.md").write_text(render(rows, options))


if __name__ == "__main__":
    main()
