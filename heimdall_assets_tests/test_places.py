"""Places: read from variables, told to steps elsewhere, and refused in one line where a value is of no use."""

from pathlib import Path

import pytest

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places


def test_an_unknown_executor_is_refused_with_those_there_are():
    with pytest.raises(InvalidSetting, match="HEIMDALL_EXECUTOR: found 'slurm', expected in_process, local or ray"):
        read_places({"HEIMDALL_EXECUTOR": "slurm"})
    assert read_places({}).executor == "in_process"
    assert read_places({"HEIMDALL_EXECUTOR": ""}).executor == "in_process"


def test_what_steps_elsewhere_are_told_leads_to_the_same_places_and_holds_no_secret(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {"HEIMDALL_HOME": "here", "HEIMDALL_SCRATCH": "work", "HEIMDALL_TRACKING": "off", "HEIMDALL_EXECUTOR": "ray"}
    secret = {
        "HEIMDALL_DATABASE_URL": "postgresql://me:secret@host/db",
        "MLFLOW_TRACKING_URI": "http://me:secret@host",
        "HEIMDALL_WEBHOOK_URL": "http://host/secret",
    }
    places = read_places({**told, **secret})
    shared = places.share()
    assert "secret" not in str(shared)
    assert read_places({**shared, **secret}) == places
    monkeypatch.chdir("/")  # a step elsewhere works in another folder
    assert read_places({**shared, **secret}) == places
    assert shared["HEIMDALL_SCRATCH"] == str(tmp_path / "work")
