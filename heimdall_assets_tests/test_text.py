"""Text says what is: names in docstrings exist."""

import importlib.util
import re

import pytest

from heimdall_assets_tests.package_names import list_quoted, read_modules, resolve

RULE = re.compile(r"Belongs here:.*?(?=\n\n|\Z)|Does not belong here:.*?(?=\n\n|\Z)", re.DOTALL)
FILE = re.compile(r".*\.(json|yaml|md|onnx|ckpt|py|safetensors)")
PLACEHOLDERS = {"Spec.field"}
"""Said of any spec, named for none."""


def test_names_resolve_as_a_reader_would():
    assert resolve("signals.iq", "formats") == "signals.iq"
    assert resolve("intake.files", "formats") == "pipeline.intake.files"
    assert resolve("physics", "learning.session_model.table") == "learning.session_model.physics"
    assert resolve("recordings.RECORDING_COLUMNS", "pipeline.stages.features")
    assert resolve("FittedModel.predict", "learning.export.onnx_file")
    assert resolve("FittedModel.guess", "learning.export.onnx_file") is None
    assert resolve("ingesting.RECORDING_COLUMNS", "pipeline.stages.features") is None
    assert resolve("shards", "pipeline.stages.features") is None  # of another room: objects.shards


@pytest.mark.parametrize("name", read_modules(), ids=lambda name: name or "heimdall_assets")
def test_what_a_module_says_belongs_elsewhere_is_there(name: str):
    module = read_modules()[name]
    for text in RULE.findall(dict(module.list_docstrings())["module"]):
        for quoted in list_quoted(" ".join(re.findall(r"\(([^)]*)\)", text))):
            assert resolve(quoted, name), f"{module.path}: {quoted} is no module or name of the package"


@pytest.mark.parametrize("name", read_modules(), ids=lambda name: name or "heimdall_assets")
def test_a_module_s_title_is_its_name(name: str):
    module = read_modules()[name]
    first = dict(module.list_docstrings())["module"].splitlines()[0]
    title = re.match(r"([A-Za-z_]+):", first)
    if title is not None:
        own = name.rpartition(".")[2]
        assert title[1].lower().removesuffix("s") == own.removesuffix("s"), f"{module.path}: titled {title[1]}"


@pytest.mark.parametrize("name", read_modules(), ids=lambda name: name or "heimdall_assets")
def test_dotted_names_in_docstrings_exist(name: str):
    module = read_modules()[name]
    for what, text in module.list_docstrings():
        for quoted in list_quoted(text):
            first = quoted.split(".")[0]
            if "." not in quoted or FILE.fullmatch(quoted) or quoted in PLACEHOLDERS or first in module.variables:
                continue
            known = resolve(quoted, name) or first in module.imported or importlib.util.find_spec(first)
            assert known, f"{module.path}, {what}: {quoted} is no name of the package"
