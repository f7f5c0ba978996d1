"""Texts beside the code say what is: their commands parse, their files, fields and variables are there."""

import ast
import re
from pathlib import Path

import click
import pytest

from heimdall_assets import specs
from heimdall_assets.cli import main
from heimdall_assets_tests.documents import (
    TEXTS,
    VARIABLE,
    list_code,
    list_commands,
    list_links,
    looks_like_a_path,
    read_text,
)
from heimdall_assets_tests.package_names import PACKAGE, ROOT, read_floors, read_modules

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
MARKDOWN = [path for path in TEXTS if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def constants() -> set[str]:
    """Every text in the code of the package, docstrings among them."""
    trees = [module.tree for module in read_modules().values()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_map_in_readme_is_the_house():
    rows = re.findall(r"^\| (\w+) \| [^|]*\? \| ((?:`\w+` ?)+)\|$", read_text(README), re.MULTILINE)
    assert {floor: re.findall(r"\w+", rooms) for floor, rooms in rows} == read_floors()


def test_contributing_shows_every_room():
    table = re.findall(r"^\| ((?:`[\w/]+` ?)+)\|", read_text(CONTRIBUTING), re.MULTILINE)
    shown = [room for cell in table for room in re.findall(r"[\w/]+", cell)]
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    rooms = {str(folder) for folder in folders if folder.parts and "migrations" not in folder.parts}
    assert sorted(shown) == sorted(rooms | files)


def parse(arguments: list[str]) -> list[str]:
    """Return the names of the commands that ``heimdall`` would run with these arguments; nothing is run."""
    command: click.Command = main
    context, names = None, []
    while True:
        try:
            context = command.make_context(names[-1] if names else "heimdall", list(arguments), parent=context)
        except click.exceptions.Exit:  # --help
            return names
        if not isinstance(command, click.Group):
            return names
        if command.invoke_without_command and not [*context._protected_args, *context.args]:
            return names
        name, found, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert found is not None
        names.append(name)
        command = found


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_commands_are_those_of_the_command_line(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for arguments in list_commands(path, "heimdall"):
        for word in arguments:
            named = re.fullmatch(
                r"(?:\w+=)?([\w*]+\.(?:wav|npy|cu8|sigmf|bin|csv|jsonl|parquet|json|yaml))(?:#\d+)?", word
            )
            if named:
                (tmp_path / named[1]).touch()
        parse(arguments)


def test_a_command_that_is_none_is_found(tmp_path: Path):
    assert parse(["models", "promote", "v1.0.0", "--by", "x", "--reason", "y"]) == ["models", "promote"]
    for arguments in (["modells"], ["verify", "latest", "--mend"], ["predict"]):
        with pytest.raises(click.UsageError):
            parse(arguments)


def test_every_command_that_prints_a_result_prints_it_as_json():
    def walk(command: click.Command, name: str) -> list[str]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            children = {key: command.get_command(context, key) for key in command.list_commands(context)}
            return [found for key, child in children.items() for found in walk(child, f"{name} {key}")]
        return [] if "as_json" in [parameter.name for parameter in command.params] else [name]

    assert walk(main, "heimdall") == ["heimdall ui"]  # it shows pages, no result


@pytest.mark.parametrize("path", [*MARKDOWN, ROOT / "Makefile"], ids=name_of)
def test_targets_of_make_are_there(path: Path):
    targets = set(re.findall(r"^([\w-]+):", read_text(ROOT / "Makefile"), re.MULTILINE))
    named = {words[0] for words in list_commands(path, "make")}
    named |= {code.split()[1] for code in list_code(path) if re.fullmatch(r"make [\w-]+( .*)?", code)}
    named |= set(re.findall(r'"make ([\w-]+)', read_text(path)))  # what `make help` says
    assert named <= targets


@pytest.mark.parametrize("path", [README, CONTRIBUTING, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_to_files(path: Path):
    assert [link for link in list_links(path) if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_files_that_texts_name_are_there_or_made_by_the_code(path: Path, constants: set[str]):
    made = set(re.findall(r"[\w.-]+", "\n".join(constants)))
    made |= {word for command in list_commands(path, "heimdall") for word in command}  # what users hand in
    for code in filter(looks_like_a_path, list_code(path)):
        there = any((place / code).exists() for place in (ROOT, PACKAGE, path.parent, ROOT / "heimdall_assets_tests"))
        last = code.rstrip("/").rpartition("/")[2]
        assert there or code.strip('"') in constants or last in made or code.startswith("build/"), f"{path}: {code}"


def test_a_file_that_is_absent_is_found():
    assert looks_like_a_path("deploy/compose.yaml")
    assert looks_like_a_path("recipe.py")
    assert not looks_like_a_path("formats/NAME.py")
    assert not looks_like_a_path("TrainingSpec.max_epochs")


def test_files_of_dagster_yaml_lie_below_the_home_or_are_there():
    text = read_text(ROOT / "dagster.yaml")
    for word in re.findall(r"[\w.-]+/[\w./-]*\b", text):
        assert word.startswith(".heimdall/") or (ROOT / word).exists(), word


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_variables_that_texts_name_are_read_by_the_code(path: Path, constants: set[str]):
    read = {name for text in constants for name in VARIABLE.findall(text)}
    assert set(VARIABLE.findall(read_text(path))) <= read


def test_every_variable_that_the_code_reads_is_described(constants: set[str]):
    read = {text for text in constants if VARIABLE.fullmatch(text)}
    described = {name for path in MARKDOWN for name in VARIABLE.findall(read_text(path))}
    assert read - described == set()


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_fields_of_specs_are_there(path: Path):
    for name, field in re.findall(r"\b([A-Z]\w+(?:Spec|Policy))\.(\w+)", read_text(path)):
        assert field in getattr(specs, name).model_fields, f"{path}: {name}.{field}"


@pytest.mark.parametrize(("page", "policy"), [("retraining", specs.RetrainPolicy), ("home", specs.RetentionPolicy)])
def test_the_pages_on_policies_show_the_defaults(page: str, policy: type[specs.Spec]):
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", read_text(ROOT / f"docs/guide/{page}.md"), re.MULTILINE)
    assert {name: float(value) for name, value in rows} == policy().dump()


def test_the_page_on_recordings_shows_the_clocks():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) (ns|us|ms) ", read_text(ROOT / "docs/guide/import.md"), re.MULTILINE)
    scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}
    assert [name for name, _, _ in rows] == ["gnss_calibrated", "gnss", "ntp"]
    for name, value, unit in rows:
        assert float(value) * scale[unit] == pytest.approx(specs.TimingSpec().sigma_s(name))
