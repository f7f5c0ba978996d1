"""Audit: a whole release passes in silence; one flipped byte in any kind of stored thing is found and named."""

import random
import sqlite3
from dataclasses import replace

import pytest

from heimdall_assets.lineage.audit import list_objects, list_recordings, verify_model
from heimdall_assets.manifests import compute_digest, encode_canonical_json
from heimdall_assets_tests.lineage.world import find_object_path, make_world


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, 5)


@pytest.fixture
def version(world):
    return world.release(world.make_chain())


def audit(world, version, evidence=None, **others):
    return verify_model(evidence or world.gather(version), world.objects, world.read_table, **others)


def list_hung(world, version):
    """Return the digest of every object behind a release."""
    provenance = world.read_provenance(version)
    return set(list_objects(provenance, list_recordings(provenance, world.objects, world.read_table)))


def find_recording(world, version):
    """Return digest and measurement of a recording behind a release."""
    return next(iter(list_recordings(world.read_provenance(version), world.objects, world.read_table).items()))


def flip_byte(path, place=None):
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    place = len(data) // 2 if place is None else place
    data[place] ^= 0x01
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def change_row(world, statement, *values):
    """Change a row behind the store's back, its guards taken away first."""
    with sqlite3.connect(world.database) as connection:
        for (name,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            connection.execute(f'drop trigger "{name}"')
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


def test_a_whole_release_has_nothing_to_tell(world, version):
    told = []
    findings = audit(world, version, progress=lambda what, done, total: told.append((what, done, total)))
    assert findings == []
    count = len(list_hung(world, version))
    assert told[-1] == ("objects hashed", count, count)


def test_a_flipped_byte_in_any_object_is_found_and_named(world, version):
    generator = random.Random(3)
    for digest in sorted(list_hung(world, version)):
        path = find_object_path(world, digest)
        whole = path.read_bytes()
        flip_byte(path, generator.randrange(len(whole)))
        findings = audit(world, version)
        assert [finding.name.split()[-1] for finding in findings if finding.severity == "error"] == [digest]
        assert findings[0].kind in {"object", "recording", "manifest"}
        assert findings[0].releases == (version,)
        assert version in findings[0].next_command
        path.write_bytes(whole)
    assert audit(world, version) == []


def test_the_finding_says_what_the_object_is(world, version):
    provenance = world.read_provenance(version)
    nodes = {node["kind"]: node for node in provenance["nodes"]}
    recording, measurement = find_recording(world, version)
    for digest, kind, name in (
        (recording, "recording", measurement),
        (nodes["trained_checkpoint"]["digest"], "manifest", "trained_checkpoint"),
        (nodes["trained_checkpoint"]["artifacts"]["weights.safetensors"]["digest"], "object", "weights.safetensors"),
        (nodes["spectrogram_features"]["summary"]["shards"][0], "object", "spectrogram_features shard"),
    ):
        path = find_object_path(world, digest)
        whole = path.read_bytes()
        path.unlink()
        (finding,) = audit(world, version)
        assert finding.kind == kind
        assert name in finding.name
        assert finding.found == "no such object"
        assert digest in finding.describe()
        path.write_bytes(whole)
    path.write_bytes(b"")
    assert len(audit(world, version)) == 1


def test_a_damaged_object_names_every_release_that_hangs_on_it(world, version):
    world.approve(world.add_sessions(5, 2))
    second = world.release(world.make_chain())
    hung = {name: list_hung(world, name) for name in (version, second)}
    flip_byte(find_object_path(world, find_recording(world, version)[0]))

    def find_releases(digests):
        return {digest: tuple(name for name in hung if digest in hung[name]) for digest in digests}

    (finding,) = [found for found in audit(world, second, find_releases=find_releases) if found.severity == "error"]
    assert finding.releases == (version, second)
    assert "heimdall import" in finding.next_command


@pytest.mark.parametrize("name", ["model.onnx", "metrics.json", "README.md", "provenance.json"])
def test_a_flipped_byte_in_any_release_file_is_found_and_named(world, version, name):
    path = world.releases.files.folder(version) / name
    for place in (0, path.stat().st_size // 2, path.stat().st_size - 1):
        whole = path.read_bytes()
        flip_byte(path, place)
        findings = audit(world, version)
        assert {finding.name.split()[0] for finding in findings} == {f"{version}/{name}"}
        assert findings[0].kind == ("provenance" if name == "provenance.json" else "release_file")
        assert findings[0].releases == (version,)
        assert "--repair" in findings[0].next_command
        path.write_bytes(whole)
    path.unlink()
    assert audit(world, version)[0].found == "no such file"


def test_a_file_that_was_not_released_is_named(world, version):
    folder = world.releases.files.folder(version)
    folder.chmod(0o755)
    (folder / "extra.bin").write_bytes(b"x")
    (finding,) = audit(world, version)
    assert (finding.kind, finding.name) == ("release_file", f"{version}/extra.bin")


def test_a_provenance_rewritten_with_its_ledger_row_does_not_match_the_model(world, version):
    """Whoever edits the file, the object and the ledger alike still leaves the model's own metadata and the objects."""
    provenance = world.read_provenance(version)
    provenance["specs"]["TrainingSpec"]["seed"] = 7
    data = encode_canonical_json(provenance)
    evidence = world.gather(version)
    digest = compute_digest(data)
    forged = replace(
        evidence,
        files={**evidence.files, "provenance.json": data},
        release={
            **evidence.release,
            "provenance": digest,
            "files": {**evidence.release["files"], "provenance.json": {"sha256": digest, "size": len(data)}},
        },
        database_rows=None,
    )
    findings = audit(world, version, forged)
    assert {finding.kind for finding in findings} == {"provenance", "ledger_row"}
    assert any("model.onnx" in finding.expected for finding in findings)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("update approval_events set reason = 'because' where id = 2", "approval_events 2 of session"),
        ("update approval_events set decided_by = 'Eve' where id = 2", "approval_events 2 of session"),
        ("delete from approval_events where id = 4", "approval_events 4 of session"),
    ],
)
def test_a_changed_ledger_row_is_found_and_named(world, version, statement, named):
    change_row(world, statement)
    findings = [finding for finding in audit(world, version) if finding.severity == "error"]
    assert {finding.kind for finding in findings} <= {"ledger_row"}
    assert any(named in finding.name for finding in findings)
    assert all(finding.releases == (version,) for finding in findings)
    assert all("backup" in finding.next_command for finding in findings)


def test_a_changed_release_row_is_told_from_a_changed_file(world, version):
    row = world.releases.find_record(version)["files"]["metrics.json"]["sha256"]
    wrong = ("0" if row[0] != "0" else "1") + row[1:]
    change_row(world, "update model_releases set files = replace(files, ?, ?)", row, wrong)
    findings = audit(world, version)
    assert {finding.kind for finding in findings} == {"ledger_row"}
    # Said by the file and its object, and by the log.
    assert [finding.name for finding in findings] == [
        f"model_releases {version} metrics.json",
        f"model_releases {version}",
    ]


@pytest.mark.parametrize(("field", "value"), [("manifest", "0" * 64), ("median_m", 1.0), ("provenance", "1" * 64)])
def test_a_changed_release_record_is_named(world, version, field, value):
    evidence = world.gather(version)
    findings = audit(world, version, replace(evidence, release={**evidence.release, field: value}))
    assert [finding.name for finding in findings] == [f"model_releases {version} {field}"]


def test_a_withdrawn_session_is_a_notice_with_who_and_why(world, version):
    world.withdraw(["session-0002"])
    (finding,) = audit(world, version)
    assert finding.severity == "notice"
    assert finding.name == "session session-0002"
    assert "Bob" in world.name(finding.found)
    assert "wrong place" in finding.found
    assert finding.to_json()["releases"] == [version]


def test_dagster_events_that_say_otherwise_are_named(world, version):
    evidence = world.gather(version)
    number = next(iter(evidence.dagster_events))
    for change, word in (
        ({"data_version": "0" * 64}, "data_version"),
        ({"run_id": "other"}, "run_id"),
        ({"asset": "iq_files"}, "asset"),
        ({"inputs": {"measurement_database": "f" * 64}}, "input measurement_database"),
    ):
        edited = {**evidence.dagster_events, number: {**evidence.dagster_events[number], **change}}
        (finding,) = audit(world, version, replace(evidence, dagster_events=edited))
        assert finding.kind == "dagster_event"
        assert word in finding.found
        assert str(number) in finding.name


def test_deleted_dagster_events_are_a_notice_and_no_dagster_is_none(world, version):
    evidence = world.gather(version)
    findings = audit(world, version, replace(evidence, dagster_events={}))
    assert [finding.severity for finding in findings] == ["notice"]
    assert all(f"{node['kind']} " in findings[0].name for node in world.read_provenance(version)["nodes"])
    assert audit(world, version, replace(evidence, dagster_events=None)) == []


def test_a_row_changed_in_the_database_since_is_named(world, version):
    change_row(world, "update known_sources set latitude = 45.9 where id = 'source-1'")
    findings = audit(world, version)
    assert {finding.kind for finding in findings} == {"database_row"}
    (finding,) = findings
    assert finding.name == "source source-1"
    assert "source_latitude 45.9" in finding.found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("measurements set iq_sample_rate = 48000", "iq_sample_rate_hz 48000"),
        ("measurements set iq_start_unix_ns = iq_start_unix_ns + 1000000", "iq_start_unix_ns '17"),
        ("measurements set attributes = '{\"gain\":3}'", "measurement_attributes"),
        ("measurements set receiver_latitude = 1, receiver_longitude = 2", "receiver_latitude 1"),
    ],
)
def test_no_column_of_a_measurement_changes_unseen(world, version, change, found):
    change_row(world, f"update {change} where id = 'session-0001-station-a'")
    (finding,) = audit(world, version)
    assert (finding.kind, finding.name) == (
        "database_row",
        "measurement session-0001-station-a of session session-0001",
    )
    assert found in finding.found


@pytest.mark.parametrize("where", ["id = 'session-0001-station-a'", "1 = 1"])
def test_rows_of_an_approved_session_that_are_gone_are_named(world, version, where):
    change_row(world, f"delete from measurements where {where}")
    findings = [finding for finding in audit(world, version) if finding.severity == "error"]
    expected = 1 if "id" in where else 5 * 3
    assert [finding.kind for finding in findings] == ["database_row"] * expected
    assert all(finding.found == "no such row of an approved, completed session" for finding in findings)


def test_an_unreadable_provenance_still_gives_the_other_findings(world, version):
    entry = world.releases.find_record(version)["files"]["provenance.json"]["sha256"]
    find_object_path(world, entry).unlink()
    path = world.releases.files.folder(version) / "provenance.json"
    path.chmod(0o644)
    path.write_bytes(b"gone")
    change_row(world, "update approval_events set reason = 'because' where id = 2")
    kinds = {finding.kind for finding in audit(world, version)}
    assert kinds == {"provenance", "ledger_row"}


def test_old_releases_hold_after_newer_ones_additions_and_withdrawals(world):
    versions = []
    for step in range(5):
        versions.append(world.release(world.make_chain()))
        world.withdraw([f"session-{step:04d}"])
        world.approve(world.add_sessions(5 + 2 * step, 2))
    for version in versions:
        evidence = replace(world.gather(version), dagster_events={})
        assert all(finding.severity == "notice" for finding in audit(world, version, evidence))


def test_a_provenance_without_copy_is_judged_whatever_its_bytes_became(world, version):
    """With the copy gone the damaged file itself is read: any flip is a finding, none a crash."""
    evidence = world.gather(version)
    whole = evidence.files["provenance.json"]
    find_object_path(world, compute_digest(whole)).unlink()
    generator = random.Random(17)
    for _ in range(60):
        data = bytearray(whole)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        findings = audit(world, version, replace(evidence, files={**evidence.files, "provenance.json": bytes(data)}))
        assert any(finding.kind == "provenance" for finding in findings)


def test_a_file_that_became_an_empty_one_of_the_store_is_told_from_its_row(world, version):
    """Without the log's word a file with a twin among the objects is whole, an empty one too."""
    empty = world.objects.put_bytes(b"", "text/plain").digest
    evidence = world.gather(version)
    files = {**evidence.files, "README.md": b""}
    (finding,) = [found for found in audit(world, version, replace(evidence, files=files, logged={}))
                  if "README.md" in found.name and found.kind != "signature"]  # fmt: skip
    assert finding.kind == "ledger_row"
    assert empty in finding.expected
