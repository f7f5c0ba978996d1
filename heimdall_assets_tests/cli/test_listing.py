"""``heimdall settings``: every field and every variable, as a table, as JSON and as the page of the documentation."""

import json
import re

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.pipeline.recipe import SPECS
from heimdall_assets.specs import list_specs
from heimdall_assets.variables import OF_TESTS, list_variables
from heimdall_assets_tests.package_names import ROOT

PAGE = ROOT / "docs" / "reference" / "configuration.md"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["settings", *arguments])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_the_page_in_the_repository_is_the_one_that_is_generated():
    assert run("--markdown") == PAGE.read_text(encoding="utf-8"), "run `make configuration`"


def test_the_page_holds_every_field_and_every_variable():
    text = PAGE.read_text(encoding="utf-8")
    for name, cls in list_specs().items():
        part = text.split(f"### {name}\n")[1].split("\n#")[0]
        rows = re.findall(r"^\| `(\w+)` \| `(?:[^|]|(?<=\\)\|)+` \| [^|].*\| [^|].* \|", part, re.MULTILINE)
        assert rows == list(cls.model_fields), name
    for variable in (*list_variables(), *OF_TESTS):
        assert re.search(rf"^\| `{variable}` \| .*\w.* \|$", text, re.MULTILINE), variable


def test_json_holds_the_same():
    told = json.loads(run("--json"))
    assert {name: [entry["name"] for entry in entries] for name, entries in told["settings"].items()} == {
        name: list(cls.model_fields) for name, cls in list_specs().items()
    }
    assert [entry["name"] for entry in told["variables"]] == list(list_variables())
    num_mels = next(entry for entry in told["settings"]["FeatureSpec"] if entry["name"] == "num_mels")
    assert (num_mels["default"], num_mels["bounds"]) == ("128", "int, >= 8, <= 512")
    assert num_mels["meaning"]
    assert "n_mels" in num_mels["elsewhere"]


def test_one_spec_is_shown_alone():
    assert list(json.loads(run("FeatureSpec", "--json"))["settings"]) == ["FeatureSpec"]
    shown = run("FeatureSpec")
    assert "num_mels" in shown
    assert "pooled | strict" in shown
    assert "TrainingSpec" not in shown
    assert "HEIMDALL_HOME" not in shown
    assert "HEIMDALL_HOME" in run()


@pytest.mark.parametrize("name", SPECS)
def test_how_a_spec_is_set_is_an_assignment_that_is_taken(name: str):
    from heimdall_assets.cli.settings.choosing import read_settings

    (assignment,) = re.findall(r"--set (.*);", run(name).splitlines()[0])
    assert read_settings(None, (assignment,)) == [list_specs()[name]()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["features"], "Error: features: found no such spec, did you mean FeatureSpec?"),
        (["zzz"], "Error: zzz: found no such spec, expected one of DatasetSpec, "),
        (["--markdown", "--json"], "Error: --markdown: found SPEC or --json beside it, expected it alone"),
    ],
)
def test_what_is_none_is_one_line(arguments: list[str], said: str):
    assert run(*arguments, code=2).startswith(said)
