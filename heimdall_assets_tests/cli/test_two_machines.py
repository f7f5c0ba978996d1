"""Two machines that share nothing but addresses, everything on real servers; and no secret is found anywhere after it.

The machines are two homes whose commands are processes of their own. Every address and variable that may hold a
secret holds one that is drawn anew, and at the end all that was written, printed, stored and told is searched for each
of them, byte by byte.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from psycopg2 import sql

from heimdall_assets.definitions import build_definitions
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets.stores.keys import make_key
from heimdall_assets.stores.objects.addresses import parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets_tests.homes import SIMULATION, TINY, ignore
from heimdall_assets_tests.mlflow_server import run_mlflow
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import PostgresServer

pytestmark = pytest.mark.long  # two trainings and six commands a machine: three minutes of two cores

COMMAND_S = 400.0
HEIMDALL = "from heimdall_assets.cli import main; main()"
LEAVES = ["--by", "ada", "--reason", "heard and seen"]


@dataclass
class Network:
    """What the machines share, the secrets in it, and all that was said."""

    folder: Path
    environment: dict[str, str]
    canaries: dict[str, str]
    databases: list[str]
    bucket: str
    said: dict[str, bytes] = field(default_factory=dict)

    def run(self, machine: str, *arguments: str, code: int = 0, **variables: str) -> str:
        """Return what a command of one machine prints."""
        home = self.folder / machine
        home.mkdir(exist_ok=True)
        settings = ["--settings", str(self.folder / "tiny.yaml")] if arguments[0] == "train" else []
        done = subprocess.run(
            [sys.executable, "-c", HEIMDALL, *arguments, *settings],
            env={
                **self.environment,
                "HOME": str(home),
                "TMPDIR": str(home),
                "HEIMDALL_HOME": str(home / "heimdall"),
                **variables,
            },
            cwd=home,
            capture_output=True,
            timeout=COMMAND_S,
        )
        self.said[f"{len(self.said)} {' '.join(arguments)}"] = done.stdout + done.stderr
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode()

    def search(self, where: str, data: bytes) -> list[str]:
        """Return which secrets are in ``data``."""
        return [f"{name} in {where}" for name, canary in self.canaries.items() if canary.encode() in data]


@pytest.fixture(scope="module")
def network(postgres: PostgresServer, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Databases of two users, buckets and an MLflow server, each address with a secret in it."""
    folder = tmp_path_factory.mktemp("network")
    canaries = {
        name: f"canary{secrets.token_hex(16)}"
        for name in (
            "database",
            "history",
            "runs",
            "experiments",
            "webhook",
            "session",
            "ray",
            "token",
            "passphrase",
            "witness",
        )
    }
    make_key(folder / "key.pem", canaries["passphrase"])
    pem = (folder / "key.pem").read_text()
    canaries["key"] = pem.splitlines()[1]
    (folder / "key.pem").unlink()
    canaries["s3"] = s3.secret
    databases = [postgres.create_database() for _ in range(3)]
    for user, database in zip(("database", "history", "runs"), databases, strict=True):
        _create_user(postgres, user, canaries[user], database)
    bucket = s3.create_bucket()
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump({type(spec).__name__: spec.model_dump(exclude_unset=True) for spec in TINY})
    )
    host = f"127.0.0.1:{postgres.port}"
    with run_mlflow(folder, f"postgresql+psycopg2://runs:{canaries['runs']}@{host}/{databases[2]}") as port:
        environment = {
            **s3.environment,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "OMP_NUM_THREADS": "1",
            "HEIMDALL_DATABASE_URL": f"postgresql+psycopg2://database:{canaries['database']}@{host}/{databases[0]}",
            # the other way in which an address holds a password
            "HEIMDALL_DAGSTER_URL": f"postgresql://history@{host}/{databases[1]}?password={canaries['history']}",
            "HEIMDALL_OBJECTS": f"s3://{bucket}/objects",
            "HEIMDALL_MODELS": f"s3://{bucket}/models",
            "HEIMDALL_COMPUTE_LOGS": f"s3://{bucket}/logs",
            "MLFLOW_TRACKING_URI": f"http://ada:{canaries['experiments']}@127.0.0.1:{port}",
            "MLFLOW_TRACKING_TOKEN": canaries["token"],
            "HEIMDALL_WEBHOOK_URL": f"http://127.0.0.1:9/{canaries['webhook']}",
            "HEIMDALL_SESSION_SECRET": canaries["session"],
            "HEIMDALL_SIGNING_KEY_PEM": pem,
            "HEIMDALL_SIGNING_KEY_PASSPHRASE": canaries["passphrase"],
            "RAY_AUTH_TOKEN": canaries["ray"],
        }
        yield Network(folder, environment, canaries, databases, bucket)
    for database in databases:
        postgres.drop_database(database)


def _create_user(postgres: PostgresServer, name: str, password: str, database: str) -> None:
    user = sql.Identifier(name)
    postgres.run(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, sql.Literal(password)))
    postgres.run(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), user))


@pytest.fixture(scope="module")
def released(network: Network) -> dict[str, Any]:
    """What came of it: one machine approves and releases, the other uses it, withdraws and releases the next."""
    places = read_places({**network.environment, "HEIMDALL_HOME": str(network.folder / "one" / "heimdall")})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in network.environment.items():
            patch.setenv(name, value)
        import_simulated(places.open_stores(), SIMULATION, "demo", ignore, approve=False)
    network.run("one", "sessions", "approve", "--all-pending", *LEAVES)
    network.run("one", "keys", "add", "--owner", "Office")
    second_place = f"s3://{network.bucket}/witness"
    away = {"HEIMDALL_WITNESS": f"{second_place},http://127.0.0.1:9/{network.canaries['witness']}"}
    first = json.loads(network.run("one", "train", "--json", **away))
    checked = json.loads(network.run("two", "verify", "latest", "--json", HEIMDALL_WITNESS=second_place))
    rows = json.loads(network.run("two", "sessions", "list", "--json"))
    session = rows[0]["session_name"] if isinstance(rows, list) else rows["sessions"][0]["session_name"]
    predicted = json.loads(network.run("two", "predict", "latest", session, "--json"))
    network.run("two", "sessions", "reject", session, *LEAVES)
    second = json.loads(network.run("two", "train", "--json"))
    return {"first": first, "checked": checked, "predicted": predicted, "second": second, "session": session}


def test_what_one_machine_approves_is_released_and_used_by_the_other(network, released):
    assert released["first"]["version"] == "v1.0.0"
    assert (released["checked"]["ok"], released["checked"]["findings"]) == (True, [])
    assert released["checked"]["signed_by"][0].startswith("Office (key ")
    assert json.dumps(released["predicted"]).count('"ellipse_90"') >= 1
    assert released["first"]["folder"] == f"s3://{network.bucket}/models/v1.0.0"


def test_a_withdrawal_on_the_other_leads_to_the_next_release_which_the_first_verifies(network, released):
    assert released["second"]["version"] != released["first"]["version"]
    assert json.loads(network.run("one", "verify", "latest", "--json"))["ok"]
    listed = json.loads(network.run("one", "models", "list", "--json"))
    assert [row["version"] for row in listed] == [released["first"]["version"], released["second"]["version"]]
    told = network.run("one", "lineage", released["second"]["version"])
    assert released["session"] not in told or "withdrawn" in told


def test_every_place_can_be_used_and_says_so_on_both(network, released):
    for machine in ("one", "two"):
        told = json.loads(network.run(machine, "doctor", "--json"))
        assert told["usable"], told
        assert {place["place"] for place in told["places"]} >= {
            "HEIMDALL_DATABASE_URL",
            "HEIMDALL_DAGSTER_URL",
            "HEIMDALL_OBJECTS",
            "HEIMDALL_MODELS",
            "HEIMDALL_COMPUTE_LOGS",
            "MLFLOW_TRACKING_URI",
        }


# Dagster's own description of a schedule reads its own deprecated property.
@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning")
def test_no_secret_is_found_anywhere(network, released, postgres, s3, monkeypatch):
    """Last in the module: what the others said is searched too."""
    # Errors repeat addresses soonest: each server away, or refusing.
    away = network.environment["HEIMDALL_DATABASE_URL"].replace(f":{postgres.port}/", ":9/")
    other = network.environment["HEIMDALL_DATABASE_URL"].replace("//database:", "//nobody:")
    for variables in ({"HEIMDALL_DATABASE_URL": away}, {"HEIMDALL_DATABASE_URL": other}):
        network.run("one", "--debug", "models", "list", code=2, **variables)
        network.run("one", "doctor", code=1, **variables)
    dagster_away = network.environment["HEIMDALL_DAGSTER_URL"].replace(f":{postgres.port}/", ":9/")
    network.run("one", "--debug", "train", code=2, HEIMDALL_DAGSTER_URL=dagster_away)
    network.run("one", "--debug", "verify", "latest", code=2, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")
    found = []
    for name, data in network.said.items():
        found += network.search(f"output of {name}", data)
    for file in network.folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            found += network.search(str(file), file.read_bytes())
    for name, value in network.environment.items():
        monkeypatch.setenv(name, value)
    stored = Bucket(parse_place(f"s3://{network.bucket}", "bucket"), s3.endpoint)
    keys = list(stored.list_keys())
    assert {key.split("/")[0] for key in keys} >= {"objects", "models"}
    for key in keys:
        found += network.search(f"bucket, {key}", key.encode() + stored.get(key))
    rows = 0
    for database in network.databases:
        for table, row in _read_rows(postgres, database):
            rows += 1
            found += network.search(f"database, {table}", row)
    assert rows > 1000
    places = read_places({**network.environment, "HEIMDALL_HOME": str(network.folder / "one" / "heimdall")})
    shown = RepositorySnap.from_def(build_definitions(places).get_repository_def())
    page = serialize_value(shown).encode()
    assert b"HEIMDALL_DATABASE_URL" in page  # by name it is shown
    found += network.search("the page", page)
    found += network.search("what steps elsewhere are told", json.dumps(places.share()).encode())
    assert found == []


def _read_rows(postgres: PostgresServer, database: str) -> Iterator[tuple[str, bytes]]:
    connection = psycopg2.connect(
        host="127.0.0.1", port=postgres.port, user="heimdall", password=postgres.password, dbname=database
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'"
        )
        for schema, table in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table)))
            for (row,) in cursor.fetchall():
                yield f"{database}.{table}", row.encode()
    connection.close()
