"""Signatures on a release: they hold for its files alone, by keys that counted when it was made, and whose they are."""

import base64
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidSetting, NotFound, Refused
from heimdall_assets.lineage.attestations import BUNDLE_FILE, LINEAGE_TYPE, SLSA_TYPE, verify_bundle
from heimdall_assets.lineage.audit import verify_model
from heimdall_assets.lineage.findings import Evidence
from heimdall_assets.lineage.signatures import list_signers
from heimdall_assets.manifests import compute_digest, decode_canonical_json, encode_canonical_json
from heimdall_assets.specs import TrainingSpec
from heimdall_assets.stores.keys import make_key, read_key
from heimdall_assets_tests.lineage.world import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose releases are signed."""
    world = make_world(tmp_path, 5)
    world.key = make_key(tmp_path / "key.pem")
    world.releases.add_key(world.key.id, world.key.public_pem, "Office", "ada")
    return world


def judge(world: World, evidence: Evidence) -> list[str]:
    findings = verify_model(evidence, world.objects, world.read_table)
    assert all(finding.kind in ("signature", "release_file", "ledger_row") for finding in findings), findings
    return [finding.found for finding in findings if finding.kind == "signature"]


def test_a_signed_release_says_whose_signature_it_is(world: World) -> None:
    evidence = world.gather(world.release(world.make_chain()))
    assert judge(world, evidence) == []
    assert world.name(list_signers(evidence)) == [f"Office (key {world.key.id[:16]})"]
    lines = evidence.files[BUNDLE_FILE].splitlines()
    statements = [decode_canonical_json(base64.b64decode(json.loads(line)["payload"])) for line in lines]
    assert [statement["predicateType"] for statement in statements] == [SLSA_TYPE, LINEAGE_TYPE]
    signed = {entry["name"] for entry in statements[0]["subject"]}
    assert signed == set(evidence.files) - {BUNDLE_FILE, "SHA256SUMS"}
    dependencies = {each["name"] for each in statements[0]["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert {"approved_measurements", "trained_checkpoint", "code"} <= dependencies
    assert statements[1]["predicate"]["log"]["size"] == world.sizes["v1.0.0"]


def test_a_release_without_signatures_is_said_to_have_none(tmp_path: Path) -> None:
    world = make_world(tmp_path, 5)
    evidence = world.gather(world.release(world.make_chain()))
    assert judge(world, evidence) == []
    assert list_signers(evidence) == []


def test_signatures_are_of_these_files_and_no_others(world: World) -> None:
    evidence = world.gather(world.release(world.make_chain()))
    for files, said in (
        ({**evidence.files, "README.md": b"# another"}, "README.md"),
        ({name: data for name, data in evidence.files.items() if name != "metrics.json"}, "metrics.json"),
        ({**evidence.files, "more.txt": b""}, "more.txt"),
    ):
        forged = replace(evidence, files=files)
        assert judge(world, forged) == [f"line {line}: it states otherwise of {said}" for line in (1, 2)]
        assert list_signers(forged) == []


def edit_bundle(bundle: bytes, change) -> bytes:
    lines = [decode_canonical_json(line) for line in bundle.splitlines()]
    change(lines)
    return b"".join(encode_canonical_json(line) + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[0].update(payload=base64.b64encode(b"{}").decode()), "does not hold"),
        (lambda lines: lines[0].update(payloadType="text/plain"), "found payload type 'text/plain'"),
        (lambda lines: lines[0].update(signatures=[]), "found no signature"),
        (
            lambda lines: lines[0]["signatures"][0].update(keyid="0" * 64),
            f"signed by key {'0' * 64}, which nobody knows",
        ),
        (lambda lines: lines[0]["signatures"][0].update(sig=base64.b64encode(b"x" * 64).decode()), "does not hold"),
        (lambda lines: lines[0].update(signatures=lines[0]["signatures"] * 2), "Multiple signatures"),
        (lambda lines: lines[0].pop("payload"), "payload"),
        (lambda lines: lines.pop(), f"found statements of ['{SLSA_TYPE}'], expected one of each kind"),
        (lambda lines: lines.append(lines[0]), "expected one of each kind"),
        (lambda lines: lines.clear(), "found statements of [], expected one of each kind"),
    ],
)
def test_a_forged_bundle_is_found(world: World, change, said: str) -> None:
    evidence = world.gather(world.release(world.make_chain()))
    bundle = edit_bundle(evidence.files[BUNDLE_FILE], change)
    (found,) = judge(world, replace(evidence, files={**evidence.files, BUNDLE_FILE: bundle}))
    assert said in found


@pytest.mark.parametrize("bundle", [b"{", b"[]\n", b"null\n", b"\xff\n", b'{"payload":1}\n'])
def test_a_bundle_of_garbage_is_a_problem_and_no_crash(world: World, bundle: bytes) -> None:
    signers, problems = verify_bundle(bundle, {}, {world.key.id: world.key.public_pem})
    assert not signers
    assert problems


def test_another_public_key_under_a_known_id_is_found(world: World, tmp_path: Path) -> None:
    evidence = world.gather(world.release(world.make_chain()))
    other = make_key(tmp_path / "other.pem")
    keys = {world.key.id: replace(evidence.keys[world.key.id], public_pem=other.public_pem)}
    said = f"line 1: signed by key {world.key.id}, which the log gives another public key"
    assert judge(world, replace(evidence, keys=keys))[0] == said


def test_what_a_key_signed_before_it_was_retired_still_counts_and_nothing_after(world: World) -> None:
    first = world.release(world.make_chain())
    world.releases.retire_key(world.key.id, "ada", "the machine was sold")
    second = world.release(world.make_chain(TrainingSpec(seed=7)), "minor")  # by somebody who still has the file
    assert judge(world, world.gather(first)) == []
    (found,) = judge(world, world.gather(second))
    assert found.startswith(f"signed by key {world.key.id} after entry ")
    assert list_signers(world.gather(first)) != list_signers(world.gather(second)) == []


# --- keys


def test_a_key_is_private_stays_and_signs_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = read_key(path)
    assert (again.id, again.public_pem) == (key.id, key.public_pem)
    assert key.sign(b"{}", "text/plain") == again.sign(b"{}", "text/plain")
    before = path.read_bytes()
    with pytest.raises(Refused, match="found a file already, expected none: a key that signed must not be lost"):
        make_key(path)
    assert path.read_bytes() == before
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize("data", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_one_line_without_its_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    with pytest.raises(InvalidSetting, match="HEIMDALL_SIGNING_KEY: found something else in ") as caught:
        read_key(path)
    assert "AAAA" not in str(caught.value)
    with pytest.raises(InvalidSetting, match="could not be read"):
        read_key(tmp_path / "nowhere")
    with pytest.raises(InvalidSetting, match="found a folder"):
        read_key(tmp_path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = generate_private_key(SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidSetting, match="found a key of another kind"):
        read_key(path)


def test_keys_are_added_once_and_retired_once(world: World) -> None:
    key = world.key
    with pytest.raises(Refused, match="found it in the log already"):
        world.releases.add_key(key.id, key.public_pem, "Office", "ada")
    with pytest.raises(NotFound, match="found none of this id that counts"):
        world.releases.retire_key("0" * 64, "ada", "why")
    with pytest.raises(Refused, match="expected a text that is not blank"):
        world.releases.retire_key(key.id, "ada", " ")
    world.releases.retire_key(key.id, "ada", "sold")
    with pytest.raises(NotFound, match="found none of this id that counts"):
        world.releases.retire_key(key.id, "ada", "again")
    with pytest.raises(Refused, match="found it in the log already"):
        world.releases.add_key(key.id, key.public_pem, "Office", "ada")
    (known,) = world.releases.list_keys().values()
    assert (known.id, world.name(known.owner), known.reason) == (key.id, "Office", "sold")
    assert known.retired_entry == known.entry + 1
    assert world.releases.check_ledger() == []


def test_the_commands_make_list_and_retire_keys(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path))

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.output

    path = tmp_path / "mine.pem"
    made = json.loads(run("keys", "make", str(path), "--owner", "Rita", "--json"))
    assert made["id"] == read_key(path).id
    assert "PRIVATE" not in json.dumps(made)
    assert "found a file already" in run("keys", "make", str(path), "--owner", "Rita", status=2)
    assert "found it in the log already" in run("keys", "add", str(path), "--owner", "Rita", status=2)
    listed = json.loads(run("keys", "list", "--json"))
    assert [(row["owner"], row["retired_at"]) for row in listed] == [("Office", None), ("Rita", None)]
    assert "retired" in run("keys", "retire", made["id"], "--by", "rita", "--reason", "lost the laptop")
    assert json.loads(run("keys", "list", "--json"))[1]["reason"] == "lost the laptop"
    assert compute_digest(path.read_bytes()) not in run("ledger", "export", str(tmp_path / "log.jsonl"))
    assert b"PRIVATE" not in (tmp_path / "log.jsonl").read_bytes()


def test_a_checkpoint_is_signed_and_one_that_was_edited_is_found(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path))
    world.release(world.make_chain())

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.output

    kept, mine = tmp_path / "checkpoint.txt", str(tmp_path / "key.pem")
    run("ledger", "checkpoint", "--key", mine, "--output", str(kept))
    assert run("ledger", "checkpoint", "--key", mine) == kept.read_text()
    told = json.loads(run("ledger", "checkpoint", "--key", mine, "--json"))
    assert told["key"] == world.key.id
    assert len(kept.read_text().splitlines()) == 5
    run("verify", "latest", "--checkpoint", str(kept))
    kept.write_text(kept.read_text().replace(f"\n{told['size']}\n", f"\n{told['size'] - 1}\n"))
    told = json.loads(run("verify", "latest", "--checkpoint", str(kept), "--json", status=1))
    assert ("signature", "the checkpoint") in {(finding["kind"], finding["name"]) for finding in told["findings"]}
    make_key(tmp_path / "other.pem")
    said = run("ledger", "checkpoint", "--key", str(tmp_path / "other.pem"), status=2)
    assert "found one that does not count" in said


def test_approvals_are_signed_by_who_decides_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path))
    world = make_world(tmp_path, 0)
    names = world.add_sessions(0, 5)

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.output

    path = tmp_path / "ada.pem"
    run("keys", "make", str(path), "--owner", "Ada")
    why = ("--reason", "heard", "--key", str(path))
    assert "found it to be Ada's, expected that of Bob" in run(
        "sessions", "approve", names[0], "--by", "Bob", *why, status=2
    )
    assert run("sessions", "approve", *names[:3], "--by", "Ada", *why) == "approved: 3 sessions, signed\n"
    told = json.loads(run("sessions", "approve", *names[3:], "--by", "Bob", "--reason", "heard", "--json"))
    assert told == {"decision": "approved", "num_sessions": 2, "signed": False}
    world.release(world.make_chain())
    assert "; not signed; 5 approvals, signed of them: 3 by Ada" in run("verify", "latest")
    assert json.loads(run("verify", "latest", "--json"))["approvals"] == {"number": 5, "signed": {"Ada": 3}}
    bad = tmp_path / "bad.pem"
    bad.write_text("garbage")
    said = run("sessions", "reject", names[0], "--by", "Ada", "--reason", "x", "--key", str(bad), status=2)
    assert f"--key: found something else in {bad}" in said
