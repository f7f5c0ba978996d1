""".env.example and dagster.yaml of ``deploy/``: what the code reads, all of it, and no secret."""

import re
from itertools import pairwise

import yaml

from heimdall_assets.dagster_home import SETTINGS, render_settings
from heimdall_assets.places import read_places
from heimdall_assets.variables import list_variables
from heimdall_assets_tests.deploy.services import COMPOSE, list_references
from heimdall_assets_tests.package_names import ROOT

DEPLOY = ROOT / "deploy"
LINES = (DEPLOY / ".env.example").read_text().splitlines()
NAMED = {match[2]: match[3] for line in LINES if (match := re.fullmatch(r"(#?)([A-Z][A-Z0-9_]*)=(.*)", line))}


def test_the_example_names_every_variable_and_nothing_else():
    others = {"PGPASSWORD"}  # libpq's own
    assert NAMED.keys() == list_variables().keys() | list_references(COMPOSE.read_text()) | others


def test_every_variable_has_a_comment_above_it():
    for before, line in pairwise(LINES):
        if re.match(r"#?[A-Z][A-Z0-9_]*=", line):
            assert re.match(r"# \S", before), line


def test_no_value_is_a_secret():
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|WEBHOOK")
    assert {name: value for name, value in NAMED.items() if secret.search(name) and value} == {}
    assert not [value for value in NAMED.values() if re.search(r"://[^/]*:[^/]*@", value)]


def test_what_the_example_suggests_is_what_the_code_takes():
    own = {name: value for name, value in NAMED.items() if name in list_variables()}
    places = read_places({**own, "HEIMDALL_LINEAGE_URL": "https://releases.example.org"})
    assert str(places.compute_logs) == "s3://heimdall/logs"


def test_dagster_yaml_is_what_a_home_is_given_for_postgresql_and_s3():
    """Where it differs, write it anew: it is ``render_settings`` of the two addresses of .env.example."""
    told = {name: NAMED[name] for name in ("HEIMDALL_DAGSTER_URL", "HEIMDALL_COMPUTE_LOGS")}
    assert (DEPLOY / "dagster.yaml").read_text() == render_settings(read_places(told))


def test_the_chart_gives_the_same_dagster_yaml():
    """Less telemetry, which it says itself, and with runs as jobs."""
    values = yaml.safe_load((DEPLOY / "k8s" / "helm-values.yaml").read_text())
    wanted = yaml.safe_load(SETTINGS)
    assert values["telemetry"] == wanted.pop("telemetry")
    assert values["additionalInstanceConfig"] == wanted
    # What the chart would say of the same beside it, it must not: a name twice in one file.
    for part in ("runCoordinator", "runMonitoring", "runRetries"):
        assert values["dagsterDaemon"][part] == {"enabled": False}
    assert values["retention"] == {"enabled": False}
    told = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())["compute_logs"]["config"]
    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert told == {
        "bucket": logs["bucket"],
        "prefix": logs["prefix"],
        "skip_empty_files": logs["skipEmptyFiles"],
        "upload_interval": logs["uploadInterval"],
    }
