"""Every service of ours in docker-compose.yaml, started by its own command: one graph on PostgreSQL and S3.

Prepare, code server, daemon, webserver, auditor and MLflow run at once, each a process that is as healthy as its own
check says, and a run that is asked for at the page's door ends with its history and logs where compose puts them.
"""

import json
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets.stores.objects.addresses import BucketAddress, parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets_tests.deploy.services import Machine, read_compose
from heimdall_assets_tests.homes import SIMULATION, ignore
from heimdall_assets_tests.package_names import ROOT
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import PostgresServer
from heimdall_assets_tests.serving import wait_for

pytestmark = pytest.mark.long  # five servers and a run: two minutes of two cores; test_compose parses each command

NOT_OURS = {
    "postgres": "an image of others; its first script is run here, and its server is another build of the same",
    "s3": "an image of others; the tests' own S3 service takes its place",
    "bucket": "makes a folder in the S3 service's volume; the tests' own makes buckets by the S3 protocol",
    "proxy": "an image of others; test_compose reads its file",
}
ELSEWHERE = {"gpu-worker": "test_gpu_worker"}
STARTED = ("code-server", "daemon", "mlflow", "webserver", "auditor")
PASSWORD = "long enough to be one, and of the tests alone"
LOGIN = f"ada:{PASSWORD}".encode()
FILLED_IN = {
    "POSTGRES_PASSWORD": "unused here",
    "AWS_ACCESS_KEY_ID": "unused here",
    "AWS_SECRET_ACCESS_KEY": "unused here",
    "SITE_HOST": "site.example.org",
    "RELEASES_HOST": "releases.example.org",
    "AUDIT_HOST": "audit.example.org",
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services by name."""
    return dict(read_compose(FILLED_IN)["services"])


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Name in compose -> address of a database: those that the first script makes, and the first of the image."""
    script = (ROOT / "deploy" / "postgres" / "databases.sql").read_text()
    connection = psycopg2.connect(postgres.url("postgres").replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        statements = [line for line in script.splitlines() if line and not line.startswith("--")]
        for statement in ["CREATE DATABASE heimdall;", *statements]:
            cursor.execute(statement)
    connection.close()
    names = ("heimdall", "dagster", "mlflow")
    # As in compose: no password in an address, libpq takes it from PGPASSWORD.
    yield {name: postgres.url(name).replace(f":{postgres.password}@", "@") for name in names}
    for name in names:
        postgres.drop_database(name)


@pytest.fixture(scope="module")
def machine(tmp_path_factory, postgres: PostgresServer, databases: dict[str, str], s3: S3Server) -> Machine:
    """A machine whose servers are those of the tests, ready for services to start on."""
    folder, bucket = tmp_path_factory.mktemp("machine"), s3.create_bucket()
    environment = {
        **s3.environment,
        "PGPASSWORD": postgres.password,
        "HEIMDALL_HOME": str(folder),
        "DAGSTER_HOME": str(folder / "dagster"),
        "HEIMDALL_DATABASE_URL": databases["heimdall"],
        "HEIMDALL_DAGSTER_URL": databases["dagster"],
        "MLFLOW_BACKEND_STORE_URI": databases["mlflow"],
        "HEIMDALL_OBJECTS": f"s3://{bucket}/objects",
        "HEIMDALL_RECORDINGS": f"s3://{bucket}/recordings",
        "HEIMDALL_MODELS": f"s3://{bucket}/models",
        "HEIMDALL_COMPUTE_LOGS": f"s3://{bucket}/logs",
        "HEIMDALL_USERS": str(folder / "users.json"),
        "HEIMDALL_TRACKING": "off",
        "LOKY_MAX_CPU_COUNT": "1",
        # The daemon's sensor would train on what is approved, and runs go one at a time.
        "HEIMDALL_RETRAIN": '{"quiet_period_s": 86400}',
    }
    made = Machine(folder, environment)
    made.write_workspace()
    return made


@pytest.fixture(scope="module")
def stack(machine: Machine, services: dict[str, Any]) -> Iterator[dict[str, Path]]:
    """Logs of the running services by name, once each is healthy."""
    done = machine.run("prepare", services["prepare"], services["prepare"]["command"])
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        for name, value in machine.environment.items():
            patch.setenv(name, value)
        import_simulated(read_places().open_stores(), SIMULATION, "demo", ignore)
    added = subprocess.run(
        machine.build_command(["heimdall", "users", "add", "ada", "--role", "operator"], "webserver"),
        env=machine.build_environment(services["webserver"]),
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert added.returncode == 0, added.stderr
    with ExitStack() as running:
        yield {name: running.enter_context(machine.start(name, services[name])) for name in STARTED}


def ask(machine: Machine, query: str, **variables: Any) -> dict[str, Any]:
    """Return what the webserver says to a GraphQL query."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{machine.find_port('webserver', '3000')}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {b64encode(LOGIN).decode()}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    assert "errors" not in found, found
    return dict(found["data"])


def test_every_service_is_started_here_or_has_a_reason(services: dict[str, Any]):
    assert {*STARTED, "prepare", *ELSEWHERE, *NOT_OURS} == services.keys()


def test_all_are_healthy_at_once_and_the_daemon_has_a_heartbeat(machine, services, stack):
    assert [name for name in STARTED if not machine.is_healthy(name, services[name])] == []
    assert b"Traceback" not in b"".join(path.read_bytes() for path in stack.values())


def test_a_run_asked_for_at_the_page_is_done_by_the_code_server_and_kept_in_postgresql_and_s3(
    machine, stack, s3, monkeypatch
):
    selector = {
        "repositoryLocationName": "heimdall",
        "repositoryName": "__repository__",
        "pipelineName": "ingest",
        "assetSelection": [],
    }
    launched = ask(
        machine,
        """mutation($selector: JobOrPipelineSelector!) {
            launchRun(executionParams: {selector: $selector, runConfigData: {}}) {
                __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
        selector={name: value for name, value in selector.items() if value},
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def find_status() -> str:
        found = ask(machine, "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        return str(found["runOrError"]["status"])

    wait_for(lambda: find_status() in ("SUCCESS", "FAILURE", "CANCELED"), 240.0, "the run to end", stack["daemon"])
    assert find_status() == "SUCCESS", stack["code-server"].read_text()[-4000:]
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    name = parse_place(machine.environment["HEIMDALL_COMPUTE_LOGS"], "logs").bucket
    kept = list(Bucket(BucketAddress(name), s3.endpoint).list_keys(f"logs/storage/{run_id}"))
    assert kept
    assert not list((machine.folder / "dagster").rglob("*.db"))


def test_the_file_that_prepare_wrote_is_the_one_of_deploy_but_for_the_bucket(machine, stack):
    written = (machine.folder / "dagster" / "dagster.yaml").read_text()
    bucket = parse_place(machine.environment["HEIMDALL_COMPUTE_LOGS"], "logs").bucket
    ours = (ROOT / "deploy" / "dagster.yaml").read_text()

    def leave_digest(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("# SHA-256")]

    assert leave_digest(written.replace(bucket, "heimdall")) == leave_digest(ours)


def test_mlflow_answers_to_its_name_in_compose_and_to_no_other(machine, stack):
    address = f"http://127.0.0.1:{machine.find_port('mlflow', '5000')}/api/2.0/mlflow/experiments/search?max_results=1"
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert "experiments" in json.load(answer)
    foreign = urllib.request.Request(address, headers={"Host": "elsewhere.example.org"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(foreign, timeout=30)
