import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.manifests import Manifest

TINY = ("--set", "EvaluationSpec.num_bootstrap=100")


@pytest.fixture(scope="module")
def made(released_home, tmp_path_factory):
    return released_home(tmp_path_factory.mktemp("starting") / "home")


@pytest.fixture
def heimdall(made, monkeypatch):
    monkeypatch.setenv("HEIMDALL_HOME", str(made[0].home))

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def list_kept(home: Path) -> list[Path]:
    """Everything that trainings keep and begin: objects, references, releases, checkpoints under way."""
    return sorted(path for part in ("objects", "heimdall-models", "scratch") for path in (home / part).rglob("*"))


def read_checkpoint(made, told) -> Manifest:
    return Manifest.decode(made[0].open_stores().objects.read_bytes(told["manifests"][TRAINED_CHECKPOINT]))


def test_a_training_starts_from_a_release(made, heimdall):
    result = heimdall("train", "--from", "v1.0.0", *TINY, "--set", "TrainingSpec.max_epochs=1", "--json")
    checkpoint = read_checkpoint(made, json.loads(result.stdout))
    assert checkpoint.specs["TrainingSpec"]["start_from"] == f"sha256:{made[1]['manifests'][TRAINED_CHECKPOINT]}"
    assert checkpoint.specs["ModelSpec"]["width"] == 16
    assert "Starts from v1.0.0: network, all of its weights are trained" in result.stderr


def test_resume_asks_for_an_ended_training_again_and_then_for_more_epochs(made, heimdall):
    again = heimdall("train", "--resume", made[1]["run_id"][:8], "--json")
    told = json.loads(again.stdout)
    assert not any(told["computed"].values())
    assert told["version"] == "v1.0.0"
    assert "ended after 2 of 2 epochs: it is asked for again as it was" in again.stderr
    first = read_checkpoint(made, told)
    more = heimdall("train", "--resume", "v1.0.0", "--epochs", "3", *TINY, "--json")
    checkpoint = read_checkpoint(made, json.loads(more.stdout))
    assert checkpoint.specs["TrainingSpec"] == first.specs["TrainingSpec"] | {"max_epochs": 3}
    assert checkpoint.summary["resumed_from"]["epoch"] == 2
    assert "v1.0.0 had 2 epochs: up to 1 more, from its last state; step sizes are those of 3 epochs" in more.stderr
    for named in ("--resume",), ("--resume", checkpoint.digest):  # the run before, and by its name: found again
        again = json.loads(heimdall("train", *named, "--json").stdout)
        assert again["computed"][TRAINED_CHECKPOINT] == 0
        assert again["manifests"][TRAINED_CHECKPOINT] == checkpoint.digest
    longer = heimdall("train", "--resume", checkpoint.digest, "--epochs", "4", *TINY, "--json")
    last = read_checkpoint(made, json.loads(longer.stdout))
    assert last.summary["resumed_from"]["epoch"] == 3
    reproduced = heimdall("reproduce", json.loads(longer.stdout)["version"])
    assert "made again, the same bytes at every stage" in reproduced.stdout


def test_more_epochs_need_the_last_state(made, heimdall):
    """Retention removes it: what is left is said, and the training begins nothing."""
    kept = made[0].home / "runs"
    aside = kept.rename(kept.with_name("runs-aside"))
    try:
        result = heimdall("train", "--resume", "v1.0.0", "--epochs", "3", code=2)
    finally:
        aside.rename(kept)
    assert "the last state of its training is not kept in this home" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "latest", "--resume"), "--from and --resume: expected one of them"),
        (("--freeze-backbone",), "found a backbone of random weights, expected --from MODEL"),
        (("--from", "latest", "--freeze-backbone"), "latest sees no spectrograms and has no backbone to freeze"),
        (("--from", "v9.9.9"), "model v9.9.9: found no such release"),
        (("--from", "latest", "--set", "ModelSpec.width=32"), "ModelSpec.width: found 32, expected 16 as latest has"),
        (("--from", "FOLDER/weights.ckpt"), "found a pickle, which is never loaded, expected safetensors"),
        (("--resume", "FOLDER/weights.ckpt"), "found a pickle, which is never loaded, expected safetensors"),
        (("--from", "FOLDER/short.safetensors"), "found 5 bytes that are no whole safetensors"),
        (("--resume", "00000000"), "run 00000000: found none that trained"),
        (("--resume", "v1.0.0", "--set", "TrainingSpec.max_epochs=1"), "expected more than the 2 that v1.0.0 had"),
        (
            ("--resume", "v1.0.0", "--learning-rate", "0.5"),
            "resume: TrainingSpec.learning_rate: found 0.5, expected",
        ),
        (("--resume", "v1.0.0", "--epochs", "3", "--set", "ModelSpec.width=32"), "ModelSpec.width: found 32, expected"),
    ],
)
def test_a_start_that_is_none_is_one_line_and_changes_nothing(made, heimdall, tmp_path, arguments, said):
    (tmp_path / "weights.ckpt").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "short.safetensors").write_bytes(b"\x40\x00\x00\x00\x00")
    before = list_kept(made[0].home)
    asked = [one.replace("FOLDER", str(tmp_path)) for one in arguments]
    result = heimdall("train", *asked, code=2)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert said in lines[0]
    assert list_kept(made[0].home) == before
