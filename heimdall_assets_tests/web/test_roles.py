"""Roles: an auditor changes nothing, an operator decides nothing, however a request says what it wants."""

import json

import dagster as dg
import pytest

from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.jobs import JOBS
from heimdall_assets.domain import Role
from heimdall_assets.kinds import CHAMPION_MODEL, MODEL_RELEASE
from heimdall_assets.web.refusals import Refusal
from heimdall_assets.web.roles import LAUNCHES, OF_OPERATORS, UNDECIDING_JOBS, RunFacts, read_query
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.web.running import ask, serve_app
from heimdall_assets_tests.web.toy_page import SENSOR, STOP, log_in, query, read_sensor, select

LAUNCH = "mutation L($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"
MANY = "mutation($p: [ExecutionParams!]!) { launchMultipleRuns(executionParamsList: $p) { __typename } }"
AGAIN = "mutation($p: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $p) { __typename } }"


def test_the_jobs_that_decide_nothing_are_those_of_the_graph(tmp_path):
    definitions = build_definitions(make_places(tmp_path))
    champion = dg.AssetKey(CHAMPION_MODEL)
    safe = [
        job.name
        for job in JOBS
        if champion not in definitions.resolve_job_def(job.name).asset_layer.executable_asset_keys
    ]
    assert tuple(safe) == UNDECIDING_JOBS


def test_every_mutation_of_dagsters_is_refused_to_an_auditor_and_most_to_an_operator(toy):
    mutations = toy.rules.schema.mutation_type.fields
    assert set(mutations) >= LAUNCHES | OF_OPERATORS
    for name, field in mutations.items():
        needed = ", ".join(f"${key}: {argument.type}" for key, argument in field.args.items())
        passed = ", ".join(f"{key}: ${key}" for key in field.args)
        call = f"{name}({passed})" if passed else name
        text = f"mutation({needed}) {{ {call} {{ __typename }} }}" if needed else f"mutation {{ {call} }}"
        variables = {key: make_value(argument.type) for key, argument in field.args.items()}
        assert is_refused(toy, Role.AUDITOR, text, variables), name
        assert is_refused(toy, Role.OPERATOR, text, variables) == (name not in OF_OPERATORS), name


def make_value(kind):
    """Return some value of a type of GraphQL; of an asset it is the one that decides."""
    inner = getattr(kind, "of_type", None)
    if inner is not None:
        return [make_value(inner)] if type(kind).__name__ == "GraphQLList" else make_value(inner)
    if hasattr(kind, "values"):
        return next(iter(kind.values))
    if hasattr(kind, "fields"):
        return {name: make_value(field.type) for name, field in kind.fields.items() if name != "assetCheckSelection"}
    return {"Boolean": True, "Int": 1, "Float": 1.0, "RunConfigData": {}}.get(kind.name, CHAMPION_MODEL)


def is_refused(toy, role: Role, text: str, variables=None) -> bool:
    try:
        toy.rules.judge(role, text, variables or {})
    except Refusal as refusal:
        if refusal.status == 403:
            return True
        raise
    return False


LITERAL = "mutation {{ launchRun(executionParams: {{selector: {{{place}{asked}}}}}) {{ __typename }} }}"
PLACE = 'repositoryLocationName: "x", repositoryName: "y", '


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ('jobName: "ingest"', False),
        ('pipelineName: "train"', False),
        ('jobName: "release"', True),
        ('jobName: "demo"', True),
        ('jobName: "new"', True),
        ('pipelineName: "release", jobName: "ingest"', True),
        ('jobName: "__ASSET_JOB"', True),
        ('jobName: "__ASSET_JOB", assetSelection: []', True),
        ('jobName: "ingest", assetSelection: []', False),
        ('jobName: "__ASSET_JOB", assetSelection: [{path: ["iq_files"]}]', False),
        ('jobName: "release", assetSelection: [{path: ["iq_files"]}]', False),
        ('jobName: "ingest", assetSelection: [{path: ["champion_model"]}]', True),
        ('jobName: "__ASSET_JOB", assetSelection: {path: "champion_model"}', True),  # GraphQL takes one for a list
        ('jobName: "__ASSET_JOB", assetSelection: [{path: ["iq_files"]}, {path: ["champion_model"]}]', True),
        ('jobName: "__ASSET_JOB", assetSelection: [{path: ["\\u0063hampion_model"]}]', True),
    ],
)
def test_a_launch_is_judged_by_what_it_computes(toy, asked, refused):
    text = LITERAL.format(place=PLACE, asked=asked)
    assert is_refused(toy, Role.OPERATOR, text) == refused
    assert is_refused(toy, Role.AUDITOR, text)


@pytest.mark.parametrize(
    "text",
    [
        "query Q { version } mutation M { wipeAssets(assetPartitionRanges: []) { __typename } }",
        "mutation { ...f } fragment f on Mutation { wipeAssets(assetPartitionRanges: []) { __typename } }",
        "mutation { ... on Mutation { wipeAssets(assetPartitionRanges: []) { __typename } } }",
        "mutation { ... { terminateRun: wipeAssets(assetPartitionRanges: []) { __typename } } }",
        "mutation { terminateRun(runId: \"x\") { __typename } wipeAssets(assetPartitionRanges: []) { __typename } }",
        "mutation { wipeAssets(assetPartitionRanges: []) @skip(if: true) { __typename } }",
        "mutation { ...f } fragment f on Mutation { ...g } fragment g on Mutation { ...f "
        "wipeAssets(assetPartitionRanges: []) { __typename } }",
        "#\nmutation\u2028 { wipeAssets(assetPartitionRanges: []) { __typename } }".replace("\u2028", "\ufeff"),
    ],
)  # fmt: skip
def test_a_mutation_is_found_wherever_it_stands(toy, text):
    for role in (Role.AUDITOR, Role.OPERATOR):
        assert is_refused(toy, role, text)


def test_defaults_of_variables_count_as_dagster_counts_them(toy):
    chosen = '{repositoryLocationName: "x", repositoryName: "y", jobName: "release"}'
    asked = "launchRun(executionParams: {selector: $s}) { __typename }"
    text = f"mutation($s: JobOrPipelineSelector! = {chosen}) {{ {asked} }}"
    assert is_refused(toy, Role.OPERATOR, text)
    assert not is_refused(toy, Role.OPERATOR, text, {"s": select("ingest")["selector"]})


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        (None, False), ({}, False), ("", False), ({"ops": {"iq_files": {}}}, False), ({"ops": {}}, False),
        ({"ops": {MODEL_RELEASE: {"config": {}}}}, True), (f"ops: {{{MODEL_RELEASE}: {{config: {{}}}}}}", True),
        (json.dumps({"ops": {MODEL_RELEASE: {}}}), True), ("{", True), ("text", True), ({"ops": [MODEL_RELEASE]}, True),
    ],
)  # fmt: skip
def test_an_operator_sets_no_gates(toy, config, refused):
    params = {**select("ingest"), "runConfigData": config}
    assert is_refused(toy, Role.OPERATOR, LAUNCH, {"p": params}) == refused
    assert is_refused(toy, Role.OPERATOR, MANY, {"p": [select("ingest"), params]}) == refused


def test_a_run_that_decides_is_not_asked_for_again(toy):
    safe = toy.instance.create_run_for_job(dg.job(name="ingest")(lambda: None))
    decides = toy.instance.create_run_for_job(dg.job(name="release")(lambda: None))
    assert toy.rules.find_run(safe.run_id) == RunFacts("ingest", None)
    for run_id, refused in ((safe.run_id, False), (decides.run_id, True), ("no such run", True)):
        params = {"parentRunId": run_id, "strategy": "FROM_FAILURE"}
        assert is_refused(toy, Role.OPERATOR, AGAIN, {"p": params}) == refused


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"query": 1}', b'{"query": "x", "variables": [1]}', b'{"query": "x", "variables": "{"}',
     b"[" * 100_000, b'{"query": null}', b"\xff"],
)  # fmt: skip
def test_what_is_no_query_is_one_line(body):
    with pytest.raises(Refusal, match="GraphQL: found something else, expected JSON") as refused:
        read_query(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "mutation {",
        "mutation { no }",
        "mutation { " + "{" * 5000,
        "mutation " + "a " * 30_000,
        "mutation { launchRun }",
    ],
)
def test_what_cannot_be_read_is_refused(toy, text):
    with pytest.raises(Refusal, match="GraphQL: ") as refused:
        toy.rules.judge(Role.OPERATOR, text, {})
    assert refused.value.status == 400


def test_over_http_each_role_gets_what_it_may(shared, toy):
    sensor = read_sensor(shared, log_in("auditor"))
    for name in ("auditor", "operator"):
        status, said = query(shared, STOP, {"id": sensor["id"]}, log_in(name))
        assert status == 403
        assert said.startswith(f"{name}: found stopSensor, expected")
        status, said, _ = ask(
            shared, "/report_asset_materialization/champion_model", "POST",
            {**log_in(name), "Content-Type": "application/json"}, b"{}",
        )  # fmt: skip
        assert status == 403
    assert read_sensor(shared, log_in("operator"))["status"] == "RUNNING"
    assert toy.instance.get_latest_materialization_event(dg.AssetKey("champion_model")) is None

    assert query(shared, LAUNCH, {"p": select("release")}, log_in("auditor"))[0] == 403
    assert query(shared, LAUNCH, {"p": select("release")}, log_in("operator"))[0] == 403
    before = toy.instance.get_runs_count()
    status, said = query(shared, LAUNCH, {"p": select("ingest")}, log_in("operator"))
    assert (status, said["data"]["launchRun"]["__typename"]) == (200, "LaunchRunSuccess")
    status, said = query(shared, LAUNCH, {"p": select("release")}, log_in("approver"))
    assert (status, said["data"]["launchRun"]["__typename"]) == (200, "LaunchRunSuccess")
    assert toy.instance.get_runs_count() == before + 2


def test_dagster_itself_refuses_an_auditors_mutation(toy):
    """Behind the guard's judgement stands Dagster's own: its read-only page."""
    with serve_app(toy.apps[Role.AUDITOR]) as port:
        start = "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"
        assert query(port, start, {"s": SENSOR})[1]["data"]["startSensor"]["__typename"] == "UnauthorizedError"
