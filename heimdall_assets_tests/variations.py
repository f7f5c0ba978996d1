"""Runs the tests that compute under other instruction sets, thread counts and seeds: ``make test-variations``.

A bound that holds on one processor and one seed may hold by luck. One variation at a time departs from the baseline, as
rounding and draws are independent of each other. Prints what passed and the least room that a bound had
(``variation.assert_below``): the share of the bound that was left. Exits with 1 where a test failed.

    python -m heimdall_assets_tests.variations [--only WORD] [--workers N] [PYTEST ARGUMENTS]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOMS = ("signals", "locating", "evaluation", "learning")
TORCH_ROOMS = ("learning",)
"""Where torch computes: its instruction sets do not reach the others, whose arrays are numpy's."""


NUM_WORST = 15


@dataclass(frozen=True)
class Variation:
    """One departure from the baseline.

    Attributes:
        name: what the table calls it.
        environment: variables that make it.
        seed_offset: of ``--seed-offset``.
        needs: a flag of the processor without which the library would quietly take something else.
        rooms: of tests that it can change.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    seed_offset: int = 0
    needs: str = ""
    rooms: tuple[str, ...] = ROOMS


VARIATIONS = (
    Variation("baseline"),
    Variation("ATEN_CPU_CAPABILITY=default", {"ATEN_CPU_CAPABILITY": "default"}, rooms=TORCH_ROOMS),
    Variation("ATEN_CPU_CAPABILITY=avx2", {"ATEN_CPU_CAPABILITY": "avx2"}, needs="avx2", rooms=TORCH_ROOMS),
    Variation("ATEN_CPU_CAPABILITY=avx512", {"ATEN_CPU_CAPABILITY": "avx512"}, needs="avx512", rooms=TORCH_ROOMS),
    Variation("DNNL_MAX_CPU_ISA=SSE41", {"DNNL_MAX_CPU_ISA": "SSE41"}, needs="sse41", rooms=TORCH_ROOMS),
    Variation("DNNL_MAX_CPU_ISA=AVX2", {"DNNL_MAX_CPU_ISA": "AVX2"}, needs="avx2", rooms=TORCH_ROOMS),
    Variation("DNNL_MAX_CPU_ISA=AVX512_CORE", {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, needs="avx512", rooms=TORCH_ROOMS),
    Variation("MKL_CBWR=COMPATIBLE", {"MKL_CBWR": "COMPATIBLE"}, rooms=TORCH_ROOMS),
    Variation("OMP_NUM_THREADS=2", {"OMP_NUM_THREADS": "2"}),
    Variation("seed offset 1", seed_offset=1),
    Variation("seed offset 2", seed_offset=2),
)


def find_flags() -> set[str]:
    """Return which of the needed instruction sets this processor has, as torch sees them."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    if capability == "avx512":
        return {"sse41", "avx2", "avx512"}
    return {"sse41", "avx2"} if capability == "avx2" else {"sse41"}


def run_variation(variation: Variation, workers: int, arguments: list[str]) -> dict[str, Any]:
    """Return counts, failures, margins and seconds of one run of pytest."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"} | variation.environment
    # Threads that share cores with other workers would only wait for each other.
    workers = 1 if environment["OMP_NUM_THREADS"] != "1" else workers
    with tempfile.TemporaryDirectory() as folder:
        margins = Path(folder) / "margins.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadscope", "--tb", "short"]
        command += ["--margins", str(margins), "--seed-offset", str(variation.seed_offset), *arguments]
        start = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        rows = [json.loads(line) for line in margins.read_text().splitlines()] if margins.exists() else []
    counts = {
        word: sum(int(number) for number in re.findall(rf"(\d+) {word}", done.stdout.splitlines()[-1]))
        for word in ("passed", "failed", "error", "skipped")
    }
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1):  # nothing was collected, or pytest itself broke
        failed.append(f"pytest exited with {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    return {"counts": counts, "failed": failed, "margins": rows, "seconds": seconds}


def report(variation: Variation, result: dict[str, Any]) -> None:
    """Print one line of the table and the tests that failed."""
    counts = result["counts"]
    worst = min((row["room"] for row in result["margins"]), default=float("nan"))
    print(
        f"{variation.name:32} {counts['passed']:6} {counts['failed'] + counts['error']:6} {counts['skipped']:7}"
        f" {100.0 * worst:9.0f} % {result['seconds']:7.0f} s",
        flush=True,
    )
    for name in result["failed"]:
        print(f"    failed: {name}", flush=True)


def report_worst(rooms: dict[tuple[str, str], list[tuple[float, float, float, str]]]) -> None:
    """Print the bounds with the least room, each where it was tightest."""
    print(f"\nLeast room of {len(rooms)} recorded bounds, each where it is tightest:")
    tightest = sorted((min(rows), key) for key, rows in rooms.items())
    for (room, value, bound, where), (test, name) in tightest[:NUM_WORST]:
        print(f"{100.0 * room:5.0f} %  {value:10.4g} of {bound:<8.4g} {name}  [{test.split('/')[-1]}; {where}]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="variations whose name contains this")
    parser.add_argument("--workers", type=int, default=2)
    options, arguments = parser.parse_known_args()
    chosen = [variation for variation in VARIATIONS if options.only.lower() in variation.name.lower()]
    flags, failures, rooms = find_flags(), 0, {}
    print(f"{'variation':32} {'passed':>6} {'failed':>6} {'skipped':>7} {'least room':>11} {'time':>9}", flush=True)
    for variation in chosen:
        if variation.needs and variation.needs not in flags:
            print(f"{variation.name:32} not run: this processor has no {variation.needs}", flush=True)
            continue
        tests = arguments or [str(Path(__file__).parent / room) for room in variation.rooms]
        result = run_variation(variation, options.workers, tests)
        report(variation, result)
        failures += len(result["failed"])
        for row in result["margins"]:
            found = (row["room"], row["value"], row["bound"], variation.name)
            rooms.setdefault((row["test"], row["name"]), []).append(found)
    report_worst(rooms)
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
