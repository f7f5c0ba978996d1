"""A small real world: database, object folder and releases with a whole chain of manifests, without training."""

import io
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from heimdall_assets.domain import (
    ApprovalStatus,
    ImportBatch,
    Measurement,
    Origin,
    Position,
    Session,
    Source,
    Station,
)
from heimdall_assets.lineage.attestations import BUNDLE_FILE, PAYLOAD_TYPE, build_statements, encode_bundle
from heimdall_assets.lineage.findings import Evidence
from heimdall_assets.lineage.listings import (
    DECISIONS,
    RECORDINGS,
    decode_decisions,
    encode_decisions,
    encode_recordings,
)
from heimdall_assets.lineage.provenance import build_provenance
from heimdall_assets.lineage.recorded import read_recorded
from heimdall_assets.lineage.release_files import SUMS_FILE, encode_sums, read_format_files
from heimdall_assets.lineage.walk import walk_manifests
from heimdall_assets.manifests import Manifest, compute_digest, encode_canonical_json
from heimdall_assets.media_types import (
    BINARY_MEDIA_TYPE,
    JSON_LINES_MEDIA_TYPE,
    JSON_MEDIA_TYPE,
    NPY_MEDIA_TYPE,
    ONNX_MEDIA_TYPE,
    PARQUET_MEDIA_TYPE,
)
from heimdall_assets.people import name_people
from heimdall_assets.specs import DatasetSpec, FeatureSpec, ModelSpec, SplitSpec, TrainingSpec
from heimdall_assets.stores.computing import keep_facts, read_facts
from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import SigningKey
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.objects.interface import ObjectStore
from heimdall_assets.stores.objects.tables import decode_table, encode_table
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.stores.releasing import open_at

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
STATIONS = [("station-a", 45.02, 7.29), ("station-b", 45.234, 7.857), ("station-c", 45.478, 9.123)]
ENVIRONMENT = {
    "python": "3.11.9",
    "packages": ["numpy==2.4.6", "torch==2.15.0"],
    "code_sha256": "c" * 64,
    "git_sha": "a" * 40,
    "git_dirty": False,
    "cpu_capability": "AVX2",
    "threads": {"torch": 2},
}
FACTS = {
    "format": "heimdall-facts/1",
    "started_by": "anna",
    "reason": "<i>monthly</i> training",
    "run_id": "run-0",
    "started_at": "2026-01-01T12:00:00.000+00:00",
    "duration_s": 12.5,
    "environment": ENVIRONMENT,
}

REASON = "heard <script>alert('x')</script> & checked"


@dataclass
class World:
    measurements: MeasurementStore
    objects: ObjectStore
    releases: ReleaseStore
    events: dict
    database: Path
    facts: dict = field(default_factory=lambda: FACTS)
    sizes: dict = field(default_factory=dict)
    """Version -> entries of the log before its release."""
    key: SigningKey | None = None

    @property
    def stores(self):
        return Stores(self.measurements, self.objects, self.releases, self.database.parent / "scratch")

    def add_sessions(self, first, count):
        """Import and return the ids of ``count`` new sessions; station-c hears levels only."""
        sessions, sources, heard = [], [], []
        for index in range(first, first + count):
            source = f"source-{index}"
            sources.append(
                Source(
                    id=source,
                    name=f"Source {index}",
                    position=Position(latitude=44.5 + 0.01 * index, longitude=8.0 + 0.02 * index),
                    error_margin_m=30.0,
                )
            )
            session = f"session-{index:04d}"
            start = START + timedelta(minutes=index)
            sessions.append(
                Session(
                    id=session,
                    name=f"night {index}",
                    source_id=source,
                    campaign="north",
                    origin=Origin.MEASURED,
                    start=start,
                )
            )
            heard += [self._hear(session, index, station, place, start) for station, place in enumerate(STATIONS)]
        stations = [
            Station(id=name, name=name.title(), position=Position(latitude=latitude, longitude=longitude))
            for name, latitude, longitude in STATIONS
        ]
        self.measurements.add(ImportBatch(stations=stations, sources=sources, sessions=sessions, measurements=heard))
        return [session.id for session in sessions]

    def _hear(self, session, index, station, place, start):
        iq = {}
        if station < 2:
            buffer = io.BytesIO()
            samples = np.random.default_rng([index, station]).standard_normal((64, 2)).astype(np.float32)
            np.save(buffer, samples.view(np.complex64)[:, 0], allow_pickle=False)
            digest = self.objects.put_bytes(buffer.getvalue(), NPY_MEDIA_TYPE).digest
            iq = {"iq_data_location": f"sha256:{digest}", "iq_data_format": "npy", "iq_sample_rate_hz": 24000.0}
            iq["iq_start_unix_ns"] = int(start.timestamp()) * 10**9 + index
        return Measurement(
            id=f"{session}-{place[0]}",
            session_id=session,
            station_id=place[0],
            timestamp=start,
            frequency_hz=145.5e6,
            signal_strength_db=-80.0 - index,
            **iq,
        )

    def approve(self, sessions, reason=REASON):
        self.measurements.decide(sessions, ApprovalStatus.APPROVED, "Ada", reason)

    def withdraw(self, sessions):
        self.measurements.decide(sessions, ApprovalStatus.REJECTED, "Bob", "wrong place")

    def put_table(self, table):
        return self.objects.put_bytes(encode_table(table), PARQUET_MEDIA_TYPE)

    def put_lines(self, data):
        return self.objects.put_bytes(data, JSON_LINES_MEDIA_TYPE)

    def put_manifest(self, kind, parents, artifacts, specs=(), code_version="1", **summary):
        manifest = Manifest(
            kind=kind,
            code_version=code_version,
            parents=parents,
            artifacts=artifacts,
            specs={type(spec).__name__: spec.dump() for spec in specs},
            summary=summary,
        )
        number = len(self.events) + 1
        self.objects.put_bytes(manifest.encode(), JSON_MEDIA_TYPE)
        self.objects.write_reference(manifest.reference, manifest.digest)
        keep_facts(self.objects, manifest.digest, self.facts)
        self.events.setdefault(
            manifest.digest, {"asset": kind, "storage_id": number, "run_id": f"run-{number // 9}", "inputs": parents}
        )
        return manifest.digest

    def make_chain(self, training=None, median_m=120.0):
        """Put every manifest of a model on the approved set and return its roots."""
        snapshot = self.measurements.read_approved(DatasetSpec())
        rows = snapshot.rows
        fingerprint = self.measurements.compute_fingerprint(DatasetSpec())
        decided = rows["approval_event_id"].dropna().unique().tolist()
        approved = self.put_manifest(
            "approved_measurements",
            {"measurement_database": fingerprint},
            {
                "table": self.put_table(rows),
                "left_out": self.put_table(snapshot.left_out),
                DECISIONS: self.put_lines(encode_decisions(self.measurements.list_decisions(decided))),
            },
            [DatasetSpec()],
            num_sessions=int(rows["session_id"].nunique()),
            num_measurements=len(rows),
            num_stations=int(rows["station_id"].nunique()),
            sessions_by_origin={"measured": int(rows["session_id"].nunique())},
        )
        with_iq = rows[rows["iq_data_location"].notna()]
        recordings = pd.DataFrame(
            {
                "measurement_id": with_iq["measurement_id"],
                "session_id": with_iq["session_id"],
                "status": "ok",
                "reason": pd.Series(pd.NA, index=with_iq.index),
                "digest": with_iq["iq_data_location"].str.removeprefix("sha256:"),
            }
        ).astype("string")
        iq = self.put_manifest(
            "iq_files", {"approved_measurements": approved},
            {"table": self.put_table(recordings), RECORDINGS: self.put_lines(encode_recordings(recordings))},
            num_recordings=len(recordings),
        )  # fmt: skip
        shard = self.objects.put_bytes(b"shard of " + approved.encode(), NPY_MEDIA_TYPE).digest
        features = self.put_manifest(
            "spectrogram_features", {"iq_files": iq}, {}, [FeatureSpec()], num_features=len(recordings), shards=[shard]
        )
        names = sorted(rows["session_id"].unique())
        splits = {}
        for place, split in enumerate(("train", "val", "test")):
            part = [name for index, name in enumerate(names) if min(index % 5, 2) == place]
            table = pd.DataFrame({"session_id": part, "site": part, "split": split}).astype("string")
            splits[split] = self.put_manifest(
                f"{split}_split", {"spectrogram_features": features}, {"table": self.put_table(table)}, [SplitSpec()],
                num_sessions=len(part),
            )  # fmt: skip
        weights = self.objects.put_bytes(b"weights " + splits["train"].encode(), BINARY_MEDIA_TYPE)
        checkpoint = self.put_manifest(
            "trained_checkpoint",
            {"train_split": splits["train"], "val_split": splits["val"]},
            {"weights.safetensors": weights},
            [ModelSpec(), training or TrainingSpec()],
        )
        metrics = {
            "num_sessions": len(names) // 5,
            "median_m": median_m,
            "p90_m": 300.0,
            "coverage_90": 0.9,
            "baselines": {"<b>centre</b>": {"num_sessions": 3, "median_m": 900.0}},
            "worse_than": [],
        }
        judged = {"trained_checkpoint": checkpoint, "test_split": splits["test"]}
        evaluation = self.put_manifest(
            "evaluation_metrics",
            judged,
            {"metrics.json": self.objects.put_bytes(encode_canonical_json(metrics), JSON_MEDIA_TYPE)},
        )
        onnx = self.put_manifest(
            "onnx_model",
            judged,
            {"model.onnx": self.objects.put_bytes(b"graph of " + checkpoint.encode(), ONNX_MEDIA_TYPE)},
        )
        return {"onnx_model": onnx, "evaluation_metrics": evaluation}

    def release(self, roots, change="patch", **told):
        """Publish a release of these roots and return its version; ``told`` stands in its record."""
        version = self.releases.reserve_version(change, f"results/{roots['onnx_model']}")
        provenance = self.freeze(roots, version)
        self.sizes[version] = (provenance["log"] or {"size": 0})["size"]  # before the first entry there is no log
        data = encode_canonical_json(provenance)
        digest = compute_digest(data)
        model = self.objects.read_bytes(provenance["model"]["artifacts"]["model.onnx"])
        files = {
            "model.onnx": model + b" heimdall.provenance " + digest.encode(),
            "metrics.json": encode_canonical_json(provenance["metrics"]),
            "README.md": b"# a model\n",
            "provenance.json": data,
            **read_format_files(),
        }
        if self.key is not None:
            statements = build_statements(files, provenance)
            files[BUNDLE_FILE] = encode_bundle([self.key.sign(statement, PAYLOAD_TYPE) for statement in statements])
        files[SUMS_FILE] = encode_sums(files)
        record = {
            "manifest": roots["onnx_model"],
            "evaluation": roots["evaluation_metrics"],
            "provenance": digest,
            "specs": provenance["specs"],
            "median_m": provenance["metrics"]["median_m"],
            **told,
        }
        self.releases.publish(version, files, record)
        for file in files.values():
            self.objects.put_bytes(file, BINARY_MEDIA_TYPE)
        return version

    def freeze(self, roots, version="v1.0.0", **changes):
        given = {
            "version": version,
            "roots": roots,
            "read_bytes": self.objects.read_bytes,
            "read_facts": partial(read_facts, self.objects),
            "log": read_log(self.releases),
            "released": {**self.facts, "started_by": "rita", "reason": None},
            "checks": [{"asset": "train_split", "name": "splits_do_not_leak", "passed": True}],
            "dagster_events": self.events,
        }
        return build_provenance(**{**given, **changes})

    def read_data(self, provenance):
        return read_recorded(provenance, self.read_table)

    def name(self, value):
        """Return JSON values with names in place of pseudonyms."""
        return name_people(value, self.measurements.read_names)

    def read_decisions(self, provenance):
        return decode_decisions(self.objects.read_bytes(provenance["nodes"][0]["artifacts"][DECISIONS]["digest"]))

    def read_table(self, digest):
        return decode_table(self.objects.read_bytes(digest))

    def read_provenance(self, version):
        return json.loads(self.releases.read_file(version, "provenance.json"))

    def gather(self, version):
        """Return the evidence as it lies now."""
        return Evidence(
            version=version,
            files={name: self.releases.files.read(version, name) for name in self.releases.files.list_files(version)},
            release=self.releases.find_record(version),
            approval_events=self.measurements.list_approval_events(),
            log=read_log(self.releases, self.sizes.get(version) or self.read_provenance(version)["log"]["size"]),
            keys=self.releases.list_keys(),
            entry=(self.releases.find_log_entry(version) or (None, {}))[0],
            logged=(self.releases.find_log_entry(version) or (None, {}))[1].get("files", {}),
            strangers=self.releases.find_strangers(),
            ledger_problems=[*self.measurements.check_ledger(), *self.releases.check_ledger()],
            dagster_events={
                event["storage_id"]: {**event, "data_version": digest} for digest, event in self.events.items()
            },
            database_rows=self.measurements.read_tables(DatasetSpec()),
        )


def read_log(releases, size=None):
    """Return the checkpoint of the log, as a provenance holds it."""
    checkpoint = releases.read_checkpoint(size)
    return None if checkpoint is None else asdict(checkpoint)


def make_world(folder, num_sessions=10, models=None, objects=None, database_url=None):
    """Return a world with ``num_sessions`` approved sessions; below the folder lies what is not said to lie elsewhere.

    Args:
        folder: for the database.
        num_sessions: of the approved set.
        models: address of releases.
        objects: the store.
        database_url: of another database than a file in the folder.
    """
    measurements = MeasurementStore(database_url or f"sqlite:///{folder / 'heimdall.db'}")
    measurements.upgrade()
    world = World(
        measurements,
        objects or FolderObjectStore(folder / "objects"),
        open_at(str(models or folder / "heimdall-models"), measurements),
        {},
        folder / "heimdall.db",
    )
    if num_sessions:
        world.approve(world.add_sessions(0, num_sessions))
    return world


def find_object_path(world, digest):
    """Return the file of an object."""
    return world.objects.local_path(digest)


def list_nodes(world, roots):
    """Return kind -> node."""
    return {node.manifest.kind: node for node in walk_manifests(roots.values(), world.objects.read_bytes)}
