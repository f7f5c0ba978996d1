"""The promise: with ``heimdall ui`` running, decisions about sessions lead to releases with nobody touching anything.

Real processes, Dagster's own daemon, the installed command line.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import dagster as dg
import pytest

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.sensors import RETRAINING_TAG
from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets_tests.homes import SIMULATION, ignore, make_places, release
from heimdall_assets_tests.serving import Page, run_page, wait_for

pytestmark = pytest.mark.long

# The default policy but for its quiet minute.
SETTINGS = {"HEIMDALL_RETRAIN": json.dumps({"quiet_period_s": 5}), "HEIMDALL_TRACKING": "on"}
PATIENCE_S = 900.0


def ask(home: Path, *arguments: str) -> str:
    """Return what the installed command says about this home."""
    program = Path(sys.executable).with_name("heimdall")
    environment = {"HEIMDALL_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([program, *arguments], env=environment, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read_sessions(home: Path, *arguments: str) -> set[str]:
    return {row["id"] for row in json.loads(ask(home, "sessions", "list", *arguments, "--json"))}


def read_lineage(home: Path, version: str) -> set[str]:
    return {row["session_id"] for row in json.loads(ask(home, "lineage", version, "--table", "sessions", "--json"))}


def is_released(places, version: str) -> bool:
    return any(
        record["version"] == version and "challenger" in record["aliases"]
        for record in places.open_stores().releases.list_releases()
    )


def list_retrainings(places) -> list[dg.DagsterRun]:
    """Every run that a sensor asked for, the latest first."""
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(places))) as instance:
        return [run for run in instance.get_runs() if RETRAINING_TAG in run.tags]


def tell(what: str, began_s: float) -> None:
    print(f"{what}: {time.monotonic() - began_s:.0f} s", flush=True)


def wait_for_release(places, page: Page, version: str) -> set[str]:
    began = time.monotonic()
    wait_for(lambda: is_released(places, version), PATIENCE_S, f"release {version}", page.log, every_s=3.0)
    tell(f"{version} released by itself", began)
    return read_lineage(places.home, version)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A home with a tiny champion on twenty sessions, and twenty more that nobody has decided about."""
    places = make_places(tmp_path_factory.mktemp("alone"))
    stores = places.open_stores()
    import_simulated(stores, SIMULATION.model_copy(update={"num_sessions": 40}), "field", ignore, approve=False)
    first = [row["id"] for row in stores.measurements.list_sessions()][:20]
    stores.measurements.decide(first, ApprovalStatus.APPROVED, "auditor", "position published")
    release(places)
    return places


def test_approvals_withdrawals_restarts_and_a_power_cut_each_lead_to_the_next_release(places):
    home = places.home
    began = time.monotonic()
    with run_page(home, SETTINGS) as page:
        tell("page open", began)
        before = read_sessions(home, "--status", "approved")
        fresh = sorted(read_sessions(home, "--status", "pending"))[:20]
        assert len(before) == len(fresh) == 20
        ask(home, "sessions", "approve", *fresh, "--by", "auditor", "--reason", "site visited")
        assert wait_for_release(places, page, "v1.0.1") == before | set(fresh)
        assert json.loads(ask(home, "lineage", "latest", "--json"))["model"]["version"] == "v1.0.1"
        with urllib.request.urlopen(f"{page.lineage_address}/v1.0.1", timeout=60) as answer:
            assert "Where v1.0.1 comes from" in answer.read().decode()
        began = time.monotonic()
        assert page.stop() in (0, -signal.SIGINT, 128 + signal.SIGINT, 1)
        tell("page stopped, no process left", began)

    # Decided while nothing runs: the next page's sensor goes on from its cursor.
    ask(home, "sessions", "reject", fresh[0], "--by", "auditor", "--reason", "wrong site after all")
    with run_page(home, SETTINGS) as page:
        left = (before | set(fresh)) - {fresh[0]}
        assert wait_for_release(places, page, "v1.0.2") == left
        uses = json.loads(ask(home, "lineage", "--session", fresh[0], "--json"))
        assert [use["version"] for use in uses] == ["v1.0.1"]

        # Released is not yet ended: the run that is killed below must be the next one.
        done, started = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED
        wait_for(lambda: list_retrainings(places)[0].status == done, PATIENCE_S, "the run to end", page.log)
        ask(home, "sessions", "reject", fresh[1], "--by", "auditor", "--reason", "this one too")
        wait_for(lambda: list_retrainings(places)[0].status == started, PATIENCE_S, "a run to start", page.log)
        page.kill()
    (killed,) = [run for run in list_retrainings(places) if run.status == started]

    with run_page(home, SETTINGS) as page:
        assert wait_for_release(places, page, "v1.0.3") == left - {fresh[1]}
    latest, earlier = list_retrainings(places)[:2]
    assert earlier.run_id == killed.run_id
    assert earlier.status == dg.DagsterRunStatus.FAILURE
    assert latest.tags[RETRAINING_TAG] == earlier.tags[RETRAINING_TAG]
    assert "attempt 2 of 3 after a failure" in latest.tags["heimdall/reason"]
    assert json.loads(ask(home, "verify", "v1.0.3", "--json"))["ok"]


def test_a_killed_command_leaves_nothing_running(places):
    with run_page(places.home, SETTINGS) as page:
        page.process.kill()
        page.process.wait(60)
        began = time.monotonic()
        wait_for(lambda: not page.list_processes(), 120, "its processes to end", page.log)
        tell("killed, no process left", began)
