"""A release answers in an environment that holds the four packages and this one, and is small."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from heimdall_assets.inference import Predictor, Receiver
from heimdall_assets_tests.inference.light import ASK, NEEDED, run_program
from heimdall_assets_tests.inference.test_predictor import ARRIVALS
from heimdall_assets_tests.package_names import ROOT

MOST_BYTES = 300_000_000


def install(python: Path, *what: str) -> None:
    """Install into an environment without pip of its own, by the pip of this process; skips where there is none."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    done = subprocess.run([*command, "--disable-pip-version-check", *what], capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"no package index answered: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no word'}")


def measure_bytes(folder: Path) -> int:
    """What an environment takes up on disk; links to the interpreter are not of it."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


@pytest.mark.long
def test_an_environment_of_four_packages_answers_and_is_small(released_home, tmp_path: Path):
    _, summary = released_home(tmp_path / "home")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    install(python, *(f"{name}=={version(name)}" for name in NEEDED))
    source = tmp_path / "source"
    copied = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True, timeout=60).stdout
    source.mkdir()
    subprocess.run(["tar", "-x", "-C", str(source)], input=copied, check=True, timeout=60)
    install(python, "--no-deps", str(source))
    (tmp_path / "asked.json").write_text(json.dumps(ARRIVALS))
    program = "import sys; sys.path = [p for p in sys.path if p != sys.argv[3]]\n" + ASK
    program += "print(json.dumps(ask(*sys.argv[1:3])))\nimport heimdall_assets; print(heimdall_assets.__file__)"
    asked = (summary["folder"], str(tmp_path / "asked.json"), str(ROOT))
    said, where = run_program(program, *asked, python=str(python), folder=tmp_path).splitlines()
    assert where.startswith(str(environment))
    expected = Predictor(summary["folder"]).locate([Receiver(**one) for one in ARRIVALS]).describe()
    assert json.loads(said) == json.loads(json.dumps(expected))
    assert measure_bytes(environment) < MOST_BYTES
