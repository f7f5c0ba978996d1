"""A service that runs, for tests: its server in a thread of this process, on a free port, over real HTTP."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from heimdall_assets.serving.app import Door
from heimdall_assets.serving.bounds import Bounds
from heimdall_assets.serving.running import prepare_server
from heimdall_assets.serving.service import Service
from heimdall_assets.stores.home import Stores
from heimdall_assets.web.connections import Limits
from heimdall_assets.web.sites import list_hosts
from heimdall_assets_tests.service.cases import Client

START_S = 60.0


@dataclass
class Running:
    """A service and where it listens."""

    service: Service
    port: int
    client: Client

    def open(self, key: str | None = None) -> Client:
        """Return a connection of its own."""
        return Client(self.port, key)


@contextmanager
def run_service(
    stores: Stores, bounds: Bounds | None = None, limits: Limits | None = None, wants_key: bool = False
) -> Iterator[Running]:
    """Give a running service; where the home has a champion, it is open."""
    service = Service(stores, bounds)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
        door = Door(frozenset() if wants_key else list_hosts(bound), wants_key)
        with prepare_server(service, door, limits) as server:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
            thread.start()
            try:
                wait_until(lambda: server.started)
                wait_until(lambda: service.ledger.read().rules.champion in (None, *service.predictors.list_open()))
                with closing(Client(port)) as client:
                    yield Running(service, port, client)
            finally:
                server.should_exit = True
                thread.join()


def wait_until(happens, seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)
