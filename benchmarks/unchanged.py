"""What run after run costs that changes nothing, on disk and in time: `make bench-unchanged`.

A small home makes a release, then runs a hundred times more in one process. What the home grows by is exact; of times,
the medians of the first and of the last ten runs are compared, in wall and in processor time.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from incremental import SMALL, fill, open_places, read_cpu_s

from heimdall_assets.running.graph_run import run_graph

HERE = Path(__file__).resolve().parent
ENDS = 10
SHOWN = (1, 2, 3, 4, 5, 10, 20, 50, 100, 200, 500)


def measure_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


def run(home: Path, num_runs: int) -> str:
    places = open_places(home)
    fill(places, 20, argparse.Namespace(receivers=4, seconds=0.8))
    run_graph(places, "release", SMALL, lambda *_: None)
    begun, sizes, walls, cpus = measure_bytes(home), [], [], []
    for _ in range(num_runs):
        wall_s, cpu_s = time.perf_counter(), read_cpu_s()
        summary = run_graph(places, "release", SMALL, lambda *_: None)
        walls.append(time.perf_counter() - wall_s)
        cpus.append(read_cpu_s() - cpu_s)
        sizes.append(measure_bytes(home) - begun)
        assert not any(summary["computed"].values()), summary["computed"]
    rows = [f"| {number} | {sizes[number - 1] / 1e6:.2f} |" for number in SHOWN if number <= num_runs]
    ratios = [statistics.median(taken[-ENDS:]) / statistics.median(taken[:ENDS]) for taken in (walls, cpus)]
    ends = [f"{statistics.median(part):.2f}" for part in (walls[:ENDS], walls[-ENDS:], cpus[:ENDS], cpus[-ENDS:])]
    return "\n".join(
        [
            "# Runs that change nothing: what they leave, and whether they grow slower\n",
            "Written by `make bench-unchanged`; figures as measured. Retention as by default.\n",
            "| runs | the home grew by, MB |",
            "|---|---|",
            *rows,
            "",
            f"Medians of the first and the last {ENDS} of {num_runs} runs: wall {ends[0]} s and {ends[1]} s, ratio "
            f"{ratios[0]:.2f}; processor {ends[2]} s and {ends[3]} s, ratio {ratios[1]:.2f}.",
            "",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = run(Path(folder) / "home", options.runs)
    (HERE / "unchanged.md").write_text(text)
    print(text)
