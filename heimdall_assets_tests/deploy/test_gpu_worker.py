"""The GPU worker of docker-compose.yaml by its own command: a Ray for holders of the token. There is no GPU here."""

import importlib.util
import secrets
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from heimdall_assets_tests.deploy.services import Machine, read_compose
from heimdall_assets_tests.deploy.test_services import FILLED_IN

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here: heimdall-assets[ray]")
def test_the_worker_listens_and_gives_nothing_without_the_token(tmp_path: Path):
    token = secrets.token_hex(32)
    service = read_compose({**FILLED_IN, "RAY_AUTH_TOKEN": token})["services"]["gpu-worker"]
    assert service["environment"]["RAY_AUTH_TOKEN"] == token
    machine = Machine(tmp_path, {"RAY_TMPDIR": "/tmp"})
    with machine.start("gpu-worker", service):
        address = f"http://127.0.0.1:{machine.find_port('gpu-worker', '8265')}/api/jobs/"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address, timeout=30)
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
