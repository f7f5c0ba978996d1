"""What it costs to keep objects in a bucket instead of a folder: `make bench-objects`.

A real S3 service runs on loopback, behind a proxy that counts requests. In turn, a home with its objects in a folder
and one with its objects in the bucket are filled, the whole graph runs once with a small model, and once more without
changes; then once more with an empty cache, as on another machine. What counts is the ratio within one round, for the
machine may do other things; the order of the two changes each round, and a first one, in which libraries are loaded,
does not count. ``heimdall demo`` itself, as its users type it, is measured the same way.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import EvaluationSpec, ModelSpec, SimulationSpec, Spec, TrainingSpec
from heimdall_assets.variables import Places
from heimdall_assets_tests.fault_proxy import FaultProxy, run_proxy
from heimdall_assets_tests.s3_server import S3Server, run_s3

HERE = Path(__file__).resolve().parent
SMALL: list[Spec] = [
    ModelSpec(use_spectrograms=False, width=16, num_layers=1, num_heads=2),
    TrainingSpec(max_epochs=2, num_threads=1),
    EvaluationSpec(num_bootstrap=100),
]
PARTS = ("import", "first run", "without changes", "without changes, empty cache")


def ignore(*_: Any) -> None:
    """Hear of progress and do nothing."""


def open_places(home: Path, objects: str, endpoint: str, cache: str = "cache") -> Places:
    return read_places(
        {
            "HEIMDALL_HOME": str(home),
            "HEIMDALL_TRACKING": "off",
            "HEIMDALL_OBJECTS": objects,
            "HEIMDALL_CACHE": str(home / cache),
            "AWS_ENDPOINT_URL_S3": endpoint,
        }
    )


def measure_home(places: Places, elsewhere: Places, spec: SimulationSpec, proxy: FaultProxy) -> dict[str, Any]:
    """Return seconds and requests of each part."""
    proxy.count()
    row: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    acts: dict[str, Callable[[], Any]] = {
        "import": lambda: import_simulated(places.open_stores(), spec, "demo", ignore),
        "first run": lambda: run_graph(places, "release", SMALL, ignore),
        "without changes": lambda: run_graph(places, "release", SMALL, ignore),
        "without changes, empty cache": lambda: run_graph(elsewhere, "release", SMALL, ignore),
    }
    for name, act in acts.items():
        begun = time.monotonic()
        act()
        row[name] = {"wall_s": time.monotonic() - begun, "requests": dict(proxy.count())}
    return row


def run_demo(s3: S3Server, proxy: FaultProxy, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return seconds and requests of ``heimdall demo`` in a process of its own, folder and bucket in turn."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(rounds):
        for kind in ("folder", "bucket")[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as name:
                variables = {"HEIMDALL_HOME": name, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
                if kind == "bucket":
                    variables["HEIMDALL_OBJECTS"] = f"s3://{s3.create_bucket()}/home"
                proxy.count()
                begun = time.monotonic()
                command = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", "demo", "--json"]
                subprocess.run(command, env={**os.environ, **variables}, check=True, stdout=subprocess.DEVNULL)
                row = {"wall_s": time.monotonic() - begun, "requests": dict(proxy.count())}
            rows[kind].append({"demo": row})
            print(json.dumps({"demo": number, "kind": kind, **row}), flush=True)
    return dict(rows)


def run_rounds(s3: S3Server, proxy: FaultProxy, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    spec = SimulationSpec(num_sessions=options.sessions, min_receivers=4, max_receivers=4, duration_s=0.8)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(options.rounds + 1):
        for kind in ("folder", "bucket")[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as name:
                objects = f"s3://{s3.create_bucket()}/home" if kind == "bucket" else ""
                homes = [open_places(Path(name), objects, proxy.endpoint, cache) for cache in ("cache", "other")]
                row = measure_home(homes[0], homes[1], spec, proxy)
            if number:
                rows[kind].append(row)
            print(json.dumps({"round": number, "kind": kind, **row}), flush=True)
    return dict(rows)


def render(
    rows: dict[str, list[dict[str, Any]]], demo: dict[str, list[dict[str, Any]]], options: argparse.Namespace
) -> str:
    lines = [
        "# Objects in a bucket: what it costs beside a folder",
        "",
        "Written by `make bench-objects`; figures as measured.",
        "",
        f"{options.sessions} simulated sessions with IQ, 4 receivers each, 0.8 s at 24 kHz; the whole graph, release "
        "and promotion included, with a small model (width 16, one layer, two epochs). The service is OpenStack Swift "
        f"on loopback, behind a proxy that counts, on the same {os.cpu_count()} cores, whose time it takes: a request "
        "is some 20 ms of a core that is idle. The load average before was "
        f"{rows['bucket'][0]['load_before']:.1f}. Medians of {say_count(options.rounds, 'round')}; the ratio is that "
        "of each round's two, its median and its range.",
        "",
        "| part | folder s | bucket s | ratio | requests |",
        "|---|---|---|---|---|",
    ]
    lines += [say_part(part, rows) for part in PARTS]
    totals = [
        sum(row[part]["wall_s"] for part in PARTS[:2]) / sum(other[part]["wall_s"] for part in PARTS[:2])
        for row, other in zip(rows["bucket"], rows["folder"], strict=True)
    ]
    lines += [
        "",
        f"Import and first run together: {statistics.median(totals):.2f} times.",
        "",
        f"`heimdall demo` itself, 400 sessions, medians of {say_count(options.demo_rounds, 'round')}:",
        "",
        "| part | folder s | bucket s | ratio | requests |",
        "|---|---|---|---|---|",
        say_part("demo", demo),
        "",
    ]
    return "\n".join(lines)


def say_part(part: str, rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return one part's line of a table."""
    folder, bucket = ([row[part]["wall_s"] for row in rows[kind]] for kind in ("folder", "bucket"))
    ratios = sorted(one / other for one, other in zip(bucket, folder, strict=True))
    asked = Counter(rows["bucket"][-1][part]["requests"])
    said = ", ".join(f"{count} {method}" for method, count in sorted(asked.items())) or "none"
    return (
        f"| {part} | {statistics.median(folder):.1f} | {statistics.median(bucket):.1f} "
        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {said} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--demo-rounds", type=int, default=2)
    options = parser.parse_args()
    with run_s3() as s3, run_proxy(s3.endpoint) as proxy:
        os.environ.update(s3.environment)
        demo = run_demo(s3, proxy, options.demo_rounds)
        rows = run_rounds(s3, proxy, options)
    (HERE / "object_store.md").write_text(render(rows, demo, options))


if __name__ == "__main__":
    main()
