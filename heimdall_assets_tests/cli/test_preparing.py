"""``heimdall prepare``: a home, its tables and dagster.yaml, made before servers start on them."""

import json
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, inspect

from heimdall_assets.cli import main
from heimdall_assets_tests.servers import PostgresServer


def prepare(home: Path, **variables: str) -> dict[str, str]:
    """Return what the command says that it prepared."""
    result = CliRunner().invoke(main, ["prepare", "--json"], env={"HEIMDALL_HOME": str(home), **variables})
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


def test_a_home_is_begun_and_a_second_time_changes_nothing(tmp_path: Path):
    home = tmp_path / "home"
    made = prepare(home)
    assert made == {"home": str(home), "dagster_home": str(home / "dagster"), "history": "SqliteRunStorage"}
    files = {path: path.read_bytes() for path in home.rglob("*") if path.suffix in (".json", ".yaml")}
    assert {path.name for path in files} >= {"home.json", "dagster.yaml"}
    assert prepare(home) == made
    assert {path: path.read_bytes() for path in files} == files


def test_tables_of_both_databases_are_there_before_any_server(tmp_path: Path, postgres: PostgresServer, monkeypatch):
    names = [postgres.create_database() for _ in range(2)]
    variables = {
        "HEIMDALL_DATABASE_URL": postgres.url(names[0]),
        "HEIMDALL_DAGSTER_URL": postgres.url(names[1]),
    }
    made = prepare(tmp_path / "home", **variables)
    assert made["history"] == "PostgresRunStorage"
    tables = []
    for name in names:
        engine = create_engine(postgres.url(name))
        tables.append(set(inspect(engine).get_table_names()))
        engine.dispose()
    assert "session" in " ".join(sorted(tables[0]))
    assert tables[1] >= {"runs", "event_logs", "job_ticks"}
    monkeypatch.setenv("HEIMDALL_DAGSTER_URL", variables["HEIMDALL_DAGSTER_URL"])
    with dg.DagsterInstance.from_config(made["dagster_home"]) as instance:
        assert instance.get_run_records(limit=1) == []
    for name in names:
        postgres.drop_database(name)


def test_a_home_of_a_newer_version_is_left_alone(tmp_path: Path):
    home = tmp_path / "home"
    prepare(home)
    (home / "home.json").write_text('{"format": 999, "written_by": "9.9.9"}')
    result = CliRunner().invoke(main, ["prepare"], env={"HEIMDALL_HOME": str(home)})
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_without_json_the_same_is_told_in_lines(tmp_path: Path):
    result = CliRunner().invoke(main, ["prepare"], env={"HEIMDALL_HOME": str(tmp_path / "home")})
    assert result.exit_code == 0
    assert f"dagster_home  {tmp_path / 'home' / 'dagster'}" in result.stdout


@pytest.mark.parametrize("file", ["nowhere.yaml", "."])
def test_a_page_alone_wants_a_workspace_that_is_there(tmp_path: Path, file: str):
    result = CliRunner().invoke(
        main, ["ui", "--workspace", str(tmp_path / file)], env={"HEIMDALL_HOME": str(tmp_path / "home")}
    )
    assert result.exit_code == 2
    assert "--workspace" in result.stderr
    assert not (tmp_path / "home").exists()
