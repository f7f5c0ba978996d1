"""What each switch of a training brings, measured: `make bench-training` writes `training.md` and `training.json`.

Recordings of 1 s at 192 kHz are simulated once. Then the same network learns the same positions from the same
pictures, once as a newcomer would write it (``naive_training``) and once by ``fit_model`` with each switch alone and
with several together. Every candidate runs in a process of its own, in turns, so that what the machine does meanwhile
hits all alike; speed is the ratio of processor time per epoch within a turn, memory the peak above what the process
held when training began.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RATE_HZ = 192_000.0
BATCH = 128
NAIVE = "naive loop"
ONCE = "pictures computed once"
ALONE: dict[str, dict[str, Any]] = {
    "bf16-mixed": {"precision": "bf16-mixed"},
    "channels last": {"channels_last": True},
    "fused AdamW": {"fused_optimizer": True},
    "accumulation, 4 of a quarter": {"batch_size": BATCH // 4, "accumulate_batches": 4},
    "activation checkpointing": {"activation_checkpointing": True},
    "moving average of weights": {"ema_decay": 0.99},
    "one worker process": {"num_workers": 1},
    "compile": {"compile": True},
    "oneDNN's gradients of depthwise kernels": {"max_positions": 0},
}
"""Switch -> fields of ``TrainingSpec`` and ``MachineSpec``, each on top of pictures computed once; the last one takes
away what is no switch (``learning.fitting.depthwise``)."""

TOGETHER: dict[str, tuple[str, ...]] = {
    "fast: bf16, channels last, fused": ("bf16-mixed", "channels last", "fused AdamW"),
    "small: fast, and accumulation": ("bf16-mixed", "channels last", "fused AdamW", "accumulation, 4 of a quarter"),
    "smallest: small, and activation checkpointing": (
        "bf16-mixed", "channels last", "fused AdamW", "accumulation, 4 of a quarter", "activation checkpointing",
    ),
}  # fmt: skip


def list_candidates(with_compile: bool) -> dict[str, dict[str, Any]]:
    alone = {name: fields for name, fields in ALONE.items() if with_compile or name != "compile"}
    together = {name: {k: v for part in parts for k, v in ALONE[part].items()} for name, parts in TOGETHER.items()}
    return {NAIVE: {}, ONCE: {}, **alone, **together}


def build_world(folder: Path, num_sessions: int, num_receivers: int) -> None:
    """Simulate recordings, one file each as the specification stores them, and compute their pictures once."""
    from heimdall_assets.signals.spectrogram import compute_spectrogram
    from heimdall_assets.simulation.network import simulate_session
    from heimdall_assets.specs import SimulationSpec

    spec = SimulationSpec(
        num_sessions=num_sessions, min_receivers=num_receivers, max_receivers=num_receivers, sample_rate_hz=RATE_HZ,
        snr_min_db=10.0, snr_max_db=30.0,
    )  # fmt: skip
    pictures, places, spent_s = [], [], 0.0
    for index in range(num_sessions):
        made = simulate_session(spec, index)
        places.append((made.source.position.latitude, made.source.position.longitude))
        for number, recording in enumerate(made.recordings):
            np.save(folder / f"s{index:05d}-{number}.npy", recording.samples)
            began = time.process_time()
            pictures.append(compute_spectrogram(recording.samples, RATE_HZ, make_feature_spec()))
            spent_s += time.process_time() - began
    np.save(folder / "pictures.npy", np.stack(pictures))
    np.save(folder / "places.npy", np.array(places))
    (folder / "world.json").write_text(json.dumps({"features_cpu_s": spent_s, "simulation": spec.dump()}))


def make_feature_spec() -> Any:
    from heimdall_assets.specs import FeatureSpec

    return FeatureSpec(channels="iq", f_max_hz=RATE_HZ / 2.0)


def load_world(folder: Path, num_receivers: int) -> tuple[dict[str, Any], dict[str, list[Path]]]:
    """Return the sessions of train and val, and the recordings behind their receivers, in order."""
    from heimdall_assets.session_set import SessionSet

    places = np.load(folder / "places.npy")
    count = len(places) * num_receivers
    nan = np.full(count, np.nan)
    sessions = SessionSet(
        session_id=np.array([f"s{index:05d}" for index in range(len(places))]),
        offsets=np.arange(len(places) + 1) * num_receivers,
        receiver_latitude=np.full(count, 45.0), receiver_longitude=np.full(count, 8.0),
        receiver_altitude_m=np.zeros(count), station_id=np.array([f"w{row % num_receivers}" for row in range(count)]),
        frequency_hz=np.full(count, 145.5e6), level_db=nan, snr_db=nan, carrier_offset_hz=nan,
        timing_sigma_s=np.full(count, np.inf), arrival_s=nan, arrival_sigma_s=nan, coherence=nan,
        feature_row=np.arange(count), source_latitude=places[:, 0], source_longitude=places[:, 1],
        error_margin_m=np.full(len(places), 50.0),
        features=np.load(folder / "pictures.npy", mmap_mode="r"),
    )  # fmt: skip
    chosen = {"train": np.arange(len(places) * 4 // 5), "val": np.arange(len(places) * 4 // 5, len(places))}
    files = {
        name: [folder / f"s{index:05d}-{number}.npy" for index in part for number in range(num_receivers)]
        for name, part in chosen.items()
    }
    return {name: sessions.take(part) for name, part in chosen.items()}, files


def run_candidate(options: argparse.Namespace) -> dict[str, Any]:
    """Train one candidate in this process and return what it cost."""
    import torch

    from heimdall_assets.learning.fitting import depthwise
    from heimdall_assets.specs import AugmentationSpec, MachineSpec, ModelSpec, TrainingSpec

    torch.set_num_threads(1)
    depthwise.MAX_POSITIONS = list_candidates(True)[options.candidate].get("max_positions", depthwise.MAX_POSITIONS)
    parts, files = load_world(options.world, options.receivers)
    fields = list_candidates(with_compile=True)[options.candidate]
    machine = {name: value for name, value in fields.items() if name in MachineSpec.model_fields}
    training = {
        "max_epochs": options.epochs, "batch_size": BATCH, "num_threads": 1, "warmup_epochs": 0,
        "schedule": "constant", "early_stopping_patience": options.epochs,
        **{name: value for name, value in fields.items() if name in TrainingSpec.model_fields},
    }  # fmt: skip
    model, spec = ModelSpec(kind="single_receiver", backbone_size=options.size, dropout=0.0), TrainingSpec(**training)
    load_code()
    before = read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if options.candidate == NAIVE:
        from naive_training import train_naively

        epochs = list(train_naively(model, spec, parts, files, RATE_HZ, make_feature_spec()))
    else:
        epochs = list(train_ours(model, spec, MachineSpec(**machine), AugmentationSpec(), parts))
    return {"epochs": epochs, "peak_bytes": read_memory("VmHWM") - before}


def load_code() -> None:
    """Load what every candidate runs: code is no memory of a training."""
    import naive_training  # noqa: F401

    import heimdall_assets.learning.fitting.job
    import heimdall_assets.learning.fitting.training
    import heimdall_assets.learning.receiver_model.task  # noqa: F401


def train_ours(model: Any, spec: Any, machine: Any, augmentation: Any, parts: dict[str, Any]) -> Iterator[Any]:
    from heimdall_assets.learning.fitting.training import fit_model
    from heimdall_assets.stores.scratch import CheckpointFolder

    still = augmentation.model_copy(update={"dropout": 0.0, "max_shift_frames": 0, "max_gain_db": 0.0})
    marks: list[tuple[float, float, float]] = []

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        marks.append((metrics["val_loss"], read_cpu_s(), time.monotonic()))

    with tempfile.TemporaryDirectory() as folder:
        fit_model(
            model, spec, still, parts["train"], parts["val"], CheckpointFolder(Path(folder)), on_epoch, machine=machine
        )
    for before, after in pairwise(marks):  # the first holds what a training costs once
        yield {"val_loss": after[0], "cpu_s": after[1] - before[1], "wall_s": after[2] - before[2]}


def read_cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def read_memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))


def run_apart(name: str, size: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--candidate", name, "--size", size, "--world", options.world,
        "--receivers", options.receivers, "--epochs", options.epochs,
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(size: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each candidate: medians over turns of ratios to the naive loop of the same turn."""
    turns: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.turns):
        for name in list_candidates(options.compile):
            result = run_apart(name, size, options)
            median = statistics.median(epoch["cpu_s"] for epoch in result["epochs"])
            turns.setdefault(name, []).append(
                {"cpu_s": median, "peak_bytes": result["peak_bytes"], "val_loss": result["epochs"][-1]["val_loss"]}
            )
            print(number, size, name, json.dumps(turns[name][-1]), flush=True)
    return [
        {
            "candidate": name,
            "size": size,
            "epoch_cpu_s": statistics.median(row["cpu_s"] for row in rows),
            "times_faster": statistics.median(
                naive["cpu_s"] / row["cpu_s"] for naive, row in zip(turns[NAIVE], rows, strict=True)
            ),
            "peak_bytes": statistics.median(row["peak_bytes"] for row in rows),
            "less_memory": statistics.median(
                1.0 - row["peak_bytes"] / naive["peak_bytes"] for naive, row in zip(turns[NAIVE], rows, strict=True)
            ),
            "val_loss": rows[0]["val_loss"],
        }
        for name, rows in turns.items()
    ]


def render(found: dict[str, Any]) -> str:
    lines = [
        "# Training: what each switch brings",
        "",
        "Written by `make bench-training`.",
        "",
        f"{found['num_examples']['train']} pictures to learn from and {found['num_examples']['val']} to judge on, of "
        f"recordings of 1 s at 192 kHz, batches of {BATCH}, {found['epochs']} epochs, one thread, {found['machine']}; "
        f"medians of {found['turns']} turns; load {found['load']:.1f} before. Times are processor time per epoch, "
        "after the first; memory is the peak above what the process held before it trained.",
        "",
        f"Computing all pictures once took {found['features_cpu_s']:.1f} s of processor time, and is not repeated.",
    ]
    for size in found["sizes"]:
        lines += [
            "",
            f"## ConvNeXt {size}",
            "",
            "| candidate | s an epoch | times faster | peak memory | less memory | validation loss |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['candidate']} | {row['epoch_cpu_s']:.2f} | {row['times_faster']:.2f} "
            f"| {row['peak_bytes'] / 2**20:.0f} MiB | {100 * row['less_memory']:.0f} % | {row['val_loss']:.4f} |"
            for row in found["rows"]
            if row["size"] == size
        ]
    return "\n".join([*lines, "", found["remark"], ""])


REMARK = (
    "The naive loop reads and transforms each recording when its turn comes; all else is `fit_model`, each switch "
    "alone on top of pictures computed once, then together. All learn the same network from the same pictures with the "
    "same optimiser; ours takes the gradients of depthwise kernels over few positions by matrix products, always, "
    "which the row of oneDNN's goes without. Orders of batches differ between the naive loop and ours, and so do "
    "losses in their last digits."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=160)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=["atto", "tiny"])
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes to begin")
    parser.add_argument("--world", type=Path, help="where recordings lie or are to lie")
    parser.add_argument("--candidate")
    parser.add_argument("--size", default="atto")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(run_candidate(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.world = options.world or Path(folder)
        options.world.mkdir(parents=True, exist_ok=True)
        if not (options.world / "world.json").exists():
            build_world(options.world, options.sessions, options.receivers)
        world = json.loads((options.world / "world.json").read_text())
        load = os.getloadavg()[0]
        rows = [row for size in options.sizes for row in measure(size, options)]
        parts, _ = load_world(options.world, options.receivers)
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "load": load,
        "turns": options.turns,
        "epochs": options.epochs,
        "sizes": options.sizes,
        "num_examples": {name: int(part.offsets[-1]) for name, part in parts.items()},
        "features_cpu_s": world["features_cpu_s"],
        "rows": rows,
        "remark": REMARK,
    }
    (options.out / "training.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    (options.out / "training.md").write_text(render(found))


if __name__ == "__main__":
    main()
