"""The command line: results as JSON and as tables, errors as one line with exit status 2."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import numpy as np
import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.places import read_places
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.experiments import REGISTERED_MODEL, ExperimentStore
from heimdall_assets_tests.homes import make_places, release


@pytest.fixture(scope="module")
def home(released_home, tmp_path_factory):
    return released_home(tmp_path_factory.mktemp("cli") / "home")[0].home


@pytest.fixture
def heimdall(home, monkeypatch):
    monkeypatch.setenv("HEIMDALL_HOME", str(home))

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def one_error(result) -> str:
    """The one line of a failed command."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def test_models_are_listed_and_shown(heimdall):
    listed = json.loads(heimdall("models", "list", "--json").stdout)
    assert [model["version"] for model in listed] == ["v1.0.0"]
    assert listed[0]["aliases"] == ["challenger", "champion"]
    assert json.loads(heimdall("models", "show", "latest", "--json").stdout)["version"] == "v1.0.0"
    assert "v1.0.0" in heimdall("models", "show", "champion").stdout
    assert "v1.0.0" in heimdall("models", "list").stdout


def test_locate_and_predict_give_position_ellipse_and_error(heimdall):
    session = json.loads(heimdall("sessions", "list", "--json").stdout)[0]
    for command in (("locate",), ("predict", "latest")):
        for name in (session["id"], session["session_name"]):
            found = json.loads(heimdall(*command, name, "--json").stdout)
            assert {"latitude", "longitude", "error_m", "inside_90", "ellipse_90"} <= set(found)
            assert np.isfinite(found["error_m"])
            assert found.get("remarks", []) == []  # all is as in the training


def test_evaluate_judges_only_what_the_model_was_not_trained_on(heimdall):
    found = json.loads(heimdall("evaluate", "latest", "--json").stdout)
    assert found["num_sessions"] + found["num_refused_trained_on"] == 20
    assert found["num_sessions"] > 0
    assert {"median_m", "p90_m", "coverage_90", "baselines"} <= set(found)
    assert "tdoa_robust" in found["baselines"]
    assert "left out" in heimdall("evaluate", "latest").stdout


def test_plan_says_what_would_run_and_why(heimdall):
    tiny = ["--set", "ModelSpec.use_spectrograms=false", "--set", "ModelSpec.width=16"]
    tiny += ["--set", "ModelSpec.num_layers=1", "--set", "ModelSpec.num_heads=2", "--set", "TrainingSpec.max_epochs=2"]
    tiny += ["--set", "TrainingSpec.num_threads=1", "--set", "EvaluationSpec.num_bootstrap=100"]
    same = json.loads(heimdall("plan", *tiny, "--json").stdout)
    assert {step["action"] for step in same} == {"reuse"}
    other = {
        step["asset"]: step
        for step in json.loads(heimdall("plan", *tiny, "--set", "FeatureSpec.f_max_hz=5000", "--json").stdout)
    }
    assert other["iq_files"]["action"] == "reuse"
    assert other["spectrogram_features"]["reason"] == "FeatureSpec.f_max_hz: 6000 -> 5000"
    assert other["model_release"]["action"] == "compute"  # all the way down, not one step
    assert "would" in heimdall("plan").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("locate", "nobody"), "nobody"),
        (("predict", "v9.9.9", "nobody"), "v9.9.9"),
        (("evaluate", "latest", "--campaign", "nothing"), "campaign nothing: found no sessions, expected one of demo"),
        (("models", "show", "../../etc/passwd"), "expected 1 to 128"),
        (("train", "--set", "TrainingSpec.max_epochs=0"), "TrainingSpec.max_epochs"),
        (("train", "--set", "TrainingSpec.epochs=3"), "TrainingSpec.epochs"),
        (("train", "--set", "Nonsense.x=1"), "found no such spec"),
        (("train", "--set", "nonsense"), "expected Spec.field=value"),
        (("sessions", "approve", "--by", "me", "--reason", "x"), "exactly one"),
        (("sessions", "approve", "nobody", "--by", "me", "--reason", "x"), "nobody"),
        (("models", "rollback", "--by", "me", "--reason", "x"), "no champion before it"),
    ],
)
def test_errors_are_one_line_and_exit_2(heimdall, arguments, expected):
    assert expected in one_error(heimdall(*arguments, code=2))


def test_a_traceback_only_with_debug(heimdall):
    assert "Traceback" not in heimdall("locate", "nobody", code=2).stderr
    assert "Traceback" in heimdall("--debug", "locate", "nobody", code=2).stderr


def test_a_home_that_is_a_file_is_refused(heimdall, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HEIMDALL_HOME", str(file))
    assert "expected a folder" in one_error(heimdall("sessions", "list", code=2))


def test_an_unknown_executor_is_refused(heimdall, monkeypatch):
    monkeypatch.setenv("HEIMDALL_EXECUTOR", "slurm")
    assert "found 'slurm', expected in_process, local, ray or k8s" in one_error(heimdall("train", code=2))


def test_a_home_without_releases_says_so(heimdall, tmp_path, monkeypatch):
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "new"))
    make_places(tmp_path / "new").open_stores()
    listed = heimdall("models", "list", "--json")
    assert json.loads(listed.stdout) == []
    assert listed.stderr.startswith(f"home {tmp_path / 'new'} (HEIMDALL_HOME): no release yet; ")
    assert f"{tmp_path / 'new'} (HEIMDALL_HOME) holds no release yet" in one_error(
        heimdall("models", "show", "latest", code=2)
    )


def test_npy_recordings_are_imported_and_decided(heimdall, tmp_path, monkeypatch):
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(1)
    for name in ("A", "B"):
        samples = (rng.normal(size=24_000) + 1j * rng.normal(size=24_000)).astype(np.complex64) * 0.1
        np.save(tmp_path / f"websdr_{name}.npy", samples)
    command = ["import", "npy", "--session", "one", "--source", "Here,45,8,30", "--receiver", "A,45.1,8", "--receiver"]
    command += ["B,45,8.2", "--rate-hz", "24000", "--start", "2026-11-20T10:00:00Z", "--frequency-hz", "145.5e6"]
    files = [tmp_path / "websdr_A.npy", tmp_path / "websdr_B.npy"]
    assert json.loads(heimdall(*command, *files, "--json").stdout)["num_measurements"] == 2
    assert json.loads(heimdall("sessions", "list", "--status", "pending", "--json").stdout)[0]["session_name"] == "one"
    heimdall("sessions", "approve", "one", "--by", "me", "--reason", "I sent it")
    heimdall("sessions", "reject", "one", "--by", "me", "--reason", "wrong band")
    events = json.loads(heimdall("sessions", "show", "one", "--json").stdout)["approval_events"]
    assert [event["decision"] for event in events] == ["approved", "rejected"]
    assert "wrong band" in heimdall("sessions", "show", "one").stdout
    files[0].write_bytes(b"not a recording")
    refused = heimdall(*[part if part != "one" else "two" for part in command], *files, code=2)
    assert "websdr_A.npy" in one_error(refused)


@pytest.mark.parametrize("bad", ["Here,45", "Here,95,8", "Here,north,8", "../x,45,8", "Here,45,8,-1"])
def test_a_bad_source_is_refused(heimdall, tmp_path, bad):
    file = tmp_path / "A.npy"
    file.touch()
    one_error(
        heimdall(
            "import", "npy", "--session", "s", "--source", bad, "--receiver", "A,45,8", "--rate-hz", "24000",
            "--start", "2026-11-20T10:00:00Z", "--frequency-hz", "145e6", file, code=2,
        )
    )  # fmt: skip


def write_recordings(folder, home) -> tuple[list, list[str], str]:
    """The .npy files of one simulated session, with the options that say what they cannot."""
    stores = make_places(home).open_stores()
    session = stores.measurements.find_session(stores.measurements.list_sessions()[0]["id"])
    stations = {station["id"]: station for station in session["stations"]}
    files, options = [], []
    for number, row in enumerate(session["measurements"]):
        station = stations[row["websdr_station_id"]]
        files.append(folder / f"websdr_R{number}.npy")
        files[-1].write_bytes(stores.objects.read_location(row["iq_data_location"], 10**9))
        options += ["--receiver", f"R{number},{station['latitude']},{station['longitude']},{station['altitude_asl']}"]
    start = np.datetime64(session["measurements"][0]["iq_start_unix_ns"], "ns")
    options += ["--rate-hz", str(row["iq_sample_rate"]), "--frequency-hz", str(row["frequency_hz"])]
    return files, options, f"{start}Z"


def test_npy_files_are_predicted_with_what_they_cannot_say(heimdall, home, tmp_path):
    files, options, start = write_recordings(tmp_path, home)
    before = len(json.loads(heimdall("sessions", "list", "--json").stdout))
    command = ["predict", "latest", *files, *options]
    found = json.loads(heimdall(*command, "--start", start, "--clock", "gnss_calibrated", "--json").stdout)
    assert np.isfinite([found["latitude"], found["longitude"], found["ellipse_90"]["semi_major_m"]]).all()
    assert len(json.loads(heimdall("sessions", "list", "--json").stdout)) == before
    assert "found no start, expected it stated" in one_error(heimdall(*command, code=2))
    assert "found no time zone" in one_error(heimdall(*command, "--start", start[:-1], code=2))
    untimed = json.loads(heimdall(*command, "--start", start, "--json").stdout)
    assert "0 of 4 recordings of the session are timed" in untimed["refused"][0]
    assert untimed["ellipse_90"]["semi_minor_m"] > 50e3  # told by nothing but where the receivers stand
    session = json.loads(heimdall("sessions", "list", "--json").stdout)[0]["id"]
    assert "options about files" in one_error(heimdall("predict", "latest", session, "--clock", "gnss", code=2))


def run_in_terminal(home, width: int, *arguments: str) -> list[str]:
    """The lines that a command writes to a real terminal of that width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    command = [sys.executable, "-c", "from heimdall_assets.cli import main; main()", *arguments]
    environment = {**os.environ, "HEIMDALL_HOME": str(home), "TERM": "dumb"}
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        said = b""
        with suppress(OSError):  # the terminal is gone when its last writer is
            while part := os.read(leader, 65536):
                said += part
    os.close(leader)
    assert process.returncode == 0, said.decode()
    return said.decode().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_a_session_is_shown_in_the_width_of_a_terminal(heimdall, home, width):
    session = json.loads(heimdall("sessions", "list", "--json").stdout)[0]["id"]
    whole = json.loads(heimdall("sessions", "show", session, "--json").stdout)
    lines = run_in_terminal(home, width, "sessions", "show", session)
    assert max(map(len, lines)) <= width
    assert len(whole["measurements"]) == len(whole["stations"]) == 4
    for value in (session, whole["session_name"], whole["source"]["name"], "4 receivers", "approved by heimdall"):
        assert any(value in line for line in lines), value  # nothing is cut or folded away
    for station in whole["stations"]:
        assert any(station["name"] in line and f"{station['latitude']:.5f}" in line for line in lines)


def test_files_are_predicted_without_becoming_sessions(heimdall, shared_data):
    files = sorted((shared_data / "kiwisdr_dcf77_2017").glob("*.wav"))
    positions = ["HB9RYZ,47.1721,8.42683", "F1JEK,45.779290,0.614638", "DF0KL,53.665337,7.282766"]
    options = [part for position in positions for part in ("--receiver", position)]
    before = len(json.loads(heimdall("sessions", "list", "--json").stdout))
    found = json.loads(heimdall("predict", "latest", *files, *options, "--json").stdout)
    assert np.isfinite([found["latitude"], found["longitude"], found["ellipse_90"]["semi_major_m"]]).all()
    assert found["error_m"] is None  # nobody said where the transmitter stands
    said = "\n".join(found["remarks"])
    for outside in (
        "frequency 0.0775 MHz, trained at 145",
        "clock gnss, trained with gnss_calibrated",
        "3 receivers of 3",
    ):
        assert f"outside of the training of v1.0.0: {outside}" in said
    assert "heimdall locate learned nothing" in said
    assert len(json.loads(heimdall("sessions", "list", "--json").stdout)) == before
    assert "no position for station DF0KL, expected --receiver DF0KL,LAT,LON" in one_error(
        heimdall("predict", "latest", *files, code=2)
    )
    assert "there is none" in one_error(heimdall("predict", "latest", *files, "missing.wav", *options, code=2))


def find_object(home, digest):
    return home / "objects" / "objects" / "sha256" / digest[:2] / digest


def test_a_model_is_made_again_and_heals_what_was_damaged(heimdall, home):
    told = json.loads(heimdall("lineage", "latest", "--json").stdout)
    nodes = {node["kind"]: node for node in told["nodes"]}
    weights = nodes["trained_checkpoint"]["artifacts"]["weights.safetensors"]["digest"]
    shards = nodes["spectrogram_features"]["summary"]["shards"]
    assert len(shards) == 3  # of spectrograms, of tracks, of correlations
    manifest = nodes["train_split"]["digest"]
    for digest in (weights, *shards, manifest):
        path = find_object(home, digest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(bytes(data))
    found = json.loads(heimdall("verify", "latest", "--json", code=1).stdout)["findings"]
    assert {finding["name"].split()[-1] for finding in found} == {weights, *shards, manifest}
    assert all("heimdall reproduce v1.0.0 --repair" in finding["next_command"] for finding in found)

    made = json.loads(heimdall("reproduce", "latest", "--repair", "--json").stdout)
    assert [stage["stage"] for stage in made["stages"]][:2] == ["iq_files", "spectrogram_features"]
    assert made["same"]
    assert made["first_difference"] is None
    assert not any(stage["differences"] for stage in made["stages"])
    assert made["environment"] == {}
    assert set(made["restored"]) == {weights, *shards, manifest}
    assert json.loads(heimdall("verify", "latest", "--json").stdout)["ok"]
    assert not list((home / "scratch").iterdir())  # what was made apart is gone again


def test_another_setting_names_the_first_stage_that_comes_out_otherwise(heimdall):
    made = json.loads(heimdall("reproduce", "latest", "--set", "TrainingSpec.seed=7", "--json", code=1).stdout)
    differences = {stage["stage"]: stage["differences"] for stage in made["stages"]}
    assert made["first_difference"] == "trained_checkpoint"
    settings = [line for line in differences["trained_checkpoint"] if line.startswith("TrainingSpec.")]
    assert settings == ["TrainingSpec.seed 42 then, 7 now"]  # what is not named stays as it was recorded
    assert any("weights.safetensors" in line for line in differences["trained_checkpoint"])
    assert differences["spectrogram_features"] == []
    assert "DatasetSpec" in one_error(heimdall("reproduce", "latest", "--set", "DatasetSpec.origin=both", code=2))


@pytest.mark.filterwarnings(
    # Habits of MLflow and of what it imports.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
)
def test_mlflow_hears_of_a_promotion_at_once_and_its_absence_costs_one_line(heimdall, home, monkeypatch, tmp_path):
    """The last of this file: it makes a second release."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    places = read_places()
    release(places, TrainingSpec(max_epochs=1, num_threads=1))  # untracked
    monkeypatch.setenv("HEIMDALL_TRACKING", "on")
    store = ExperimentStore(places.mlflow_uri)
    releases = places.open_stores().releases
    versions = [record["version"] for record in releases.list_releases()]
    assert versions == ["v1.0.0", "v1.1.0"]

    untold = heimdall("models", "promote", "v1.1.0", "--by", "me", "--reason", "faster")
    assert "found no registered version, it was released untracked" in untold.stderr
    for version in versions:
        store.register_release(None, version, "sha256:r")
    for command, champion in (("promote", "v1.1.0"), ("rollback", "v1.0.0")):
        model = ("v1.1.0",) if command == "promote" else ()
        said = heimdall("models", command, *model, "--by", "me", "--reason", "seen in the field", "--json")
        assert json.loads(said.stdout) == {"champion": champion}
        assert "Warning" not in said.stderr
        told = store.open_client().get_model_version_by_alias(REGISTERED_MODEL, "champion")
        assert told.tags["heimdall.version"] == champion
    challenger = store.open_client().get_model_version_by_alias(REGISTERED_MODEL, "challenger")
    assert challenger.tags["heimdall.version"] == "v1.1.0"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/none.db")
    away = heimdall("models", "promote", "v1.1.0", "--by", "me", "--reason", "again")
    assert [line.partition(":")[0] for line in away.stderr.strip().splitlines()] == ["Warning"]
    assert releases.resolve("champion") == "v1.1.0"
    monkeypatch.setenv("HEIMDALL_TRACKING", "off")
    assert heimdall("models", "rollback", "--by", "me", "--reason", "quietly").stderr == ""
    assert list(tmp_path.iterdir()) == []
