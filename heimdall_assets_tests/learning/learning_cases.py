"""Small approved tables, session sets and one small fitted model that the tests of this room share."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.session_set import SessionSet
from heimdall_assets.specs import AugmentationSpec, ModelSpec, TrainingSpec
from heimdall_assets_tests.variation import make_rng

SINGLE = ModelSpec(kind="single_receiver")
QUICK = TrainingSpec(max_epochs=3, batch_size=16, num_threads=1, warmup_epochs=1)
PLAIN = AugmentationSpec(dropout=0.0, max_shift_frames=0, max_gain_db=0.0)


def make_approved(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return an approved table; each row may leave out what does not matter."""
    filled = []
    for number, row in enumerate(rows):
        base: dict[str, Any] = {
            "measurement_id": f"m{number:05d}",
            "session_id": "s0",
            "session_name": "name",
            "campaign": "c",
            "origin": "simulated",
            "session_start": pd.Timestamp("2024-03-05T12:00:00Z"),
            "session_attributes": "{}",
            "source_id": "src",
            "source_latitude": 45.0,
            "source_longitude": 8.0,
            "source_altitude_m": 0.0,
            "source_error_margin_m": 30.0,
            "station_id": f"w{number:05d}",
            "clock_class": "gnss_calibrated",
            "receiver_latitude": 45.1,
            "receiver_longitude": 8.1,
            "receiver_altitude_m": 200.0,
            "frequency_hz": 145.5e6,
            "signal_strength_db": -80.0,
            "snr_db": 12.0,
            "measurement_attributes": "{}",
        }
        filled.append({**base, **row})
    table = pd.DataFrame(filled, columns=list(APPROVED_COLUMNS))
    return table.astype(APPROVED_COLUMNS)


def make_located(
    positions: np.ndarray, attributes: list[dict[str, Any]] | None = None, prefix: str = "s"
) -> pd.DataFrame:
    """Return an approved table with one receiver per session and the given source positions (N, 2)."""
    return make_approved(
        [
            {
                "session_id": f"{prefix}{number:05d}",
                "source_latitude": float(latitude),
                "source_longitude": float(longitude),
                "session_attributes": json.dumps(attributes[number] if attributes else {}),
            }
            for number, (latitude, longitude) in enumerate(positions)
        ]
    )


def make_sessions(num_sessions: int, seed: int, first: int = 0, num_receivers: int = 2, mels: int = 32) -> SessionSet:
    """Return sessions whose spectrograms hold the source in their level, so that there is something to learn."""
    rng = make_rng(seed)
    count = num_sessions * num_receivers
    latitude = 45.0 + rng.uniform(-0.5, 0.5, num_sessions)
    longitude = 8.0 + rng.uniform(-0.5, 0.5, num_sessions)
    features = rng.normal(-60.0, 3.0, (count, 3, mels, 32)).astype(np.float32)
    features[:, :, : mels // 2] += (
        20.0 * np.repeat(latitude - 45.0, num_receivers).astype(np.float32)[:, None, None, None]
    )
    features[:, :, mels // 2 :] += (
        20.0 * np.repeat(longitude - 8.0, num_receivers).astype(np.float32)[:, None, None, None]
    )
    nan = np.full(count, np.nan)
    return SessionSet(
        session_id=np.array([f"s{first + number:05d}" for number in range(num_sessions)]),
        offsets=np.arange(num_sessions + 1) * num_receivers,
        receiver_latitude=np.full(count, 45.0),
        receiver_longitude=np.full(count, 8.0),
        receiver_altitude_m=np.zeros(count),
        station_id=np.array([f"w{number % num_receivers}" for number in range(count)]),
        frequency_hz=np.full(count, 145.5e6),
        level_db=nan,
        snr_db=nan,
        carrier_offset_hz=nan,
        timing_sigma_s=np.full(count, np.inf),
        arrival_s=nan,
        arrival_sigma_s=nan,
        coherence=nan,
        feature_row=np.arange(count),
        source_latitude=latitude,
        source_longitude=longitude,
        error_margin_m=np.full(num_sessions, 50.0),
        features=features,
    )


def fit_quick(folder: Path, **changes: Any) -> Any:
    """Return a model fitted for a few epochs, its checkpoints in ``folder``; ``changes`` replace arguments."""
    from heimdall_assets.learning.fitting.training import fit_model
    from heimdall_assets.stores.scratch import CheckpointFolder

    arguments: dict[str, Any] = {
        "model": SINGLE,
        "training": QUICK,
        "augmentation": AugmentationSpec(),
        "train": make_sessions(16, seed=1),
        "val": make_sessions(6, seed=2, first=100),
    }
    return fit_model(**{**arguments, **changes}, checkpoints=CheckpointFolder(folder))


@cache
def get_fitted() -> Any:
    """Return the one small fitted model that several tests look at."""
    with tempfile.TemporaryDirectory() as folder:
        return fit_quick(Path(folder))


@cache
def get_lively() -> Any:
    """Return that model for (3, 128, 32), with the layer scales of a long-trained one: at 1e-6 blocks say nothing."""
    from dataclasses import replace

    fitted = get_fitted()
    rng = make_rng(5)
    weights = dict(fitted.weights)
    for name, value in weights.items():
        if name.endswith(".gamma"):
            weights[name] = rng.uniform(0.3, 1.0, value.shape).astype(np.float32)
    statistics = {**fitted.statistics, "feature_shape": [3, 128, 32]}
    return replace(fitted, weights=weights, settings={**fitted.settings, "statistics": statistics})
