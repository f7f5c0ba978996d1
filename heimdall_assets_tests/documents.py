"""The texts beside the code, and what they name: commands, files, variables, fields."""

import re
import shlex
from functools import cache
from pathlib import Path

from heimdall_assets_tests.package_names import ROOT

TEXTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "dagster.yaml",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
VARIABLE = re.compile(r"\b(?:HEIMDALL|MLFLOW|DAGSTER)_[A-Z_]*[A-Z]\b")


@cache
def read_text(path: Path) -> str:
    return path.read_text()


def list_commands(path: Path, program: str) -> list[list[str]]:
    """Arguments of every ``program ...`` line in the blocks of a text, its comment and its line breaks taken off."""
    return parse_commands(read_text(path), program)


def parse_commands(text: str, program: str) -> list[list[str]]:
    """Arguments of every ``program ...`` line in the blocks of ``text``."""
    found = []
    for _, block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.startswith(f"{program} ") else []
            if words:
                found.append(words[1:])
    return found


def list_code(path: Path) -> list[str]:
    """What stands between single backticks, outside of blocks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", BLOCK.sub("", read_text(path)))


def list_links(path: Path) -> list[str]:
    """Targets of links that stay in the repository, without their anchors."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", BLOCK.sub("", read_text(path)))
    return [target for target in targets if "://" not in target]


def looks_like_a_path(code: str) -> bool:
    """Whether a piece of code in a text can only be meant as a file or folder of ours."""
    if re.search(r"[\s*{}()\[\]=<>$~:]|\.\.\.|NAME", code):
        return False
    return "/" in code or bool(re.search(r"\w\.(py|md|yaml|yml|toml|json|lock|jinja|onnx|db)$", code))
