"""A process that spreads work as ``HEIMDALL_WORK_POOL`` says, and what its workers do: both know this module by name.

    python -m heimdall_assets_tests.defs.ray_driver TASK FOLDER

prints JSON of what came of it, or of the error that came instead.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heimdall_assets.definitions import build_definitions
from heimdall_assets.errors import HeimdallError, InvalidRecording
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.pipeline.work_pool import run_parts
from heimdall_assets.places import read_places
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import SIMULATION

PARTS = list(range(12))


def compute(folder: Path) -> dict[str, Any]:
    """Simulate in one home, in another read recordings and compute features as the graph does; return what rests."""
    told: list[tuple[str, int, int]] = []
    places = place(folder / "simulated")
    with places.spread_work():
        stores = places.open_stores()
        import_simulated(stores, SIMULATION, "demo", lambda *what: told.append(what))
    ready = place(folder / "ready")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    run = build_definitions(ready).resolve_job_def("ingest").execute_in_process(run_config=quiet)
    made = {
        event.asset_key.to_user_string(): (event.materialization.tags or {})["dagster/data_version"]
        for event in run.get_asset_materialization_events()
    }
    rows = [(row["id"], row["approval_status"]) for row in stores.measurements.list_sessions()]
    return {
        "simulated": sorted(stores.objects.list_digests()),
        "rows": sorted(rows),
        "told": told,
        "ingested": sorted(ready.open_stores().objects.list_digests()),
        "manifests": made,
    }


def place(home: Path) -> Places:
    return read_places({**os.environ, "HEIMDALL_HOME": str(home)})


def square(part: int, folder: Path) -> int:
    return part * part


def refuse(part: int, folder: Path) -> int:
    if part == 5:
        raise InvalidRecording(f"part {part}: found nothing, expected samples")
    return part


def crash(part: int, folder: Path) -> int:
    return part // (part - 5)


def die_once(part: int, folder: Path) -> int:
    mark = folder / "died"
    if part == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def die(part: int, folder: Path) -> int:
    if part == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def work_on(part: int, folder: Path) -> int:
    """Leave a sign of life as long as it works, which nobody stops from inside."""
    while True:
        (folder / f"{part}.alive").write_text(str(os.getpid()))
        time.sleep(0.2)


WORKERS: dict[str, Callable[[int, Path], int]] = {
    worker.__name__: worker for worker in (square, refuse, crash, die_once, die, work_on)
}


def spread(task: str, folder: Path) -> list[int]:
    with read_places().spread_work():
        return list(run_parts(WORKERS[task], PARTS, len(PARTS), folder, parallel_from=2))


def main(task: str, folder: Path) -> None:
    try:
        came: Any = compute(folder) if task == "compute" else spread(task, folder)
    except (HeimdallError, ArithmeticError) as error:
        came = {"error": type(error).__name__, "line": str(error)}
    print(json.dumps(came))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
