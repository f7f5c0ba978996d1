"""The embedded Dagster instance: one text, as the checkout's own file says it; what a hand changed stays."""

import re
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._cli.utils import get_possibly_temporary_instance_for_cli

from heimdall_assets.places import DAGSTER_YAML, prepare_dagster_home, read_places
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
    assert ours == yaml.safe_load(DAGSTER_YAML)


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
