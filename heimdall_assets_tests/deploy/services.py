"""The services of docker-compose.yaml as processes of this machine: their own commands, on free ports.

Belongs here: reading that file as compose does, and starting one service's command and health check. Does not belong
here: what must hold of them (``test_compose``, ``test_services``).
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from heimdall_assets_tests.package_names import ROOT
from heimdall_assets_tests.servers import die_with_parent, find_free_port
from heimdall_assets_tests.serving import wait_for

COMPOSE = ROOT / "deploy" / "docker-compose.yaml"
STOP_S = 60.0
_REFERENCE = re.compile(r"\$(\$|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<text>[^}]*))?\})")


class NotSet(Exception):
    """A variable that compose cannot do without is not set; the message says which."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return ``text`` with ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as compose fills them in.

    Raises:
        NotSet: a variable with a message is not set, or is empty.
    """

    def fill(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        value = variables.get(match["name"], "")
        if not value and match["how"] == "?":
            raise NotSet(f"{match['name']}: {match['text']}")
        return value or (match["text"] if match["how"] == "-" else "")

    return _REFERENCE.sub(fill, text)


def list_references(text: str) -> set[str]:
    """Return the names of the variables that ``text`` is filled in with."""
    return {match["name"] for match in _REFERENCE.finditer(text) if match["name"]}


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return docker-compose.yaml, filled in."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return interpolate(value, variables)
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return dict(walk(yaml.safe_load(COMPOSE.read_text())))


@dataclass
class Machine:
    """One machine that plays the network of the containers.

    Attributes:
        folder: the volume ``home``, and logs of services.
        environment: what every service is told here, after what its own file says.
        ports: (service, its port in a container) -> port here; a service is reached by others on the same.
    """

    folder: Path
    environment: dict[str, str]
    ports: dict[tuple[str, str], int] = field(default_factory=dict)

    def find_port(self, service: str, port: str) -> int:
        """Return the port here of a service's port in its container."""
        return self.ports.setdefault((service, port), find_free_port())

    def translate(self, word: str, service: str) -> str:
        """Return a word of a command as it is meant here: this machine's address, its ports and its files."""
        for port in re.findall(r"\b(?:3000|3001|4000|5000|8265)\b", word):
            word = word.replace(port, str(self.find_port(service, port)))
        word = word.replace("0.0.0.0", "127.0.0.1").replace("mlflow:", "127.0.0.1:")
        word = word.replace("/opt/heimdall/workspace.yaml", str(self.folder / "workspace.yaml"))
        return word.replace("/tmp/artifacts", str(self.folder / "artifacts"))

    def write_workspace(self) -> None:
        """Write deploy/workspace.yaml as it is meant here."""
        told = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
        server = told["load_from"][0]["grpc_server"]
        port = self.find_port(server["host"], str(server["port"]))
        server.update(host="127.0.0.1", port=port)
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump(told))

    def build_command(self, words: list[str], service: str) -> list[str]:
        """Return a command of a container as it runs here, with the programs of this environment."""
        program, *rest = [self.translate(word, service) for word in words]
        return [str(Path(sys.executable).with_name(program)), *rest]

    def build_environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """Return the variables of a service here; a value that leads to a container leads to this machine's servers."""
        told = {name: str(value) for name, value in service.get("environment", {}).items()}
        return {**{n: v for n, v in os.environ.items() if not n.startswith("HEIMDALL_")}, **told, **self.environment}

    def run(
        self, name: str, service: Mapping[str, Any], words: list[str], seconds: float = 300.0
    ) -> "subprocess.CompletedProcess":
        """Return how a command of a service ended."""
        return subprocess.run(
            self.build_command(words, name),
            env=self.build_environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def is_healthy(self, name: str, service: Mapping[str, Any]) -> bool:
        """Return whether a service's own health check passes."""
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD", service["healthcheck"]
        return self.run(name, service, words).returncode == 0

    @contextmanager
    def start(self, name: str, service: Mapping[str, Any], seconds: float = 240.0) -> Iterator[Path]:
        """Give the log of a service that runs, once its own health check passes; it has ended afterwards."""
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self.build_command(service["command"], name),
                env=self.build_environment(service),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:

            def is_up() -> bool:
                assert process.poll() is None, f"{name} ended\n{path.read_text(errors='replace')[-4000:]}"
                return self.is_healthy(name, service)

            wait_for(is_up, seconds, f"{name} to be healthy", path)
            yield path
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
