"""Dagster's home: the folder of the instance, and the ``dagster.yaml`` in it that says where histories and logs rest.

Belongs here: that file, as the variables say it. Does not belong here: what the variables mean (``variables``), what
is kept for how long (``defs.retention``).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heimdall_assets.errors import Refused
from heimdall_assets.manifests import compute_digest
from heimdall_assets.stores.plain_files import write_missing_file, write_named_file

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

# On a busy machine a run's process needs more than Dagster's own minute to start, and is then given up while it starts.
PATIENCE = {"DAGSTER_GRPC_TIMEOUT_SECONDS": "600", "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600"}
"""What Dagster reads from its environment when the page runs; what is set already wins."""

SETTINGS = """\
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
retention:
  sensor:
    purge_after_days: {skipped: 1, success: 90, failure: 30, started: 1}
  schedule:
    purge_after_days: {skipped: 1, success: 90, failure: 30, started: 1}
run_retries:
  enabled: true
  max_retries: 1
  retry_on_asset_or_op_failure: false
"""
"""What every instance is told, wherever it keeps what it knows."""

HEADER = """\
# Written by `heimdall` as its variables say: again when they change, never again once a hand has changed it.
# It names no folder of this machine: a home may be moved.
"""
_MARK = "# SHA-256 of what follows: "
URL_VARIABLE = "HEIMDALL_DAGSTER_URL"
LOGS_VARIABLE = "HEIMDALL_COMPUTE_LOGS"
LOGS_PREFIX = "dagster"
UPLOAD_INTERVAL_S = 30


def prepare_dagster_home(places: "Places") -> Path:
    """Return the folder of the Dagster instance, whose ``dagster.yaml`` says what the variables say.

    Raises:
        Refused: a newer version of this project made the home, nothing may be written there, or a file that a hand
            changed, or that keeps its history elsewhere, contradicts the variables.
    """
    from heimdall_assets.stores.home_format import may_write, read_format

    read_format(places.home)
    folder = places.dagster_home
    if folder.exists() and not may_write(folder):
        raise Refused(
            f"{folder}: found a folder that may not be written, expected one that can hold the graph's history"
        )
    file, text = folder / "dagster.yaml", render_settings(places)
    write_missing_file(file, text.encode())
    found = file.read_text(encoding="utf-8", errors="replace")
    if found != text:
        _check(file, found, places)
        if _is_as_written(found):
            write_named_file(file, text.encode())
    return folder


def render_settings(places: "Places") -> str:
    """Return the text of ``dagster.yaml``; it names the variable of an address that may hold a password."""
    import yaml

    told = SETTINGS + "".join(yaml.safe_dump({name: block}) for name, block in build_storage(places).items())
    return f"{HEADER}{_MARK}{compute_digest(told.encode())}\n{told}"


def build_storage(places: "Places") -> dict[str, Any]:
    """Return the blocks that say where an instance keeps what it knows; none: everything beside the file."""
    blocks: dict[str, Any] = {}
    if places.dagster_url is not None:
        blocks["storage"] = {"postgres": {"postgres_url": {"env": URL_VARIABLE}}}
    if places.compute_logs is not None:
        blocks["compute_logs"] = {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": "S3ComputeLogManager",
            "config": {
                "bucket": places.compute_logs.bucket,
                "prefix": places.compute_logs.prefix or LOGS_PREFIX,
                "skip_empty_files": True,
                "upload_interval": UPLOAD_INTERVAL_S,
            },
        }
    return blocks


def _is_as_written(text: str) -> bool:
    """Whether no hand changed a file since it was written."""
    mark, _, told = text.removeprefix(HEADER).partition("\n")
    return text.startswith(HEADER) and mark == _MARK + compute_digest(told.encode())


def _check(file: Path, text: str, places: "Places") -> None:
    """Refuse what would lead somewhere else than the variables say: a history that seems to be gone is none."""
    import yaml

    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError:
        return  # Dagster says what is wrong with it
    said = said if isinstance(said, dict) else {}
    wanted = build_storage(places)
    if not _is_as_written(text):
        for name, variable in (("storage", URL_VARIABLE), ("compute_logs", LOGS_VARIABLE)):
            if name in wanted and said.get(name) != wanted[name]:
                raise Refused(
                    f"{file}: was changed by hand and says another {name} than {variable}; "
                    f"write {wanted[name]} there, or remove the file"
                )
    elif "storage" in said and "storage" not in wanted:
        raise Refused(
            f"{file}: the graph's history is in PostgreSQL, at the address in {URL_VARIABLE}, which is not set; "
            "set it, or remove the file to begin a history beside it"
        )
