"""The house keeps its floors: imports go down only, Dagster is named upstairs only, nothing is read at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "heimdall_assets"
FLOORS = {
    "words": {"domain", "specs", "manifests", "errors"},
    "work": {"signals", "locating", "simulation", "learning", "lineage"},
    "world": {"stores"},
    "graph": {"defs", "definitions", "places", "cli"},
}
ORDER = list(FLOORS)
HEAVY = ("torch", "lightning", "mlflow", "onnx", "onnxruntime", "timm", "ray")
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(room: str) -> int:
    return next(index for index, name in enumerate(ORDER) if room in FLOORS[name])


def list_imports(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"], ids=str
)
def test_imports_go_down_only(path: Path):
    here = floor_of(room_of(path))
    for module in list_imports(path):
        if module.startswith("heimdall_assets."):
            room = module.split(".")[1]
            assert floor_of(room) <= here, f"{path.name} ({ORDER[here]}) imports {module} ({ORDER[floor_of(room)]})"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_graph_names_dagster(path: Path):
    if path.parent == PACKAGE and path.stem == "__init__":
        assert not list_imports(path), "the package itself imports nothing"
    elif floor_of(room_of(path)) < floor_of("defs"):
        assert not [name for name in list_imports(path) if name.split(".")[0].startswith("dagster")]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_is_called_utils_and_no_pickle_is_loaded(path: Path):
    assert not {"utils", "helpers", "misc", "common"} & {part.removesuffix(".py") for part in path.parts[-3:]}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.literal_eval(node.value) is False
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            assert ast.literal_eval(node.value) is True
    assert not {"pickle", "cloudpickle", "dill"} & {name.split(".")[0] for name in list_imports(path)}


def test_definitions_load_without_heavy_packages_and_without_reading_the_environment(tmp_path: Path):
    """In a fresh process: what is imported, and which variables are asked for while modules load."""
    program = f"""
import os, sys
asked = []
class Watched(dict):
    def get(self, name, default=None):
        asked.append(name); return super().get(name, default)
    def __getitem__(self, name):
        asked.append(name); return super().__getitem__(name)
# What other packages read while they load is their habit, not ours: load them before watching.
import dagster, sqlalchemy, pandas, scipy, pyproj, pyarrow, click, rich, joblib, alembic, sigmf, jinja2, yaml
real = os.environ
os.environ = Watched(real)
import heimdall_assets.definitions, heimdall_assets.cli
os.environ = real
heavy = sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY!r}))
assert not heavy, heavy
ours = [name for name in asked if name.startswith(("HEIMDALL", "MLFLOW", "DAGSTER_HOME"))]
assert not ours, ours
heimdall_assets.definitions.defs()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=120)
    assert list(tmp_path.iterdir()) == []  # loading writes nothing
