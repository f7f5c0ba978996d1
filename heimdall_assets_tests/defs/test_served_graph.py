"""Runs of the graph on PostgreSQL and S3 while these fail: one line, nothing half-written, the next run finishes."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from heimdall_assets.definitions import recover_at
from heimdall_assets.defs.sensors import build_approval_sensor
from heimdall_assets.errors import HeimdallError
from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES
from heimdall_assets.manifests import Manifest, compute_digest
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.specs import RetrainPolicy
from heimdall_assets.stores.objects import cache
from heimdall_assets.stores.objects.cache import UnsyncedFileSystem
from heimdall_assets_tests.fault_proxy import Fault
from heimdall_assets_tests.homes import ignore
from heimdall_assets_tests.pipeline.golden_world import carry, open_world
from heimdall_assets_tests.pipeline.served_world import ServedWorld, serve_world
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import PostgresServer

INGESTED = (APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kind -> digest of what the world becomes in a folder that nothing touches."""
    carried = carry(open_world(tmp_path_factory.mktemp("untouched")), variants=(), up_to=SPECTROGRAM_FEATURES)
    return {kind: carried.manifest(kind).digest for kind in INGESTED}


@pytest.fixture
def world(postgres: PostgresServer, s3: S3Server, postgres_template: str, quick_path: Path) -> Iterator[ServedWorld]:
    with serve_world(postgres, s3, quick_path, postgres_template) as served:
        yield served


def ingest(world: ServedWorld, listener: Callable[..., None] = ignore) -> None:
    """Run the graph up to the features, as a command does; raises as one does."""
    try:
        run_graph(world.places, "ingest", [], listener)
    except KeyError as error:  # it went well: a command would now tell of a release
        if error.args != ("evaluation_metrics",):
            raise


def read_made(world: ServedWorld) -> dict[str, str]:
    """Return kind -> digest of what the graph's history says was made last."""
    objects = world.direct.open_stores().objects
    with world.open_instance() as instance:
        made = {}
        for kind in INGESTED:
            event = instance.get_latest_materialization_event(dg.AssetKey(kind))
            tags: dict[str, Any] = dict(event.asset_materialization.tags or {})
            made[kind] = Manifest.decode(objects.read_bytes(tags["dagster/data_version"])).digest
    return made


def test_keys_that_end_in_a_run_end_it_and_the_next_one_finishes(world: ServedWorld, expected: dict[str, str]):
    world.proxy.count()
    after, refused = 3, 0
    while True:  # each run comes further, on what those before it kept
        fault = Fault("refuse", "*", after=after, status=403, code="ExpiredToken")
        world.proxy.faults = [fault]
        try:
            ingest(world)
        except HeimdallError as error:
            world.check_line(error, "s3://", "could not be", "403")
            refused += 1
        world.proxy.faults = []
        world.check_nothing_half()
        if fault.times == 10**6:
            break
        after *= 4
    assert refused >= 2
    assert read_made(world) == expected


@pytest.mark.long  # Dagster asks its database six times, each time after a longer wait
def test_a_database_that_goes_away_in_a_run_ends_it_and_the_next_one_finishes(
    world: ServedWorld, expected: dict[str, str]
):
    def cut(asset: str, *_: Any) -> None:
        if asset == IQ_FILES:
            world.wire.cut()

    with pytest.raises(HeimdallError) as caught:
        ingest(world, cut)
    world.check_line(caught.value, "history of the graph postgresql", "***", "HEIMDALL_DAGSTER_URL", "connection")
    world.wire.mend()
    world.check_nothing_half()
    ingest(world)
    assert read_made(world) == expected


class Full(UnsyncedFileSystem):
    """A disk that takes some copies and then no more, as one does that fills up under a run."""

    left = 12

    def write(self, descriptor: int, data: memoryview) -> int:
        if Full.left <= 0:
            super().write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        Full.left -= 1
        return super().write(descriptor, data)


@pytest.mark.long
def test_a_disk_full_under_the_cache_costs_copies_and_nothing_else(
    world: ServedWorld, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(world.places.cache)  # as on a machine that has seen none of the objects
    monkeypatch.setattr(Full, "left", 5)
    monkeypatch.setattr(cache, "UnsyncedFileSystem", Full)
    try:
        ingest(world)
    except HeimdallError as error:  # a memory map wants a file
        world.check_line(error, str(world.places.cache), "No space left on device")
    assert Full.left == 0
    world.check_nothing_half()
    monkeypatch.setattr(cache, "UnsyncedFileSystem", UnsyncedFileSystem)
    kept = [path for path in world.places.cache.rglob("*") if path.is_file()]
    assert kept
    assert all(compute_digest(path.read_bytes()) == path.name for path in kept)
    ingest(world)
    assert read_made(world) == expected


def test_two_sensors_at_once_ask_for_one_retraining_and_one_is_enough(world: ServedWorld):
    policy = RetrainPolicy(min_changed_sessions=1, quiet_period_s=0)
    sensor = build_approval_sensor(policy, world.places.open_stores, recover_at(world.places))
    together = threading.Barrier(2)

    def tick(cursor: str | None) -> Any:
        with world.open_instance() as instance:
            together.wait(60)
            return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="s"))

    with world.open_instance():
        pass  # makes Dagster's tables: two at once fall over each other
    with ThreadPoolExecutor(2) as pool:
        first = list(pool.map(tick, [None, None]))
        requests = [told.run_requests[0] for told in first]
        assert len({request.run_key for request in requests}) == 1  # Dagster runs one key once
        with world.open_instance() as instance:
            run = instance.create_run_for_job(dg.job(name="release")(lambda: None), tags=requests[0].tags)
            again = list(pool.map(tick, [told.cursor for told in first]))
            assert [told.run_requests for told in again] == [[], []]
            assert all("one retraining at a time" in told.skip_message for told in again)
            ended = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name=run.job_name, message="as told")
            instance.report_dagster_event(ended, run.run_id)
            assert not any(told.run_requests for told in pool.map(tick, [told.cursor for told in again]))
    world.check_nothing_half()


RUN = """
import json, sys
from heimdall_assets.running.graph_run import run_graph
from heimdall_assets.places import read_places
from heimdall_assets_tests.homes import ignore
from heimdall_assets_tests.pipeline.kill_steps import MODEL, TRAINING
print(json.dumps(run_graph(read_places(), "release", [MODEL, TRAINING], ignore)))
"""


@pytest.mark.long  # two whole runs
def test_two_runs_at_once_on_one_approved_set_make_one_release(world: ServedWorld, tmp_path: Path):
    program = [sys.executable, "-W", "ignore", "-c", RUN]
    started = [
        # Two machines: each its own home, scratch and cache.
        subprocess.Popen(
            program,
            env={**os.environ, "HEIMDALL_HOME": str(tmp_path / name)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    answers = [process.communicate(timeout=900) for process in started]
    assert [process.returncode for process in started] == [0, 0], [said for _, said in answers]
    one, two = (json.loads(answer.splitlines()[-1]) for answer, _ in answers)
    assert one["version"] == two["version"] == "v1.0.0"
    assert one["manifests"]["trained_checkpoint"] == two["manifests"]["trained_checkpoint"]
    stores = world.check_nothing_half()
    assert [record["version"] for record in stores.releases.list_releases()] == ["v1.0.0"]
    assert {stores.releases.resolve(alias) for alias in ("latest", "challenger", "champion")} == {"v1.0.0"}
    assert stores.releases.put_right() == []
