"""The site is built strictly, by the command that ``make docs`` runs: a link that leads nowhere fails it."""

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heimdall_assets_tests.package_names import ROOT, read_modules

if importlib.util.find_spec("mkdocs") is None:
    pytest.skip("mkdocs is not installed: heimdall-assets[docs]", allow_module_level=True)

SITE = ROOT / "docs" / "site"


def read_command() -> list[str]:
    """Arguments of mkdocs in the Makefile."""
    (line,) = re.findall(r"^\t.*/mkdocs (build .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return shlex.split(line)


def test_several_names_of_one_entry_are_described_each():
    describe_each = runpy.run_path(str(SITE / "docstrings.py"))["describe_each"]
    text = "Args:\n    latitude, longitude: degrees,\n        of the centre.\n    up: metres."
    each = "    latitude: degrees,\n        of the centre.\n    longitude: degrees,\n        of the centre."
    assert describe_each(text) == f"Args:\n{each}\n    up: metres."


def test_every_module_is_in_the_reference():
    pages = runpy.run_path(str(SITE / "hooks.py"))["list_pages"]()
    shown = [module for rooms in pages.values() for modules in rooms.values() for module in modules]
    there = [f"heimdall_assets.{name}" for name in read_modules() if name and "migrations" not in name]
    assert sorted(shown) == sorted(there)


def test_a_link_that_leads_nowhere_fails(tmp_path: Path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("heimdall_assets", "examples", "CONTRIBUTING.md", "CHANGELOG.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    with (tmp_path / "docs" / "glossary.md").open("a") as page:
        page.write("\n[there](nowhere.md)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *read_command()],
        check=False,
        cwd=tmp_path,
        timeout=300,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1, done.stderr
    assert "nowhere.md" in warnings[0]
    assert done.returncode != 0
