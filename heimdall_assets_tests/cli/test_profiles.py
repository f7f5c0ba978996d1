"""``heimdall config``, and profiles and short options of ``train`` and ``plan``: who wins, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.cli.settings.choosing import Asked, Chosen, read_chosen, settings_options
from heimdall_assets.cli.settings.shortcuts import SHORTCUTS
from heimdall_assets.errors import InvalidSetting, MissingDependency
from heimdall_assets.profiles.reading import list_profiles
from heimdall_assets.profiles.resolving import Setting
from heimdall_assets.specs import AcceleratorSpec, MachineSpec, ModelSpec, Spec, TrainingSpec
from heimdall_assets_tests.homes import fill_home
from heimdall_assets_tests.package_names import ROOT

OWN = "name: mine\npurpose: a test\nextends: laptop\n"
TINY = ["--set", "ModelSpec.use_spectrograms=false", "--set", "ModelSpec.width=16", "--set", "ModelSpec.num_layers=1",
        "--set", "ModelSpec.num_heads=2", "--set", "TrainingSpec.num_threads=1",
        "--set", "EvaluationSpec.num_bootstrap=100"]  # fmt: skip


@pytest.fixture(autouse=True)
def small_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever the tests run on."""
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEIMDALL_TRACKING", "off")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("HEIMDALL_PROFILE", "HEIMDALL_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)


def heimdall(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def shorten(**fields: object) -> dict[str, Setting]:
    options = {one.path: one.option for one in SHORTCUTS}
    return {(path := name.replace("__", ".")): Setting(value, options[path]) for name, value in fields.items()}


def find(chosen: Chosen, kind: type[Spec]) -> Spec:
    return next((spec for spec in chosen.specs if isinstance(spec, kind)), kind())


# --- heimdall config


def test_every_profile_is_listed_and_shown_with_who_says_what():
    assert [row["name"] for row in json.loads(heimdall("config", "list", "--json").stdout)] == list(list_profiles())
    assert "workstation" in heimdall("config", "list").stdout
    told = json.loads(heimdall("config", "show", "embedded", "--json").stdout)
    assert told["settings"]["TrainingSpec.accumulate_batches"] == {"value": 4, "source": "profile embedded"}
    assert told["settings"]["TrainingSpec.num_devices"]["source"] == "profile laptop"
    assert told["settings"]["TrainingSpec.seed"] == {"value": 42, "source": "default"}
    assert told["parts"]["tracking.mlflow"] == {"value": True, "source": "profile laptop"}
    assert told["lacks"] == ""
    shown = heimdall("config", "show", "hpc").stdout
    assert "This machine: found no GPU" in shown
    assert "batch_size of profile hpc" in shown


def test_the_page_in_the_repository_is_the_one_that_is_generated():
    page = (ROOT / "docs" / "reference" / "training.md").read_text(encoding="utf-8")
    assert heimdall("config", "list", "--markdown").stdout == page, "run `make configuration`"
    for one in SHORTCUTS:
        assert f"| `{one.option}` | `{one.path}` |" in page
    for name in list_profiles():
        assert f"\n### {name}\n" in page


def test_a_profile_is_validated_field_by_field(tmp_path: Path):
    file = write(tmp_path, OWN)
    assert "holds, as profile mine (sha256:" in heimdall("config", "validate", file).stdout
    assert json.loads(heimdall("config", "validate", file, "--json").stdout)["valid"]
    write(tmp_path, OWN + "needs: {gpus: two}\nTrainingSpec: {max_epochs: 0, lr: 3}\n")
    shown = heimdall("config", "validate", file, code=2).stdout
    assert 'needs.gpus: found "two", expected a valid integer' in shown
    assert "TrainingSpec.max_epochs: found 0, expected greater than or equal to 1" in shown
    assert f"{file}: 3 problems" in shown
    told = json.loads(heimdall("config", "validate", file, "--json", code=2).stdout)
    assert not told["valid"]
    assert {"path": "TrainingSpec.lr", "found": "no such field",
            "allowed": "TrainingSpec.learning_rate (did you mean that?)"} in told["problems"]  # fmt: skip
    assert heimdall("config", "validate", str(tmp_path / "none.yaml"), code=2).stderr.startswith("Error: profile ")


# --- who wins


def test_a_later_place_wins_over_an_earlier_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = write(tmp_path, "TrainingSpec: {max_epochs: 2, batch_size: 3, accumulate_batches: 9}\n", "s.yaml")
    chosen = read_chosen(
        Asked(
            profile="embedded",
            file=Path(settings),
            shortcuts=shorten(TrainingSpec__max_epochs=4, TrainingSpec__batch_size=5),
            assignments=("TrainingSpec.max_epochs=6", "TrainingSpec.learning_rate=1e-3"),
        )
    )
    training = find(chosen, TrainingSpec)
    assert (training.max_epochs, training.batch_size, training.accumulate_batches) == (6, 5, 9)
    assert training.activation_checkpointing  # the profile's
    sources = {path.partition(".")[2]: one.source for path, one in chosen.settings.items()}
    assert (sources["max_epochs"], sources["batch_size"]) == ("--set", "--batch-size")
    assert sources["accumulate_batches"] == f"--settings {settings}"
    assert sources["activation_checkpointing"] == "profile embedded"
    assert "TrainingSpec.max_epochs: --set 6 wins over --epochs 4" in capsys.readouterr().err


def test_every_short_option_sets_its_field():
    given = {"--epochs": 3, "--batch-size": 5, "--learning-rate": 0.25, "--accelerator": "cpu", "--devices": 2,
             "--num-workers": 1}  # fmt: skip
    assert set(given) == {one.option for one in SHORTCUTS}
    found = {}

    @click.command()
    @settings_options
    def command(asked: Asked) -> None:
        found["chosen"] = read_chosen(asked)

    result = CliRunner().invoke(command, [str(word) for pair in given.items() for word in pair])
    assert result.exit_code == 0, result.output + repr(result.exception)
    training, machine = find(found["chosen"], TrainingSpec), find(found["chosen"], MachineSpec)
    assert (training.max_epochs, training.batch_size, training.learning_rate, training.num_devices) == (3, 5, 0.25, 2)
    assert (machine.accelerator, machine.num_workers) == ("cpu", 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--epochs", "3", "--epochs", "4"), "--epochs: found 3 and 4, expected one of them"),
        (("--set", "TrainingSpec.seed=1", "--set", "TrainingSpec.seed=2"), "--set TrainingSpec.seed: found 1 and 2"),
        (("--epochs", "0"), "TrainingSpec.max_epochs: found 0, expected greater than or equal to 1"),
        (("--epochs", "many"), "Invalid value for '--epochs'"),
        (("--accelerator", "tpu"), "Invalid value for '--accelerator'"),
        (("--devices", "0"), "TrainingSpec.num_devices: found 0"),
        (("--profile", "labtop"), "profile labtop: found none, did you mean laptop?"),
        (
            ("--profile", "hpc"),
            "expected 4 GPUs of at least 32 GiB",
        ),
        (
            ("--devices", "2", "--accelerator", "gpu"),
            "--accelerator gpu, --devices 2: this machine: found no GPU, expected 2 GPUs; nearest ",
        ),
        (("--set", "TrainingSpec.precision=16-mixed"), "found 16-mixed without a GPU, expected 32-true or bf16-mixed"),
    ],
)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_what_cannot_be_is_one_line_and_nothing_is_made(
    tmp_path: Path, command: str, arguments: tuple[str, ...], said: str
):
    error = heimdall(command, *arguments, code=2).stderr.strip()
    assert error.startswith("Error: ")
    assert "\n" not in error
    assert said in error
    assert not (tmp_path / "home").exists()


def test_the_refusal_names_what_is_needed_what_was_found_and_what_runs_before_anything_slow_is_loaded(tmp_path: Path):
    program = (
        "import sys\nfrom heimdall_assets.cli import main\n"
        "try:\n    main(['train', '--profile', 'hpc'])\n"
        "except SystemExit as end:\n    print(end.code, *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=300)
    code, *loaded = done.stdout.split()
    assert code == "2"
    assert "profile hpc: this machine: found no GPU" in done.stderr
    assert "expected 4 GPUs of at least 32 GiB" in done.stderr
    assert "nearest profile that runs here: laptop" in done.stderr
    assert not {"torch", "lightning", "dagster", "pandas", "mlflow"} & set(loaded)


# --- where the profile comes from, and what it asks


def test_the_environment_names_the_profile_of_those_who_name_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEIMDALL_PROFILE", "embedded")
    assert find(read_chosen(Asked()), TrainingSpec).accumulate_batches == 4
    assert find(read_chosen(Asked(profile="laptop")), TrainingSpec).accumulate_batches == 1
    monkeypatch.setenv("HEIMDALL_PROFILE", write(tmp_path, OWN + "ModelSpec: {width: 32}\n"))
    assert find(read_chosen(Asked()), ModelSpec).width == 32
    monkeypatch.setenv("HEIMDALL_PROFILE", "labtop")
    with pytest.raises(InvalidSetting, match="HEIMDALL_PROFILE: found 'labtop', expected hpc, "):
        read_chosen(Asked())


def test_a_cluster_is_asked_for_what_the_profile_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEIMDALL_EXECUTOR", "k8s")
    chosen = read_chosen(Asked(profile="hpc"))
    asked = find(chosen, AcceleratorSpec)
    assert (asked.num_gpus, asked.num_cpus, asked.memory_gib) == (4, 16, 64)
    assert find(chosen, TrainingSpec).batch_size == 512
    own = write(tmp_path, OWN + "AcceleratorSpec: {gpu_type: H200, spot: true}\n")
    asked = find(read_chosen(Asked(profile=own)), AcceleratorSpec)
    assert (asked.gpu_type, asked.spot, asked.memory_gib) == ("H200", True, 3)
    monkeypatch.setenv("HEIMDALL_EXECUTOR", "in_process")
    with pytest.raises(InvalidSetting, match=r"executor in_process: found AcceleratorSpec.gpu_type"):
        read_chosen(Asked(profile=own))
    assert not [spec for spec in read_chosen(Asked(profile="laptop")).specs if isinstance(spec, AcceleratorSpec)]


def test_weights_and_biases_that_is_not_installed_is_refused_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # nothing is installed there
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    own = write(tmp_path, OWN + "tracking: {wandb: always}\n")
    with pytest.raises(MissingDependency, match=r"tracking.wandb always: found no package wandb, expected heimdall"):
        read_chosen(Asked(profile=own))
    read_chosen(Asked(profile=write(tmp_path, OWN + "tracking: {wandb: installed}\n")))
    assert "Weights & Biases is told nothing (heimdall-assets[wandb] brings it)" in capsys.readouterr().err


# --- a training


def test_a_training_through_a_profile_says_so_in_its_summary_and_its_lineage(tmp_path: Path):
    fill_home(tmp_path / "home")
    own = write(tmp_path, OWN + "TrainingSpec: {accumulate_batches: 2}\n")
    arguments = ["--profile", own, "--epochs", "1", "--batch-size", "4", "--accelerator", "cpu", "--num-workers", "0"]
    made = json.loads(heimdall("train", *arguments, *TINY, "--json").stdout)
    assert made["profile"].startswith("mine (sha256:")
    told = json.loads(heimdall("lineage", "latest", "--json").stdout)
    (checkpoint,) = [node for node in told["nodes"] if node["kind"] == "trained_checkpoint"]
    assert checkpoint["facts"]["profile"] == made["profile"]
    assert checkpoint["specs"]["TrainingSpec"]["max_epochs"] == 1
    assert checkpoint["specs"]["TrainingSpec"]["accumulate_batches"] == 2
    assert f"profile {made['profile']}" in heimdall("lineage", "latest").stdout
    steps = json.loads(heimdall("plan", *arguments, *TINY, "--json").stdout)
    assert {step["action"] for step in steps if step["asset"] != "champion_model"} == {"reuse"}
