"""Installation: which code and which packages are at work, as far as this machine can say."""

import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from heimdall_assets.manifests import compute_digest

PACKAGE = Path(__file__).resolve().parents[1]
LOCK = PACKAGE.parent / "requirements.lock"


def read_version() -> str:
    """Return the version of this package; "unknown" where it was not installed but only put in the path."""
    try:
        return version("heimdall-assets")
    except PackageNotFoundError:
        return "unknown"


def describe_installation() -> dict[str, Any]:
    """Return lock digest, the packages really installed, Python, git commit, whether it was edited, digest of the code.

    What cannot be known (an installation without git or lock beside it) is None. The digest of the code is known
    always; files that git does not know count as edited, for Python imports them as well.
    """
    commit = _ask_git("rev-parse", "HEAD")
    edits = _ask_git("status", "--porcelain", "--untracked-files=all", "--", "heimdall_assets", "requirements.lock")
    return {
        "python": platform.python_version(),
        "packages": list_packages(),
        "lock_sha256": compute_digest(LOCK.read_bytes()) if LOCK.is_file() else None,
        "git_sha": commit,
        "git_dirty": None if commit is None or edits is None else bool(edits),
        "code_sha256": compute_code_digest(PACKAGE),
    }


def list_packages() -> list[str]:
    """Return the packages really installed, ``name==version`` in order, names as indexes normalize them (PEP 503).

    They stand in the names of folders (PEP 376), whose files take a third of a second to parse.
    """
    names = {path.name for folder in sys.path for path in Path(folder or ".").glob("*.dist-info")}
    found = {tuple(name.removesuffix(".dist-info").rsplit("-", 1)) for name in names}
    pairs = [pair for pair in found if len(pair) == 2] + [("heimdall-assets", read_version())]
    return sorted({f"{re.sub(r'[-_.]+', '-', name).lower()}=={number}" for name, number in pairs})


def compute_code_digest(package: Path) -> str:
    """Return the SHA-256 over name and SHA-256 of each file of a package that decides what it does.

    It is that of ``sha256sum`` over these files, in the order of their names.
    """
    files = sorted(
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    lines = [f"{compute_digest((package / name).read_bytes())}  {name}\n" for name in files]
    return compute_digest("".join(lines).encode())


def _ask_git(*arguments: str) -> str | None:
    if not (PACKAGE.parent / ".git").exists():
        return None  # installed as a package: some other repository around it would answer
    try:
        done = subprocess.run(
            # No lock: git would write its index anew, into a checkout that somebody else may be working in.
            ["git", "--no-optional-locks", *arguments],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
