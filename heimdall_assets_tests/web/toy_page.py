"""Dagster's page on the toy graph, behind the guard, with users; and what tests ask of it."""

import base64
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from heimdall_assets.domain import Role
from heimdall_assets.stores.users import User, UsersFile
from heimdall_assets.web.dagster_page import find_run, open_app, read_schema, run_code_server
from heimdall_assets.web.guard import Gate
from heimdall_assets.web.login import LoginGate, open_login
from heimdall_assets.web.passwords import hash_password
from heimdall_assets.web.roles import Rules
from heimdall_assets.web.sites import build_page_site
from heimdall_assets_tests.web.running import ask, serve_site

MODULE = "heimdall_assets_tests.web.toy_definitions"
PLACE = {"repositoryLocationName": MODULE, "repositoryName": "__repository__"}
SENSOR = {**PLACE, "sensorName": "approvals"}
PASSWORD = "correct horse battery"
STOP = "mutation($id: String!) { stopSensor(id: $id) { __typename } }"


@dataclass
class Toy:
    """The page's applications and what stands behind them."""

    instance: dg.DagsterInstance
    apps: dict[Role, Any]
    rules: Rules
    users: UsersFile

    def open_gate(self, read_only: bool = False) -> LoginGate:
        return open_login(self.users, "a secret that only tests have, long enough", read_only)

    def serve(self, gate: Gate | None = None, **settings: Any) -> AbstractContextManager[int]:
        allowed = ("models.example", "heimdall:3000")
        return serve_site(lambda bound: build_page_site(bound, self.apps, self.rules, allowed), gate, **settings)


@contextmanager
def open_toy(folder: Path) -> Iterator[Toy]:
    """Give the page of a new instance below ``folder``, and one user a role, each of its name."""
    users = UsersFile(folder / "users.json")
    for role in Role:
        users.add(User(str(role), role, hash_password(PASSWORD)))
    with ExitStack() as stack:
        instance = stack.enter_context(dg.instance_for_test(temp_dir=str(folder), set_dagster_home=False))
        workspace = stack.enter_context(run_code_server(instance, MODULE))
        shown = stack.enter_context(open_app(instance, workspace, read_only=True))
        app = stack.enter_context(open_app(instance, workspace, read_only=False))
        apps = {Role.AUDITOR: shown, Role.OPERATOR: app, Role.APPROVER: app}
        yield Toy(instance, apps, Rules(read_schema(), find_run(instance)), users)


def log_in(name: str, password: str = PASSWORD) -> dict[str, str]:
    """Return the header by which a tool says who it is."""
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def query(
    port: int, text: str, variables: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Return status and answer of one query, asked as the page asks."""
    body = json.dumps({"query": text, "variables": variables or {}}).encode()
    status, said, _ = ask(port, "/graphql", "POST", {"Content-Type": "application/json", **(headers or {})}, body)
    return status, json.loads(said) if said.startswith("{") else said


def read_sensor(port: int, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Return id and status of the toy's sensor."""
    asked = "... on Sensor { sensorState { id status } }"
    text = f"query($s: SensorSelector!) {{ sensorOrError(sensorSelector: $s) {{ {asked} }} }}"
    status, said = query(port, text, {"s": SENSOR}, headers)
    assert status == 200, said
    return said["data"]["sensorOrError"]["sensorState"]


def select(job: str, *assets: str) -> dict[str, Any]:
    """Return the parameters that launch a job, or only some of its assets."""
    chosen = {"assetSelection": [{"path": [name]} for name in assets]} if assets else {}
    return {"selector": {**PLACE, "jobName": job, **chosen}, "mode": "default"}
