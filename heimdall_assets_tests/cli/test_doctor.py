"""``heimdall doctor``: each place says how it is, what is wrong and what to type, and nothing is left behind."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.cli.probing.finding import State, compare_clocks, judge_clock
from heimdall_assets.cli.probing.folders import probe_folder
from heimdall_assets.stores.database.shape import REVISION
from heimdall_assets.stores.objects.addresses import parse_place
from heimdall_assets.stores.objects.buckets import Bucket
from heimdall_assets_tests.servers import find_free_port


def ask(home: Path, *options: str, **variables: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *options], env={"HEIMDALL_HOME": str(home), **variables})


def find_line(result: Result, place: str) -> str:
    """Return what is said of one place, its state first."""
    lines = [line for line in result.stdout.splitlines() if f" {place}: " in line]
    assert len(lines) == 1, result.output
    return " ".join(lines[0].split())


def test_of_a_new_home_everything_can_be_used_and_nothing_is_made(tmp_path):
    result = ask(tmp_path / "home")
    assert result.exit_code == 0, result.output
    assert find_line(result, "HEIMDALL_HOME").startswith(f"ok HEIMDALL_HOME: {tmp_path}/home: not there yet, writable")
    assert find_line(result, "HEIMDALL_DATABASE_URL").endswith("heimdall.db: nothing made there yet")
    assert list(tmp_path.iterdir()) == []


def test_programs_are_told_the_same(tmp_path):
    told = json.loads(ask(tmp_path, "--json").stdout)
    assert told["usable"] is True
    assert {place["state"] for place in told["places"]} == {"ok"}
    assert [place["place"] for place in told["places"]][:3] == [
        "HEIMDALL_HOME",
        "HEIMDALL_DATABASE_URL",
        "HEIMDALL_OBJECTS",
    ]


def test_a_home_of_a_newer_version_is_wrong(tmp_path):
    (tmp_path / "home.json").write_text('{"format": 999, "made_by": "9.9.9"}')
    result = ask(tmp_path)
    assert result.exit_code == 1
    assert "wrong HEIMDALL_HOME: home" in find_line(result, "HEIMDALL_HOME")
    assert "install the newer version" in result.stdout
    assert "1 place of" in result.stdout


def test_a_folder_that_may_not_be_written_is_warned_of():
    kernels = Path("/proc/sys")  # not even root makes a file there
    found = probe_folder("HEIMDALL_SCRATCH", kernels / "scratch")
    assert (found.state, found.place) == (State.WARNING, "HEIMDALL_SCRATCH")
    assert found.told.startswith("/proc/sys/scratch: not there yet, read-only, ")
    assert found.advice.startswith("chown or chmod /proc/sys, or set HEIMDALL_SCRATCH")
    assert probe_folder("HEIMDALL_RECORDINGS", kernels, is_written=False).state is State.OK


def test_a_database_says_who_it_is_and_what_is_wrong(tmp_path, postgres, postgres_template):
    database = postgres.create_database(postgres_template)
    right = postgres.url(database)
    line = find_line(ask(tmp_path, HEIMDALL_DATABASE_URL=right, HEIMDALL_DAGSTER_URL=right), "HEIMDALL_DATABASE_URL")
    assert line.startswith("ok HEIMDALL_DATABASE_URL: database postgresql+psycopg2://heimdall:***@127.0.0.1")
    assert f": ours, schema revision {REVISION}, PostgreSQL 18" in line
    assert "clock +0.0 s, may make tables" in line.replace("-0.0", "+0.0")
    wrong = right.replace(postgres.password, "canary")
    result = ask(tmp_path, HEIMDALL_DATABASE_URL=wrong, HEIMDALL_DAGSTER_URL=wrong)
    assert result.exit_code == 1
    for place in ("HEIMDALL_DATABASE_URL", "HEIMDALL_DAGSTER_URL"):
        line = find_line(result, place)
        assert line.startswith(f"wrong {place}: ")
        assert "password authentication failed" in line
        assert f"set {place} to the right address" in line
    assert "canary" not in result.output
    postgres.drop_database(database)


def test_a_bucket_is_written_to_and_left_as_it_was(tmp_path, bucket, s3):
    result = ask(tmp_path, HEIMDALL_OBJECTS=f"{bucket}/objects", HEIMDALL_RECORDINGS=f"{bucket}/raw")
    assert result.exit_code == 0, result.output
    line = find_line(result, "HEIMDALL_OBJECTS")
    assert line.startswith(f"ok HEIMDALL_OBJECTS: {bucket}/objects at {s3.endpoint}, keys from env, readable and wri")
    assert find_line(result, "HEIMDALL_RECORDINGS").endswith("keys from env, readable")
    assert list(Bucket(parse_place(bucket, "objects"), s3.endpoint).list_keys()) == []


@pytest.mark.parametrize(
    ("variables", "said", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary"}, "403 SignatureDoesNotMatch", "set AWS_SECRET_ACCESS_KEY anew"),
        (
            {"HEIMDALL_OBJECTS": "s3://nobody-made-it/x"},
            "found no bucket nobody-made-it",
            "make the bucket, or correct its name",
        ),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "connection refused", "set AWS_ENDPOINT_URL_S3"),
        ({"AWS_ACCESS_KEY_ID": ""}, "found no keys", "name a profile in AWS_PROFILE"),
    ],
)
def test_a_bucket_that_cannot_be_used_says_why(tmp_path, bucket, variables, said, advice):
    given = {"HEIMDALL_OBJECTS": bucket, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), **variables}
    result = ask(tmp_path, **given)
    assert result.exit_code == 1, result.output
    line = find_line(result, "HEIMDALL_OBJECTS")
    assert said in line
    assert advice in line
    assert "canary" not in result.output


def test_a_bucket_that_is_only_read_is_not_readable_where_there_is_none(tmp_path, bucket):
    result = ask(tmp_path, HEIMDALL_RECORDINGS="s3://nobody-made-it/raw")
    assert result.exit_code == 1, result.output
    assert "found no bucket nobody-made-it" in find_line(result, "HEIMDALL_RECORDINGS")


def test_a_service_out_of_reach_is_named_without_its_password(tmp_path):
    port = find_free_port()
    address = f"http://ada:canary@127.0.0.1:{port}"
    result = ask(tmp_path, MLFLOW_TRACKING_URI=address, HEIMDALL_TRACKING="on")
    assert result.exit_code == 1
    line = find_line(result, "MLFLOW_TRACKING_URI")
    assert line.endswith(f"http://127.0.0.1:{port}: cannot be reached; start MLflow there, or set MLFLOW_TRACKING_URI")
    assert "canary" not in result.output


@pytest.mark.parametrize("address", ["databricks", "mysql://ada:canary@127.0.0.1/runs"])
def test_a_store_that_is_not_asked_is_not_called_well(tmp_path, address):
    result = ask(tmp_path, MLFLOW_TRACKING_URI=address, HEIMDALL_TRACKING="on")
    assert find_line(result, "MLFLOW_TRACKING_URI").startswith("warning MLFLOW_TRACKING_URI: ")
    assert "not asked" in result.stdout
    assert "canary" not in result.output


def test_a_clock_that_is_off_is_warned_of():
    for seconds, state in ((0.0, State.OK), (100.0, State.WARNING), (-100.0, State.WARNING)):
        skew_s, words = compare_clocks(datetime.now(UTC) + timedelta(seconds=seconds))
        assert skew_s == pytest.approx(seconds, abs=5.0)
        assert judge_clock("X", [words], skew_s).state is state


def test_a_variable_that_cannot_be_read_is_an_error_of_its_own(tmp_path):
    result = ask(tmp_path, HEIMDALL_EXECUTOR="slurm")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: HEIMDALL_EXECUTOR: found 'slurm'")
