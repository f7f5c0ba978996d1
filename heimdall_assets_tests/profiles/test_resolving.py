"""What a profile comes to: who wins, the batch of a GPU, the step size of a kind of training, what is needed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heimdall_assets.pipeline.recipe import SETTINGS
from heimdall_assets.profiles.machines import Gpu, Machine, describe_lack, find_nearest, is_enough
from heimdall_assets.profiles.reading import list_profiles, read_profile
from heimdall_assets.profiles.resolving import Setting, find_needs, group, list_doubts, resolve
from heimdall_assets.profiles.schema import Needs
from heimdall_assets.stores.capacity import list_gpus

SHA = "sha256:" + "0" * 64
OFFERED = [(name, read_profile(name).profile.needs) for name in list_profiles()]


def say(**fields: object) -> dict[str, Setting]:
    return {path.replace("__", "."): Setting(value, "--set") for path, value in fields.items()}


@pytest.mark.parametrize("name", list_profiles())
@pytest.mark.parametrize("memory_gib", [None, 0.0, 24.0])
def test_every_profile_comes_to_valid_settings(name: str, memory_gib: float | None):
    for spec, fields in group(resolve(read_profile(name), {}, memory_gib)).items():
        assert SETTINGS[spec].model_validate(fields)


@pytest.mark.parametrize(
    ("profile", "memory_gib", "batch"),
    [
        ("laptop", 0.0, 32),
        ("laptop", 3.9, 32),
        ("laptop", 7.99, 64),  # what a GPU of 8 GiB reports
        ("laptop", 140.0, 128),
        ("workstation", None, 64),
        ("workstation", 23.99, 192),
        ("hpc", 16.0, 4 * 64),
        ("hpc", 139.0, 4 * 128),
        ("embedded", 8.0, 16),
    ],
)
def test_the_batch_follows_the_memory_of_the_gpu_and_the_devices(profile: str, memory_gib: float, batch: int):
    found = resolve(read_profile(profile), {}, memory_gib)["TrainingSpec.batch_size"]
    assert found.value == batch
    assert f"batch_size of profile {profile}" in found.source


def test_fewer_devices_share_a_smaller_batch_and_a_chosen_one_stays():
    hpc = read_profile("hpc")
    assert resolve(hpc, say(TrainingSpec__num_devices=1), 80.0)["TrainingSpec.batch_size"].value == 128
    assert resolve(hpc, say(TrainingSpec__batch_size=7), 80.0)["TrainingSpec.batch_size"] == Setting(7, "--set")
    assert resolve(read_profile("laptop"), say(MachineSpec__accelerator="cpu"), 80.0)[
        "TrainingSpec.batch_size"
    ].value == 32  # fmt: skip


@pytest.mark.parametrize(
    ("others", "rate", "warmup"),
    [
        ({}, 1e-3, 5),
        ({"TrainingSpec__start_from": SHA}, 3e-4, 1),
        ({"ModelSpec__pretrained": True}, 5e-5, 1),
        ({"ModelSpec__pretrained": True, "TrainingSpec__start_from": SHA}, 3e-4, 1),
        ({"TrainingSpec__start_from": SHA, "TrainingSpec__learning_rate": 2e-4}, 2e-4, 1),
    ],
)
def test_the_step_size_follows_the_kind_of_training(others: dict[str, object], rate: float, warmup: int):
    found = resolve(read_profile("laptop"), say(**others), 0.0)
    assert found["TrainingSpec.learning_rate"].value == rate
    assert found["TrainingSpec.warmup_epochs"].value == warmup


@pytest.mark.parametrize("name", list_profiles())
def test_step_sizes_are_those_that_such_trainings_take(name: str):
    known = read_profile(name).profile.learning_rate
    assert known["scratch"].value == 1e-3
    assert known["scratch"].warmup_epochs
    assert (known["fine_tuning"].lowest, known["fine_tuning"].highest) == (1e-4, 5e-4)
    assert (known["transfer"].lowest, known["transfer"].highest) == (1e-5, 1e-4)


def test_a_step_size_that_a_profile_would_not_choose_is_told():
    laptop = read_profile("laptop")
    assert list_doubts(laptop.profile, resolve(laptop, {}, 0.0)) == []
    found = resolve(laptop, say(TrainingSpec__learning_rate=0.1, ModelSpec__pretrained=True), 0.0)
    (line,) = list_doubts(laptop.profile, found)
    assert line == (
        "TrainingSpec.learning_rate 0.1 (--set): profile laptop knows 1e-05 to 0.0001 for a training of kind transfer"
    )


def test_what_is_needed_follows_what_is_set():
    hpc = read_profile("hpc")

    def need(**fields: object) -> tuple[int, float]:
        needs = find_needs(hpc.profile, resolve(hpc, say(**fields), None))
        return needs.gpus, needs.gpu_memory_gib

    assert need() == (4, 32)
    assert need(TrainingSpec__num_devices=1) == (1, 32)
    assert need(MachineSpec__accelerator="cpu") == (0, 0)
    assert find_needs(None, say(MachineSpec__accelerator="gpu", TrainingSpec__num_devices=2)).gpus == 2
    assert find_needs(None, say(TrainingSpec__num_devices=2)).gpus == 0  # processes on processors


def make_machine(gpus: int = 0, gpu_gib: float = 80.0, memory_gib: float = 256.0, cpus: int = 64) -> Machine:
    return Machine((Gpu("H", gpu_gib),) * gpus, memory_gib, cpus)


def test_a_machine_that_lacks_something_is_told_all_of_it():
    needs = read_profile("hpc").profile.needs
    assert describe_lack(make_machine(4), needs) == ""
    assert describe_lack(make_machine(4, gpu_gib=31.7, memory_gib=62.8), needs) == ""  # as such machines report
    assert describe_lack(make_machine(1, 24.0, 31.0, 8), needs) == (
        "found 1 GPU (H of 24 GiB), 31.0 GiB of main memory and 8 processors, "
        "expected 4 GPUs of at least 32 GiB, 64 GiB of it and 16 processors"
    )


@pytest.mark.parametrize(
    ("machine", "nearest"),
    [
        (make_machine(4), "hpc"),
        (make_machine(1), "workstation"),
        (make_machine(0), "laptop"),
        (make_machine(0, memory_gib=2.0), "embedded"),
        (make_machine(0, memory_gib=0.5), None),
    ],
)
def test_the_nearest_profile_is_the_one_that_asks_most_of_those_that_run(machine: Machine, nearest: str | None):
    assert find_nearest(machine, OFFERED) == nearest


@given(st.integers(0, 8), st.floats(1, 200), st.floats(0.5, 500), st.integers(1, 256))
def test_what_is_offered_runs(gpus: int, gpu_gib: float, memory_gib: float, cpus: int):
    machine = make_machine(gpus, gpu_gib, memory_gib, cpus)
    nearest = find_nearest(machine, OFFERED)
    able = [name for name, needs in OFFERED if is_enough(machine, needs)]
    assert nearest in able if able else nearest is None
    assert is_enough(machine, Needs(memory_gib=1e-9))


def test_gpus_are_those_that_the_driver_tells_and_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert list_gpus() == ()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'Orin, [N/A]'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert list_gpus() == (Gpu("NVIDIA H200", 143771 / 1024), Gpu("Orin", 0.0))
    for visible, names in {
        "": [],
        "1": ["Orin"],
        "0,1,7": ["NVIDIA H200", "Orin"],
        "-1": [],
        "GPU-8f": ["NVIDIA H200"],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu.name for gpu in list_gpus()] == names, visible
