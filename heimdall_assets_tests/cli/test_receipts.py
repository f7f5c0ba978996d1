"""The commands that write and check receipts, on a real tiny released model: every way of handing in input."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidInput
from heimdall_assets.lineage import verify_release
from heimdall_assets.manifests import compute_digest, decode_canonical_json, encode_canonical_json
from heimdall_assets.media_types import NPY_MEDIA_TYPE
from heimdall_assets.pipeline.prediction.stored import observe_stored
from heimdall_assets.pipeline.prediction.used import Used
from heimdall_assets_tests.cli.test_commands import one_error, write_recordings
from heimdall_assets_tests.homes import make_places
from heimdall_assets_tests.pipeline.test_observations import simulate, write_table

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def home(released_home: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home: Path = released_home(tmp_path_factory.mktemp("receipts") / "home")[0].home
    return home


@pytest.fixture
def heimdall(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HEIMDALL_HOME", str(home))

    def run(*arguments: Any, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def find_session(heimdall: Run) -> dict[str, Any]:
    session: dict[str, Any] = json.loads(heimdall("sessions", "list", "--json").stdout)[0]
    return session


def read_predicate(file: Path) -> dict[str, Any]:
    (line,) = file.read_bytes().splitlines()
    predicate: dict[str, Any] = decode_canonical_json(base64.b64decode(json.loads(line)["payload"]))["predicate"]
    return predicate


def check_by_both(heimdall: Run, home: Path, file: Path) -> dict[str, Any]:
    """Return what the command says of a receipt that it and the script agree with."""
    told: dict[str, Any] = json.loads(heimdall("receipt", file, "--json").stdout)
    assert (told["ok"], told["findings"]) == (True, [])
    log = file.with_name("log.jsonl")
    heimdall("ledger", "export", log)
    release = home / "heimdall-models" / "v1.0.0"
    faults, _ = verify_release.verify(release, home / "objects", log, None, [], file)
    assert faults == []
    return told


def test_a_stored_session_leaves_a_receipt_that_is_not_signed(heimdall: Run, home: Path, tmp_path: Path) -> None:
    session, file = find_session(heimdall), tmp_path / "receipt.json"
    written = heimdall("predict", "latest", session["session_name"], "--receipt", file, "--json")
    answer = json.loads(written.stdout)
    assert written.stderr.splitlines()[-1] == f"wrote {file}: receipt, not signed"
    assert answer == json.loads(heimdall("predict", "latest", session["session_name"], "--json").stdout)
    said = read_predicate(file)
    assert encode_canonical_json(said["answer"]) == encode_canonical_json(answer)
    assert {"RecordingSpec", "FeatureSpec", "DelaySpec", "TimingSpec"} == set(said["settings"])
    shown = json.loads(heimdall("sessions", "show", session["id"], "--json").stdout)
    locations = {f"recording {row['id']}": row["iq_data_location"] for row in shown["measurements"]}
    recordings = {each["name"]: f"sha256:{each['sha256']}" for each in said["inputs"][1:]}
    assert recordings == locations
    assert said["inputs"][0]["name"] == f"values of {session['id']}"
    told = check_by_both(heimdall, home, file)
    assert (told["signed_by"], told["num_held"], told["num_named"]) == ([], 4, 4)
    lines = heimdall("receipt", file).stdout.splitlines()
    assert lines[-1] == f"receipt {file}: all agrees; not signed; 4 of 4 inputs in the store"
    assert f"{answer['latitude']}, {answer['longitude']}, given out by v1.0.0 at 20" in lines[0]
    shown_to_people = heimdall("predict", "latest", session["session_name"], "--receipt", file).stdout.splitlines()
    assert shown_to_people[-1] == f"wrote {file}: receipt, not signed"


def test_files_leave_a_receipt_that_names_each_and_what_stood_beside_it(
    heimdall: Run, home: Path, tmp_path: Path
) -> None:
    files, options, start = write_recordings(tmp_path, home)
    beside = files[0].with_name(files[0].name + ".json")
    beside.write_text('{"station": "R0"}')
    file = tmp_path / "receipt.json"
    command = ["predict", "latest", *files, *options, "--start", start, "--clock", "gnss_calibrated", "--json"]
    answer = json.loads(heimdall(*command, "--receipt", file).stdout)
    said = read_predicate(file)
    assert encode_canonical_json(said["answer"]) == encode_canonical_json(answer)
    digests = {each["name"]: each["sha256"] for each in said["inputs"] if "sha256" in each}
    expected = {f"recording R{number}": compute_digest(path.read_bytes()) for number, path in enumerate(files)}
    read = [*files, beside]
    expected |= {f"file {n} {path.name}": compute_digest(path.read_bytes()) for n, path in enumerate(read, start=1)}
    assert digests == expected
    (values,) = [each["values"] for each in said["inputs"] if "values" in each]
    assert sorted(row["station_name"] for row in values) == ["R0", "R1", "R2", "R3"]
    assert {row["clock_class"] for row in values} == {"gnss_calibrated"}
    assert not {"source_latitude", "session_id"} & set(values[0])  # nobody said so
    told = check_by_both(heimdall, home, file)
    assert (told["num_held"], told["num_named"]) == (4, 5)  # the files are the recordings; the sidecar is in no store


def test_a_table_leaves_a_receipt_of_all_its_sessions(heimdall: Run, home: Path, tmp_path: Path) -> None:
    table = write_table(simulate(2), tmp_path, "bearing", "bearing_sigma_deg")
    file = tmp_path / "receipt.json"
    options = ["--receivers", table["receivers"], "--frequency-hz", "868.1e6"]
    found = json.loads(heimdall("predict", "latest", table["table"], *options, "--receipt", file, "--json").stdout)
    said = read_predicate(file)
    assert encode_canonical_json(said["answer"]) == encode_canonical_json(found)
    files = {each["name"]: each["sha256"] for each in said["inputs"] if "sha256" in each}
    assert files == {
        "file 1 log.csv": compute_digest(table["table"].read_bytes()),
        "file 2 receivers.json": compute_digest(table["receivers"].read_bytes()),
    }
    values = {each["name"]: each["values"] for each in said["inputs"] if "values" in each}
    assert sorted(values) == ["values of u0000", "values of u0001"]
    assert all(int(row["arrival_unix_ns"]) > 0 for rows in values.values() for row in rows)
    check_by_both(heimdall, home, file)
    assert "2 sessions, given out by v1.0.0" in heimdall("receipt", file).stdout


def test_what_is_signed_is_said_to_be_and_a_change_ends_in_status_1(
    heimdall: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    made = json.loads(heimdall("keys", "make", key, "--owner", "Office", "--json").stdout)
    monkeypatch.setenv("HEIMDALL_SIGNING_KEY", str(key))
    session, file = find_session(heimdall)["id"], tmp_path / "receipt.json"
    out = heimdall("predict", "latest", session, "--receipt", file).stdout
    assert out.splitlines()[-1] == f"wrote {file}: receipt, signed by key {made['id']}"
    assert check_by_both(heimdall, home, file)["signed_by"] == [f"Office (key {made['id'][:16]})"]
    assert f"signed by Office (key {made['id'][:16]})" in heimdall("receipt", file).stdout
    whole = file.read_bytes()
    envelope = json.loads(whole)
    statement = decode_canonical_json(base64.b64decode(envelope["payload"]))
    statement["predicate"]["answer"]["latitude"] += 1e-9
    payload = base64.b64encode(encode_canonical_json(statement)).decode()
    file.write_bytes(encode_canonical_json(envelope | {"payload": payload}) + b"\n")
    told = json.loads(heimdall("receipt", file, "--json", code=1).stdout)
    assert [(one["kind"], one["name"]) for one in told["findings"]] == [("receipt", "signature"), ("receipt", "answer")]
    said = heimdall("receipt", file, code=1).stdout
    assert "error: receipt answer: found subject " in said
    assert f"receipt {file}: 2 errors; no signature that holds; 4 of 4 inputs in the store" in said
    file.write_bytes(b"garbage")
    (line, last) = heimdall("receipt", file, code=1).stdout.splitlines()
    assert line.startswith(f"error: receipt {file}: found ")
    assert last.startswith(f"receipt {file}: 1 error")
    heimdall("keys", "retire", made["id"], "--by", "me", "--reason", "sold")
    file.unlink()
    refused = one_error(heimdall("predict", "latest", session, "--receipt", file, code=2))
    assert "was retired at" in refused
    assert not file.exists()
    file.write_bytes(whole)
    assert "notice: receipt signature: found key " in heimdall("receipt", file).stdout


def test_what_cannot_be_written_or_read_is_one_line_and_nothing_is_half_written(
    heimdall: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = find_session(heimdall)["id"]
    nowhere = heimdall("predict", "latest", session, "--receipt", tmp_path / "no" / "receipt.json", code=2)
    assert f"found no folder {tmp_path / 'no'}, expected one" in one_error(nowhere)
    assert nowhere.stdout == ""  # no position without the receipt that was asked for
    full = heimdall("predict", "latest", session, "--receipt", "/dev/full", code=2)
    assert full.stderr.splitlines()[-1].startswith("Error: /dev/full: could not be written (")
    assert full.stdout == ""
    assert "found no file, expected one that" in one_error(heimdall("receipt", tmp_path / "none.json", code=2))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "found a pipe, expected a regular file" in one_error(heimdall("receipt", pipe, code=2))
    files, options, start = write_recordings(tmp_path, home)
    before = files[0].read_bytes()
    command = ["predict", "latest", *files, *options, "--start", start]
    said = one_error(heimdall(*command, "--receipt", files[0], code=2))
    assert "found a file to be located, expected another one" in said
    assert files[0].read_bytes() == before
    monkeypatch.setenv("HEIMDALL_SIGNING_KEY", str(files[0]))
    said = one_error(heimdall("predict", "latest", session, "--receipt", tmp_path / "receipt.json", code=2))
    assert "expected an Ed25519 private key" in said
    assert not (tmp_path / "receipt.json").exists()


def test_a_file_that_changes_while_it_is_read_leaves_no_receipt(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a")
    used = Used()
    used.add_files([path, path])
    used.check_files()
    assert used.inputs == [{"name": "file 1 log.csv", "sha256": compute_digest(b"a")}]
    path.write_text("b")
    with pytest.raises(InvalidInput, match=r"log\.csv: changed while it was read, expected the same bytes"):
        used.check_files()


def test_a_recording_that_is_refused_is_named_all_the_same(heimdall: Run, home: Path, tmp_path: Path) -> None:
    """It decided the answer too: by being left out."""
    stores = make_places(home).open_stores()
    rows = stores.measurements.read_session_rows(find_session(heimdall)["id"])
    silent = tmp_path / "silent.npy"
    np.save(silent, np.zeros(24_000, dtype=np.complex64))
    digest = stores.objects.put_bytes(silent.read_bytes(), NPY_MEDIA_TYPE).digest
    rows.loc[rows.index[0], "iq_data_location"] = f"sha256:{digest}"
    used = Used()
    _, refused = observe_stored(stores, rows, used=used)
    assert set(refused["what"]) >= {"recording"}
    named = {each["name"]: each.get("sha256") for each in used.inputs}
    assert named[f"recording {rows['measurement_id'].iloc[0]}"] == digest
    stores.measurements.close()
