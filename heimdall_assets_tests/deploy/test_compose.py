"""docker-compose.yaml: after its schema, hardened throughout, and nothing published but the proxy."""

import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner

from heimdall_assets.dagster_home import PATIENCE
from heimdall_assets.variables import list_variables
from heimdall_assets_tests.deploy.services import COMPOSE, NotSet, interpolate, list_references, read_compose
from heimdall_assets_tests.deploy.test_services import FILLED_IN
from heimdall_assets_tests.package_names import ROOT

SERVICES: dict[str, dict[str, Any]] = read_compose(FILLED_IN)["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
ONE_SHOT = ("bucket", "prepare")
LISTENING = [name for name in SERVICES if name not in ONE_SHOT]


def test_the_file_keeps_the_schema_of_compose(tmp_path):
    def check(path) -> int:
        return CliRunner().invoke(check_jsonschema, ["--builtin-schema", "vendor.compose-spec", str(path)]).exit_code

    assert check(COMPOSE) == 0
    (tmp_path / "wrong.yaml").write_text(COMPOSE.read_text().replace("read_only: true", "read_olny: true"))
    assert check(tmp_path / "wrong.yaml") == 1


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert not {"privileged", "pid", "ipc", "devices"} & service.keys()
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str):
    version = SERVICES[name]["image"].rpartition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-\w+)?", version), version


def test_only_the_proxy_is_published_and_can_be_reached_from_outside():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    networks = read_compose(FILLED_IN)["networks"]
    open_ones = {name for name, network in networks.items() if not network.get("internal")}
    assert {name for name, service in SERVICES.items() if open_ones & set(service.get("networks", []))} == {"proxy"}
    assert "inner" not in SERVICES["proxy"]["networks"]  # no way from the door to databases
    assert {name for name in SERVICES if "edge" in SERVICES[name].get("networks", [])} == {
        "proxy", "webserver", "auditor",
    }  # fmt: skip


@pytest.mark.parametrize("name", LISTENING)
def test_every_service_that_stays_says_whether_it_is_well(name: str):
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_nothing_starts_before_what_it_needs():
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = needed in ONE_SHOT
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name


def test_no_secret_stands_in_the_file_and_those_there_must_be_are_asked_for():
    text = COMPOSE.read_text()
    for name in ("POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        missing = {**FILLED_IN, name: ""}
        with pytest.raises(NotSet, match=f"{name}: set it in .env"):
            read_compose(missing)
    assert not re.search(r"(PASSWORD|SECRET|TOKEN|KEY)\w*: +(?!\$|/run/secrets/|token$)\S", text, re.MULTILINE)
    assert interpolate("a$$b ${X:-d} ${Y}", {"Y": "y"}) == "a$b d y"


@pytest.mark.parametrize("name", [name for name in OURS if name != "mlflow"])
def test_every_variable_reaches_every_service_of_ours(name: str):
    """But for KUBECONFIG, a file of a machine that compose does not run on, and what signs sessions of the pages."""
    told = SERVICES[name]["environment"].keys()
    assert list_variables().keys() - {"KUBECONFIG", "HEIMDALL_SESSION_SECRET"} <= told
    assert ("HEIMDALL_SESSION_SECRET" in told) == (name in ("webserver", "auditor"))
    assert PATIENCE.items() <= SERVICES[name]["environment"].items()


def test_the_workspace_leads_to_the_code_server():
    (place,) = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"]
    command = SERVICES[place["grpc_server"]["host"]]["command"]
    assert f"--port={place['grpc_server']['port']}" in command
    assert f"--location-name={place['grpc_server']['location_name']}" in command
    assert yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"] == {
        "module_name": next(word for word in command if word.startswith("--module-name=")).partition("=")[2],
        "location_name": place["grpc_server"]["location_name"],
    }


def test_the_proxy_leads_to_the_pages_and_asks_for_tls_everywhere():
    text = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    sites = re.findall(
        r"^https://\{\$(\w+)\} \{\n\timport common\n\treverse_proxy ([\w-]+):(\d+)\n\}", text, re.MULTILINE
    )
    assert [site for site, _, _ in sites] == ["SITE_HOST", "RELEASES_HOST", "AUDIT_HOST"]
    for site, service, port in sites:
        command = SERVICES[service]["command"]
        assert f"--port={port}" in command or f"--lineage-port={port}" in command
        assert ("--read-only" in command) == (site == "AUDIT_HOST")
    assert text.count("reverse_proxy") == len(sites)
    assert set(re.findall(r"\{\$(\w+)", text)) <= SERVICES["proxy"]["environment"].keys()
    assert list_references(COMPOSE.read_text()) >= {site for site, _, _ in sites}


def list_unknown(words: list[str]) -> set[str]:
    """Return the options of a command that its program does not have, as its own help says."""
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    program = Path(sys.executable).with_name(names[0])
    done = subprocess.run([program, *names[1:], "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    options = {word.partition("=")[0] for word in words if word.startswith("-")}
    return {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", done.stdout)}


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("part", ["command", "healthcheck"])
def test_a_command_is_one_of_its_program(name: str, part: str):
    """Each is also started, by ``test_services`` and ``test_gpu_worker``."""
    service = SERVICES[name]
    words = service["command"] if part == "command" else service[part].get("test", ["CMD"])[1:]
    if not words or words[0] == "python":
        return
    if not Path(sys.executable).with_name(words[0]).exists():
        pytest.skip(f"no {words[0]} here")
    assert list_unknown(words) == set()


def test_an_option_that_is_none_is_found():
    assert list_unknown(["dagster", "code-server", "start", "--prot=4000"]) == {"--prot"}
