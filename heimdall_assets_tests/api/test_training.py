import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from safetensors.numpy import load_file

from heimdall_assets.api import TrainingPipeline, open_home
from heimdall_assets.errors import InvalidSetting, NotFound
from heimdall_assets.manifests import compute_digest
from heimdall_assets.running.graph_run import GraphFailed
from heimdall_assets.specs import DatasetSpec, FeatureSpec, RetrainPolicy, TrainingSpec
from heimdall_assets_tests.homes import TINY


@pytest.fixture(scope="module")
def made(released_home, tmp_path_factory):
    """A home whose graph ran once, opened in Python, and what that run made."""
    places, summary = released_home(tmp_path_factory.mktemp("api") / "home")
    return open_home(environ={"HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"}), summary


def test_python_finds_what_the_command_made_and_releases_nothing_twice(made, capfd):
    home, summary = made
    result = TrainingPipeline(home, specs=TINY, reason="again, from Python").run()
    assert not any(result.computed.values()), result.computed
    assert result.version == summary["version"]
    decided = {"champion_model"}
    assert {name: digest for name, digest in result.manifests.items() if name not in decided} == {
        name: digest for name, digest in summary["manifests"].items() if name not in decided
    }
    digests = summary["digests"]["trained_checkpoint"]
    assert compute_digest(result.checkpoint_path.read_bytes()) == digests["weights.safetensors"]
    assert load_file(result.checkpoint_path)
    onnx.checker.check_model(str(result.onnx_path))
    assert result.onnx_path.read_bytes() == home.stores.releases.read_file(result.version, "model.onnx")
    assert result.final_metrics["num_sessions"] == summary["num_sessions"]
    assert result.is_champion
    assert result.mlflow_run_id is None  # MLflow is told nothing here
    assert capfd.readouterr() == ("", "")
    assert "again, from Python" not in home.lineage()  # found again: the release tells why it was made first


def test_progress_is_written_for_whoever_asks(made, capsys):
    home, _ = made
    TrainingPipeline(home, specs=TINY, progress=True).run()
    assert "evaluation_metrics: sessions judged" in capsys.readouterr().out


def test_a_training_of_python_is_in_mlflow_and_in_the_lineage(made, tmp_path):
    """In a process of its own: what is on its terminal is nothing but what it writes itself."""
    home, _ = made
    program = (
        "import json, sys\n"
        "from heimdall_assets.api import TrainingPipeline, open_home\n"
        "from heimdall_assets_tests.homes import TINY\n"
        "from heimdall_assets.specs import TrainingSpec\n"
        "specs = [spec for spec in TINY if not isinstance(spec, TrainingSpec)]\n"
        "specs.append(TrainingSpec(max_epochs=1, num_threads=1, seed=7))\n"
        "result = TrainingPipeline(open_home(sys.argv[1]), specs=specs, reason='another seed').run()\n"
        "print(json.dumps([result.mlflow_run_id, result.version, result.computed['trained_checkpoint']]))\n"
    )
    asked = [sys.executable, "-c", program, str(home.places.home)]
    tracked = {**os.environ, "HEIMDALL_TRACKING": "on"}
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False, env=tracked)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run_id, version, computed = json.loads(done.stdout)
    assert computed == 1
    assert run_id
    assert "another seed" in home.lineage(version)
    assert home.predict(home.sessions()[0]["id"], version)["version"] == version
    assert home.locate(home.sessions()[0]["id"])["ellipse_90"]
    assert home.evaluate(version)["num_sessions"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"specs": [TrainingSpec(), TrainingSpec(seed=1)]}, "found TrainingSpec twice, expected one"),
        ({"specs": [RetrainPolicy()]}, "found RetrainPolicy, expected some of DatasetSpec"),
        ({"specs": [{"max_epochs": 1}]}, "found dict, expected some of"),
        ({"specs": [DatasetSpec()], "campaigns": ["demo"]}, "expected one of them"),
    ],
)
def test_settings_that_are_none_are_refused_before_anything_runs(made, asked, said):
    with pytest.raises(InvalidSetting, match=said):
        TrainingPipeline(made[0], **asked)


def test_what_cannot_train_says_so_by_its_type(made, tmp_path: Path):
    with pytest.raises(NotFound, match=r"campaign dem: found no sessions, did you mean demo\?"):
        TrainingPipeline(made[0], campaigns=["dem"]).run()
    with pytest.raises(NotFound, match="found 0 approved sessions"):
        TrainingPipeline(open_home(tmp_path / "home", begin=True, environ={})).run()
    with pytest.raises(GraphFailed, match="spectrogram"):
        TrainingPipeline(made[0], specs=[*TINY, FeatureSpec(f_max_hz=1e6)]).run()


def test_a_start_is_chosen_by_what_people_call_it(made):
    home, summary = made
    digest = summary["manifests"]["trained_checkpoint"]
    pipeline = TrainingPipeline(home, specs=[TrainingSpec(max_epochs=1)], start_from="v1.0.0")
    chosen = {type(spec).__name__: spec for spec in pipeline.specs}
    assert chosen["TrainingSpec"] == TrainingSpec(max_epochs=1, start_from=f"sha256:{digest}")
    assert chosen["ModelSpec"].width == 16
    with pytest.raises(NotFound, match="found no such file"):
        TrainingPipeline(home, start_from=home.places.home / "weights.safetensors")


def test_a_profile_is_laid_under_the_specs_and_must_fit_the_machine(tmp_path):
    home = open_home(tmp_path / "home", begin=True, environ={})
    pipeline = TrainingPipeline(home, profile="embedded", specs=[TrainingSpec(max_epochs=3)])
    chosen = {type(spec).__name__: spec for spec in pipeline.specs}
    assert chosen["TrainingSpec"].max_epochs == 3
    assert chosen["TrainingSpec"].activation_checkpointing is True
    assert chosen["ExportSpec"].variants[0] == "fp32"
    with pytest.raises(InvalidSetting, match="profile hpc: this machine: found no GPU"):
        TrainingPipeline(home, profile="hpc")
    with pytest.raises(InvalidSetting, match="laptp"):
        TrainingPipeline(home, profile="laptp")
