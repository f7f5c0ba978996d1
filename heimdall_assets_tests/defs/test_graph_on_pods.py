"""The whole graph by the command that people type, its training a pod: every place is PostgreSQL or S3."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: heimdall-assets[k8s]")

from heimdall_assets.cli import main
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets_tests.defs.test_stopping import PROGRAM
from heimdall_assets_tests.defs.test_stopping_anywhere import COMPARED
from heimdall_assets_tests.homes import SIMULATION, TINY, fill_home, ignore, release
from heimdall_assets_tests.kubernetes_api import NAMESPACE, KubernetesApi, run_kubernetes
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import PostgresServer

pytestmark = pytest.mark.long  # two runs of the graph, in one of which each step and check imports everything anew

SECONDS = 1800.0
CLUSTER = {"image": "registry.example/heimdall:1", "namespace": NAMESPACE, "env_secrets": ["heimdall"]}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    (tmp_path / "cluster").mkdir()
    with run_kubernetes(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def databases(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """Addresses of two databases that hold nothing: of measurements, and of the graph's history."""
    names = [postgres.create_database(), postgres.create_database()]
    # No password in an address: libpq takes it from PGPASSWORD.
    shown = [postgres.url(name).replace(f":{postgres.password}@", "@") for name in names]
    yield dict(zip(("HEIMDALL_DATABASE_URL", "HEIMDALL_DAGSTER_URL"), shown, strict=True))
    for name in names:
        postgres.drop_database(name)


def test_a_release_trained_in_a_pod_is_that_of_one_process_and_verifies(
    api: KubernetesApi,
    databases: dict[str, str],
    postgres: PostgresServer,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    bucket = f"s3://{s3.create_bucket()}"
    endpoint = {name: value for name, value in s3.environment.items() if "ENDPOINT" in name}
    secret = {**s3.environment, "PGPASSWORD": postgres.password, **databases}
    api.secrets["heimdall"] = {name: value for name, value in secret.items() if name not in endpoint}
    variables = {
        **secret,
        "HEIMDALL_HOME": str(tmp_path / "home"),
        "HEIMDALL_OBJECTS": f"{bucket}/objects",
        "HEIMDALL_RECORDINGS": f"{bucket}/recordings",
        "HEIMDALL_MODELS": f"{bucket}/models",
        "HEIMDALL_COMPUTE_LOGS": f"{bucket}/logs",
        "HEIMDALL_EXECUTOR": "k8s",
        "HEIMDALL_KUBERNETES": json.dumps(CLUSTER),
        "KUBECONFIG": str(api.kubeconfig),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stores = read_places().open_stores()
    import_simulated(stores, SIMULATION, "demo", ignore)
    stores.measurements.close()  # nobody may be connected to what is copied
    # When a session was approved is part of a snapshot: the other run begins with these very rows.
    rows = postgres.create_database(databases["HEIMDALL_DATABASE_URL"].rpartition("/")[2])
    made = train(tmp_path / "settings.yaml")

    (manifest,) = api.manifests
    labels = manifest["metadata"]["labels"]
    assert labels["dagster/op"] == TRAINED_CHECKPOINT
    told = json.dumps(manifest)
    for value in (postgres.password, s3.environment["AWS_SECRET_ACCESS_KEY"], s3.environment["AWS_ACCESS_KEY_ID"]):
        assert value not in told
    assert made["folder"] == f"{bucket}/models/v1.0.0"
    assert made["computed"][TRAINED_CHECKPOINT] == 1

    verified = CliRunner().invoke(main, ["verify", made["version"], "--json"])
    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.stdout)["ok"]

    for name in variables:
        monkeypatch.delenv(name)
    fill_home(tmp_path / "one-process")  # the same recordings, in a folder
    own = {"HEIMDALL_HOME": str(tmp_path / "one-process"), "HEIMDALL_TRACKING": "off"}
    here = release(read_places({**own, "HEIMDALL_DATABASE_URL": postgres.url(rows)}))
    assert here["computed"][TRAINED_CHECKPOINT] == 1
    assert {name: made["manifests"][name] for name in COMPARED} == {name: here["manifests"][name] for name in COMPARED}


def train(settings: Path) -> dict[str, Any]:
    """Return what ``heimdall train`` says that it made, with tiny settings."""
    settings.write_text(yaml.safe_dump({type(spec).__name__: spec.dump() for spec in TINY}))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", "--json", "--settings", str(settings)],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout))
