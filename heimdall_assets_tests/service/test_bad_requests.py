"""Refusals: whatever is wrong with a request is one line under a clear status, names nothing of ours, ends nothing."""

import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heimdall_assets_tests.service.cases import encode_form, make_recorded, make_session

JSON = {"Content-Type": "application/json"}


def two_of(session):
    return {"receivers": [session["receivers"][0], session["receivers"][0]]}


CASES = {
    "nothing": (b"", 400, "0 bytes"),
    "no JSON": (b"{", 400, "no JSON"),
    "no UTF-8": (b'{"receivers": "\xff"}', 400, "UTF-8"),
    "NaN": (json.dumps(make_session(level_db=float("nan"))).encode(), 400, "NaN"),
    "infinity": (json.dumps(make_session(latitude=float("inf"))).encode(), 400, "Infinity"),
    "a number beyond doubles": (b'{"receivers": [{"latitude": 1e999}]}', 400, "finite"),
    "a key twice": (b'{"receivers": [], "receivers": []}', 400, "duplicate"),
    "deep": (b"[" * 5000 + b"]" * 5000, 400, "deeper"),
    "an endless integer": (b'{"receivers": ' + b"9" * 6000 + b"}", 400, "no JSON"),
    "a list": (b"[]", 422, "session"),
    "no receivers": ({"receivers": []}, 422, "receivers"),
    "another field": (make_session(colour="red"), 422, "receivers.0.colour"),
    "text for a number": (make_session(latitude="45"), 422, "receivers.0.latitude"),
    "true for a number": (make_session(latitude=True), 422, "receivers.0.latitude"),
    "beyond the pole": (make_session(latitude=91.0), 422, "receivers.0.latitude"),
    "no name": (make_session(name=""), 422, "receivers.0.name"),
    "blanks for a name": (make_session(name="  "), 422, "receiver name"),
    "a clock of no class": (make_session(clock_class="sundial"), 422, "clock_class"),
    "half an arrival": (make_session(arrival_sigma_s=None), 422, "expected both or neither"),
    "one twice": (two_of(make_session()), 422, "expected once"),
    "too many": ({"receivers": make_session()["receivers"] * 20}, 422, "receivers"),
    "a part that is not there": (make_session(recording={"part": "x"}), 422, "no part 'x'"),
    "long JSON": (json.dumps(make_session(name="n" * 1_100_000)).encode(), 400, "bytes of JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_session_is_one_line(running, case):
    sent, status, told = CASES[case]
    found, said = running.client.locate(sent)
    assert found == status, said
    assert list(said) == ["error"]
    assert told in said["error"]
    check_line(running, said["error"])


def check_line(running, line):
    assert "\n" not in line
    assert len(line) <= 1000
    for leak in ("Traceback", ".py", str(running.service.stores.scratch.parent), "sqlite", "heimdall.db"):
        assert leak not in line


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "told"),
    [
        ("GET", "/v1/locate", {}, 405, "expected POST"),
        ("DELETE", "/healthz", {}, 405, "method"),
        ("GET", "/../../etc/passwd", {}, 404, "address"),
        ("GET", "/v1", {}, 404, "address"),
        ("POST", "/v1/locate", {"Content-Type": "text/plain"}, 415, "content type"),
        ("POST", "/v1/locate", {}, 415, "none"),
        ("POST", "/v1/locate", {**JSON, "Content-Encoding": "gzip"}, 415, "encoding"),
        ("POST", "/v1/locate", {**JSON, "Host": "evil.example"}, 421, "host"),
        ("POST", "/v1/locate", {**JSON, "Origin": "https://evil.example"}, 403, "origin"),
        ("POST", "/v1/locate", {**JSON, "Authorization": "Bearer nothing"}, 401, "key"),
        ("POST", "/v1/locate", {**JSON, "Authorization": "Basic YTpi"}, 401, "key"),
        ("POST", "/v1/locate", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
    ],
)
def test_what_is_no_request_for_an_answer_is_one_line(running, method, path, headers, status, told):
    body = json.dumps(make_session()).encode() if method == "POST" else None
    found, said, _ = running.client.ask(path, method, body, headers)
    assert found == status
    assert told in said["error"]
    check_line(running, said["error"])


def test_what_is_wrong_with_files_is_one_line(running):
    stores = running.service.stores
    session, files = make_recorded(stores)
    first = session["receivers"][0]["recording"]["part"]
    client = running.client

    def ask(change=None, sent=None, ending=".npy"):
        asked = json.loads(json.dumps(session))
        asked["receivers"][0]["recording"] |= change or {}
        status, said = client.locate_form(asked, {**files, **(sent or {})}, ending)
        assert status in (400, 422), said
        check_line(running, said["error"])
        return status, said["error"]

    assert "no receiver whose recording" in ask(sent={"spare": b"x"})[1]
    assert (
        "no part 'gone'"
        in client.locate_form({"receivers": [{**session["receivers"][0], "recording": {"part": "gone"}}]}, {})[1][
            "error"
        ]
    )
    assert "format 'mp3'" in ask({"format": "mp3"})[1]
    assert "no sample rate" in ask({"sample_rate_hz": None})[1]
    assert "names" in ask({"channel": 2})[1] or "channel" in ask({"channel": 2})[1]
    assert ask(sent={first: files[first][:100]})[0] == 422
    assert ask(sent={first: b""})[0] == 422
    assert "format" in ask(sent={first: b"no samples"}, ending=".txt")[1]
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<c8", "fortran_order": False, "shape": (10**12,)})
    assert ask(sent={first: huge.getvalue()})[0] == 422
    kind, body = encode_form(json.dumps(session).encode(), files)
    for cut in (10, len(body) // 2, len(body) - 30):
        status, said, _ = client.ask("/v1/locate", "POST", body[:cut], {"Content-Type": kind})
        assert status in (400, 422), said
        check_line(running, said["error"])
    assert client.ask("/v1/locate", "POST", body + b"x", {"Content-Type": kind})[0] in (200, 400)
    many = {f"p{number}": b"x" for number in range(100)}
    assert "Too many files" in client.locate_form(session, many)[1]["error"]
    twice = encode_form(json.dumps(session).encode(), {first: b"1"})[1].replace(b"--\r\n", b"\r\n", 1)
    assert client.ask("/v1/locate", "POST", twice, {"Content-Type": kind})[0] == 400


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
FIELDS = [*make_session()["receivers"][0], "recording", "bearing_deg", "bearing_sigma_deg", "carrier_offset_hz"]


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=3), values, st.integers(0, 2))
def test_whatever_json_is_sent_the_answer_is_a_position_or_one_line(running, changes, anything, kind):
    """Of the schema but for some values, of any shape, and receivers of any shape."""
    session = (make_session(**changes), anything, {"receivers": anything})[kind]
    status, said = running.client.locate(session)
    if status == 200:
        assert np.isfinite([said["latitude"], said["longitude"]]).all()
    else:
        assert status in (400, 422), said
        check_line(running, said["error"])


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400), st.sampled_from(["application/json", "multipart/form-data; boundary=b"]))
def test_whatever_bytes_are_sent_the_answer_is_one_line(running, data, kind):
    status, said, _ = running.client.ask("/v1/locate", "POST", data, {"Content-Type": kind})
    assert status in (400, 422), said
    check_line(running, said["error"])


def test_two_thousand_wrong_ones_leave_the_service_as_it_was(running):
    client = running.client
    for number in range(2000):
        assert client.locate(b"" if number % 2 else b"[]")[0] in (400, 422)
    assert client.locate(make_session())[0] == 200
    assert running.service.room.num_requests == 0
    assert running.service.room.num_bytes == 0
