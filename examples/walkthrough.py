"""A walk through the library in Python: import, look, locate, train, predict, lineage. In under a minute.

    python examples/walkthrough.py [FOLDER]

FOLDER becomes a home of its own (default: a temporary one). A second walk in the same folder finds every result and
computes nothing. No network, server or GPU is needed: one campaign is simulated, and one session is imported from NumPy
files that this script writes, as a recorder would.

The functions of ``heimdall_assets.pipeline`` used here are those that the assets of the graph and the commands call.
What the graph adds is when they run, where, and a page to look at.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from heimdall_assets import specs
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.formats import Stated
from heimdall_assets.kinds import SPLIT_KINDS, TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from heimdall_assets.lineage.tree import render_tree
from heimdall_assets.physical import ClockClass
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.prediction.files import predict_files
from heimdall_assets.pipeline.prediction.stored import locate_stored, predict_stored
from heimdall_assets.pipeline.releases.audit import audit_release
from heimdall_assets.pipeline.releases.promotion import apply_promotion
from heimdall_assets.pipeline.releases.reading import read_decisions, read_provenance
from heimdall_assets.pipeline.stages.approved_measurements import take_snapshot
from heimdall_assets.pipeline.stages.evaluation_metrics import evaluate_checkpoint, load_metrics
from heimdall_assets.pipeline.stages.iq_files import pin_recordings
from heimdall_assets.pipeline.stages.model_release import release_model
from heimdall_assets.pipeline.stages.onnx_model import export_checkpoint
from heimdall_assets.pipeline.stages.spectrogram_features import extract_features
from heimdall_assets.pipeline.stages.splits import split_sessions
from heimdall_assets.pipeline.stages.trained_checkpoint import train_checkpoint
from heimdall_assets.places import read_places
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.stores.home import Stores

CAMPAIGN = specs.SimulationSpec(num_sessions=24, duration_s=0.5)
HALF_A_SECOND = specs.FeatureSpec(hop=256)
"""So that 32 frames fit into each recording."""
LOUD = specs.SimulationSpec(
    seed=7,
    snr_min_db=25,
    snr_max_db=25,
    voice_fraction=1.0,
    tone_fraction=0.0,
    clock_bias_s=0,
    clock_jitter_s=0,
    impairments=False,
)
"""One clear transmission whose recorders started on the same second: what the NumPy files hold."""
TINY_MODEL = specs.ModelSpec(width=16, num_layers=1, num_heads=2, use_spectrograms=False, use_correlations=False)


def ignore(what: str, done: int, total: int) -> None:
    """Hear of progress and say nothing."""


def describe(found: dict[str, Any]) -> str:
    """Return a position with its ellipse and its error as one line."""
    ellipse = found["ellipse_90"]
    size = f"90 % ellipse {ellipse['semi_major_m']:.0f} m x {ellipse['semi_minor_m']:.0f} m"
    error = "" if found["error_m"] is None else f", error {found['error_m']:.0f} m"
    return f"{found['latitude']:.4f}, {found['longitude']:.4f}, {size}{error} ({found['method']})"


def record(folder: Path) -> tuple[list[Path], SessionClaim, Stated]:
    """Write one .npy file a receiver; return the files and what must be said of them, since they cannot."""
    heard = simulate_session(LOUD, 0)
    folder.mkdir(parents=True, exist_ok=True)
    files, receivers = [], {}
    for receiver in heard.receivers:
        code = receiver.station.name.split()[-1]
        receivers[code] = receiver.station.position
        files.append(folder / f"{code}.npy")
        np.save(files[-1], receiver.recording.samples, allow_pickle=False)
    first = heard.recordings[0]
    stated = Stated(
        sample_rate_hz=first.sample_rate_hz, start_unix_ns=first.start_unix_ns, frequency_hz=LOUD.carrier_hz
    )
    source = make_source("beacon", heard.source.position)
    return files, SessionClaim("beacon-1", source, "field", receivers, ClockClass.GNSS_CALIBRATED), stated


def train_and_release(stores: Stores) -> str:
    """Compute every stage from the approved sessions to a release, as the graph does; return its version."""
    objects = stores.objects
    snapshot, _ = take_snapshot(stores, specs.DatasetSpec())
    recordings = pin_recordings(objects, snapshot.manifest, specs.RecordingSpec(), ignore).result
    features = extract_features(objects, recordings.manifest, HALF_A_SECOND, specs.DelaySpec(), ignore).result
    splits = split_sessions(objects, features.manifest, specs.SplitSpec(), specs.TimingSpec())
    train, val, test = (splits[kind].manifest for kind in (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT))
    checkpoint = train_checkpoint(
        objects,
        stores.scratch,
        train,
        val,
        TINY_MODEL,
        specs.TrainingSpec(max_epochs=3, num_threads=1),
        specs.AugmentationSpec(),
    )
    judged = evaluate_checkpoint(objects, checkpoint.manifest, test, specs.EvaluationSpec(num_bootstrap=100))
    onnx = export_checkpoint(objects, checkpoint.manifest, test, specs.ExportSpec())
    release = release_model(stores, onnx.manifest, judged.manifest)
    counts = {name: splits[kind].manifest.summary["num_sessions"] for name, kind in SPLIT_KINDS.items()}
    metrics = load_metrics(objects, judged.manifest)
    print(f"trained:   {counts}, median error on test sessions {metrics['median_m']:.0f} m")
    decision = apply_promotion(stores, release.manifest.summary["version"], specs.PromotionSpec())
    print(f"released:  {decision.version}, champion: {decision.promoted} ({decision.reason})")
    return decision.version


def walk(folder: Path) -> None:
    """Do it all in ``folder``."""
    stores = read_places({"HEIMDALL_HOME": str(folder)}).open_stores()

    print("imported: ", import_simulated(stores, CAMPAIGN, "simulated", ignore))
    files, claim, stated = record(folder / "recorded")
    print("imported: ", import_recordings(stores.measurements, stores.objects, claim, files, stated).report)

    for row in stores.measurements.list_sessions(campaign="field"):
        print(f"look:      {row['session_name']}: {row['approval_status']}, {row['num_measurements']} receivers")
    print(f"locate:    {describe(locate_stored(stores, 'beacon-1'))}")

    ids = stores.measurements.resolve_sessions(["beacon-1"])
    stores.measurements.decide(ids, ApprovalStatus.APPROVED, "walkthrough", "the beacon's position is known")
    version = train_and_release(stores)

    print(f"predict:   {describe(predict_stored(stores, version, 'beacon-1'))}")
    from_files = predict_files(stores, "champion", files, claim.receivers, stated, claim.clock_class)
    print(f"predict:   {describe(from_files)}, from files in no database")

    provenance = read_provenance(stores, version)
    print(render_tree(provenance, read_decisions(stores, provenance)).splitlines()[0])
    findings = audit_release(stores, version)
    print(f"verify:    {'all is as it was released' if not findings else [item.describe() for item in findings]}")


def main(arguments: Sequence[str]) -> None:
    """Walk in the folder that was named, or in a temporary one."""
    if arguments:
        walk(Path(arguments[0]))
        return
    with TemporaryDirectory() as folder:
        walk(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
