"""The recipe is what the graph does: parents, specs and versions of the page's assets are those of the one table."""

import ast
from pathlib import Path

import dagster as dg
import pytest

import heimdall_assets
from heimdall_assets import kinds
from heimdall_assets.definitions import build_definitions
from heimdall_assets.defs.settings import CONFIGS, SPLITS_OP, build_run_config
from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import SPLIT_KINDS
from heimdall_assets.pipeline.recipe import SETTINGS, SPECS, STAGES, find_kind, list_needed, name_index
from heimdall_assets.specs import DelaySpec, Spec, TrainingSpec
from heimdall_assets_tests.homes import make_places

PACKAGE = Path(heimdall_assets.__file__).parent
KINDS = {value for name, value in vars(kinds).items() if name.isupper() and isinstance(value, str) and "/" not in value}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return build_definitions(make_places(tmp_path_factory.mktemp("home"))).get_repository_def().asset_graph


@pytest.mark.parametrize("kind", STAGES)
def test_the_page_shows_the_parents_and_the_version_of_the_recipe(graph, kind):
    node = graph.get(dg.AssetKey(kind))
    assert {key.to_user_string() for key in node.parent_keys} == {*STAGES[kind].parents, *STAGES[kind].after}
    assert node.code_version == STAGES[kind].code_version


@pytest.mark.parametrize("kind", STAGES)
def test_a_step_is_configured_by_the_specs_of_the_recipe(kind):
    config = CONFIGS.get(SPLITS_OP if kind in SPLIT_KINDS.values() else kind)
    found: set[type[Spec]] = set()
    if config is not None:
        held = [field.annotation for field in config.model_fields.values()]
        for cls in [config, *held]:
            if isinstance(cls, type) and issubclass(cls, Spec):
                found.add(cls.pure_class())
    assert found == {*STAGES[kind].specs, *STAGES[kind].handling}


@pytest.mark.parametrize("spec", SETTINGS.values(), ids=SETTINGS)
def test_every_spec_finds_its_stage_and_its_place_in_the_configuration(spec):
    stage = STAGES[find_kind(spec)]
    assert spec in (*stage.specs, *stage.handling)
    (op,) = build_run_config([spec()])["ops"]
    assert op in CONFIGS


def test_how_a_step_is_computed_is_no_part_of_what_it_is_found_under():
    handling = {spec for stage in STAGES.values() for spec in stage.handling}
    assert handling
    assert not handling & set(SPECS.values())


def test_a_spec_that_decides_nothing_finds_no_stage():
    class Stray(Spec):
        """In no stage."""

        @classmethod
        def pure_class(cls):
            return cls

    with pytest.raises(NotFound, match="Stray: decides no stage"):
        find_kind(Stray)


def test_stages_stand_in_the_order_in_which_they_are_computed():
    known = {kinds.MEASUREMENT_DATABASE}
    for kind, stage in STAGES.items():
        assert set(stage.parents) <= known
        known.add(kind)
    assert list_needed(kinds.CHAMPION_MODEL) == [kind for kind, stage in STAGES.items() if not stage.is_aside]
    assert kinds.TEST_SPLIT not in list_needed(kinds.HYPERPARAMETER_SEARCH)
    assert kinds.TEST_SPLIT not in list_needed(kinds.TRAINED_CHECKPOINT)


def test_an_index_goes_by_spec_and_code_version(monkeypatch):
    from dataclasses import replace

    before = name_index(kinds.SPECTROGRAM_FEATURES, "delays", DelaySpec())
    assert before != name_index(kinds.SPECTROGRAM_FEATURES, "delays", DelaySpec(num_lags=35))
    assert before != name_index(kinds.SPECTROGRAM_FEATURES, "pairs", DelaySpec())
    stage = STAGES[kinds.SPECTROGRAM_FEATURES]
    monkeypatch.setitem(STAGES, kinds.SPECTROGRAM_FEATURES, replace(stage, code_version="next"))
    assert before != name_index(kinds.SPECTROGRAM_FEATURES, "delays", DelaySpec())


def find_literals(source: str) -> list[str]:
    return [
        node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and node.value in KINDS
    ]


def test_the_name_of_an_asset_is_said_once():
    assert find_literals('read("iq_files")') == ["iq_files"]
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("kinds.py", "verify_release.py"):  # a script that lies in releases and imports nothing
            assert find_literals(path.read_text()) == [], (
                f"{path}: names an asset by hand, expected heimdall_assets.kinds"
            )


def test_a_search_takes_the_settings_of_its_fits_itself():
    within = list_needed(kinds.HYPERPARAMETER_SEARCH)
    config = build_run_config([TrainingSpec(seed=3), SPECS["SearchSpec"](seed=4)], within)
    assert config == {"ops": {"hyperparameter_search": {"config": config["ops"]["hyperparameter_search"]["config"]}}}
    assert config["ops"]["hyperparameter_search"]["config"]["training"]["seed"] == 3
    assert config["ops"]["hyperparameter_search"]["config"]["search"]["seed"] == 4


def test_settings_of_one_step_stand_together():
    config = build_run_config([TrainingSpec(seed=3), SPECS["ModelSpec"](width=32), SPECS["ExportSpec"](opset=21)])
    assert config["ops"]["trained_checkpoint"]["config"]["training"]["seed"] == 3
    assert config["ops"]["trained_checkpoint"]["config"]["model"]["width"] == 32
    assert config["ops"]["onnx_model"]["config"]["opset"] == 21
