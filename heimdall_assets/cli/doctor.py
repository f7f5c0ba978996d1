"""``heimdall doctor``: each configured place in one line, as it is now, and what to type where it is wrong."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from heimdall_assets.cli.terminal.output import json_option, write_json, write_line
from heimdall_assets.counts import say_count
from heimdall_assets.places import read_places

if TYPE_CHECKING:
    from heimdall_assets.cli.probing.finding import Finding
    from heimdall_assets.variables import Places

EXIT_WRONG = 1


@click.command(short_help="Say of each configured place whether it can be used.")
@json_option
def doctor(as_json: bool) -> None:
    """Ask each configured place, and say in one line how it is and what to type where it is wrong.

    Nothing is made and nothing stays changed: a bucket that work writes to is given a small object that is removed
    again. Exit status: 0, every place can be used (a warning is no fault); 1, one cannot; 2, a variable cannot be read.
    """
    from heimdall_assets.cli.probing.finding import State

    findings = []
    for found in probe_places(read_places()):
        findings.append(found)
        if not as_json:
            write_line(f"{found.state.value:<8} {found.place}: {found.describe()}")
    wrong = sum(found.state is State.WRONG for found in findings)
    if as_json:
        write_json({"usable": not wrong, "places": [found.as_json() for found in findings]})
    elif wrong:
        write_line(f"{say_count(wrong, 'place')} of {len(findings)} cannot be used.")
    if wrong:
        raise SystemExit(EXIT_WRONG)


def probe_places(places: "Places") -> "Iterator[Finding]":
    """Give what each place answers, one after the other."""
    from heimdall_assets.cli.probing.buckets import probe_bucket
    from heimdall_assets.cli.probing.collectors import probe_collector
    from heimdall_assets.cli.probing.databases import probe_measurements, probe_sql
    from heimdall_assets.cli.probing.folders import probe_folder, probe_home
    from heimdall_assets.cli.probing.keys import probe_signing_key
    from heimdall_assets.cli.probing.services import probe_service
    from heimdall_assets.cli.probing.witnesses import probe_witnesses
    from heimdall_assets.stores.database.raw.stated_receivers import Statement
    from heimdall_assets.stores.objects.addresses import BucketAddress

    yield probe_home("HEIMDALL_HOME", places.home)
    statement = Statement(str(places.receivers or ""), places.time_zone or "")
    yield probe_measurements("HEIMDALL_DATABASE_URL", places.database_url, statement)
    for variable, place, is_written in (
        ("HEIMDALL_OBJECTS", places.objects, True),
        ("HEIMDALL_RECORDINGS", places.recordings, False),
        ("HEIMDALL_MODELS", places.models, True),
        ("HEIMDALL_SCRATCH", places.scratch, True),
        ("DAGSTER_HOME", places.dagster_home, True),
        ("HEIMDALL_COMPUTE_LOGS", places.compute_logs, True),
    ):
        if isinstance(place, BucketAddress):
            yield probe_bucket(variable, place, places.s3_endpoint, is_written)
        elif place is not None:
            yield probe_folder(variable, place, is_written)
    if (source := places.find_signing_key()) is not None:
        yield probe_signing_key(places, source)
    yield from probe_witnesses(places)
    if places.openlineage is not None:
        yield probe_collector(places.openlineage)
    if places.dagster_url is not None:
        yield probe_sql("HEIMDALL_DAGSTER_URL", places.dagster_url)
    if places.tracking and places.mlflow_uri.startswith(("http://", "https://")):
        yield probe_service("MLFLOW_TRACKING_URI", places.mlflow_uri, "/version", "MLflow")
    elif places.tracking:
        yield probe_sql("MLFLOW_TRACKING_URI", places.mlflow_uri)
    if places.executor == "ray" and places.ray_address.startswith(("http://", "https://")):
        yield probe_service("HEIMDALL_RAY_ADDRESS", places.ray_address, "/api/version", "Ray")
