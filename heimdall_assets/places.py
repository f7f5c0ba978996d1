"""Places: where rows, bytes, releases and histories rest, read from the environment when asked and not before.

Belongs here: the names of the environment variables, their embedded defaults, and opening the stores they point at.
Everything embedded lies below ``HEIMDALL_HOME``, so two homes never meet.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.specs import RetrainPolicy
from heimdall_assets.stores.home import Stores, open_stores
from heimdall_assets.stores.plain_files import write_missing_file

EXECUTORS = ("in_process", "local", "ray")
"""Where steps run: in the run's own process, each in one of this machine, or the GPU-tagged one on Ray."""

LINEAGE_URL = "http://127.0.0.1:3001"

DAGSTER_YAML = """\
# The embedded instance: everything below one folder, no server. Written by `heimdall` where there is none.
storage:
  sqlite:
    base_dir: {storage}
compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config:
    base_dir: {logs}
local_artifact_storage:
  module: dagster._core.storage.root
  class: LocalArtifactStorage
  config:
    base_dir: {artifacts}
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
  runs:
    max_concurrent_runs: 1  # two at once would read each other's inputs
run_monitoring:
  enabled: true
  start_timeout_seconds: 900
  free_slots_after_run_end_seconds: 30
run_retries:
  enabled: true
  max_retries: 1
  retry_on_asset_or_op_failure: false
"""


@dataclass(frozen=True)
class Places:
    """Addresses of every store."""

    home: Path
    database_url: str
    objects: str
    recordings: str
    models: str
    scratch: str
    mlflow_uri: str
    mlflow_artifacts: Path
    tracking: bool
    dagster_home: Path
    executor: str
    ray_address: str
    webhook_url: str | None
    retrain: RetrainPolicy
    lineage_url: str
    """Where a browser finds the lineage page of version v at ``lineage_url/v``; served by ``heimdall ui``."""

    def share(self) -> dict[str, str]:
        """Return the variables that send a step's process to these places, wherever it runs; none holds a secret.

        Addresses of databases, which may hold passwords, are not among them: whoever runs steps elsewhere has them.
        """
        return {
            "HEIMDALL_HOME": str(self.home),
            "HEIMDALL_OBJECTS": self.objects,
            "HEIMDALL_RECORDINGS": self.recordings,
            "HEIMDALL_MODELS": self.models,
            "HEIMDALL_SCRATCH": self.scratch,
            "HEIMDALL_TRACKING": "on" if self.tracking else "off",
            "HEIMDALL_EXECUTOR": self.executor,
            "HEIMDALL_RAY_ADDRESS": self.ray_address,
            "HEIMDALL_LINEAGE_URL": self.lineage_url,
        }

    def open_stores(self) -> Stores:
        """Return the opened stores; the embedded database is created and upgraded on first use."""
        return open_stores(
            database_url=self.database_url,
            objects=self.objects,
            recordings=self.recordings,
            models=self.models,
            scratch=self.scratch,
        )


def read_places(environ: Mapping[str, str] | None = None) -> Places:
    """Return the places that the environment names, each with its embedded default below ``HEIMDALL_HOME``.

    Raises:
        InvalidSetting: ``HEIMDALL_HOME`` exists and is not a folder, or a variable holds no value of its kind.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("HEIMDALL_HOME") or ".heimdall").absolute()
    if home.exists() and not home.is_dir():
        raise InvalidSetting(f"HEIMDALL_HOME {home}: found a file, expected a folder")
    return Places(
        home=home,
        database_url=env.get("HEIMDALL_DATABASE_URL") or f"sqlite:///{home / 'heimdall.db'}",
        objects=_make_absolute(env.get("HEIMDALL_OBJECTS") or str(home / "objects")),
        recordings=_make_absolute(env.get("HEIMDALL_RECORDINGS") or str(home / "recordings")),
        models=_make_absolute(env.get("HEIMDALL_MODELS") or str(home / "heimdall-models")),
        scratch=_make_absolute(env.get("HEIMDALL_SCRATCH") or str(home / "scratch")),
        mlflow_uri=env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
        mlflow_artifacts=home / "mlflow-artifacts",
        tracking=_read_choice("HEIMDALL_TRACKING", env.get("HEIMDALL_TRACKING") or "on", ("on", "off")) == "on",
        dagster_home=Path(env.get("DAGSTER_HOME") or home / "dagster").absolute(),
        executor=_read_choice("HEIMDALL_EXECUTOR", env.get("HEIMDALL_EXECUTOR") or EXECUTORS[0], EXECUTORS),
        ray_address=env.get("HEIMDALL_RAY_ADDRESS") or "http://127.0.0.1:8265",
        webhook_url=env.get("HEIMDALL_WEBHOOK_URL"),
        retrain=_read_policy(env.get("HEIMDALL_RETRAIN")),
        lineage_url=_read_address("HEIMDALL_LINEAGE_URL", env.get("HEIMDALL_LINEAGE_URL") or LINEAGE_URL),
    )


def _make_absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())


def _read_choice(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise InvalidSetting(f"{name}: found {text!r}, expected {', '.join(choices[:-1])} or {choices[-1]}")
    return text


def _read_address(name: str, text: str) -> str:
    parts = urlsplit(text)
    try:
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        whole = False
    if not whole or parts.query or parts.fragment:
        raise InvalidSetting(f"{name}: found {text!r:.140}, expected an address such as {LINEAGE_URL}")
    return text.rstrip("/")


def _read_policy(text: str | None) -> RetrainPolicy:
    try:
        return RetrainPolicy.model_validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSetting(f"HEIMDALL_RETRAIN {where}: {first['msg']}; expected JSON of RetrainPolicy") from None


def prepare_dagster_home(places: Places) -> Path:
    """Return the folder of the Dagster instance, with an embedded ``dagster.yaml`` if it had none."""
    folder = places.dagster_home
    text = DAGSTER_YAML.format(storage=folder / "storage", logs=folder / "logs", artifacts=folder / "artifacts")
    write_missing_file(folder / "dagster.yaml", text.encode())
    return folder
