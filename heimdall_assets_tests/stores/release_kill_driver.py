"""Publishes releases to a bucket, killed at each of its requests, and looks at what is left and at the same run again.

``python -m heimdall_assets_tests.stores.release_kill_driver DATABASE_URL BUCKET KIND...`` prints what it found as
JSON. A process of its own, which asks neither the bucket nor the database: only its children do.

One database and one bucket see all kills, one after the other: each must leave the releases before it whole, and its
own number to the run that makes it again.
"""

import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from typing import Any

import obstore.auth.boto3
import obstore.store
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite  # noqa: F401

from heimdall_assets.stores.database.measurements import MeasurementStore
from heimdall_assets.stores.releases.store import ReleaseStore
from heimdall_assets_tests.forks import KILLED, in_child, need
from heimdall_assets_tests.pipeline.kill_wrong_orders import row_before_files
from heimdall_assets_tests.stores.releasing import RECORD, open_at

REQUESTS = ("list", "get", "head", "put", "delete", "copy")
CHANGES = ("put", "delete", "copy")

FIRST, AGAIN, WRONG = "first", "again", "wrong"
"""Kinds of trial: a release from its reservation on; the run after one whose files all lay there when it was killed; a
release whose row is written before its files, which must be noticed."""


def publish(url: str, bucket: str, number: int) -> str:
    """Return the version of result ``number``, whose files tell of this run alone, as those of every run do."""
    releases = open_at(bucket, MeasurementStore(url))
    version = releases.reserve_version("minor", f"results/{number}")
    if not releases.is_published(version):
        releases.publish(version, {"model.onnx": b"model", "README.md": secrets.token_bytes(8)}, RECORD)
    releases.point_at_latest()
    return version


def die_at(at: int, after: bool, names: list[str]) -> None:
    """Have this process, which ends soon, be killed at request ``at``: before it, or once it was answered."""

    def watch(name: str) -> Callable[..., Any]:
        plain = getattr(obstore, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            names.append(name)
            if len(names) != at:
                return plain(*arguments, **options)
            if after:
                plain(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        return watched

    for name in REQUESTS:
        setattr(obstore, name, watch(name))


def publish_watched(url: str, bucket: str, number: int, at: int, after: bool, wrong: bool) -> list[str]:
    """Return the requests of a publication that nothing killed."""
    names: list[str] = []
    die_at(at, after, names)
    if wrong:
        row_before_files()
    publish(url, bucket, number)
    return names


def find_broken(releases: ReleaseStore, published: list[str]) -> list[str]:
    """Return which promises do not hold right now; ``published``: the releases before, in order."""
    now = [record["version"] for record in releases.list_releases()]
    broken = [] if now[: len(published)] == published else [f"found {now}, before it were {published}"]
    for version in now[-2:]:  # those before were looked at when they were new
        broken += releases.find_problems(version)
    named = json.loads(releases.files.read_latest() or b'{"version": null}')["version"]
    if named not in (*published[-1:], *now[-1:], *([] if published else [None])):
        broken.append(f"latest.json names {named}, published are {now}")
    return broken


def judge(url: str, bucket: str, number: int, published: list[str], put_right: bool) -> list[str]:
    """Return what a kill broke: as it lies, after putting right, and after the same run again."""
    releases = open_at(bucket, MeasurementStore(url))
    broken = find_broken(releases, published)
    if put_right:  # as every door does before a run
        releases.put_right()
        now = {record["version"] for record in releases.list_releases()}
        if releases.files.list_versions() != now:
            broken.append(f"half made: found {releases.files.list_versions()}, published are {now}")
        broken += find_broken(releases, published)
    version = publish(url, bucket, number)
    if version != f"v1.{number}.0":
        broken.append(f"run again it got {version}, expected v1.{number}.0")
    broken += find_broken(releases, [*published, version]) + releases.put_right()
    if releases.files.list_versions() != {*published, version}:
        broken.append(f"left: {releases.files.list_versions()}")
    return broken


def list_trials(calls: list[str], kind: str) -> list[tuple[int, bool]]:
    """Return at which requests to kill, and whether after them: what changes nothing is the same before and after."""
    numbered = list(enumerate(calls, 1))
    if kind == WRONG:
        return [(at, False) for at, name in numbered if name == "put"]
    return [(at, False) for at, _ in numbered] + [(at, True) for at, name in numbered if name in CHANGES]


def main(url: str, bucket: str, kinds: list[str]) -> dict[str, Any]:
    """Return the requests of each kind of trial, how many trials there were, and what they broke."""
    calls, broken, num_trials = {}, {}, 0
    published: list[str] = []

    def start(kind: str, *kill: Any) -> tuple[int, Any]:
        number = len(published)
        if kind == AGAIN:
            last_file = [at for at, name in enumerate(calls[FIRST], 1) if name == "put"][-2]  # the last is latest.json
            assert in_child(publish_watched, url, bucket, number, last_file, True, False)[0] == KILLED
        return in_child(publish_watched, url, bucket, number, *kill, kind == WRONG)

    for kind in kinds:
        calls[kind] = need(start(kind, 0, False))
        published.append(f"v1.{len(published)}.0")
        for at, after in list_trials(calls[kind], kind):
            status, said = start(kind, at, after)
            assert status == KILLED, said
            number = len(published)
            if found := need(in_child(judge, url, bucket, number, published, number % 2 == 0)):
                broken[f"{kind}: {'after' if after else 'before'} request {at}"] = found
            published.append(f"v1.{number}.0")
            num_trials += 1
    return {"calls": calls, "num_trials": num_trials, "broken": broken}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3:])))
