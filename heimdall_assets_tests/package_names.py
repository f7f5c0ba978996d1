"""What names there are in the package: its modules and what each of them defines, read without importing any."""

import ast
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "heimdall_assets"
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Module:
    """One file of the package."""

    path: Path
    tree: ast.Module
    defined: set[str] = field(default_factory=set)
    """Functions, classes with their members, and what is assigned at the top."""
    imported: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    """What its functions call their arguments."""

    def list_docstrings(self) -> list[tuple[str, str]]:
        """Every docstring, each with the name of what it belongs to."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, DEFINITIONS) and (text := ast.get_docstring(node)) is not None:
                found.append((getattr(node, "name", "module"), text))
        return found


@cache
def read_floors() -> dict[str, list[str]]:
    """Floor -> its rooms, from the words to the graph, as the package's own docstring says: the one place for it."""
    text = " ".join((ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())) or "").split())
    floors = re.findall(r"\d\. (\w+) ((?:``\w+`` ?)+):", text)
    return {floor: re.findall(r"\w+", rooms) for floor, rooms in floors}


@cache
def read_modules() -> dict[str, Module]:
    """Dotted name below the package -> module; the package itself is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        module = Module(path, ast.parse(path.read_text()))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                module.defined.add(node.name)
            if isinstance(node, ast.ClassDef):
                members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                module.defined |= {f"{node.name}.{member}" for member in members | _list_assigned(node.body)}
            if isinstance(node, ast.Import | ast.ImportFrom):
                module.imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            if isinstance(node, ast.arg):
                module.variables.add(node.arg)
        module.defined |= _list_assigned(module.tree.body)
        found[name.removesuffix("__init__").removesuffix(".")] = module
    return found


def _list_assigned(body: list[ast.stmt]) -> set[str]:
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def resolve(name: str, here: str) -> str | None:
    """Return the module, or the member of one, that ``name`` means in the module ``here``; None: there is none.

    A name is looked for in the module itself, beside it and above it; what it imports counts. Elsewhere a module goes
    by the end of its path that is its alone, such as ``intake.files``, and a class with a member by its own name.
    """
    modules = read_modules()
    parts = here.split(".") if here else []
    for depth in range(len(parts), -1, -1):
        if (found := _find(".".join([*parts[:depth], name]))) is not None:
            return found
    if name in modules[here].imported:
        return name
    if "." in name:
        ends = {found for module in modules if (found := _match_end(module, name)) is not None}
        return ends.pop() if len(ends) == 1 else None
    return None


def _find(full: str) -> str | None:
    modules = read_modules()
    if full in modules:
        return full
    holders = [full.rsplit(".", count)[0] for count in (1, 2) if full.count(".") >= count]
    return full if any(full[len(name) + 1 :] in modules[name].defined for name in holders if name in modules) else None


def _match_end(module: str, name: str) -> str | None:
    """Return what ``name`` means where it starts with the end of this module's path, or is a member of its class."""
    defined, parts = read_modules()[module].defined, module.split(".")
    if name in defined:
        return f"{module}.{name}"
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if name == end or (name.startswith(f"{end}.") and name[len(end) + 1 :] in defined):
            return f"{module}{name[len(end) :]}"
    return None


def list_quoted(text: str) -> list[str]:
    """Return what stands between double backticks and looks like a name, dots included."""
    return re.findall(r"``([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)``", text)
