"""The embedded Dagster instance: one text, as the checkout's own file says it; what a hand changed stays."""

import re
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._cli.utils import get_possibly_temporary_instance_for_cli

from heimdall_assets.dagster_home import LOGS_VARIABLE, SETTINGS, URL_VARIABLE, prepare_dagster_home
from heimdall_assets.errors import InvalidSetting, Refused
from heimdall_assets.places import read_places
from heimdall_assets.stores.objects.addresses import parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets.variables import Places
from heimdall_assets_tests.servers import PostgresServer

ROOT = Path(__file__).resolve().parents[1]


def keeps_runs_in(instance: dg.DagsterInstance, folder: Path) -> bool:
    """Return whether an instance that is asked for its runs looks into a database below ``folder``."""
    assert instance.get_run_records(limit=1) == []
    return bool(list(folder.rglob("*.db")))


def test_the_file_of_the_checkout_says_what_a_home_is_given():
    """And where a home is: Dagster takes the folder of this file for it otherwise."""
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    places = [ours.pop(name) for name in ("storage", "compute_logs", "local_artifact_storage")]
    folders = [re.findall("'base_dir': '([^']*)'", str(place)) for place in places]
    assert folders == [[".heimdall/dagster"], [".heimdall/dagster/storage"], [".heimdall/dagster"]]
    assert ours == yaml.safe_load(SETTINGS)


def test_the_file_of_a_home_names_no_folder(tmp_path: Path):
    folder = prepare_dagster_home(read_places({"HEIMDALL_HOME": str(tmp_path / "home")}))
    assert "/" not in re.sub("(?m)^#.*$", "", (folder / "dagster.yaml").read_text())


def test_dagster_itself_reads_the_file_of_the_folder_it_is_started_in(tmp_path: Path, monkeypatch):
    """As `dagster dev` in a checkout does: the same storage as `heimdall`'s."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with get_possibly_temporary_instance_for_cli() as instance:
        assert keeps_runs_in(instance, read_places({}).dagster_home / "history")


@pytest.mark.parametrize("name", ["home", "a home # of: {mine}", "ein \"Heim\" 'hier' \\ da", "Zürich"])
def test_an_instance_lies_below_its_home_whatever_that_is_called(tmp_path: Path, name: str):
    folder = prepare_dagster_home(read_places({"HEIMDALL_HOME": str(tmp_path / name)}))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert keeps_runs_in(instance, tmp_path / name / "dagster" / "history")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_edited_by_hand_is_kept_and_used(tmp_path: Path):
    places = read_places({"HEIMDALL_HOME": str(tmp_path / "home")})
    file = prepare_dagster_home(places) / "dagster.yaml"
    elsewhere = tmp_path / "elsewhere"
    edited = file.read_text() + f"storage:\n  sqlite:\n    base_dir: {elsewhere}  # mine\n"
    file.write_text(edited)
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        assert keeps_runs_in(instance, elsewhere)
    assert file.read_text() == edited


def test_a_file_of_ones_own_may_name_postgresql(tmp_path: Path, postgres: PostgresServer):
    places = read_places({"HEIMDALL_HOME": str(tmp_path / "home")})
    database = postgres.create_database()
    url = postgres.url(database).replace("+psycopg2", "")
    places.dagster_home.mkdir(parents=True)
    (places.dagster_home / "dagster.yaml").write_text(f"storage:\n  postgres:\n    postgres_url: {url}\n")
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert instance.get_run_records(limit=1) == []
    postgres.drop_database(database)


# --- histories and logs elsewhere, by variables alone


def make_elsewhere(home: Path, **variables: str) -> Places:
    return read_places({"HEIMDALL_HOME": str(home), **variables})


def test_by_one_variable_the_history_is_in_postgresql_and_its_password_in_no_file(tmp_path, postgres, monkeypatch):
    database = postgres.create_database()
    monkeypatch.setenv(URL_VARIABLE, postgres.url(database))
    folder = prepare_dagster_home(make_elsewhere(tmp_path / "home", **{URL_VARIABLE: postgres.url(database)}))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        parts = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
        assert [type(part).__name__.removeprefix("Postgres") for part in parts] == [
            "RunStorage",
            "EventLogStorage",
            "ScheduleStorage",
        ]
        instance.report_runless_asset_event(dg.AssetMaterialization("a", tags={"dagster/data_version": "1"}))
    with dg.DagsterInstance.from_config(str(folder)) as again:
        assert again.get_latest_materialization_event(dg.AssetKey("a")) is not None
    assert not list(folder.rglob("*.db"))
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or postgres.password.encode() not in file.read_bytes()
    postgres.drop_database(database)


def test_by_one_variable_what_steps_print_is_in_a_bucket(tmp_path, bucket, s3):
    folder = prepare_dagster_home(make_elsewhere(tmp_path / "home", **{LOGS_VARIABLE: f"{bucket}/logs"}))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        result = dg.materialize([speak], instance=instance)
        key = next(
            event.event_specific_data.file_key
            for event in result.all_events
            if event.event_type is dg.DagsterEventType.LOGS_CAPTURED
        )
        data = instance.compute_log_manager.get_log_data(["", result.run_id, "compute_logs", key][1:])
        assert b"what a step prints" in data.stdout
    kept = Bucket(parse_place(bucket, "logs"), s3.endpoint)
    name = f"logs/storage/{result.run_id}/compute_logs/{key}.out"
    assert b"what a step prints" in kept.get(name)


@dg.asset
def speak() -> None:
    """Print."""
    print("what a step prints")


def test_a_file_as_it_was_written_follows_the_variables(tmp_path):
    home = tmp_path / "home"
    file = prepare_dagster_home(make_elsewhere(home)) / "dagster.yaml"
    prepare_dagster_home(make_elsewhere(home, **{LOGS_VARIABLE: "s3://logs-here/a"}))
    assert yaml.safe_load(file.read_text())["compute_logs"]["config"]["bucket"] == "logs-here"
    prepare_dagster_home(make_elsewhere(home))
    assert "compute_logs" not in yaml.safe_load(file.read_text())


def test_a_file_changed_by_hand_that_contradicts_a_variable_is_refused(tmp_path):
    home = tmp_path / "home"
    file = prepare_dagster_home(make_elsewhere(home)) / "dagster.yaml"
    file.write_text(file.read_text() + "# mine\n")
    prepare_dagster_home(make_elsewhere(home))
    with pytest.raises(Refused, match=rf"{file}: was changed by hand and says another storage than {URL_VARIABLE}"):
        prepare_dagster_home(make_elsewhere(home, **{URL_VARIABLE: "postgresql://ada:canary@db/dagster"}))
    assert file.read_text().endswith("# mine\n")
    file.write_text("storage: {postgres: {postgres_url: {env: HEIMDALL_DAGSTER_URL}}}\n")  # by hand, and the same
    prepare_dagster_home(make_elsewhere(home, **{URL_VARIABLE: "postgresql://ada:canary@db/dagster"}))


def test_a_history_in_postgresql_is_not_taken_for_gone_where_its_variable_is_not_set(tmp_path):
    home = tmp_path / "home"
    prepare_dagster_home(make_elsewhere(home, **{URL_VARIABLE: "postgresql://ada:canary@db/dagster"}))
    with pytest.raises(Refused, match=f"history is in PostgreSQL, at the address in {URL_VARIABLE}, which is not set"):
        prepare_dagster_home(make_elsewhere(home))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (URL_VARIABLE, "sqlite:////x.db", "found an address of sqlite://, expected postgresql://USER@HOST/NAME"),
        (URL_VARIABLE, "postgres://canary@h/d", "found an address of postgres://, expected postgresql://USER@HOST/NA"),
        (URL_VARIABLE, "canary", "found no address, expected postgresql://USER@HOST/NAME"),
        (URL_VARIABLE, "postgresql://u:can@ary@h/d", "found two @, expected .*; write %40 for one in a password"),
        (LOGS_VARIABLE, "/srv/logs", "found '/srv/logs', expected s3://BUCKET/PREFIX"),
    ],
)
def test_another_address_is_refused_in_one_line(variable, value, expected):
    with pytest.raises(InvalidSetting, match=rf"^{variable}: {expected}") as caught:
        read_places({variable: value})
    assert "can@ary" not in str(caught.value)
    assert "canary" not in str(caught.value)
