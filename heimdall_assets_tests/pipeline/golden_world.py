"""A fixed tiny world for golden results: five sessions whose bytes no processor and no library decides.

Samples are sums of bytes of SHA-256 and start times are written down, so what the first stage reads is the same
everywhere and for ever; what changes in a result was changed by the pipeline. Four sessions carry IQ (one of them a
silent recording and a receiver without a clock beside it), one carries levels alone; their sites fall into all three
splits.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.domain import ApprovalStatus, ImportBatch, Measurement, Origin, Position, Session
from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    IQ_FILES,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.identities import compute_id, make_source, make_station
from heimdall_assets.pipeline.results import Result
from heimdall_assets.specs import (
    AugmentationSpec,
    DatasetSpec,
    DelaySpec,
    EvaluationSpec,
    ExportSpec,
    FeatureSpec,
    ModelSpec,
    RecordingSpec,
    SplitSpec,
    TimingSpec,
    TrainingSpec,
)
from heimdall_assets.stores.home import Stores, open_stores
from heimdall_assets_tests.homes import ignore

RATE_HZ = 24_000
NUM_SAMPLES = 24_000
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
START_NS = int(START.timestamp()) * 10**9
CARRIER_HZ = 145_500_000.0

STATIONS = {
    "A": (45.02, 7.29, 600.0),
    "B": (45.234, 7.857, 300.0),
    "C": (44.561, 8.956, 480.0),
    "D": (45.478, 9.123, 120.0),
}
NETWORK = ModelSpec(width=16, num_layers=1, num_heads=2, multi_target=True)
SINGLE = ModelSpec(kind="single_receiver")
MODELS = {"network": NETWORK, "single_receiver": SINGLE}


@dataclass(frozen=True)
class Heard:
    """One transmission: where from, and after how many ns its first sample reaches each station."""

    latitude: float
    longitude: float
    delay_ns: dict[str, int]
    has_iq: bool = True


SESSIONS = {
    "train-iq": Heard(45.30, 8.40, {"A": 309_185, "B": 144_289, "C": 310_719, "D": 200_121}),
    "train-iq-east": Heard(45.00, 8.60, {"A": 344_679, "B": 213_509, "C": 187_993, "D": 224_042}),
    "val-iq": Heard(45.20, 8.00, {"A": 198_041, "B": 39_557, "C": 345_932, "D": 311_265}),
    "test-iq": Heard(45.10, 8.40, {"A": 293_243, "B": 150_866, "C": 247_939, "D": 235_511}),
    "train-levels": Heard(44.80, 8.00, {"A": 204_114, "B": 165_276, "C": 267_993, "D": 387_390}, has_iq=False),
}


def draw_bytes(name: str, count: int) -> NDArray[np.int64]:
    """Return ``count`` integers -128 to 127 that follow from ``name`` alone."""
    blocks = [hashlib.sha256(f"{name}:{block}".encode()).digest() for block in range(-(-count // 32))]
    return np.frombuffer(b"".join(blocks), dtype=np.int8)[:count].astype(np.int64)


def draw_samples(name: str, count: int) -> NDArray[np.int64]:
    """Return int64 (count, 2): noise within some 3 kHz, I and Q, by sums of eight neighbours."""
    raw = draw_bytes(name, 2 * (count + 7)).reshape(-1, 2)
    return np.stack([raw[start : start + count] for start in range(8)]).sum(axis=0)


def make_recording(session: str, station: str) -> bytes:
    """Return an .npy of int16 pairs: the session's signal and the station's own weaker noise."""
    samples = 8 * draw_samples(session, NUM_SAMPLES) + 2 * draw_bytes(f"{session}/{station}", 2 * NUM_SAMPLES).reshape(
        -1, 2
    )
    return encode_npy(samples.astype(np.int16))


def encode_npy(samples: NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, samples, allow_pickle=False)
    return buffer.getvalue()


def fill_world(stores: Stores) -> None:
    """Import and approve the sessions."""
    for name, heard in SESSIONS.items():
        stores.measurements.add(_build_batch(stores, name, heard))
    ids = [row["id"] for row in stores.measurements.list_sessions()]
    # The moment of a decision stands in the snapshot, and so does the pseudonym of who decided.
    with (
        patch("heimdall_assets.stores.database.measurements.read_clock", lambda: START + timedelta(days=1)),
        patch("heimdall_assets.stores.database.people.draw_secret", lambda: bytes(32)),
    ):
        stores.measurements.decide(ids, ApprovalStatus.APPROVED, "golden", "the world is fixed")


def _build_batch(stores: Stores, name: str, heard: Heard) -> ImportBatch:
    source = make_source(name, Position(latitude=heard.latitude, longitude=heard.longitude), error_margin_m=10.0)
    session = Session(
        id=compute_id("session", "golden", name),
        name=name,
        source_id=source.id,
        campaign="golden",
        origin=Origin.MEASURED,
        start=START,
        end=START + timedelta(seconds=NUM_SAMPLES / RATE_HZ),
        attributes={"signal_type": "voice"},
    )
    stations, measurements = [], []
    for place, (code, (latitude, longitude, altitude_m)) in enumerate(STATIONS.items()):
        clock = ClockClass.GNSS_CALIBRATED
        position = Position(latitude=latitude, longitude=longitude, altitude_m=altitude_m)
        station = make_station(code, position, clock)
        stations.append(station)
        level = -60.0 - 4.0 * place - heard.delay_ns[code] / 20_000
        measurements.append(_build_measurement(stores, session, station.id, code, level, heard))
    if name == "train-iq":
        for code, clock in (("silent", ClockClass.GNSS_CALIBRATED), ("untimed", ClockClass.NONE)):
            station = make_station(code, Position(latitude=45.0, longitude=8.0, altitude_m=200.0), clock)
            stations.append(station)
            measurements.append(_build_measurement(stores, session, station.id, code, -80.0, heard))
    return ImportBatch(stations=stations, sources=[source], sessions=[session], measurements=measurements)


def _build_measurement(
    stores: Stores, session: Session, station_id: str, code: str, level_db: float, heard: Heard
) -> Measurement:
    levels = Measurement(
        id=compute_id("measurement", session.id, station_id),
        session_id=session.id,
        station_id=station_id,
        timestamp=START,
        frequency_hz=CARRIER_HZ,
        signal_strength_db=level_db,
        snr_db=20.0,
    )
    if not heard.has_iq:
        return levels
    data = encode_npy(np.zeros((NUM_SAMPLES, 2), np.int16)) if code == "silent" else make_recording(session.name, code)
    iq = {
        "iq_data_location": f"sha256:{stores.objects.put_bytes(data, NPY_MEDIA_TYPE).digest}",
        "iq_data_format": "npy",
        "iq_sample_rate_hz": RATE_HZ,
        "iq_samples_count": NUM_SAMPLES,
        "iq_start_unix_ns": START_NS + heard.delay_ns.get(code, 0),
        "duration_s": NUM_SAMPLES / RATE_HZ,
    }
    return Measurement.model_validate({**levels.model_dump(), **iq})


def open_stores_of(folder: Path) -> Stores:
    """Return the stores of the home in ``folder``."""
    return open_stores(
        home=str(folder),
        database_url=f"sqlite:///{folder / 'heimdall.db'}",
        objects=str(folder / "objects"),
        recordings=str(folder / "recordings"),
        models=str(folder / "models"),
        scratch=str(folder / "scratch"),
        cache=str(folder / "cache"),
        cache_gb=1.0,
    )


def open_world(folder: Path) -> Stores:
    """Return the stores of a fresh home with the world in it."""
    stores = open_stores_of(folder)
    fill_world(stores)
    return stores


@dataclass(frozen=True)
class Carried:
    """What the world became: variant and kind -> result; stages before the checkpoint are common to all variants."""

    results: dict[tuple[str, str], Result]

    def manifest(self, kind: str, variant: str = "") -> Manifest:
        return self.results[variant, kind].manifest


def carry(stores: Stores, variants: tuple[str, ...] = tuple(MODELS), up_to: str = MODEL_RELEASE) -> Carried:
    """Return the results of every stage up to ``up_to``, the models once for each variant."""
    from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
    from heimdall_assets.pipeline.stages.iq_files import pin_recordings
    from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
    from heimdall_assets.pipeline.stages.splits import split_sessions

    objects, results = stores.objects, {}
    steps: list[tuple[str, Callable[[], dict[str, Result]]]] = []

    def manifest(kind: str, variant: str = "") -> Manifest:
        return results[variant, kind].manifest

    steps = [
        (APPROVED_MEASUREMENTS, lambda: {APPROVED_MEASUREMENTS: take_snapshot(stores, DatasetSpec())[0]}),
        (
            IQ_FILES,
            lambda: {
                IQ_FILES: pin_recordings(objects, manifest(APPROVED_MEASUREMENTS), RecordingSpec(), ignore).result
            },
        ),
        (
            SPECTROGRAM_FEATURES,
            lambda: {
                SPECTROGRAM_FEATURES: extract_features(
                    objects, manifest(IQ_FILES), FeatureSpec(), DelaySpec(), ignore
                ).result
            },
        ),
        (
            TEST_SPLIT,
            lambda: split_sessions(objects, manifest(SPECTROGRAM_FEATURES), SplitSpec(), TimingSpec()),
        ),
    ]
    for kind, make in steps:
        results |= {("", name): result for name, result in make().items()}
        if kind == up_to:
            return Carried(results)
    for variant in variants:
        results |= _fit(stores, results, variant, up_to)
    return Carried(results)


def _fit(
    stores: Stores, results: dict[tuple[str, str], Result], variant: str, up_to: str
) -> dict[tuple[str, str], Result]:
    from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint
    from heimdall_assets.pipeline.stages.model_release import release_model
    from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
    from heimdall_assets.pipeline.stages.trained_checkpoint import train_checkpoint

    objects, made = stores.objects, {}
    train, val, test = (results["", kind].manifest for kind in (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT))
    training = TrainingSpec(
        max_epochs=2,
        warmup_epochs=1,
        batch_size=8,
        num_threads=1,
        num_simulated_sessions=16 if variant == "network" else 0,
    )
    specs = (MODELS[variant], training, AugmentationSpec())
    made[TRAINED_CHECKPOINT] = train_checkpoint(objects, stores.scratch, train, val, *specs)
    checkpoint = made[TRAINED_CHECKPOINT].manifest
    if up_to != TRAINED_CHECKPOINT:
        made[EVALUATION_METRICS] = evaluate_checkpoint(objects, checkpoint, test, EvaluationSpec(num_bootstrap=100))
    if up_to not in (TRAINED_CHECKPOINT, EVALUATION_METRICS):
        made[ONNX_MODEL] = export_checkpoint(objects, checkpoint, test, ExportSpec())
    if up_to == MODEL_RELEASE:
        made[MODEL_RELEASE] = release_model(stores, made[ONNX_MODEL].manifest, made[EVALUATION_METRICS].manifest)
    return {(variant, kind): result for kind, result in made.items()}
