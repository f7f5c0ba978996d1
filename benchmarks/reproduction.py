"""How far a model made again on another machine lies from the recorded one: `make bench-reproduction`.

Releases of several kinds and seeds are made here and then made again by `heimdall reproduce`, in processes that are
told another machine: other thread counts, other instruction sets. What differs is what differs between machines: the
code is the same. From the largest differences follow the tolerances of `pipeline/releases/deviation.py`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROGRAM = [sys.executable, "-c", "from heimdall_assets.cli import main; main()"]

RELEASES = {
    "60 sessions, seed 1": (60, ["ModelSpec.use_spectrograms=false", "TrainingSpec.seed=1"]),
    "60 sessions, seed 2": (60, ["ModelSpec.use_spectrograms=false", "TrainingSpec.seed=2"]),
    "30 sessions with spectrograms": (30, ["TrainingSpec.max_epochs=4"]),
}
"""Name -> sessions, settings; the first is made again on every machine, the others on those that differ most."""

MOST = ("4 threads", "AVX2 throughout", "no AVX")

MACHINES: dict[str, tuple[list[str], dict[str, str]]] = {
    "1 thread": (["--set", "TrainingSpec.num_threads=1"], {}),
    "4 threads": (["--set", "TrainingSpec.num_threads=4"], {}),
    "torch AVX2": ([], {"ATEN_CPU_CAPABILITY": "avx2"}),
    "AVX2 throughout": (
        [],
        {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell",
         "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
    "no AVX": (
        [],
        {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem",
         "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    ),
}  # fmt: skip
"""Name -> options, variables."""

JUDGED = ("arrays", "weights", "positions", "median_m", "p90_m")


def run(home: Path, *arguments: str, **variables: str) -> Any:
    environment = {**os.environ, "HEIMDALL_HOME": str(home), "HEIMDALL_TRACKING": "off", **variables}
    done = subprocess.run([*PROGRAM, *arguments, "--json"], env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def take_largest(told: dict[str, Any]) -> dict[str, float | None]:
    """Return kind of figure -> the largest difference at any stage; None where a stage differs without a number."""
    found: dict[str, float | None] = dict.fromkeys(JUDGED, 0.0)
    for stage in told["stages"]:
        for measure in stage["measures"]:
            kind = measure["name"].split(",")[0]
            kind = "arrays" if stage["stage"] == "spectrogram_features" else kind
            if kind in found:
                largest, here = found[kind], measure["difference"]
                found[kind] = None if here is None or largest is None else max(largest, here)
    return found


def show(value: float | None) -> str:
    return "unknown" if value is None else "0" if value == 0.0 else f"{value:.2g}"


def measure(folder: Path, name: str, machine: str) -> dict[str, Any]:
    """Return what `heimdall reproduce` says of a release on a machine; what was measured before is read again."""
    home = folder / name.replace(" ", "-").replace(",", "")
    kept = home / f"{machine.replace(' ', '-')}.json"
    if not home.exists():
        num_sessions, settings = RELEASES[name]
        run(home, "demo", "--sessions", str(num_sessions))
        run(home, "train", "--campaign", "demo", *[word for setting in settings for word in ("--set", setting)])
    if not kept.exists():
        options, variables = MACHINES[machine]
        kept.write_text(json.dumps(run(home, "reproduce", "latest", *options, **variables)))
    told: dict[str, Any] = json.loads(kept.read_text())
    return told


def main(folder: Path) -> str:
    rows, worst = [], dict.fromkeys(JUDGED, 0.0)
    for place, name in enumerate(RELEASES):
        for machine in MACHINES if place == 0 else MOST:
            told = measure(folder, name, machine)
            largest = take_largest(told)
            cells = [show(largest[kind]) for kind in JUDGED]
            rows.append(f"| {name} | {machine} | {told['first_difference'] or 'none'} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
            for kind in JUDGED:
                value = largest[kind]
                worst[kind] = max(worst[kind], float("inf") if value is None else value)
    return "\n".join(
        [
            "# Models made again on other machines: how far they lie apart\n",
            "Written by `make bench-reproduction`; figures as measured, on one kind of processor "
            f"({platform.machine()}) that was told to use less of itself.\n",
            "Arrays as a share of their largest value, weights of the largest weight, positions in standard deviations "
            "of the recorded answer, errors as a share of themselves.\n",
            f"| release | told to be | first node that differs | {' | '.join(JUDGED)} |",
            f"|{'---|' * (3 + len(JUDGED))}",
            *rows,
            "",
            "Largest: " + ", ".join(f"{kind} {show(value)}" for kind, value in worst.items()) + ".",
            "",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--homes", type=Path, help="keep releases and measurements here, and go on from there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = main(options.homes or Path(folder))
    (HERE / "reproduction.md").write_text(report)
