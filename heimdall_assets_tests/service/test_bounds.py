"""Bounds: large, lying, slow and many requests are refused under a clear status while others are answered."""

import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from heimdall_assets.serving.bounds import Bounds
from heimdall_assets.web.connections import Limits
from heimdall_assets_tests.service.cases import Client, make_session
from heimdall_assets_tests.service.running import run_service

SMALL = Bounds(max_body_bytes=100_000, max_held_bytes=150_000, body_s=0.5)
BODY = json.dumps(make_session()).encode()


@pytest.fixture(scope="module")
def small(running):
    with run_service(running.service.stores, SMALL, Limits(head_s=0.6, write_s=0.6)) as found:
        yield found


def head(port, length, kind="application/json"):
    told = f"POST /v1/locate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n"
    return (f"{told}Content-Length: {length}\r\n\r\n" if length is not None else f"{told}\r\n").encode()


def converse(port, *parts, ends=False):
    """Return all that the service answers to bytes as they are."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def read_status(answer):
    return int(answer.split(b" ", 2)[1])


def check_alive(found):
    with closing(found.open()) as client:
        assert client.locate(make_session())[0] == 200
    assert found.service.room.num_bytes == 0


def test_a_gigabyte_is_refused_by_its_head(small):
    answer = converse(small.port, head(small.port, 10**9))
    assert read_status(answer) == 413
    assert b"expected at most" in answer
    check_alive(small)


def test_what_does_not_say_how_much_it_is_is_counted(small):
    told = f"POST /v1/locate HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\nContent-Type: application/json\r\n"
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = converse(small.port, f"{told}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * 7)
    assert read_status(answer) == 413
    check_alive(small)


def test_lengths_that_lie_cost_nobody_an_answer(small):
    assert read_status(converse(small.port, head(small.port, len(BODY) + 100), BODY)) == 408  # the rest never comes
    answer = converse(small.port, head(small.port, len(BODY)), BODY + b"GARBAGE\r\n\r\n")
    assert read_status(answer) == 200
    assert answer.count(b"HTTP/1.1") == 2  # what follows is no request, and is told so
    assert read_status(answer[answer.rindex(b"HTTP/1.1") :]) == 400
    for lie in ("-1", "x", "1e3"):
        assert read_status(converse(small.port, head(small.port, lie), BODY)) == 400
    cut = converse(small.port, head(small.port, len(BODY)), BODY[:50], ends=True)
    assert cut == b"" or read_status(cut) == 400
    check_alive(small)


def test_slow_heads_and_bodies_are_given_up(small):
    assert read_status(converse(small.port, b"POST /v1/locate HTTP/1.1\r\nHost: a")) == 408
    assert read_status(converse(small.port, head(small.port, 100), b"{")) == 408
    check_alive(small)


def test_bodies_of_all_together_are_bounded(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as first:
        first.sendall(head(small.port, 99_000) + b" " * 90_000)
        answer = converse(small.port, head(small.port, 99_000), b" " * 99_000)
        assert read_status(answer) == 503
        assert b"retry-after: 1" in answer.lower()
        with closing(small.open()) as client:
            assert client.locate(make_session())[0] == 200
        assert read_status(first.recv(65536)) == 408
    check_alive(small)


def test_more_requests_than_there_is_room_for_are_told_when_to_ask_again(running):
    with run_service(running.service.stores, Bounds(workers=1, queue=1)) as found:
        barrier = threading.Barrier(12)

        def ask(_):
            with closing(Client(found.port)) as client:
                client.ask("/healthz")
                barrier.wait()
                status, said, headers = client.ask("/v1/locate", "POST", BODY, {"Content-Type": "application/json"})
                assert status == 200 or headers["retry-after"] == "1"
                assert status == 200 or "ask again" in said["error"]
                return status

        with ThreadPoolExecutor(12) as pool:
            counted = Counter(pool.map(ask, range(12)))
        assert set(counted) == {200, 503}
        assert sum(counted.values()) == 12
        assert found.client.locate(make_session())[0] == 200
        assert found.service.room.num_requests == 0


def test_an_answer_that_takes_too_long_is_told(running):
    with run_service(running.service.stores, Bounds(answer_s=0.001)) as found:
        status, said = found.client.locate(make_session())
        assert status == 504
        assert "expected one" in said["error"]
        assert found.client.ask("/healthz")[0] == 200
