"""Sessions that wait for a decision, served with users who log in; and what tests ask of their forms."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from heimdall_assets.domain import Role
from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.specs import SimulationSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.users import User, UsersFile
from heimdall_assets.variables import Places
from heimdall_assets.web.guard import FORM, Gate
from heimdall_assets.web.login import OpenGate, open_login
from heimdall_assets.web.passwords import hash_password
from heimdall_assets.web.sites import build_lineage_site
from heimdall_assets.web.visitors import Seals
from heimdall_assets_tests.homes import ignore, make_places
from heimdall_assets_tests.web.running import ask, serve_site
from heimdall_assets_tests.web.toy_page import PASSWORD, log_in

SECRET = "a secret that only tests have, long enough"
URL = "https://models.example/lineage"


def fill_waiting(folder: Path, num_sessions: int, duration_s: float = 0.6) -> Places:
    """Return the places of a home with pending sessions of three receivers each."""
    places = make_places(folder)
    spec = SimulationSpec(num_sessions=num_sessions, min_receivers=3, max_receivers=3, duration_s=duration_s)
    import_simulated(places.open_stores(), spec, "field day", ignore, approve=False)
    return places


def make_gate(folder: Path) -> Gate:
    """Return the login of one user a role, each of its name, and of a second approver, ada."""
    users = UsersFile(folder / "users.json")
    hashed = hash_password(PASSWORD)
    for role in Role:
        users.add(User(str(role), role, hashed))
    users.add(User("ada", Role.APPROVER, hashed))
    return open_login(users, SECRET)


@contextmanager
def serve_desks(places: Places, gate: Gate | None = None) -> Iterator[int]:
    """Give the port on which sessions are decided about."""
    with serve_site(
        lambda bound: build_lineage_site(bound, places.open_stores, URL, (), Seals(SECRET)),
        gate or OpenGate(Role.APPROVER),
    ) as port:
        yield port


def list_ids(stores: Stores, status: str | None = None) -> list[str]:
    """Return the ids of the sessions, oldest first."""
    return [row["id"] for row in stores.measurements.list_sessions(approval_status=status)]


def read_form(port: int, path: str, user: str | None = None) -> tuple[str, list[str]]:
    """Return the seal of the form on a page, and what of it can be chosen."""
    status, page, _ = ask(port, path, headers=log_in(user) if user else {})
    assert status == 200, page
    (token,) = re.findall(r'name="token" value="([^"]+)"', page)
    return token, re.findall(r'name="chosen" value="([^"]+)"', page)


def send(
    port: int, fields: Mapping[str, Any] | Sequence[tuple[str, Any]], user: str | None = None, **headers: str
) -> tuple[int, str, Any]:
    """Return status, text and headers of the answer to a form."""
    told = {"Content-Type": FORM, **(log_in(user) if user else {}), **headers}
    return ask(port, "/sessions", "POST", told, urlencode(fields, doseq=True).encode())
