"""Places: where rows, bytes, releases and histories rest, read from the environment when asked and not before.

Belongs here: asking for them, and the embedded Dagster instance. Does not belong here: what each variable means
(``variables``, which is slow to load: whoever asks for help waits for no reader of settings).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from heimdall_assets.errors import Refused
from heimdall_assets.stores.plain_files import write_missing_file

if TYPE_CHECKING:
    from heimdall_assets.variables import Places

DAGSTER_YAML = """\
# The embedded instance: everything beside this file, no server. Written by `heimdall` where there is none, and never
# again: what you change here stays, such as PostgreSQL under `storage`. It names no folder: a home may be moved.
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


def read_places(environ: Mapping[str, str] | None = None) -> "Places":
    """Return the places that the environment names, each with its embedded default below ``HEIMDALL_HOME``.

    Raises:
        InvalidSetting: a variable of ours that is none, or a value that is not of its variable's kind.
    """
    from heimdall_assets.variables import Places

    return Places.read(os.environ if environ is None else environ)


def prepare_dagster_home(places: "Places") -> Path:
    """Return the folder of the Dagster instance, with an embedded ``dagster.yaml`` if it had none.

    Raises:
        Refused: a newer version of this project made the home, or nothing may be written there.
    """
    from heimdall_assets.stores.home_format import may_write, read_format

    read_format(places.home)
    folder = places.dagster_home
    if folder.exists() and not may_write(folder):
        raise Refused(
            f"{folder}: found a folder that may not be written, expected one that can hold the graph's history"
        )
    write_missing_file(folder / "dagster.yaml", DAGSTER_YAML.encode())
    return folder
