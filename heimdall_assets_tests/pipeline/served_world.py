"""The fixed tiny world on servers: rows and the graph's history in PostgreSQL, objects and releases in a bucket of S3.

The wires to both servers can be cut and their answers falsified; what is at rest is read past them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from heimdall_assets.dagster_home import prepare_dagster_home
from heimdall_assets.defs.accelerator import GPU_POOL
from heimdall_assets.errors import HeimdallError
from heimdall_assets.manifests import Manifest
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import Stores
from heimdall_assets.variables import Places
from heimdall_assets_tests.fault_proxy import FaultProxy, run_proxy
from heimdall_assets_tests.pipeline.golden_world import fill_world
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import PostgresServer
from heimdall_assets_tests.wire import Wire, run_wire


@dataclass
class ServedWorld:
    """A home whose places are servers.

    Attributes:
        places: through the wire and the proxy.
        direct: the same places, past both.
        wire: to both databases.
        proxy: to the bucket.
        secrets: what no message may hold.
    """

    places: Places
    direct: Places
    wire: Wire
    proxy: FaultProxy
    secrets: list[str] = field(default_factory=list)

    @contextmanager
    def open_instance(self) -> Iterator[dg.DagsterInstance]:
        """Give the graph's history."""
        with dg.DagsterInstance.from_config(str(prepare_dagster_home(self.places))) as instance:
            yield instance

    def check_line(self, error: BaseException, *words: str) -> None:
        """One line with these words, and no secret in it."""
        said = str(error)
        assert "\n" not in said, said
        assert not [word for word in words if word not in said], said
        assert not [secret for secret in self.secrets if secret in said], "a secret"

    def check_nothing_half(self) -> Stores:
        """Whatever is at rest is whole, and no place of the pool is held; return the stores it was read from."""
        stores = self.direct.open_stores()
        broken = find_half_done(stores)
        assert broken == []
        with self.open_instance() as instance:
            info = instance.event_log_storage.get_concurrency_info(GPU_POOL)
            assert (info.active_slot_count, info.pending_steps) == (0, [])
        return stores


def find_half_done(stores: Stores) -> list[str]:
    """Return what at rest is damaged, or named and not there, one line each."""
    objects, broken = stores.objects.at_rest(), []
    for digest in objects.list_digests():
        try:
            objects.read_bytes(digest)
        except HeimdallError as error:
            broken.append(str(error))
    for name in objects.list_references("results/"):
        digest = objects.read_reference(name)
        manifest = Manifest.decode(objects.read_bytes(str(digest)))
        held = {artifact.digest for artifact in manifest.artifacts.values()} | set(manifest.summary.get("shards", []))
        if lacking := held - objects.find_present(held):
            broken.append(f"reference {name}: lacks {sorted(lacking)}")
    for record in stores.releases.list_releases():
        broken += stores.releases.find_problems(record["version"])
    return broken + stores.measurements.check_ledger() + stores.releases.check_ledger()


@contextmanager
def serve_world(postgres: PostgresServer, s3: S3Server, folder: Path, template: str) -> Iterator[ServedWorld]:
    """Give a home in ``folder`` with the world in it, at the end of wires.

    Args:
        postgres, s3: the servers.
        folder: for what stays on this machine.
        template: name of an upgraded, empty database.
    """
    rows, history, bucket = postgres.create_database(template), postgres.create_database(), s3.create_bucket()
    with pytest.MonkeyPatch.context() as patch, run_wire(postgres.port) as wire, run_proxy(s3.endpoint) as proxy:
        direct = {
            **s3.environment,
            "HEIMDALL_HOME": str(folder),
            "HEIMDALL_TRACKING": "off",
            "HEIMDALL_DATABASE_URL": postgres.url(rows),
            "HEIMDALL_DAGSTER_URL": postgres.url(history),
            "HEIMDALL_OBJECTS": f"s3://{bucket}/objects",
            "HEIMDALL_MODELS": f"s3://{bucket}/models",
        }
        ends = {f":{postgres.port}/": f":{wire.port}/", s3.endpoint: proxy.endpoint}
        wired = dict(direct)
        for near, far in ends.items():
            wired = {name: value.replace(near, far) for name, value in wired.items()}
        for name, value in wired.items():
            patch.setenv(name, value)
        fill_world(read_places(direct).open_stores())
        secrets = [postgres.password, s3.secret]
        yield ServedWorld(read_places(wired), read_places({**os.environ, **direct}), wire, proxy, secrets)
    for name in (rows, history):
        postgres.drop_database(name)
