"""What processes open, and which machines they look for: running a program under ``opened.c``, and reading its log."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from heimdall_assets_tests.package_names import ROOT

SOURCE = Path(__file__).with_name("opened.c")
WRITING, READING, LOOKING = {"write", "update"}, {"read", "update"}, {"resolve", "connect"}
SYSTEM = ("/bin/", "/dev/", "/etc/", "/lib", "/opt/", "/proc/", "/run/", "/sbin/", "/sys/", "/usr/", "/var/lib/")


@dataclass(frozen=True)
class Opened:
    """A line of the log: ``what`` was done (read, write, update; resolve, connect) to which file or machine."""

    what: str
    thing: str


class NoCompiler(Exception):
    """There is no C compiler here."""


def build_shim(folder: Path) -> Path:
    """Return the library that LD_PRELOAD names."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise NoCompiler("opened.c: wants Linux and a C compiler, cc")
    library = folder / "opened.so"
    told = ["-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run([compiler, *told], check=True, timeout=60)
    return library


def watch(shim: Path, root: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python as a user who has nothing yet: own folders, home and temporary folder below ``root``; log there too.

    No variable of this process is handed on: a switch that a test or a developer threw would prove nothing.
    """
    for name in ("user", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    given = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "LOKY_MAX_CPU_COUNT": "1",
        "HOME": str(root / "user"),
        "TMPDIR": str(root / "tmp"),
        "HEIMDALL_HOME": str(root / "home"),
        "OPENED_LOG": str(root / "opened.log"),
        "LD_PRELOAD": str(shim),
    }
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=given | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done


def read_log(log: Path) -> list[Opened]:
    """Return each different line once, in the order of the log."""
    lines = [line.split("\t", 2) for line in log.read_text(errors="surrogateescape").splitlines()]
    return list(dict.fromkeys(Opened(what, thing) for _, what, thing in lines))


@cache
def list_installed() -> tuple[str, ...]:
    """Return what the paths of Python, packages, this code and its commit, and the system's files begin with."""
    found = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, str(ROOT)}
    asked = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    if shutil.which("git") and (ROOT / ".git").exists():
        found.add(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=20).stdout.strip())
    return (*SYSTEM, *(f"{Path(path).resolve()}/" for path in found if path))
