"""From a database of one table that belongs to somebody else to a released model, by the user's variables alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.definitions import recover_at
from heimdall_assets.defs.sensors import build_approval_sensor
from heimdall_assets.places import read_places
from heimdall_assets.specs import DatasetSpec, RetrainPolicy
from heimdall_assets_tests.conftest import make_quick_folder
from heimdall_assets_tests.homes import SIMULATION, fill_home
from heimdall_assets_tests.servers import PostgresServer
from heimdall_assets_tests.stores.one_table import add_rows, make_one_table, write_receivers
from heimdall_assets_tests.stores.test_one_table import read_bytes

SETTINGS = (
    "ModelSpec.use_spectrograms=false", "ModelSpec.width=16", "ModelSpec.num_layers=1", "ModelSpec.num_heads=2",
    "TrainingSpec.max_epochs=2", "TrainingSpec.num_threads=1", "EvaluationSpec.num_bootstrap=100",
)  # fmt: skip
EAGER = RetrainPolicy(min_changed_sessions=1, quiet_period_s=0)
NEW = "dddddddd-0000-4000-8000-000000000000"
LATER = "2026-01-01 00:50:00+00"


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[Path, list[tuple[object, ...]]]]:
    """A folder with recordings and receivers.json, and the rows of the table: 20 sessions at 20 places, 2 to decide."""
    with make_quick_folder() as folder:
        stores = fill_home(folder / "simulated", SIMULATION).open_stores()
        found = stores.measurements.read_approved(DatasetSpec()).rows
        number = {name: at for at, name in enumerate(sorted(found["station_id"].unique()), start=1)}
        undecided = set(sorted(found["session_id"].unique())[:2])
        rows, receivers = [], {}
        for row in found.to_dict("records"):
            station, session = number[row["station_id"]], row["session_id"]
            path = folder / "recordings" / "sessions" / session / f"websdr_{station}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stores.objects.read_location(row["iq_data_location"], 1 << 30))
            receivers[str(station)] = {
                "latitude": row["receiver_latitude"],
                "longitude": row["receiver_longitude"],
                "altitude_m": row["receiver_altitude_m"],
                "iq_sample_rate_hz": row["iq_sample_rate_hz"],
            }
            place = (row["source_latitude"], row["source_longitude"], row["frequency_hz"] / 1e6, row["snr_db"])
            rows.append((session, station, *place, str(row["timestamp"]), None, session not in undecided))
        write_receivers(folder / "receivers.json", receivers)
        yield folder, rows


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(
    request: pytest.FixtureRequest, heard: tuple[Path, list[tuple[object, ...]]], tmp_path: Path
) -> Iterator[dict[str, str]]:
    """What the user's shell holds, with the table at a database that knows nothing of us."""
    folder, rows = heard
    server: PostgresServer | None = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    (tmp_path / "theirs").mkdir()
    name = server.create_database() if server else ""
    url = server.url(name) if server else f"sqlite:///{tmp_path / 'theirs' / 'measurements.db'}"
    make_one_table(url, rows)
    yield {
        "HEIMDALL_HOME": str(tmp_path / "home"),
        "HEIMDALL_TRACKING": "off",
        "HEIMDALL_DATABASE_URL": url,
        "HEIMDALL_RECORDINGS": str(folder / "recordings"),
        "HEIMDALL_RECEIVERS": str(folder / "receivers.json"),
    }
    if server:
        server.drop_database(name)


def heimdall(environment: dict[str, str], *arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def test_a_table_of_somebody_else_becomes_a_release_and_a_new_approval_the_next(
    environment: dict[str, str], heard: tuple[Path, list[tuple[object, ...]]]
):
    url = environment["HEIMDALL_DATABASE_URL"]
    before = read_bytes(url)
    listed = json.loads(heimdall(environment, "sessions", "list", "--json"))
    assert len(listed) == SIMULATION.num_sessions
    assert sum(row["approval_status"] == "approved" for row in listed) == SIMULATION.num_sessions - 2
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    made = json.loads(heimdall(environment, "train", *settings, "--json"))
    assert made["version"] == "v1.0.0"
    assert made["computed"]["iq_files"] == sum(bool(row[8]) for row in heard[1])
    shown = json.loads(heimdall(environment, "lineage", "latest", "--table", "measurements", "--json"))
    used = {row["iq_data_location"] for row in shown}
    assert used == {f"sessions/{row[0]}/websdr_{row[1]}.npy" for row in heard[1] if row[8]}
    pending = next(row[0] for row in heard[1] if not row[8])
    predicted = json.loads(heimdall(environment, "predict", "latest", str(pending), "--json"))
    assert predicted["ellipse_90"]["semi_major_m"] > 10_000  # levels of spectrograms alone: said to be vague
    assert read_bytes(url) == before

    places = read_places(environment)
    with dg.instance_for_test() as instance:

        def tick(cursor: str | None = None) -> Any:
            context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="s")
            sensor = build_approval_sensor(EAGER, places.open_stores, recover_at(places))
            return sensor.evaluate_tick(context)

        first = tick()
        assert "nothing changed" in str(first.skip_message)
        waiting = next(row for row in heard[1] if not row[8])
        add_rows(url, [(NEW, *waiting[1:6], LATER, None, True)])
        second = tick(first.cursor)
        assert "1 added" in second.run_requests[0].tags["heimdall/reason"]
        assert len(second.asset_events) == 1
