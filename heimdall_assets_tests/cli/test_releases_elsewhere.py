"""A release in a bucket, made by one machine and used by another, which shares the database and the objects alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets_tests.homes import SIMULATION, ignore, release
from heimdall_assets_tests.servers import PostgresServer


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.long)])
def shared(
    request: pytest.FixtureRequest, postgres: PostgresServer, postgres_template: str, bucket: str, tmp_path: Path
) -> dict[str, str]:
    """The variables by which machines find the same database, objects (a shared folder, or S3 too) and releases."""
    return {
        "HEIMDALL_DATABASE_URL": postgres.url(postgres.create_database(postgres_template)),
        "HEIMDALL_OBJECTS": f"{bucket}/objects" if request.param == "bucket" else str(tmp_path / "objects"),
        "HEIMDALL_MODELS": f"{bucket}/models",
        "HEIMDALL_TRACKING": "off",
    }


def test_what_one_machine_released_another_shows_verifies_predicts_reproduces_and_heals(
    shared: dict[str, str], s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = read_places({**s3.environment, **shared, "HEIMDALL_HOME": str(tmp_path / "one")})
    import_simulated(places.open_stores(), SIMULATION, "demo", ignore)
    made = release(places)
    assert (made["version"], made["folder"]) == ("v1.0.0", f"{shared['HEIMDALL_MODELS']}/v1.0.0")
    session = places.open_stores().measurements.list_sessions()[0]["session_name"]
    for name, value in {**shared, "HEIMDALL_HOME": str(tmp_path / "other")}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, result.output
        return result.stdout

    (listed,) = json.loads(run("models", "list", "--json"))
    assert listed["aliases"] == ["challenger", "champion"]
    assert f"Folder: {made['folder']}" in run("models", "show", "latest")
    assert json.loads(run("verify", "champion", "--json"))["ok"]
    assert "measurement_database" in run("lineage", "latest")
    before = json.loads(run("predict", "latest", session, "--json"))
    assert json.loads(run("reproduce", "latest", "--json"))["same"]
    releases = read_places().open_stores().releases
    releases.files.write_file("v1.0.0", "model.onnx", b"other")
    assert "v1.0.0: file model.onnx has SHA-256" in CliRunner().invoke(main, ["predict", "latest", session]).stderr
    (found,) = {
        finding["name"].split()[0] for finding in json.loads(run("verify", "latest", "--json", code=1))["findings"]
    }
    assert found == "v1.0.0/model.onnx"
    assert json.loads(run("verify", "latest", "--repair", "--json"))["ok"]
    assert json.loads(run("predict", "latest", session, "--json")) == before
    run("models", "promote", "v1.0.0", "--by", "ada", "--reason", "seen in the field")
    stores = places.open_stores()
    assert stores.read_names()[stores.releases.list_promotion_events()[-1]["decided_by"]] == "ada"
