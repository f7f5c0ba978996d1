"""Websockets: the page's live updates pass, those of other sites do not, and none carries a mutation."""

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from heimdall_assets.web import guard
from heimdall_assets_tests.web.toy_page import STOP, log_in, read_sensor


def open_socket(port: int, path: str = "/graphql", headers: dict[str, str] | None = None, **settings: Any):
    """Return a websocket as the page opens it; ``headers`` may name another host or origin."""
    return connect(
        f"ws://127.0.0.1:{port}{path}",
        additional_headers=headers or {},
        subprotocols=["graphql-ws"],
        proxy=None,
        open_timeout=30,
        **settings,
    )


def refuse(port: int, path: str = "/graphql", headers: dict[str, str] | None = None, **settings: Any) -> int:
    """Return the status with which a websocket is refused, in one line."""
    with pytest.raises(InvalidStatus) as refused, open_socket(port, path, headers, **settings):
        pass
    assert refused.value.response.body.count(b"\n") == 1
    return refused.value.response.status_code


def test_the_page_subscribes(laptop):
    with open_socket(laptop, origin=f"http://127.0.0.1:{laptop}") as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv(timeout=30)) == {"type": "connection_ack"}
        text = "subscription { locationStateChangeEvents { __typename } }"
        socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": text}}))
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.5)  # nothing has changed, and no error came


def test_no_mutation_comes_by_websocket(laptop):
    sensor = read_sensor(laptop)
    with open_socket(laptop) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        socket.recv(timeout=30)
        payload = {"query": STOP, "variables": {"id": sensor["id"]}}
        socket.send(json.dumps({"type": "start", "id": "1", "payload": payload}))
        assert json.loads(socket.recv(timeout=30))["type"] == "error"
    assert read_sensor(laptop)["status"] == "RUNNING"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_foreign_page_opens_none(laptop, origin):
    assert refuse(laptop, origin=origin) == 403


def test_a_foreign_name_and_a_foreign_fetch_open_none(laptop):
    assert refuse(laptop, headers={"Sec-Fetch-Site": "same-site"}) == 403
    assert refuse(laptop, path="/graphql?query=mutation") == 403
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://evil.example:{laptop}/graphql", address=("127.0.0.1", laptop), proxy=None)
    assert refused.value.response.status_code == 421


def test_only_users_open_one(shared):
    assert refuse(shared) == 401
    with open_socket(shared, headers=log_in("auditor")) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv(timeout=30)) == {"type": "connection_ack"}


def test_there_are_only_so_many_and_each_ends(laptop, monkeypatch):
    monkeypatch.setattr(guard, "MAX_SOCKETS", 1)
    monkeypatch.setattr(guard, "SOCKET_S", 0.5)
    with open_socket(laptop) as socket:
        assert refuse(laptop) == 503
        with pytest.raises(ConnectionClosed, match="1001"):
            socket.recv(timeout=30)
    with open_socket(laptop):
        pass  # there is room again


def test_a_refused_one_is_no_error_of_ours(laptop, caplog):
    assert refuse(laptop, origin="null") == 403
    assert caplog.records == []
