"""Places: read from variables, told to steps elsewhere, and refused in one line where a value is of no use."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.home import open_stores
from heimdall_assets.stores.objects.addresses import BucketAddress
from heimdall_assets.variable_kinds import FOLDER, PLACE
from heimdall_assets.variables import OF_TESTS, Places, find_kind, list_variables

ROOT = Path(__file__).resolve().parents[1]
PLACES = [name for name, field in list_variables().items() if find_kind(field) is PLACE]
FOLDERS = [name for name, field in list_variables().items() if find_kind(field) in (FOLDER, PLACE)]


def refuse(**variables: str) -> str:
    """Return the one line that says why a variable is of no use."""
    with pytest.raises(InvalidSetting) as caught:
        read_places(variables)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{next(iter(variables))}: ")
    return str(caught.value)


def read_folder(variable: str, value: str, **others: str) -> Path:
    """Return where the place of a variable is."""
    places = read_places({**others, variable: value})
    return next(
        getattr(places, name) for name, field in Places.model_fields.items() if field.validation_alias == variable
    )


def test_an_unknown_executor_is_refused_with_those_there_are():
    with pytest.raises(
        InvalidSetting, match="HEIMDALL_EXECUTOR: found 'slurm', expected in_process, local, ray or k8s"
    ):
        read_places({"HEIMDALL_EXECUTOR": "slurm"})
    assert read_places({}).executor == "in_process"
    assert read_places({"HEIMDALL_EXECUTOR": ""}).executor == "in_process"


def test_what_steps_elsewhere_are_told_leads_to_the_same_places_and_holds_no_secret(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {
        "HEIMDALL_HOME": "here",
        "HEIMDALL_SCRATCH": "work",
        "HEIMDALL_TRACKING": "off",
        "HEIMDALL_EXECUTOR": "ray",
        "HEIMDALL_KUBERNETES": '{"image": "registry.example/heimdall:1", "env_secrets": ["heimdall"]}',
        "HEIMDALL_ACCELERATOR": '{"gpu_type": "NVIDIA-H200", "spot": true}',
    }
    secret = {
        "HEIMDALL_DATABASE_URL": "postgresql://me:hunter2@host/db",
        "HEIMDALL_LEDGER_URL": "postgresql://me:hunter2@host/ledger",
        "MLFLOW_TRACKING_URI": "http://me:hunter2@host",
        "HEIMDALL_WEBHOOK_URL": "http://host/hunter2",
        "HEIMDALL_OPENLINEAGE": "http://me:hunter2@host",
        "HEIMDALL_WITNESS": "s3://second/log,http://host/hunter2,/mnt/second",
    }
    places = read_places({**told, **secret})
    shared = places.share()
    assert "hunter2" not in str(shared)
    assert "hunter2" not in f"{places!r} {places}"
    assert read_places({**shared, **secret}) == places
    monkeypatch.chdir("/")  # a step elsewhere works in another folder
    assert read_places({**shared, **secret}) == places
    assert shared["HEIMDALL_SCRATCH"] == str(tmp_path / "work")


def test_without_variables_everything_lies_below_one_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = read_places({})
    home = tmp_path / ".heimdall"
    assert places.home == home
    assert places.database_url == f"sqlite:///{home}/heimdall.db"
    assert places.mlflow_uri == f"sqlite:///{home}/mlflow.db"
    assert [places.objects, places.models] == [home / "objects", home / "heimdall-models"]
    assert [places.recordings, places.scratch] == [home / "recordings", home / "scratch"]
    assert places.dagster_home == home / "dagster"
    assert (places.tracking, places.webhook_url) == (True, None)
    assert list(tmp_path.iterdir()) == []  # reading makes nothing
    assert read_places(dict.fromkeys(list_variables(), "")) == places  # an empty value is none


@pytest.mark.parametrize("variable", list_variables())
def test_every_variable_says_what_it_means(variable: str):
    field = list_variables()[variable]
    assert field.description
    assert find_kind(field).name


# --- folders: one rule for all


def test_the_folders_are_all_places_that_are_no_address():
    assert FOLDERS == [
        "HEIMDALL_HOME",
        "HEIMDALL_OBJECTS",
        "HEIMDALL_RECORDINGS",
        "HEIMDALL_MODELS",
        "HEIMDALL_SCRATCH",
        "HEIMDALL_CACHE",
        "DAGSTER_HOME",
    ]
    assert PLACES == ["HEIMDALL_OBJECTS", "HEIMDALL_RECORDINGS", "HEIMDALL_MODELS"]


@pytest.mark.parametrize("variable", FOLDERS)
@pytest.mark.parametrize(
    "address", ["s3://key:secret@bucket/x", "gs://secret", "http://secret/x", "sqlite:///secret", "s3:/secret"]
)
def test_an_address_of_something_else_is_no_folder(variable: str, address: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scheme = address.partition(":")[0]
    said = refuse(**{variable: address})
    if variable in PLACES:
        assert said.endswith("s3://BUCKET/PREFIX") or "found keys in an s3:// address" in said
        assert "secret" not in said.replace("s3:/secret", "")
    else:
        assert said == f"{variable}: found an address of {scheme}://, expected a local folder: a path or file:///PATH"
    result = CliRunner().invoke(main, ["models", "list"], env={variable: address})
    assert (result.exit_code, result.stderr) == (2, f"Error: {said}\n")
    assert list(tmp_path.iterdir()) == []  # nor is a folder made that is called so


@pytest.mark.parametrize("variable", FOLDERS)
def test_a_path_and_its_file_address_are_the_same_folder(variable: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a place"
    for address in (
        str(folder),
        "a place",
        f"file://{tmp_path}/a%20place",
        f"file://localhost{folder}",
        f"file:{folder}",
    ):
        assert read_folder(variable, address) == folder


@pytest.mark.parametrize("variable", FOLDERS)
@pytest.mark.parametrize("address", ["file://elsewhere/x", "file:///x?y", "file:///x#y", "file:///x%00y"])
def test_a_file_address_is_of_this_machine_and_nothing_more(variable: str, address: str):
    assert "expected a folder of this machine, file:///PATH" in refuse(**{variable: address})


@pytest.mark.parametrize("variable", FOLDERS)
def test_a_file_is_no_folder(variable: str, tmp_path: Path):
    (tmp_path / "file").touch()
    assert refuse(**{variable: str(tmp_path / "file")}).endswith(f"found a file at {tmp_path}/file, expected a folder")


@pytest.mark.parametrize("place", ["home", "objects", "recordings", "models", "scratch", "cache"])
def test_stores_keep_the_rule_for_whoever_configures_them_in_the_page(place: str, tmp_path: Path):
    names = ("home", "objects", "recordings", "models", "scratch", "cache")
    places = {name: str(tmp_path / name) for name in names}
    with pytest.raises(InvalidSetting, match=rf"{place}: found an address of gs://, expected a local folder"):
        open_stores(database_url=f"sqlite:///{tmp_path / 'h.db'}", cache_gb=1.0, **{**places, place: "gs://bucket"})
    assert list(tmp_path.iterdir()) == []


# --- buckets


@pytest.mark.parametrize("variable", PLACES)
def test_a_place_may_be_a_bucket_and_steps_elsewhere_find_it(variable: str):
    told = {variable: "s3://heimdall/some/prefix/", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000/"}
    assert read_folder(variable, told[variable]) == BucketAddress("heimdall", "some/prefix")
    places = read_places(told)
    shared = places.share()
    assert (shared[variable], shared["AWS_ENDPOINT_URL_S3"]) == ("s3://heimdall/some/prefix", "http://127.0.0.1:9000")
    assert read_places(shared) == places


@pytest.mark.parametrize("address", ["http://me:secret@host", "host:9000", "ftp://host", "http://host?a=secret"])
def test_the_address_of_a_service_names_no_user(address: str):
    said = refuse(AWS_ENDPOINT_URL_S3=address)
    assert said.endswith("expected an address such as http://127.0.0.1:9000")
    assert "me:secret" not in said


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "much"])
def test_the_cache_takes_a_number_of_gigabytes(size: str):
    assert refuse(HEIMDALL_CACHE_GB=size).endswith(f"found {size!r}, expected a number of gigabytes above 0")
    assert read_places({"HEIMDALL_CACHE_GB": "0.5"}).cache_gb == 0.5


@pytest.mark.parametrize("image", ["me:secret@registry.example/heimdall", "two words", "-x", "heimdall@sha256:12"])
def test_an_image_is_a_name_that_may_be_shown(image: str):
    said = refuse(HEIMDALL_IMAGE=image)
    assert said.endswith("expected a name such as registry.example/heimdall-assets:1")
    assert "secret" not in said
    named = f"registry.example:5000/heimdall-assets:1@sha256:{'0' * 64}"
    assert read_places({"HEIMDALL_IMAGE": named}).image == named


# --- a database of one table


def test_what_a_database_of_one_table_does_not_say_is_a_file_of_this_machine_and_an_offset(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = read_places({"HEIMDALL_RECEIVERS": "receivers.json", "HEIMDALL_TIME_ZONE": "+01:00"})
    assert (places.receivers, places.time_zone) == (tmp_path / "receivers.json", "+01:00")
    assert read_places(places.share()).receivers == tmp_path / "receivers.json"
    assert "expected a path of this machine" in refuse(HEIMDALL_RECEIVERS="s3://bucket/receivers.json")
    assert "expected UTC, or an offset such as +01:00" in refuse(HEIMDALL_TIME_ZONE="Europe/Rome")


# --- addresses


@pytest.mark.parametrize(
    "address", ["sqlite:////tmp/x.db", "sqlite+pysqlite:///x.db", "postgresql://me:pw@host/db", "postgres://host/db"]
)
def test_a_database_is_sqlite_or_postgresql(address: str):
    assert read_places({"HEIMDALL_DATABASE_URL": address}).database_url == address


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("mysql://me:secret@host/db", "an address of mysql://"),
        ("postgresql+asyncpg://me:secret@host/db", "an address of postgresql+asyncpg://"),
        ("s3://secret/db", "an address of s3://"),
        ("me:secret@host/db", "no address"),
        ("/var/secret.db", "no address"),
    ],
)
def test_another_database_is_refused_and_no_password_repeated(address: str, found: str):
    said = refuse(HEIMDALL_DATABASE_URL=address)
    assert said == f"HEIMDALL_DATABASE_URL: found {found}, expected sqlite:///FILE or postgresql://USER@HOST/NAME"


def test_a_database_address_that_cannot_be_read_repeats_no_password_even_with_a_traceback():
    for address in ("postgresql://me:secret@host:port/db", "postgresql://me:secret@[host/db", "sqlite://secret"):
        result = CliRunner().invoke(main, ["--debug", "models", "list"], env={"HEIMDALL_DATABASE_URL": address})
        assert result.exit_code == 2
        assert "Error: " in result.stderr
        assert "secret" not in result.stderr.replace("sqlite://secret", "")


@pytest.mark.parametrize(
    "address", ["http://me:pw@host:5000", "sqlite:////tmp/m.db", "mysql+pymysql://h/d", "databricks"]
)
def test_mlflow_has_more_kinds_of_stores(address: str):
    assert read_places({"MLFLOW_TRACKING_URI": address}).mlflow_uri == address


@pytest.mark.parametrize("address", ["s3://secret", "/srv/secret", "file:///secret"])
def test_mlflow_keeps_no_runs_in_folders_or_buckets(address: str):
    said = refuse(MLFLOW_TRACKING_URI=address)
    assert "expected http://HOST, sqlite:///FILE or postgresql://..." in said
    assert "secret" not in said


@pytest.mark.parametrize("address", ["http://secret:x", "https://", "http://secret:99999", "http://[secret"])
def test_mlflow_has_a_host_and_a_port_that_is_one(address: str):
    said = refuse(MLFLOW_TRACKING_URI=address)
    assert "expected http://HOST:PORT" in said
    assert "secret" not in said


@pytest.mark.parametrize("variable", ["HEIMDALL_LINEAGE_URL", "HEIMDALL_RAY_ADDRESS", "HEIMDALL_WEBHOOK_URL"])
@pytest.mark.parametrize("wrong", ["host:3001", "ftp://host", "http://", "http://host:port", "/srv", "https://:80"])
def test_a_web_address_is_whole(variable: str, wrong: str):
    assert "expected an address" in refuse(**{variable: wrong})


def test_web_addresses_are_taken_and_those_with_a_password_never_repeated():
    given = {
        "HEIMDALL_WEBHOOK_URL": "https://hooks.example/T0/secret?x=1#y",
        "HEIMDALL_RAY_ADDRESS": "ray://head:10001",
        "HEIMDALL_LINEAGE_URL": "https://models.example/lineage/",
    }
    places = read_places(given)
    assert places.webhook_url == given["HEIMDALL_WEBHOOK_URL"]
    assert places.ray_address == "ray://head:10001"
    assert places.lineage_url == "https://models.example/lineage"
    assert "secret" not in refuse(HEIMDALL_WEBHOOK_URL="hooks.example/secret")
    for variable in ("HEIMDALL_RAY_ADDRESS", "HEIMDALL_LINEAGE_URL"):  # what steps elsewhere are told holds no secret
        said = refuse(**{variable: "http://me:secret@host:8265"})
        assert said.startswith(f"{variable}: found an address with a user, expected an address such as http://")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("{", "HEIMDALL_RETRAIN: Invalid JSON: EOF"),
        ("[]", "HEIMDALL_RETRAIN: "),
        ('{"max_attempts": 0}', "HEIMDALL_RETRAIN.max_attempts: found 0, expected greater than or equal to 1"),
        (
            '{"max_retries": 2}',
            "HEIMDALL_RETRAIN.max_retries: no such setting, did you mean RetrainPolicy.max_attempts?",
        ),
    ],
)
def test_a_wrong_policy_is_one_line(policy: str, said: str):
    with pytest.raises(InvalidSetting) as caught:
        read_places({"HEIMDALL_RETRAIN": policy})
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("; expected JSON of RetrainPolicy")
    assert "\n" not in str(caught.value)
    assert read_places({"HEIMDALL_RETRAIN": '{"max_attempts": 2}'}).retrain.max_attempts == 2


# --- names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("HEIMDALL_OBJECT", "HEIMDALL_OBJECTS"),
        ("HEIMDALL_DB_URL", "HEIMDALL_DATABASE_URL"),
        ("HEIMDALL_MODEL", "HEIMDALL_MODELS"),
        ("heimdall_home", "HEIMDALL_HOME"),
        ("HEIMDALL_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
        ("HEIMDALL_DAGSTER_HOME", "DAGSTER_HOME"),
    ],
)
def test_a_name_like_ours_that_is_none_is_refused_with_the_nearest(typed: str, meant: str):
    assert refuse(**{typed: "secret"}) == (
        f"{typed}: no such variable, did you mean {meant}? (heimdall settings lists them)"
    )
    assert read_places({typed: ""}) == read_places({})


def test_a_name_like_none_is_refused_too_with_the_nearest():
    assert re.search(r"no such variable, did you mean [A-Z_]+\?", refuse(HEIMDALL_X="1"))


def test_other_programs_names_are_theirs():
    others = {"HEIMDALLR": "1", "MY_HEIMDALL_X": "1", "DAGSTER_X": "1", "MLFLOW_X": "1", "PATH": "/bin"}
    assert read_places({**others, **dict.fromkeys(OF_TESTS, "/somewhere")}) == read_places({})


def test_what_kubernetes_says_of_a_service_called_like_us_is_no_setting():
    links = {
        "HEIMDALL_SERVICE_HOST": "10.0.0.11",
        "HEIMDALL_SERVICE_PORT": "3000",
        "HEIMDALL_SERVICE_PORT_HTTP": "3000",
        "HEIMDALL_PORT": "tcp://10.0.0.11:3000",
        "HEIMDALL_PORT_3000_TCP": "tcp://10.0.0.11:3000",
        "HEIMDALL_PORT_3000_TCP_ADDR": "10.0.0.11",
        "HEIMDALL_PORT_3000_TCP_PORT": "3000",
        "HEIMDALL_PORT_3000_TCP_PROTO": "tcp",
        "HEIMDALL_DB_SERVICE_HOST": "10.0.0.12",
        "HEIMDALL_DB_PORT_5432_TCP_ADDR": "10.0.0.12",
    }
    assert read_places(links) == read_places({})
    refuse(HEIMDALL_PORT="3000")  # somebody's wish, which would be ignored


def test_every_name_in_the_tree_is_known():
    """Commands, tests and benchmarks hand their environment on: what one of them sets, none may refuse."""
    known = {*list_variables(), *OF_TESTS}
    found = set()
    for pattern in ("*.py", "*.md", "*.yaml", "*.toml", "Makefile"):
        for path in ROOT.rglob(pattern):
            if path != Path(__file__) and not set(path.relative_to(ROOT).parts) & {".venv", "shared", ".git"}:
                found |= set(re.findall(r"\bHEIMDALL_[A-Z][A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert found <= known, found - known
    read_places(os.environ)
