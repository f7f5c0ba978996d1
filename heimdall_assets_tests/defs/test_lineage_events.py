"""OpenLineage told while a run goes on, to a real server and to a folder; whoever is away is told of once."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.jobs import JUDGED
from heimdall_assets.defs.lineage_events import KEY_VARIABLE
from heimdall_assets.kinds import CHAMPION_MODEL, SPLIT_KINDS
from heimdall_assets.pipeline.processes import STOP_ASKED
from heimdall_assets.pipeline.recipe import list_needed
from heimdall_assets.running.graph_run import GraphFailed, run_graph
from heimdall_assets.running.signals import Stopped
from heimdall_assets.specs import GateSpec, SplitSpec, TrainingSpec
from heimdall_assets.variables import Places
from heimdall_assets_tests.homes import TINY, ignore
from heimdall_assets_tests.lineage.test_exports import check_event
from heimdall_assets_tests.listening import listen_to_posts
from heimdall_assets_tests.servers import find_free_port

ASSETS = [*list_needed(CHAMPION_MODEL), *JUDGED]
SECRET = "hunter" + "2"


@pytest.fixture(scope="module")
def places(released_home: Any, tmp_path_factory: pytest.TempPathFactory) -> Places:
    made: Places = released_home(tmp_path_factory.mktemp("events") / "home")[0]
    return made


def run(places: Places, target: str | Path, *specs: Any, listener: Any = ignore, reason: str | None = None) -> Any:
    chosen = {type(spec): spec for spec in [*TINY, *specs]}
    told = places.model_copy(update={"openlineage": target})
    return run_graph(told, "release", list(chosen.values()), listener, reason)


def test_each_asset_is_told_when_it_begins_and_when_it_is_made(places: Places, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    with listen_to_posts(201) as heard:
        made = run(places, heard.url, GateSpec(max_median_m=1e9), reason="watched")
    assert {path for path, *_ in heard.posts} == {"/api/v1/lineage"}
    assert {headers["authorization"] for _, headers, _ in heard.posts} == {f"Bearer {SECRET}"}
    events = heard.bodies
    for event in events:
        check_event(event)
    by_asset: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_asset.setdefault(event["job"]["name"], []).append(event)
    assert set(by_asset) == set(ASSETS)
    for asset, told in by_asset.items():
        assert [event["eventType"] for event in told] == ["START", "COMPLETE"]
        start, complete = told
        assert start["run"]["runId"] == complete["run"]["runId"]
        assert start["run"]["facets"]["parent"]["run"]["runId"] == made["run_id"]
        assert start["eventTime"] <= complete["eventTime"]
        assert complete["outputs"][0]["name"] == made["manifests"][asset]
        tags = {tag["key"]: tag["value"] for tag in complete["run"]["facets"]["tags"]["tags"]}
        assert tags["reason"] == "watched"
        if asset != CHAMPION_MODEL:
            assert tags["reused"] == ("no" if made["computed"][asset] and asset != "iq_files" else tags["reused"])
            assert tags["computed_at"] <= complete["eventTime"]
    first = by_asset["trained_checkpoint"][1]["run"]["facets"]
    settings = {each["key"]: each["value"] for each in first["executionParameters"]["parameters"]}
    assert settings["TrainingSpec.max_epochs"] == "2"
    assert {tag["value"] for tag in first["tags"]["tags"] if tag["key"] == "reused"} == {"yes"}
    outputs = {data["name"] for event in events for data in event["outputs"]}
    inputs = {data["name"] for event in events for data in event["inputs"]}
    assert {name for name in inputs - outputs if not name.startswith("measurement_database ")} == set()
    columns = [data["facets"]["schema"] for event in events for data in event["outputs"] if "schema" in data["facets"]]
    assert columns


def test_a_step_that_fails_is_told_with_its_cause_and_what_follows_is_not(places: Places):
    with listen_to_posts() as heard, pytest.raises(GraphFailed, match="no_such_column"):
        run(places, f"{heard.url}/collect?tenant=a", SplitSpec(column="no_such_column"))
    assert {path for path, *_ in heard.posts} == {"/collect?tenant=a"}
    events = heard.bodies
    for event in events:
        check_event(event)
    failed = [event for event in events if event["eventType"] == "FAIL"]
    assert {event["job"]["name"] for event in failed} == set(SPLIT_KINDS.values())
    assert all("no_such_column" in event["run"]["facets"]["errorMessage"]["message"] for event in failed)
    assert not {event["job"]["name"] for event in events} & {"trained_checkpoint", "model_release"}


def test_a_training_that_is_stopped_is_told_to_have_ended(places: Places):
    def stop(_: str, what: str, *__: int) -> None:
        if what == "epochs trained":
            STOP_ASKED.set()

    try:
        with listen_to_posts() as heard, pytest.raises(Stopped):
            run(places, heard.url, TrainingSpec(max_epochs=3, num_threads=1), listener=stop)
    finally:
        STOP_ASKED.clear()
    told = [event for event in heard.bodies if event["job"]["name"] == "trained_checkpoint"]
    assert [event["eventType"] for event in told] == ["START", "FAIL"]
    for event in told:
        check_event(event)


@pytest.mark.parametrize("kind", ["away", "refusing", "no folder"])
def test_who_cannot_be_told_stops_nothing_and_is_told_of_once(places: Places, tmp_path: Path, kind: str):
    lines = []

    def listen(_: str, what: str, __: int, total: int) -> None:
        if total == 0:
            lines.append(what)

    (tmp_path / "file").write_text("in the way")
    with listen_to_posts(503) as heard:
        target, why = {
            "away": (f"http://user:{SECRET}@127.0.0.1:{find_free_port()}/{SECRET}", "ConnectionError"),
            "refusing": (f"{heard.url}/{SECRET}", "it answers 503"),
            "no folder": (tmp_path / "file" / "events", "could not be made"),
        }[kind]
        made = run(places, target, listener=listen)
    assert made["version"].startswith("v")
    assert len(heard.posts) == (1 if kind == "refusing" else 0)
    said = [line for line in lines if "HEIMDALL_OPENLINEAGE" in line]
    assert len(said) == 1
    assert said[0].startswith("HEIMDALL_OPENLINEAGE: could not be told of approved_measurements (")
    assert why in said[0]
    assert said[0].endswith("it is told no more of this run")
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        logged = [str(log.user_message) for log in instance.all_logs(made["run_id"])]
    assert [line for line in logged if "HEIMDALL_OPENLINEAGE" in line] == said
    assert SECRET not in "".join(logged)


def test_a_folder_has_a_file_for_each_run(places: Places, tmp_path: Path):
    runs = [run(places, tmp_path / "new" / "events")["run_id"] for _ in range(2)]
    files = {file.name: file for file in (tmp_path / "new" / "events").iterdir()}
    assert set(files) == {f"{name}.jsonl" for name in runs}
    for file in files.values():
        events = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(events) == 2 * len(ASSETS)
        for event in events:
            check_event(event)


@pytest.mark.long
def test_steps_in_processes_of_their_own_are_told_as_well(places: Places, tmp_path: Path):
    local = places.model_copy(update={"executor": "local"})
    made = run(local, tmp_path)
    events = [json.loads(line) for line in (tmp_path / f"{made['run_id']}.jsonl").read_text().splitlines()]
    told = [(event["job"]["name"], event["eventType"]) for event in events]
    assert sorted(told) == sorted((asset, state) for asset in ASSETS for state in ("START", "COMPLETE"))


def test_doctor_says_of_the_collector_whether_it_answers(places: Places, tmp_path: Path):
    def ask(target: str, code: int) -> str:
        environment = {"HEIMDALL_HOME": str(places.home), "HEIMDALL_OPENLINEAGE": target}
        result = CliRunner().invoke(main, ["doctor"], env=environment)
        assert result.exit_code == code, result.output
        (line,) = [line for line in result.stdout.splitlines() if "HEIMDALL_OPENLINEAGE" in line]
        return line

    with listen_to_posts(404) as heard:
        assert f"HEIMDALL_OPENLINEAGE: {heard.url}: answers 404 to HEAD" in ask(heard.url, 0)
        assert heard.posts == []
    away = ask(f"http://user:{SECRET}@127.0.0.1:{find_free_port()}/{SECRET}", 1)
    assert "cannot be reached" in away
    assert SECRET not in away
    assert "writable" in ask(str(tmp_path), 0)
