"""The house keeps its floors: imports go down only and never in a circle, and each floor does only what is its own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heimdall_assets_tests.effects import find_clock_reads, find_connections, find_writes
from heimdall_assets_tests.package_names import PACKAGE, read_floors

FLOORS = {floor: set(rooms) for floor, rooms in read_floors().items()}
ORDER = list(FLOORS)
HEAVY = ("torch", "lightning", "mlflow", "onnx", "onnxruntime", "timm", "ray")
"""What only a running step may load."""
SLOW = (
    *HEAVY, "pandas", "pyarrow", "scipy", "sqlalchemy", "alembic", "joblib", "pyproj", "matplotlib", "jinja2",
    "jsonschema", "requests", "rich", "sigmf", "boto3", "botocore", "obstore",
)  # fmt: skip
"""What neither listing the graph nor asking for help waits for."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(room: str) -> int:
    return next(index for index, name in enumerate(ORDER) if room in FLOORS[name])


def test_every_room_has_its_floor_and_every_floor_its_rooms():
    assert ORDER == ["words", "work", "world", "pipeline", "graph"]
    rooms = [room for rooms in FLOORS.values() for room in rooms]
    assert sorted(rooms) == sorted({room_of(path) for path in MODULES} - {"__init__"})


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


def floor_of_file(path: Path) -> int:
    return -1 if path == PACKAGE / "__init__.py" else floor_of(room_of(path))


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"], ids=str
)
def test_imports_go_down_only(path: Path):
    here = floor_of(room_of(path))
    for module in list_imports(path):
        if module.startswith("heimdall_assets."):
            room = module.split(".")[1]
            assert floor_of(room) <= here, f"{path.name} ({ORDER[here]}) imports {module} ({ORDER[floor_of(room)]})"


def list_module_imports() -> dict[str, set[str]]:
    """Every module of the package -> the package's modules that it imports, at the top or inside a function."""
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found[name] |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
        found[name] &= names.keys() - {name, "heimdall_assets"}
    return found


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """Return what leads into a circle, none where there is none: what is left once leaves are taken off."""
    left = {name: set(targets) for name, targets in imports.items()}
    while leaves := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in leaves}
    return sorted(left)


def test_no_two_modules_and_no_two_rooms_import_each_other():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    imports = list_module_imports()
    assert find_circle(imports) == []
    rooms: dict[str, set[str]] = {}
    for name, targets in imports.items():
        here = find_room(name)
        rooms.setdefault(here, set()).update(find_room(target) for target in targets if find_room(target) != here)
    assert find_circle(rooms) == []


def find_room(module: str) -> str:
    """Return the folder that a module lies in; a file at the top is a room of its own."""
    inside = module.removeprefix("heimdall_assets.")
    if (PACKAGE / inside.replace(".", "/")).is_dir():
        return inside
    return inside.rpartition(".")[0] or inside


def test_no_room_holds_more_than_25_files():
    counts = {folder: len(list(folder.glob("*.py"))) for folder in {path.parent for path in MODULES}}
    assert {str(folder): count for folder, count in counts.items() if count > 25} == {}


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) == "stores"], ids=str)
def test_stores_import_words_only(path: Path):
    for module in list_imports(path):
        if module.startswith("heimdall_assets."):
            room = module.split(".")[1]
            assert room == "stores" or room in FLOORS["words"], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_graph_names_dagster(path: Path):
    if path.parent == PACKAGE and path.stem == "__init__":
        assert not list_imports(path), "the package itself imports nothing"
    elif floor_of(room_of(path)) < floor_of("defs"):
        assert not [name for name in list_imports(path) if name.split(".")[0].startswith("dagster")]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_learning_imports_torch(path: Path):
    torch = {name for name in list_imports(path) if name.split(".")[0] in {"torch", "lightning"}}
    assert room_of(path) == "learning" or not torch


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_room_is_called_utils_and_no_pickle_is_loaded(path: Path):
    assert not {"utils", "helpers", "misc", "common"} & {part.removesuffix(".py") for part in path.parts[-3:]}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.literal_eval(node.value) is False
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            assert ast.literal_eval(node.value) is True
    assert not {"pickle", "cloudpickle", "dill"} & {name.split(".")[0] for name in list_imports(path)}


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) != "stores"], ids=str)
def test_only_stores_change_files(path: Path):
    """No exception: graph, which shows and starts what the others make, hands its bytes to stores as they do.

    What Dagster and MLflow keep of their own (runs, events, logs) they write themselves, wherever they were told to.
    """
    assert find_writes(path.read_text()) == []


def test_stores_are_seen_to_change_files():
    assert find_writes((PACKAGE / "stores" / "objects" / "files.py").read_text())


@pytest.mark.parametrize("path", [path for path in MODULES if floor_of_file(path) < floor_of("defs")], ids=str)
def test_below_the_graph_only_stores_reach_other_machines_and_read_the_clock(path: Path):
    """Graph serves its pages, posts to the webhook and asks a cluster to run steps; no result comes from there."""
    if room_of(path) != "stores":
        assert find_connections(path.read_text()) == []
        assert find_clock_reads(path.read_text()) == []


def test_a_whole_run_changes_files_through_stores_alone(tmp_path: Path):
    """Whatever libraries do behind their calls: of a run from sessions to a release, each change of a file is seen."""
    done = subprocess.run(
        [sys.executable, "-m", "heimdall_assets_tests.watched_run", str(tmp_path / "home")],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "LOKY_MAX_CPU_COUNT": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def list_loaded(program: str, folder: Path, **environment: str) -> set[str]:
    """Top-level packages that a fresh process has loaded after ``program``."""
    program += '\nimport sys; print("loaded", *{name.split(".")[0] for name in sys.modules})'
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=folder,
        timeout=120,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_listing_the_graph_loads_nothing_that_only_running_it_needs(tmp_path: Path):
    program = """
from heimdall_assets.definitions import defs
repository = defs().get_repository_def()
assert len(repository.asset_graph.get_all_asset_keys()) >= 12
"""
    loaded = list_loaded(program, tmp_path)
    assert "dagster" in loaded
    assert not loaded & set(SLOW)


def test_help_and_the_list_of_models_load_no_dagster_and_no_pandas(tmp_path: Path):
    loaded = list_loaded("from heimdall_assets.cli import main; main(['--help'], standalone_mode=False)", tmp_path)
    assert "click" in loaded
    assert not loaded & {"dagster", "pydantic_settings", *SLOW}
    program = "from heimdall_assets.cli import main; main(['models', 'list'], standalone_mode=False)"
    loaded = list_loaded(program, tmp_path, HEIMDALL_HOME=str(tmp_path / "home"))
    assert "sqlalchemy" in loaded  # it did ask the database
    assert not loaded & {"dagster", "pandas", "pyarrow", "scipy", *HEAVY}


def test_loading_reads_no_environment_and_writes_nothing(tmp_path: Path):
    """In a fresh process: which variables are asked for while modules load."""
    program = """
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
ours = [name for name in asked if name.startswith(("HEIMDALL", "MLFLOW", "DAGSTER_HOME"))]
assert not ours, ours
heimdall_assets.definitions.defs()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=120)
    assert list(tmp_path.iterdir()) == []  # loading writes nothing


def test_onnx_runtime_is_imported_in_one_place_and_told_to_report_to_nobody_before():
    """It reports when it is imported; so whoever makes a session passes there. Types are no import."""
    found = []
    for path in MODULES:
        text = path.read_text()
        tree = ast.parse(text if "onnxruntime" in text else "")
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            names = [ast.unparse(line) for line in function.body]
            if "import onnxruntime" in names:
                assert "silence_libraries()" in names[: names.index("import onnxruntime")], path
                found.append((path.relative_to(PACKAGE).as_posix(), function.name))
        top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert "onnxruntime" not in top, path
    assert found == [("learning/export/runtime.py", "open_graph")]
    importing = {
        path.stem for path in MODULES if any(name.split(".")[0] == "onnxruntime" for name in list_imports(path))
    }
    assert importing == {"runtime", "onnx_file"}  # which names a type


@pytest.mark.parametrize("library", ["mlflow", "huggingface_hub"])
def test_who_imports_what_reports_switches_it_off_before(library: str):
    for path in MODULES:
        if any(name.split(".")[0] == library for name in list_imports(path)):
            assert {"silence_libraries()", "prepare_mlflow()"} & set(path.read_text().split()), path
