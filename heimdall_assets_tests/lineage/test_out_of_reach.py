"""``heimdall verify``, with ``--repair`` and without, while the S3 service is away: one line, and nothing is said of or
done to what could not be looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.places import read_places
from heimdall_assets.stores.objects import buckets
from heimdall_assets_tests.fault_proxy import Fault, FaultProxy, run_proxy
from heimdall_assets_tests.lineage.world import World, make_world
from heimdall_assets_tests.s3_server import S3Server
from heimdall_assets_tests.servers import find_free_port

COMMANDS = [("verify", "latest"), ("verify", "latest", "--repair")]
JUDGED = ("damaged", "missing", "repair", "no such", "restore", "reproduce", "moved", "written again")
"""Words that say of something how it is, or what was done to it."""

README, VERSION = "README.md", "v1.0.0"
PROGRESS = (f"Verifying model {VERSION}", "objects hashed")
WRITES = {"PUT", "POST", "DELETE"}


@dataclass
class Place:
    """A released world in a bucket, and a copy of its releases in a folder."""

    variables: dict[str, str]
    world: World
    proxy: FaultProxy
    models: Path

    def run(self, *arguments: str, **variables: str) -> Result:
        """Run a command as a process of its own would, that has these variables."""
        return CliRunner().invoke(main, arguments, env={**self.variables, **variables})


@pytest.fixture(scope="module")
def place(bucket_of_module: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("world")
    with run_proxy(s3.endpoint) as proxy:
        variables = {
            **s3.environment,
            "AWS_ENDPOINT_URL_S3": proxy.endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "HEIMDALL_HOME": str(folder / "elsewhere"),
            "HEIMDALL_DATABASE_URL": f"sqlite:///{folder / 'heimdall.db'}",
            "HEIMDALL_OBJECTS": f"{bucket_of_module}/objects",
            "HEIMDALL_MODELS": f"{bucket_of_module}/models",
        }
        objects = read_places(variables).open_stores().objects
        world = make_world(folder, 2, variables["HEIMDALL_MODELS"], objects)
        world.release(world.make_chain())
        copy = folder / "models" / VERSION
        copy.mkdir(parents=True)
        for name in world.releases.files.list_files(VERSION):
            (copy / name).write_bytes(world.releases.files.read(VERSION, name))
        (copy.parent / "latest.json").write_bytes(world.releases.files.read_latest() or b"")
        yield Place(variables, world, proxy, copy.parent)


@pytest.fixture(autouse=True)
def fresh(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No fault, nothing counted; what is away is asked twice and not seven times."""
    monkeypatch.setattr(buckets, "MAX_RETRIES", 1)
    place.proxy.count()
    yield
    place.proxy.faults = []


def check_line(done: Result, *words: str) -> None:
    """The command ended in one line, which names the place and judges nothing."""
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.strip().startswith(PROGRESS)]
    assert len(lines) == 1, lines
    (line,) = lines
    assert line.startswith("Error: "), line
    assert "s3://" in line, line
    assert not [word for word in words if word not in line], line
    assert not [word for word in JUDGED if word in done.stderr], done.stderr


@pytest.mark.parametrize("releases", ["bucket", "folder"])
def test_with_the_service_there_all_is_well(place: Place, releases: str):
    models = {"HEIMDALL_MODELS": str(place.models)} if releases == "folder" else {}
    done = place.run("verify", "latest", **models)
    assert done.exit_code == 0, done.output
    assert "all is as it was released" in done.stdout


AWAY = {
    "nobody listens": ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:{port}"}, "connection refused"),
    "no keys": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "found no keys"),
    "wrong keys": ({"AWS_SECRET_ACCESS_KEY": "other"}, "403 SignatureDoesNotMatch"),
    "no bucket": (
        {"HEIMDALL_OBJECTS": "s3://no-such-bucket/objects", "HEIMDALL_MODELS": "s3://no-such-bucket/models"},
        "found no bucket no-such-bucket",
    ),
}


@pytest.mark.parametrize("releases", ["bucket", "folder"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("how", AWAY)
def test_a_service_that_cannot_be_asked_is_one_line(how: str, command: tuple[str, ...], releases: str, place: Place):
    variables, word = AWAY[how]
    changed = {name: value.format(port=find_free_port()) for name, value in variables.items()}
    if releases == "folder":
        changed["HEIMDALL_MODELS"] = str(place.models)
    check_line(place.run(*command, **changed), word)
    assert not WRITES & set(place.proxy.count())


def go_away(place: Place, after: int) -> Fault:
    """Have every request fail after some have passed: refused, or cut while it is answered."""
    refuse = Fault("refuse", "*", after=after, status=403, code="ExpiredToken")
    fault = Fault("cut", "GET", after=after) if after % 2 else refuse
    place.proxy.faults = [fault]
    return fault


def has_met(fault: Fault) -> bool:
    return fault.times < Fault("cut").times


def test_a_service_that_goes_away_in_the_middle_is_one_line(place: Place):
    after = 0
    while True:
        fault = go_away(place, after)
        done = place.run("verify", "latest")
        if not has_met(fault):
            break
        check_line(done, "could not be ", "403 ExpiredToken" if fault.act == "refuse" else "the connection was cut")
        after = 2 * after + 1 + after % 2
    assert done.exit_code == 0, done.output
    assert after > 20
    assert not WRITES & set(place.proxy.count())


def test_a_repair_that_is_cut_anywhere_harms_nothing_and_the_next_one_finishes(place: Place):
    files = place.world.releases.files
    readme, after, cut = files.read(VERSION, README), 0, 0
    while True:
        files.write_file(VERSION, README, b"other")
        fault = go_away(place, after)
        done = place.run("verify", "latest", "--repair")
        place.proxy.faults = []
        assert files.read(VERSION, README) in (b"other", readme)
        if not has_met(fault):
            break
        check_line(done)
        cut += 1
        after = 2 * after + 1 + after % 2
    assert cut > 4
    assert done.exit_code == 0, done.output
    assert f"repair: file {VERSION}/{README}: written again" in done.stdout
    assert place.run("verify", "latest").exit_code == 0
