"""How far a row walks: the modules that run between a level in the database and its ellipse."""

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import heimdall_assets
from heimdall_assets.pipeline.intake.level_files import import_levels
from heimdall_assets.pipeline.prediction.stored import locate_stored
from heimdall_assets.tables.claim import TableClaim
from heimdall_assets_tests.homes import make_places

PACKAGE = Path(heimdall_assets.__file__).parent
MOST_MODULES = 25
"""Twenty that lead to the ellipse, two that take rows into columns, one that asks whether the database's file is a
file, and two that ask afterwards whether anybody can have heard it there."""


def list_run_modules(work: Callable[[], Any]) -> list[str]:
    """Return the package's modules of which a function runs during ``work``; loading one does not count."""
    seen: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_function = bool(code.co_flags & inspect.CO_OPTIMIZED)  # bodies of modules and classes are not
        if event == "call" and is_function and code.co_filename.startswith(f"{PACKAGE}/"):
            seen.setdefault(Path(code.co_filename).relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return list(seen)


def test_a_level_row_reaches_its_ellipse_through_few_modules(tmp_path: Path):
    stores = make_places(tmp_path).open_stores()
    receivers = tmp_path / "receivers.json"
    receivers.write_text(
        json.dumps(
            {
                name: {"latitude": latitude, "longitude": longitude}
                for name, latitude, longitude in (("RA", 46.6, 7.4), ("RB", 46.5, 8.9), ("RC", 45.4, 8.7))
            }
        )
    )
    table = tmp_path / "levels.csv"
    table.write_text("timestamp,tx_x_coord,tx_y_coord,RA,RB,RC\n2026-11-20 10:00:00,46.0,8.0,-70,-75,-72\n")
    claim = TableClaim(time_zone="UTC", frequency_hz=145.5e6)
    import_levels(stores.measurements, table=table, receivers=receivers, campaign="walk", claim=claim)
    (session,) = stores.measurements.list_sessions()
    made: list[dict[str, Any]] = []
    locate_stored(stores, session["id"])  # what is loaded once is loaded
    modules = list_run_modules(lambda: made.append(locate_stored(stores, session["id"])))
    assert made[0]["ellipse_90"]["semi_major_m"] > 0.0
    assert {"pipeline.prediction.stored", "stores.database.snapshots", "locating.levels"} <= set(modules)
    assert len(modules) <= MOST_MODULES, f"{len(modules)}: {' '.join(modules)}"
