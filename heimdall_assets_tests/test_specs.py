"""Specs: each setting says what it means, and a refusal names ours where another project's name was typed."""

import dagster as dg
import pytest
from pydantic import ValidationError

from heimdall_assets.cli.settings.choosing import build_spec, read_settings
from heimdall_assets.definitions import defs
from heimdall_assets.defs import settings as configs
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.other_names import OTHER_SETTINGS, OTHER_SPECS
from heimdall_assets.pipeline.recipe import SPECS
from heimdall_assets.specs import (
    FeatureSpec,
    ModelSpec,
    Spec,
    TrainingSpec,
    list_specs,
    suggest_setting,
    suggest_spec,
)
from heimdall_assets.suggestions import normalize_name

ALTERNATIVES = [
    (cls, other, ours) for name, cls in list_specs().items() for other, ours in OTHER_SETTINGS[name].items()
]
IN_TABLE = [case for case in ALTERNATIVES if case[0].__name__ in SPECS]


def test_every_spec_is_listed():
    others = {
        "AcceleratorSpec",
        "AssessmentSpec",
        "KubernetesSpec",
        "MachineSpec",
        "RetentionPolicy",
        "RetrainPolicy",
        "SimulationSpec",
    }
    assert set(SPECS) | others == set(list_specs())


@pytest.mark.parametrize("cls", list_specs().values(), ids=str)
def test_every_setting_says_what_it_means(cls: type[Spec]):
    assert {name for name, field in cls.model_fields.items() if not field.description} == set()


@pytest.mark.parametrize("cls", list_specs().values(), ids=str)
def test_other_names_are_none_of_ours_and_lead_to_ours(cls: type[Spec]):
    names = OTHER_SETTINGS[cls.__name__]
    assert set(names.values()) <= set(cls.model_fields)
    assert not set(names) & set(cls.model_fields)
    assert {normalize_name(name) for name in names} == set(names)


def test_the_tables_of_other_names_speak_of_specs_that_are_there():
    assert set(OTHER_SETTINGS) == set(list_specs())
    assert set(OTHER_SPECS) <= set(list_specs())


def test_the_table_holds_what_common_projects_call_them():
    """librosa, torchaudio, PyTorch, Lightning, Keras, scikit-learn, transformers, timm."""
    typed = ["n_mels", "hop_length", "fmin", "f_max", "epochs", "n_epochs", "lr", "batch", "patience", "wd"]
    typed += ["learning_rate_init", "gradient_clip_val", "num_train_epochs", "per_device_train_batch_size"]
    typed += ["dropout_rate", "nhead", "d_model", "test_size", "random_state", "opset_version"]
    assert set(typed) <= {other for _, other, _ in ALTERNATIVES}


@pytest.mark.parametrize(("cls", "other", "ours"), ALTERNATIVES)
def test_another_name_is_refused_with_ours(cls: type[Spec], other: str, ours: str):
    with pytest.raises(ValidationError, match=rf"no such setting, did you mean {cls.__name__}\.{ours}\?"):
        cls.model_validate({other: 1})


@pytest.mark.parametrize(("cls", "other", "ours"), IN_TABLE)
def test_the_command_line_and_the_settings_file_say_so_in_one_line(tmp_path, cls: type[Spec], other: str, ours: str):
    said = f"{cls.__name__}.{other}: no such setting, did you mean {cls.__name__}.{ours}?"
    file = tmp_path / "settings.yaml"
    file.write_text(f"{cls.__name__}:\n  {other}: 1\n")
    for read in (lambda: read_settings(None, (f"{cls.__name__}.{other}=1",)), lambda: read_settings(file, ())):
        with pytest.raises(InvalidSetting) as caught:
            read()
        assert str(caught.value) == said


@pytest.mark.parametrize(
    ("spec", "typed", "meant"),
    [
        (FeatureSpec, "num_mel", "FeatureSpec.num_mels"),  # spelled almost so
        (TrainingSpec, "Max-Epochs", "TrainingSpec.max_epochs"),
        (TrainingSpec, "weight-decay", "TrainingSpec.weight_decay"),
        (TrainingSpec, "weight_deacy", "TrainingSpec.weight_decay"),
        (ModelSpec, "learning_rate", "TrainingSpec.learning_rate"),  # somewhere else
        (ModelSpec, "lr", "TrainingSpec.learning_rate"),
        (ModelSpec, "seed", "TrainingSpec.seed"),
        (None, "hop_length", "FeatureSpec.hop"),
        (None, "epochs", "TrainingSpec.max_epochs"),
        (FeatureSpec, "zzz", None),
    ],
)
def test_what_is_spelled_alike_or_stands_elsewhere_is_found(spec: type[Spec] | None, typed: str, meant: str | None):
    assert suggest_setting(typed, spec) == meant


def test_what_is_like_nothing_is_refused_with_all_there_is():
    with pytest.raises(ValidationError, match="no such setting, expected n_fft, hop, num_mels"):
        FeatureSpec(zzz=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidSetting, match="Nonsense: found no such spec, expected one of DatasetSpec, "):
        build_spec("Nonsense", {})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(other, ours) for ours, others in OTHER_SPECS.items() for other in others]
    + [
        ("training", "TrainingSpec"),
        ("trainingspec", "TrainingSpec"),
        ("TrainingConfig", "TrainingSpec"),
        ("FeaturesSpec", "FeatureSpec"),
        ("model", "ModelSpec"),
    ],
)
def test_another_name_of_a_spec_is_refused_with_ours(typed: str, meant: str):
    assert suggest_spec(typed) == meant
    with pytest.raises(InvalidSetting) as caught:
        build_spec(typed, {})
    assert str(caught.value) == f"{typed}: found no such spec, did you mean {meant}?"


def test_what_cannot_be_set_on_the_command_line_is_not_offered_there():
    with pytest.raises(
        InvalidSetting, match=r"SimulationSpec: found a spec that is set in Python; .*; expected one of"
    ):
        build_spec("SimulationSpec", {"num_sessions": 3})


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (("lr=1",), "--set 'lr=1': expected Spec.field=value, such as TrainingSpec.learning_rate=1"),
        (("zzz=1",), "--set 'zzz=1': expected Spec.field=value (heimdall settings lists all)"),
        (
            ("TrainingSpec=1",),
            "--set 'TrainingSpec=1': expected Spec.field=value (heimdall settings TrainingSpec lists",
        ),
        (("TrainingSpec.max_epochs=",), "TrainingSpec.max_epochs: found None, expected a valid integer"),
        (("TrainingSpec.max_epochs=3.5",), "TrainingSpec.max_epochs: found 3.5, expected a valid integer"),
        (("TrainingSpec.seed=true",), "TrainingSpec.seed: found true, expected a number"),
        (("TrainingSpec.learning_rate=fast",), "TrainingSpec.learning_rate: found 'fast', expected a valid number"),
        (("ModelSpec.kind=forest",), "ModelSpec.kind: found 'forest', expected 'network' or 'single_receiver'"),
        (("ModelSpec.use_spectrograms=maybe",), "ModelSpec.use_spectrograms: found 'maybe', expected a valid boolean"),
        (("DatasetSpec.campaigns=city",), "DatasetSpec.campaigns: found 'city', expected a valid list"),
        (("TrainingSpec.seed",), "--set 'TrainingSpec.seed': expected Spec.field=value"),
        (("TrainingSpec.seed=[",), "--set 'TrainingSpec.seed=[': found no YAML in line 1 ("),
        (
            ("TrainingSpec.max_epochs=0",),
            "TrainingSpec.max_epochs: found 0, expected greater than or equal to 1",
        ),
        (("ModelSpec.width=10",), "ModelSpec: width 10: expected a multiple of num_heads 4"),
    ],
)
def test_a_wrong_assignment_is_one_line(assignments: tuple[str, ...], said: str):
    with pytest.raises(InvalidSetting) as caught:
        read_settings(None, assignments)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"TrainingSpec: [", "found no YAML in line 1"),
        (b"\xff\xfe\x00", "expected YAML"),
        (b"TrainingSpec: 3", "expected a mapping from spec names to fields"),
        (b"- 3", "expected a mapping from spec names to fields"),
        (b"TrainingSpec:", "TrainingSpec: found None, expected a mapping from spec names to fields"),
        (
            b"n_mels: 64",
            "n_mels: found 64, expected a mapping from spec names to fields, such as FeatureSpec: {num_mels: 64}",
        ),
        (b"TrainingSpec: {1: 2}", "TrainingSpec.1: no such setting"),
        (b"FeatureSpec: {hop_length: 2}", "FeatureSpec.hop_length: no such setting, did you mean FeatureSpec.hop?"),
        (b"TrainingSpec: {max_epochs: 0}", "TrainingSpec.max_epochs: found 0, expected greater than or equal to 1"),
    ],
)
def test_a_wrong_settings_file_is_one_line(tmp_path, data: bytes, said: str):
    file = tmp_path / "settings.yaml"
    file.write_bytes(data)
    with pytest.raises(InvalidSetting) as caught:
        read_settings(file, ())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_value_is_still_taken():
    (spec,) = read_settings(None, ("TrainingSpec.learning_rate=1e-3", "TrainingSpec.max_epochs=7"))
    assert spec == TrainingSpec(learning_rate=1e-3, max_epochs=7)


# --- Dagster's run configuration


def test_a_configuration_class_names_ours_too():
    with pytest.raises(ValidationError, match=r"did you mean FeatureSpec\.num_mels\?"):
        configs.FeatureConfig(n_mels=64)


def test_the_page_refuses_another_name_before_anything_runs_and_lists_ours():
    """Dagster checks run configuration itself: it names the place and every setting there."""
    job = defs().resolve_job_def("release")
    wrong = {"ops": {"spectrogram_features": {"config": {"features": {"n_mels": 64}}}}}
    with pytest.raises(dg.DagsterInvalidConfigError) as caught:
        dg.validate_run_config(job, wrong)
    said = str(caught.value)
    assert '"n_mels" at path root:ops:spectrogram_features:config:features' in said
    assert "num_mels?" in said
