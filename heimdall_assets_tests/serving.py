"""``heimdall ui`` as a process of its own, for tests: free ports, own process group, ended as a whole."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heimdall_assets_tests.servers import find_free_port

START_S = 300.0  # two busy cores take a minute or more
STOP_S = 90.0


@dataclass
class Page:
    """A running ``heimdall ui``."""

    address: str
    lineage_address: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def list_processes(self) -> list[int]:
        """Return every process, of whatever group, that works on this home for this page."""
        mark = f"HEIMDALL_LINEAGE_URL={self.lineage_address}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """End everything at once, as a power cut does."""
        for pid in [self.process.pid, *self.list_processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """End it as ``kill PID`` does; return its exit status once no process of it is left."""
        self.process.terminate()
        return self._wait()

    def interrupt(self) -> int:
        """End it as Ctrl+C in its terminal does, which tells its whole group; return as ``stop`` does."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self._wait()

    def _wait(self) -> int:
        status = self.process.wait(STOP_S)
        wait_for(lambda: not self.list_processes(), STOP_S, "its processes to end")
        return status


def wait_for(happens, seconds: float, what: str, log: Path | None = None, every_s: float = 1.0) -> float:
    """Return after how many seconds ``happens()`` was true; fail with the end of ``log`` where it never was."""
    began = time.monotonic()
    while not happens():
        said = "" if log is None else log.read_text(errors="replace")[-4000:]
        assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}\n{said}"
        time.sleep(every_s)
    return time.monotonic() - began


@contextmanager
def run_page(home: Path, settings: Mapping[str, str] | None = None, lineage_port: int | None = None) -> Iterator[Page]:
    """Give ``heimdall ui`` on ``home`` once it answers; everything of it has ended afterwards."""
    port, lineage_port = find_free_port(), lineage_port or find_free_port()
    path = home / f"page-{port}.log"
    ours = ("DAGSTER_HOME", "HEIMDALL_LINEAGE_URL")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    program = Path(sys.executable).with_name("heimdall")  # what `make ui` runs
    command = [str(program), "ui", "--port", str(port), "--lineage-port", str(lineage_port)]
    with path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**inherited, "HEIMDALL_HOME": str(home), **(settings or {})},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        page = Page(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{lineage_port}", path, process)
        try:
            wait_for(lambda: answers(page), START_S, "the page to open", path)
            yield page
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
            page.kill()


def answers(page: Page) -> bool:
    """Return whether the page is there; fail where its process has ended."""
    assert page.process.poll() is None, page.log.read_text(errors="replace")[-4000:]
    try:
        with urllib.request.urlopen(f"{page.address}/server_info", timeout=10):
            return True
    except urllib.error.HTTPError:
        return True  # it asks for a name
    except OSError:
        return False
