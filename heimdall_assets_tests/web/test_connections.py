"""Connections: however many clients say nothing, or one byte at a time, a page is answered at once."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import dagster_webserver
import pytest

from heimdall_assets.web.connections import Limits
from heimdall_assets.web.serving import build_server
from heimdall_assets_tests.web.running import ask
from heimdall_assets_tests.web.toy_page import query

MANY = 300
QUICK_S = 2.0  # of a page that costs milliseconds, on two busy cores
HASTY = Limits(head_s=0.6, write_s=0.6)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def start_post(port: int, size: int = 1000) -> bytes:
    head = f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n{{".encode()


def time_page(port: int) -> float:
    """Return how many seconds the slower of a file and a query takes."""
    times = []
    for asked in (lambda: ask(port, "/server_info")[0], lambda: query(port, "{ version }")[0]):
        began = time.monotonic()
        assert asked() == 200
        times.append(time.monotonic() - began)
    return max(times)


def test_half_open_connections_and_slow_writers_delay_nobody(toy):
    """As many as held the pages of releases up for 40 s, and as many that never finish what they say."""
    with toy.serve() as port, contextlib.ExitStack() as stack:
        stop = threading.Event()
        silent = [stack.enter_context(connect(port)) for _ in range(MANY)]
        assert time_page(port) < QUICK_S
        slow = [stack.enter_context(connect(port)) for _ in range(MANY)]
        for writer in slow[::2]:
            writer.sendall(b"GET / HTTP/1.1\r\nHost: a")
        for writer in slow[1::2]:
            writer.sendall(start_post(port))

        def dribble():
            while not stop.wait(0.05):
                for writer in slow:
                    with contextlib.suppress(OSError):
                        writer.sendall(b" ")

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            assert max(time_page(port) for _ in range(5)) < QUICK_S
        finally:
            stop.set()
            thread.join()
        ended = sum(is_ended(one) for one in silent)
        assert ended >= 2 * MANY - Limits().of_one_client  # those that waited longest made room


def is_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"", b""),
        (b"GET / HT", b"HTTP/1.1 408"),
        (b"GET /server_info HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", b"HTTP/1.1 200"),
    ],
)
def test_a_head_has_seconds_to_come_and_so_has_the_next(toy, said, answered):
    with toy.serve(limits=HASTY) as port, connect(port) as connection:
        connection.sendall(said % port if b"%d" in said else said)
        began = time.monotonic()
        found = read_all(connection)
        assert found.startswith(answered)
        assert bool(found) == bool(answered)
        assert 0.3 < time.monotonic() - began < 5


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(65536):
        found += data
    return found


def test_a_body_has_seconds_to_come_however_it_dribbles(toy):
    with toy.serve(body_s=0.6) as port, connect(port) as connection:
        connection.sendall(start_post(port))
        began = time.monotonic()
        while time.monotonic() - began < 0.4:
            connection.sendall(b" ")
            time.sleep(0.05)
        found = read_all(connection)
        assert found.startswith(b"HTTP/1.1 408")
        assert b"body: found a part within 0.6 s, expected all of it" in found
        assert time.monotonic() - began < 5


def test_who_takes_no_answer_is_cut_off(toy):
    folder = Path(dagster_webserver.__file__).parent / "webapp" / "build"
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    assert largest.stat().st_size > 500_000
    with toy.serve(limits=HASTY) as port, connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = f"GET /{largest.relative_to(folder).as_posix()} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
        connection.sendall(asked.encode() * 40)
        time.sleep(2.0)
        with pytest.raises(OSError, match=r"reset|pipe"):
            keep_sending(connection)
        assert time_page(port) < QUICK_S


def keep_sending(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.02)


def test_where_all_are_being_answered_one_more_is_refused_and_no_other_is_cut_off(toy):
    limits = Limits(connections=3, of_one_client=2)
    with toy.serve(limits=limits) as port, connect(port) as first, connect(port) as second:
        for connection in (first, second):
            open_socket(connection, port)
        with connect(port) as third:
            assert is_ended_soon(third)
        assert not is_ended(first)
        assert not is_ended(second)


def open_socket(connection: socket.socket, port: int) -> None:
    """Make a connection a websocket, which waits for nobody."""
    head = f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    more = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    connection.sendall(f"{head}{more}Sec-WebSocket-Protocol: graphql-ws\r\n\r\n".encode())
    assert connection.recv(4000).startswith(b"HTTP/1.1 101")


def is_ended_soon(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_what_is_answered_is_sent_at_once():
    """Connections inherit it from the socket that listens; without, each answer in two parts waits 40 ms."""

    async def answer(scope, receive, send):
        raise AssertionError

    server = build_server(answer)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            deadline = time.monotonic() + 20.0
            while not server.started:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with connect(bound.getsockname()[1]):
                assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        finally:
            server.should_exit = True
            thread.join()
