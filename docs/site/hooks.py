"""What the site is made of beside the pages in ``docs``: a page of reference for each room, and the files at the top.

Every module of the package is in the reference, in the order of the floors that the package's docstring names, so that
nobody keeps a list. Modules are read, not imported.
"""

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "heimdall_assets"
TOP_FILES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
RELEASE_FORMAT = "reference/release-format.md"
LEFT_OUT = ("migrations",)


def read_docstring(path: Path) -> str:
    """Return what a module says of itself."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def list_rooms() -> dict[str, list[str]]:
    """Return floor -> its top-level rooms, words to graph, as the package's docstring says."""
    text = " ".join(read_docstring(PACKAGE / "__init__.py").split())
    floors = re.findall(r"\d\. (\w+) ((?:``\w+`` ?)+):", text)
    return {floor: re.findall(r"\w+", rooms) for floor, rooms in floors}


def list_pages() -> dict[str, dict[str, list[str]]]:
    """Return floor -> room, folders below it too -> its modules, dotted names; words share one page."""
    found: dict[str, dict[str, list[str]]] = {}
    for floor, rooms in list_rooms().items():
        files = [f"heimdall_assets.{room}" for room in rooms if (PACKAGE / f"{room}.py").is_file()]
        found[floor] = {floor: files} if files else {}
        for room in rooms:
            for folder in sorted([PACKAGE / room, *(PACKAGE / room).rglob("*")]):
                modules = sorted(path for path in folder.glob("*.py") if folder.is_dir())
                if modules and not set(LEFT_OUT) & set(folder.parts):
                    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
                    name = ".".join(folder.relative_to(PACKAGE).parts)
                    found[floor][name] = [module.removesuffix(".__init__") for module in dotted]
    return found


def write_page(room: str, modules: list[str]) -> str:
    """Return the page of one room: what the room itself says, then each module."""
    blocks = []
    for module in modules:
        own = "    options: {show_root_heading: false}\n" if module.endswith(f".{room}") else ""
        blocks.append(f"::: {module}\n{own}")
    return "\n".join([f"# {room}\n", *blocks])


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add what this machine's tree holds to the navigation."""
    assert config.nav is not None
    pages = {floor: [{room: f"reference/api/{room}.md"} for room in rooms] for floor, rooms in list_pages().items()}
    reference = [{title: name} for name, title in list_written(ROOT / "docs" / "reference", "reference").items()]
    reference.append({"Format of a release": RELEASE_FORMAT})
    guides = [{title: name} for name, title in list_written(ROOT / "docs" / "how-to", "how-to").items()]
    config.nav.insert(2, {"Reference": [*reference, {"Python": [{floor: rooms} for floor, rooms in pages.items()]}]})
    config.nav[-1]["For contributors"][1:1] = guides
    return config


def list_written(folder: Path, name: str) -> dict[str, str]:
    """Return page -> title of what is written in a folder of ``docs``."""
    return {
        f"{name}/{path.name}": path.read_text().splitlines()[0].removeprefix("# ")
        for path in sorted(folder.glob("*.md"))
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file in ``docs`` holds."""
    for rooms in list_pages().values():
        for room, modules in rooms.items():
            files.append(File.generated(config, f"reference/api/{room}.md", content=write_page(room, modules)))
    specification = (PACKAGE / "lineage" / "FORMAT.md").read_text()  # lies in every release too
    files.append(File.generated(config, RELEASE_FORMAT, content=specification))
    for page, name in TOP_FILES.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        for other, there in TOP_FILES.items():
            text = text.replace(f"]({there})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    return files
