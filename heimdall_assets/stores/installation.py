"""Installation: which code and which packages are at work, as far as this machine can say."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from heimdall_assets.manifests import compute_digest, compute_json_digest

PACKAGE = Path(__file__).resolve().parents[1]
LOCK = PACKAGE.parent / "requirements.lock"


def read_version() -> str:
    """Return the version of this package; "unknown" where it was not installed but only put in the path."""
    try:
        return version("heimdall-assets")
    except PackageNotFoundError:
        return "unknown"


def describe_installation() -> dict[str, Any]:
    """Return lock digest, digest of the packages really installed, Python, git commit and whether it was edited.

    What cannot be known (an installation without git or lock beside it) is None.
    """
    packages = sorted({f"{item.metadata['Name'].lower()}=={item.version}" for item in distributions()})
    commit = _ask_git("rev-parse", "HEAD")
    edits = _ask_git("status", "--porcelain", "--untracked-files=no", "--", "heimdall_assets", "requirements.lock")
    return {
        "python": platform.python_version(),
        "lock_sha256": compute_digest(LOCK.read_bytes()) if LOCK.is_file() else None,
        "packages_sha256": compute_json_digest(packages),
        "git_sha": commit,
        "git_dirty": None if commit is None or edits is None else bool(edits),
    }


def _ask_git(*arguments: str) -> str | None:
    if not (PACKAGE.parent / ".git").exists():
        return None  # installed as a package: some other repository around it would answer
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
