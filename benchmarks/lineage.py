"""What asking costs at ten thousand sessions: lineage, where used, difference, plan and audit: `make bench-lineage`.

A home is written with the manifests of two releases over one set of sessions, without training: what is asked reads
tables, ledger and log, and these are of full size. The measurements of a session share one recording; the audit hashes
each once, and `sha256sum` over the same files is what it is compared with, in turns. Each command is a
process of its own, bytecode compiled; memory is the most that it held.

The index of lineage and the pages are measured on homes of their own, with trainings beside the releases that nobody
released: how many edges there are, how large they are, what taking them in and asking costs, how long each page takes
a server that has just started, and one that has drawn it before.
"""

import argparse
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from incremental import read_cpu_s

from heimdall_assets.domain import ApprovalStatus, ImportBatch, Measurement, Origin, Position, Session, Source, Station
from heimdall_assets.lineage.audit import list_objects, list_recordings
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.specs import TrainingSpec
from heimdall_assets_tests.lineage.world import REASON, START, World, make_world

HERE = Path(__file__).resolve().parent
HEARD_BY = 23.2511
"""Stations that heard a session, on average."""
NUM_STATIONS = 40
BATCH = 500
ROUNDS = 5
RECORDING_BYTES_OF_MANY = 100
"""Of the homes for index and pages, which never read one."""
PROGRAM = """
import atexit, pathlib, sys
atexit.register(lambda: sys.stderr.write(pathlib.Path("/proc/self/status").read_text()))
from heimdall_assets.cli import main
main()
"""
"""The command, which says at its end what it held: of a child the system counts what its parent held as well."""


def put_recordings(world: World, count: int, size: int) -> list[str]:
    draw = np.random.default_rng(1)
    return [world.objects.put_bytes(draw.bytes(size), NPY_MEDIA_TYPE).digest for _ in range(count)]


def fill(world: World, numbers: range, recordings: Sequence[str]) -> None:
    """Import and approve sessions of these numbers, each with a recording that its measurements share."""
    draw, total = np.random.default_rng(2), 0
    stations = [
        Station(id=f"station-{place}", name=f"Station {place}",
                position=Position(latitude=44.0 + 0.1 * place, longitude=7.0 + 0.05 * place))
        for place in range(NUM_STATIONS)
    ]  # fmt: skip
    for first in range(numbers.start, numbers.stop, BATCH):
        sources, sessions, heard = [], [], []
        for index in range(first, min(first + BATCH, numbers.stop)):
            start, name = START + timedelta(minutes=index), f"session-{index:06d}"
            place = Position(latitude=44.5 + 1e-4 * index, longitude=8.0 + 2e-4 * index)
            sources.append(Source(id=f"source-{index}", name=f"Source {index}", position=place, error_margin_m=30.0))
            sessions.append(Session(id=name, name=f"night {index}", source_id=f"source-{index}", campaign="north",
                                    origin=Origin.MEASURED, start=start))  # fmt: skip
            count = int(HEARD_BY) + int(draw.random() < HEARD_BY % 1)
            for station in draw.permutation(NUM_STATIONS)[:count]:
                iq = {
                    "iq_data_location": f"sha256:{recordings[index - numbers.start]}",
                    "iq_data_format": "npy",
                    "iq_sample_rate_hz": 24000.0,
                    "iq_start_unix_ns": int(start.timestamp()) * 10**9 + total,
                }
                heard.append(Measurement(id=f"{name}-{station}", session_id=name, station_id=f"station-{station}",
                                         timestamp=start, frequency_hz=145.5e6,
                                         signal_strength_db=-80.0 + 0.01 * (total % 1000), **iq))  # fmt: skip
                total += 1
        world.measurements.add(ImportBatch(stations=stations, sources=sources, sessions=sessions, measurements=heard))
        world.measurements.decide([session.id for session in sessions], ApprovalStatus.APPROVED, "Ada", REASON)


def ask(home: Path, *arguments: str) -> tuple[float, float, float]:
    """Return wall and processor seconds, and the most memory held in MB, of one command."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = read_cpu_s(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**environment, "HEIMDALL_HOME": str(home)}, capture_output=True, check=True,
    )  # fmt: skip
    (held_kb,) = re.findall(rb"VmHWM:\s+(\d+) kB", done.stderr)
    return time.perf_counter() - started, read_cpu_s() - before, int(held_kb) / 1e3


def hash_files(files: Sequence[Path]) -> tuple[float, float]:
    """Return wall and processor seconds of ``sha256sum``."""
    before, started = read_cpu_s(), time.perf_counter()
    given = b"\0".join(str(path).encode() for path in files)
    subprocess.run(["xargs", "-0", "sha256sum"], input=given, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started, read_cpu_s() - before


def make_home(folder: Path, num_sessions: int, recording_bytes: int) -> World:
    """Return a world with two releases; one that lies there already is taken as it is."""
    is_new = not (folder / "heimdall.db").exists()
    world = make_world(folder, 0)
    if is_new:
        fill(world, range(num_sessions), put_recordings(world, num_sessions, recording_bytes))
        world.release(world.make_chain())
        world.release(world.make_chain(TrainingSpec(seed=7), median_m=110.0))
    return world


PAGES = """
import json, sys, time
from heimdall_assets.places import read_places
from heimdall_assets.web.lineage_pages import find_page
places, told = read_places(), {}
for name, path, query in json.loads(sys.argv[1]):
    took = []
    for _ in range(2):
        started, spent = time.perf_counter(), time.process_time()
        size = len(find_page(places.open_stores(), path, query).data)
        took += [time.perf_counter() - started, time.process_time() - spent]
    told[name] = [*took, size]
print(json.dumps(told))
"""
"""A server that has just started: the first page loads what all of them need, and reads the tables."""


def add_trainings(world: World, count: int) -> None:
    """Put results of trainings that no release was made from, on the data of the last release."""
    nodes = {node["kind"]: node["digest"] for node in world.read_provenance("v1.0.1")["nodes"]}
    splits = {name: nodes[name] for name in ("train_split", "val_split")}
    for seed in range(1000, 1000 + count):
        weights = world.objects.put_bytes(f"weights {seed}".encode(), NPY_MEDIA_TYPE)
        made = world.put_manifest("trained_checkpoint", splits, {"weights": weights}, [TrainingSpec(seed=seed)])
        judged = {"trained_checkpoint": made, "test_split": nodes["test_split"]}
        world.put_manifest("evaluation_metrics", judged, {"metrics.json": weights})
        world.put_manifest("onnx_model", judged, {"model.onnx": weights})


def measure_size(database: Path) -> tuple[float, float]:
    """Return megabytes of the index, and of the whole database."""
    connection = sqlite3.connect(database)
    sizes = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall())
    connection.close()
    index = sum(size for name, size in sizes.items() if "lineage_" in name)
    return index / 1e6, sum(sizes.values()) / 1e6


def draw_pages(home: Path, session: str) -> dict[str, list[float]]:
    """Return page -> wall and processor seconds in a server that has just started, both again, bytes."""
    sessions = "/v1.0.1/sessions"
    pages = {
        "Released models": ("/", ""), "one release": ("/v1.0.1", ""), "its sessions": (sessions, ""),
        "page 7 of them": (sessions, "page=7"), "search": (sessions, "q=night+77"),
        "one session": ("/v1.0.1/session", f"id={session}"), "changes": ("/v1.0.1/changes", ""),
    }  # fmt: skip
    told = {}
    for name, (path, query) in pages.items():
        asked = json.dumps([[name, path, query]])
        done = subprocess.run(
            [sys.executable, "-c", PAGES, asked], env={**os.environ, "HEIMDALL_HOME": str(home)},
            capture_output=True, check=True,
        )  # fmt: skip
        told |= json.loads(done.stdout)
    return told


def grow_index(world: World, folder: Path, question: Sequence[str]) -> str:
    """Approve one session more, put what is made from the new snapshot, and return what taking that in costs."""
    before, number = world.stores.edges.count_edges(), len(world.measurements.list_sessions())
    fill(world, range(number, number + 1), [world.objects.put_bytes(f"{number}".encode(), NPY_MEDIA_TYPE).digest])
    world.make_chain()
    wall, cpu, _ = ask(folder, "lineage", *question)
    more = world.stores.edges.count_edges() - before
    return (
        f"A snapshot with one session more, and all that is made from it, adds {more} "
        f"edges; the question that takes them in takes {wall:.1f} s, processor {cpu:.1f} s.\n"
    )


def run_index(folder: Path, num_sessions: int, num_trainings: int, grows: bool) -> str:
    world = make_home(folder, num_sessions, RECORDING_BYTES_OF_MANY)
    if len(world.objects.list_references("results/")) < 3 * num_trainings:
        add_trainings(world, num_trainings)
    pinned = next(node for node in world.read_provenance("v1.0.1")["nodes"] if node["kind"] == "iq_files")
    digest = str(world.read_table(pinned["artifacts"]["table"]["digest"])["digest"].iloc[0])
    session = f"session-{num_sessions // 2:06d}"
    wall, cpu, memory = ask(folder, "lineage", "--reindex")
    num_results = len(world.stores.edges.read_results())
    edges, (index_mb, all_mb) = world.stores.edges.count_edges(), measure_size(world.database)
    questions = {
        "--session": ("--session", session), "--measurement": ("--measurement", find_measurement(world, session)),
        "--source": ("--source", f"Source {num_sessions // 3}"), "--object (a recording)": ("--object", digest),
    }  # fmt: skip
    rows = []
    for name, arguments in questions.items():
        taken = [ask(folder, "lineage", *arguments) for _ in range(ROUNDS)]
        middle = [statistics.median(each) for each in zip(*taken, strict=True)]
        rows.append(f"| `lineage {name}` | {middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.0f} |")
    pages = [
        f"| {name} | {took[0]:.2f} | {took[1]:.2f} | {took[2]:.2f} | {took[3]:.2f} | {took[4] / 1e3:.0f} |"
        for name, took in draw_pages(folder, session).items()
    ]
    return "\n".join(
        [
            f"## The index and the pages at {num_sessions} sessions\n",
            f"{edges} edges of {num_results} results, {3 * num_trainings} of them of no release: "
            f"{index_mb:.0f} MB of a database of {all_mb:.0f} MB. Made anew in {wall:.1f} s (processor {cpu:.1f} s, "
            f"{memory:.0f} MB).\n",
            "| question, a process of its own | wall, s | processor, s | memory, MB |",
            "|---|---|---|---|",
            *rows,
            "",
            "| page | first of a server: wall, s | processor, s | again: wall, s | processor, s | kB |",
            "|---|---|---|---|---|---|",
            *pages,
            "",
            *([grow_index(world, folder, questions["--session"])] if grows else []),
        ]
    )


def find_measurement(world: World, session: str) -> str:
    return str(world.measurements.find_session(session)["measurements"][0]["id"])


def run(folder: Path, num_sessions: int, recording_bytes: int) -> str:
    load = os.getloadavg()[0]
    world = make_home(folder, num_sessions, recording_bytes)
    first, second = (str(record["version"]) for record in world.releases.list_releases())
    provenance = world.read_provenance(second)
    recordings = list(list_recordings(provenance, world.objects, world.read_table))
    num_measurements = provenance["nodes"][0]["summary"]["num_measurements"]
    files = {name: len(world.releases.files.read(second, name)) for name in world.releases.files.list_files(second)}
    evidence = sum(size for name, size in files.items() if name != "model.onnx")
    session = f"session-{num_sessions // 2:06d}"
    questions = {
        "lineage MODEL": ("lineage", second),
        "lineage --session": ("lineage", "--session", session),
        "lineage --object (a recording)": ("lineage", "--object", recordings[0]),
        "lineage MODEL --table sessions": ("lineage", second, "--table", "sessions"),
        "diff": ("diff", first, second),
        "plan": ("plan",),
    }
    ask(folder, "--version")
    rows = []
    for name, arguments in questions.items():
        taken = [ask(folder, *arguments) for _ in range(ROUNDS)]
        wall, cpu, memory = (statistics.median(each) for each in zip(*taken, strict=True))
        rows.append(f"| `{name}` | {wall:.2f} | {cpu:.2f} | {memory:.0f} |")
    paths = [
        world.objects.local_path(digest) for digest in sorted(list_objects(provenance, dict.fromkeys(recordings, "")))
    ]
    walls, cpus, memories = [], [], []
    for _ in range(ROUNDS):
        plain_wall, plain_cpu = hash_files(paths)
        wall, cpu, memory = ask(folder, "verify", second)
        walls.append((plain_wall, wall))
        cpus.append((plain_cpu, cpu))
        memories.append(memory)
    ratio = statistics.median(plain / ours for plain, ours in walls)
    plain_wall, wall = (statistics.median(each) for each in zip(*walls, strict=True))
    plain_cpu, cpu = (statistics.median(each) for each in zip(*cpus, strict=True))
    total = sum(path.stat().st_size for path in paths)
    rows.append(f"| `verify` | {wall:.2f} | {cpu:.2f} | {statistics.median(memories):.0f} |")
    return "\n".join(
        [
            "# Asking at size\n",
            f"Written by `make bench-lineage`; figures as measured, on {os.cpu_count()} processors where {load:.1f} "
            "processes ran when it began.\n",
            f"{num_sessions} sessions, {num_measurements} measurements, {len(recordings)} recordings of "
            f"{recording_bytes / 1e3:.0f} kB; two releases. Evidence beside one model: {evidence / 1e3:.0f} kB in "
            f"{len(files) - 1} files, of it provenance.json {files['provenance.json'] / 1e3:.0f} kB.\n",
            "| command | wall, s | processor, s | memory, MB |",
            "|---|---|---|---|",
            *rows,
            "",
            f"`sha256sum` over the same {len(paths)} files, {total / 1e9:.2f} GB: {plain_wall:.2f} s, processor "
            f"{plain_cpu:.2f} s; verify is {100 * ratio:.0f} % as fast (median of {ROUNDS} turns).",
            "",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--recording-bytes", type=int, default=200_000)
    parser.add_argument("--home", type=Path, help="where the home is kept, and taken again")
    parser.add_argument(
        "--many", type=int, nargs="*", default=[10_000, 100_000], help="sessions of those for the index"
    )
    parser.add_argument(
        "--many-homes", type=Path, help="folder in which those are kept, each by its number of sessions"
    )
    parser.add_argument("--trainings", type=int, default=300)
    parser.add_argument("--only-index", action="store_true", help="leave the first part of the file as it is")
    options = parser.parse_args()
    written = HERE / "lineage.md"
    with tempfile.TemporaryDirectory() as folder:
        if options.only_index:
            text = written.read_text().split("\n## ")[0].rstrip() + "\n"
        else:
            text = run(options.home or Path(folder) / "home", options.sessions, options.recording_bytes)
        for count in options.many:
            home = (options.many_homes or Path(folder)) / str(count)
            home.mkdir(parents=True, exist_ok=True)
            text += f"\n{run_index(home, count, options.trainings, count == min(options.many))}"
    written.write_text(text)
    print(text)
