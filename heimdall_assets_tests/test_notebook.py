"""The notebook of the examples: valid, without outputs, and every cell runs in a fresh interpreter."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets_tests.documents import ROOT

NOTEBOOK = ROOT / "examples" / "training.ipynb"
RUN = """
import json, sys
cells = [cell for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
space = {"__name__": "__main__"}
for number, cell in enumerate(cells):
    exec(compile("".join(cell["source"]), f"<cell {number}>", "exec"), space)
"""


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def test_it_is_a_notebook_of_format_4_without_what_a_run_left(notebook):
    """What nbformat's schema asks of version 4.5: these keys and no others, unique ids, sources as lists of lines."""
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids))
    for cell in notebook["cells"]:
        of_code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source", *of_code}
        assert cell["cell_type"] in {"code", "markdown"}
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        assert cell["metadata"] == {}
        if of_code:
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
            ast.parse("".join(cell["source"]))


def test_every_cell_runs(tmp_path: Path):
    named = {**os.environ, "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path), "HEIMDALL_TRACKING": "off"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", RUN, str(NOTEBOOK)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=tmp_path,
        env=named,
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "24 sessions, 96 recordings",
        "(3, 128, 32) torch.float32",
        "because a first look",
        "validation: median",
    ):
        assert said in done.stdout, done.stdout
    assert list(tmp_path.glob("**/heimdall-models")) == []  # its home is gone with it
