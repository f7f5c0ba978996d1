"""Profiles are read, extended and judged field by field; what is wrong in one is named, all of it."""

from pathlib import Path

import pytest

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.pipeline.recipe import SETTINGS
from heimdall_assets.profiles.problems import Problem
from heimdall_assets.profiles.reading import FOLDER, check_profile, list_profiles, read_profile
from heimdall_assets.profiles.schema import NOT_OF_A_PROFILE, list_profile_specs
from heimdall_assets.specs import list_specs

OWN = "name: mine\npurpose: a test\nextends: laptop\n"


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def find(folder: Path, text: str) -> list[Problem]:
    return list(check_profile(write(folder, text)).problems)


def test_every_profile_of_the_package_holds_and_is_listed():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(list_profiles())
    for name in list_profiles():
        assert read_profile(name).profile.name == name
        assert read_profile(name).title == name


def test_what_a_run_takes_a_profile_may_set_save_which_data():
    settable = set(list_profile_specs())
    assert settable == set(SETTINGS) - {"DatasetSpec", "SearchSpec"} | {"AcceleratorSpec"}
    assert settable | {spec.__name__ for spec in NOT_OF_A_PROFILE} == set(list_specs())


def test_hpc_is_four_gpus_that_share_a_batch_of_128_each():
    profile = read_profile("hpc").profile
    training, machine = profile.settings["TrainingSpec"], profile.settings["MachineSpec"]
    assert (profile.needs.gpus, training["num_devices"], machine["accelerator"]) == (4, 4, "gpu")
    assert training["precision"] in ("16-mixed", "bf16-mixed")
    assert profile.batch_size[profile.needs.gpu_memory_gib] == 128
    assert profile.tracking.mlflow
    assert profile.tracking.wandb == "installed"


def test_embedded_sums_small_batches_and_watches_power_and_heat():
    profile = read_profile("embedded").profile
    training, machine = profile.settings["TrainingSpec"], profile.settings["MachineSpec"]
    assert profile.batch_size == {0: 16}
    assert training["accumulate_batches"] > 1
    assert training["activation_checkpointing"]
    assert machine["max_power_w"]
    assert machine["max_temperature_c"]


def test_a_file_says_what_differs_and_who_says_what_is_known(tmp_path: Path):
    text = OWN + "needs: {memory_gib: 8}\nTrainingSpec: {max_epochs: 7}\nlearning_rate: {scratch: {value: 6e-4}}\n"
    read = read_profile(write(tmp_path, text))
    laptop = read_profile("laptop").profile
    assert read.profile.settings["TrainingSpec"] == {**laptop.settings["TrainingSpec"], "max_epochs": 7}
    assert read.profile.needs == laptop.needs.model_copy(update={"memory_gib": 8})
    assert read.profile.learning_rate["scratch"].value == 6e-4  # YAML 1.2's numbers
    assert read.profile.learning_rate["scratch"].highest == laptop.learning_rate["scratch"].highest
    assert read.sources["TrainingSpec.max_epochs"] == "profile mine"
    assert read.sources["TrainingSpec.precision"] == "profile laptop"
    assert read.title.startswith("mine (sha256:")


def test_a_batch_that_somebody_chose_is_not_looked_up(tmp_path: Path):
    assert read_profile(write(tmp_path, OWN + "TrainingSpec: {batch_size: 5}\n")).profile.batch_size == {}


def test_a_profile_may_extend_a_file_beside_it(tmp_path: Path):
    write(tmp_path, OWN + "TrainingSpec: {max_epochs: 7}\n", "base.yaml")
    read = read_profile(write(tmp_path, "name: child\npurpose: a test\nextends: base.yaml\n"))
    assert read.profile.settings["TrainingSpec"]["max_epochs"] == 7
    assert read.sources["MachineSpec.accelerator"] == "profile laptop"


@pytest.mark.parametrize(
    ("text", "path", "found", "allowed"),
    [
        ("needs: {gpus: two}", "needs.gpus", '"two"', "a valid integer"),
        ("needs: {gpus: true}", "needs.gpus", "true", "a valid integer"),
        ("needs: {colour: 3}", "needs.colour", "no such field", "one of gpus, gpu_memory_gib, memory_gib, cpus"),
        ("needs: 3", "needs", "3", "a valid dictionary or instance of Needs"),
        ("needs: {gpu_memory_gib: 8}", "needs.gpu_memory_gib", "8 with gpus 0", "at least 1 GPU or 0"),
        ("batch_size: {8: 0}", "batch_size.8", "0", "greater than or equal to 1"),
        ("batch_size: {8: 64}", "batch_size", "no entry below 8", "one for 0 GiB, as needs.gpu_memory_gib says"),
        ("learning_rate: {scratch: {value: 5.0}}", "learning_rate.scratch.value", "5", "0.0005 to 0.002"),
        (
            "learning_rate: {often: {value: 1.0, lowest: 1.0, highest: 1.0}}",
            "learning_rate.often",
            '"often"',
            "'scratch', 'fine_tuning' or 'transfer'",
        ),
        ("tracking: {wandb: yes}", "tracking.wandb", "true", "'never', 'installed' or 'always'"),
        ("assessment: {gradient_norm: [9.0, 1.0]}", "assessment.gradient_norm", "[9, 1]", "the smaller one first"),
        ("assessment: {tiers: {good: {max_m: 3.0}}}", "assessment.tiers.good.max_m", '"max_m"', "'max_val_loss'"),
        ("TrainingSpec: {max_epochs: 0}", "TrainingSpec.max_epochs", "0", "greater than or equal to 1"),
        ("TrainingSpec: {seed: true}", "TrainingSpec.seed", "true", "a valid integer"),
        (
            "TrainingSpec: {lr: 3}",
            "TrainingSpec.lr",
            "no such field",
            "TrainingSpec.learning_rate (did you mean that?)",
        ),
        ("TrainingSpec: 3", "TrainingSpec", "3", "its fields, such as {seed: ...}"),
        ("ModelSpec: {width: 65}", "ModelSpec.width", "65", "a multiple of num_heads 4"),
        (
            "AcceleratorSpec: {gpu_type: T4, num_gpus: 0}",
            "AcceleratorSpec.gpu_type",
            "T4 with num_gpus 0",
            "at least 1",
        ),
        (
            "SplitSpec: {val_fraction: 0.6, test_fraction: 0.6}",
            "SplitSpec",
            "val_fraction + test_fraction",
            "less than 1",
        ),
        ("TrainSpec: {}", "TrainSpec", "no such field", "TrainingSpec (did you mean that?)"),
        ("batch_sizes: {0: 3}", "batch_sizes", "no such field", "batch_size (did you mean that?)"),
        ("DatasetSpec: {}", "DatasetSpec", "a spec that no profile sets", "--campaign or --set"),
        ("MachineSpec: {accelerator: gpu}", "needs.gpus", "0", "1, as TrainingSpec.num_devices on accelerator gpu"),
        (
            "needs: {gpus: 1}\nMachineSpec: {accelerator: cpu}",
            "needs.gpus",
            "1",
            "0, for MachineSpec.accelerator is cpu",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found_and_what_is_allowed(
    tmp_path: Path, text: str, path: str, found: str, allowed: str
):
    (problem,) = find(tmp_path, OWN + text)
    assert (problem.path, problem.found) == (path, found)
    assert allowed in problem.allowed


def test_every_wrong_field_is_named_not_the_first_alone(tmp_path: Path):
    text = """
name: Mine
needs: {gpus: two}
TrainingSpec: {max_epochs: 0, lr: 3, seed: true, precision: fp8}
ModelSpec: {width: 65}
Nonsense: {}
"""
    told = [problem.path for problem in find(tmp_path, text)]
    assert sorted(told) == sorted(
        ["name", "purpose", "needs.gpus", "TrainingSpec.max_epochs", "TrainingSpec.lr", "TrainingSpec.seed",
         "TrainingSpec.precision", "ModelSpec.width", "Nonsense"]
    )  # fmt: skip
    with pytest.raises(InvalidSetting, match=r"and 8 more problems: heimdall config validate "):
        read_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"name: [", "found no YAML that counts in line 1"),
        (b"\xff\xfe\x00", "found bytes that are no text"),
        (b"- 3", "found list, expected a mapping"),
        (b"", "found NoneType, expected a mapping"),
        (b"name: a\nname: b\n", "in line 2 (found name twice)"),
        (b"name: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"#" * 200_000, "found more than 100000 bytes"),
        (b"extends: mine.yaml", "extends itself (mine.yaml -> mine.yaml)"),
        (b"extends: labtop", "mine.yaml: extends labtop: found none, did you mean laptop?"),
        (
            b"extends: other.yaml",
            "extends other.yaml: found none, expected hpc, workstation, laptop, embedded or a file",
        ),
    ],
)
def test_a_file_that_is_no_profile_is_one_line(tmp_path: Path, data: bytes, said: str):
    (tmp_path / "mine.yaml").write_bytes(data)
    with pytest.raises(InvalidSetting) as caught:
        check_profile(str(tmp_path / "mine.yaml"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none_is_refused_with_the_nearest(tmp_path: Path):
    with pytest.raises(InvalidSetting, match="profile labtop: found none, did you mean laptop"):
        read_profile("labtop")
    with pytest.raises(InvalidSetting, match="found no regular file"):
        read_profile(str(tmp_path))
