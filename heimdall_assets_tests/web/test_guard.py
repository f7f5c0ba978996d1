"""The guard: what broke in from outside is refused and changes nothing; what the page itself asks passes."""

import json
import re
import socket
from urllib.parse import quote

import pytest
from starlette.routing import Mount, Route, WebSocketRoute

from heimdall_assets.domain import Role
from heimdall_assets_tests.web.running import ask, serve_app
from heimdall_assets_tests.web.toy_page import SENSOR, STOP, log_in, query, read_sensor

JSON = {"Content-Type": "application/json"}
FOREIGN = "https://evil.example"


@pytest.fixture(scope="module")
def stop(laptop):
    """The mutation that stops the sensor, as a query of an address."""
    sensor = read_sensor(laptop)
    assert sensor["status"] == "RUNNING"
    text = f"mutation {{ stopSensor(id: {json.dumps(sensor['id'])}) {{ __typename }} }}"
    return f"query={quote(text)}"


@pytest.mark.parametrize("headers", [{}, {"Origin": FOREIGN}, {"Sec-Fetch-Site": "cross-site"}], ids=str)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "text/plain; application/json", "application/graphql", "application/json", None],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_a_mutation_in_the_address_is_refused_and_the_sensor_runs_on(laptop, stop, method, kind, headers):
    told = headers if kind is None else {**headers, "Content-Type": kind}
    for path in (f"/graphql?{stop}", f"/%67raphql?{stop}", f"/graphql?%71{stop[1:]}", f"/graphql?a=1&{stop}"):
        status, said, _ = ask(laptop, path, method, told, b"" if method == "POST" else None)
        assert status in (403, 415)
        assert method == "HEAD" or len(said.splitlines()) == 1
    assert read_sensor(laptop)["status"] == "RUNNING"


def test_without_the_guard_the_same_address_stops_the_sensor(toy, laptop, stop):
    """What the tests above try is an attack indeed."""
    with serve_app(toy.apps[Role.APPROVER]) as port:
        told = {"Content-Type": "text/plain", "Origin": FOREIGN, "Host": "evil.example"}
        assert ask(port, f"/graphql?{stop}", "POST", told, b"")[0] == 200
    assert read_sensor(laptop)["status"] == "STOPPED"
    start = "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"
    assert query(laptop, start, {"s": SENSOR})[0] == 200
    assert read_sensor(laptop)["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "text/plain; charset=application/json"}, 415),
        ({"Content-Type": "application/graphql"}, 415),
        ({"Content-Type": "application/json, text/plain"}, 415),
        ({**JSON, "Content-Encoding": "gzip"}, 415),
        ({}, 415),
        ({**JSON, "Origin": FOREIGN}, 403),
        ({**JSON, "Origin": "null"}, 403),
        ({**JSON, "Origin": ""}, 403),
        ({**JSON, "Origin": "http://127.0.0.1"}, 403),
        ({**JSON, "Origin": "http://127.0.0.1:1"}, 403),
        ({**JSON, "Origin": "ftp://models.example"}, 403),
        ({**JSON, "Origin": "http://[::1"}, 403),
        ({**JSON, "Sec-Fetch-Site": "same-site"}, 403),
        ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**JSON, "Host": "evil.example"}, 421),
        ({**JSON, "Host": "127.0.0.1"}, 421),
        ({**JSON, "Host": "127.0.0.1.evil.example:80"}, 421),
        ({**JSON, "Host": "MODELS.example:81"}, 421),
    ],
    ids=str,
)
def test_a_mutation_from_elsewhere_is_refused_and_the_sensor_runs_on(laptop, headers, expected):
    sensor = read_sensor(laptop)
    body = json.dumps({"query": STOP, "variables": {"id": sensor["id"]}}).encode()
    status, said, answer = ask(laptop, "/graphql", "POST", headers, body)
    assert status == expected
    assert len(said.splitlines()) == 1
    assert answer["X-Frame-Options"] == "DENY"
    assert read_sensor(laptop)["status"] == "RUNNING"


def test_the_pages_own_requests_pass_under_every_name_that_it_has(laptop):
    hosts = [f"127.0.0.1:{laptop}", f"localhost:{laptop}", f"[::1]:{laptop}", "models.example", "Heimdall:3000"]
    for host in hosts:
        for more in ({}, {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}):
            assert query(laptop, "{ version }", headers={"Host": host, **more})[0] == 200
        assert ask(laptop, "/", headers={"Host": host})[0] == 200
    # A proxy may end TLS and name us by our own address.
    assert query(laptop, "{ version }", headers={"Origin": "https://models.example"})[0] == 200


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else_from_there_is_given(laptop):
    fetched = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask(laptop, "/runs", headers={**fetched, "Sec-Fetch-Dest": "document"})[0] == 200
    for kind in ("iframe", "image", "script", "empty"):
        assert ask(laptop, "/runs", headers={**fetched, "Sec-Fetch-Dest": kind})[0] == 403


def test_every_answer_says_that_nobody_may_frame_it(laptop):
    for path in ("/", "/server_info", "/no/such", "/graphql?query=x"):
        _, _, headers = ask(laptop, path)
        assert "frame-ancestors 'none'" in headers.get_all("Content-Security-Policy")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Server"] is None


def test_a_body_above_the_limit_is_refused_whether_stated_or_sent(laptop):
    head = f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{laptop}\r\nContent-Type: application/json\r\n"
    for rest in ("Content-Length: 1000001\r\n\r\n", "Content-Length: x\r\n\r\n"):
        assert send(laptop, (head + rest).encode())[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400")
    chunk = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
    assert b" 413 " in send(laptop, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 11)[:14]


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
        "GET /runs HTTP/1.1\r\nHost: 127.0.0.1:{port}@evil.example\r\n\r\n",
        "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_heads_that_say_two_things_or_too_little_are_refused(laptop, head):
    status = send(laptop, head.format(port=laptop).encode()).split(b" ", 2)[1]
    assert status in (b"400", b"421", b"415")


def send(port: int, data: bytes) -> bytes:
    """Return what comes back for raw bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        return connection.recv(4000)


def list_paths(routes) -> list[str]:
    """Return one address a route of an application: each part of it that varies is an x."""
    paths = []
    for route in routes:
        assert isinstance(route, Mount | Route | WebSocketRoute), route
        inside = list_paths(getattr(route, "routes", None) or [])
        paths += [f"{route.path}{path}" for path in inside or ["/x" if isinstance(route, Mount) else ""]]
    return sorted({re.sub(r"\{[^}]*\}", "x", path) for path in paths})


HOSTS = {"own": None, "foreign": "evil.example"}
ORIGINS = {"none": {}, "foreign": {"Origin": FOREIGN}, "fetched": {"Sec-Fetch-Site": "cross-site"}}
KINDS = {"json": JSON, "text": {"Content-Type": "text/plain"}, "none": {}}
WHO = {"nobody": {}, "auditor": log_in("auditor"), "operator": log_in("operator"), "approver": log_in("approver")}


def judge(path: str, method: str, host: str, origin: str, kind: str, who: str) -> set[int]:
    """Return every status by which a request may be refused; none: it must reach the application."""
    refused = {421: host == "foreign", 405: method == "DELETE", 401: who == "nobody"}
    refused[403] = (origin == "foreign" and method != "GET") or origin == "fetched"
    if method == "POST":
        refused[415] = kind != "json"
        refused[403] |= who in ("auditor", "operator") and path != "/graphql"
    return {status for status, is_refused in refused.items() if is_refused}


def test_every_route_is_behind_every_judgement(toy, shared):
    """The routes are the application's own: a new one is judged like the others."""
    paths = list_paths(toy.apps[Role.APPROVER].routes)
    assert {"/graphql", "/server_info", "/logs/x", "/report_asset_materialization/x", "/x", "/"} <= set(paths)
    wrong = []
    for path in paths:
        for method in ("GET", "POST", "DELETE"):
            for host, origin, kind, who in ((h, o, k, w) for h in HOSTS for o in ORIGINS for k in KINDS for w in WHO):
                if method != "POST" and kind != "json":
                    continue
                expected = judge(path, method, host, origin, kind, who)
                headers = {**ORIGINS[origin], **KINDS[kind], **WHO[who]}
                headers |= {"Host": HOSTS[host]} if HOSTS[host] else {}
                status, said, _ = ask(shared, path, method, headers, b"{}" if method == "POST" else None)
                reached = status not in (401, 403, 415, 421)
                if (expected and status not in expected) or (not expected and not reached):
                    wrong.append((path, method, host, origin, kind, who, status, said[:100]))
    assert wrong == []
