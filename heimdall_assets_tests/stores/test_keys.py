"""Private keys in files and in the environment: opened, refused in one line, and never shown or handed on."""

import copy
import json
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidSetting
from heimdall_assets.places import read_places
from heimdall_assets.stores.keys import KeySource, make_key, read_key

PASSPHRASE = "open" + "-sesame-7"  # put together: a traceback shows lines of this file


def body_of(pem: str) -> str:
    """The secret part of a PEM file, as it would be found anywhere."""
    return "".join(line for line in pem.splitlines() if not line.startswith("-"))


@pytest.fixture
def pem(tmp_path: Path) -> str:
    make_key(tmp_path / "plain.pem")
    return (tmp_path / "plain.pem").read_text()


@pytest.fixture
def encrypted(tmp_path: Path) -> str:
    make_key(tmp_path / "encrypted.pem", PASSPHRASE)
    return (tmp_path / "encrypted.pem").read_text()


def test_a_key_is_the_same_from_a_file_and_from_the_environment(pem: str, tmp_path: Path):
    key = read_key(tmp_path / "plain.pem")
    in_one_line = pem.replace("\n", "\\n")
    for text in (pem, pem.strip(), in_one_line, f"\n{pem}"):
        source = read_places({"HEIMDALL_SIGNING_KEY_PEM": text}).find_signing_key()
        assert source is not None
        assert source.variable == "HEIMDALL_SIGNING_KEY_PEM"
        assert source.read().id == key.id
        assert source.read().sign_bytes(b"x") == key.sign_bytes(b"x")
    assert read_places({}).find_signing_key() is None


def test_an_encrypted_key_is_opened_by_its_passphrase_alone(encrypted: str, tmp_path: Path):
    assert "ENCRYPTED" in encrypted
    variables = {"HEIMDALL_SIGNING_KEY_PASSPHRASE": PASSPHRASE}
    from_file = read_places({"HEIMDALL_SIGNING_KEY": str(tmp_path / "encrypted.pem"), **variables}).find_signing_key()
    from_text = read_places({"HEIMDALL_SIGNING_KEY_PEM": encrypted, **variables}).find_signing_key()
    assert from_file is not None
    assert from_text is not None
    assert from_file.read().id == from_text.read().id
    sources = {
        "HEIMDALL_SIGNING_KEY": KeySource(tmp_path / "encrypted.pem"),
        "HEIMDALL_SIGNING_KEY_PEM": KeySource(pem=encrypted),
    }
    for name, given in sources.items():
        with pytest.raises(InvalidSetting, match=f"^{name}: found an encrypted key.*, expected its passphrase in"):
            given.read()
        with pytest.raises(InvalidSetting, match=f"^{name}: found a key.* that HEIMDALL_SIGNING_KEY_PASSPHRASE does n"):
            KeySource(given.path, given.pem, PASSPHRASE + "x").read()


def test_a_passphrase_closes_no_key_that_needs_none(pem: str):
    assert KeySource(pem=pem, passphrase=PASSPHRASE).read().id == KeySource(pem=pem).read().id


def test_a_traditional_encrypted_file_is_refused_by_what_it_holds(tmp_path: Path):
    """The older form of PEM says in a header that it is encrypted; no Ed25519 key has it."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    private = generate_private_key(SECP256R1())
    closed = BestAvailableEncryption(PASSPHRASE.encode())
    data = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, closed)
    (tmp_path / "ec.pem").write_bytes(data)
    with pytest.raises(InvalidSetting, match="found an encrypted key"):
        read_key(tmp_path / "ec.pem")
    with pytest.raises(InvalidSetting, match="found a key of another kind"):
        read_key(tmp_path / "ec.pem", passphrase=PASSPHRASE)


def test_two_keys_are_one_too_many(pem: str, tmp_path: Path):
    places = read_places({"HEIMDALL_SIGNING_KEY_PEM": pem, "HEIMDALL_SIGNING_KEY": str(tmp_path / "plain.pem")})
    with pytest.raises(
        InvalidSetting, match="HEIMDALL_SIGNING_KEY_PEM: found HEIMDALL_SIGNING_KEY set too, expected one"
    ):
        places.find_signing_key()


@pytest.mark.parametrize("damage", [lambda text: text[:60] + text[70:], lambda text: text.replace("-----END", "")])
def test_no_error_and_no_representation_shows_the_key(encrypted: str, pem: str, damage: Callable[[str], str]):
    hidden = [body_of(encrypted)[:20], body_of(pem)[:20], PASSPHRASE]
    with pytest.raises(
        InvalidSetting, match="HEIMDALL_SIGNING_KEY_PEM: found something else, expected an Ed25519"
    ) as one:
        KeySource(pem=damage(pem)).read()
    with pytest.raises(InvalidSetting) as two:
        KeySource(pem=damage(encrypted), passphrase=PASSPHRASE).read()
    with pytest.raises(InvalidSetting, match="expected a private key in PEM, -----BEGIN first") as three:
        read_places({"HEIMDALL_SIGNING_KEY_PEM": body_of(pem)})
    places = read_places({"HEIMDALL_SIGNING_KEY_PEM": pem, "HEIMDALL_SIGNING_KEY_PASSPHRASE": PASSPHRASE})
    source = places.find_signing_key()
    assert source is not None
    said = "".join("".join(traceback.format_exception(each.value)) for each in (one, two, three))
    said += f"{places!r} {places} {source!r} {source.read()!r} {places.share()}"
    assert [word for word in hidden if word in said] == []
    for hand_on in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="handed to no other process"):
            hand_on(source)


# --- by commands


@pytest.fixture
def heimdall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A home with nothing but its format and an empty database."""
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "home"))
    read_places().open_stores().measurements.close()

    def run(*arguments: str, code: int = 0, **variables: str) -> Result:
        result = CliRunner().invoke(main, arguments, env=variables)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def ask_doctor(heimdall: Callable[..., Result], code: int, **variables: str) -> dict[str, Any]:
    told = json.loads(heimdall("doctor", "--json", code=code, **variables).stdout)["places"]
    (found,) = [each for each in told if each["place"].startswith("HEIMDALL_SIGNING_KEY")]
    return dict(found)


def test_doctor_says_of_the_key_whether_it_can_be_read_is_known_and_counts(
    heimdall: Callable[..., Result], encrypted: str, tmp_path: Path
):
    closed = {"HEIMDALL_SIGNING_KEY_PEM": encrypted}
    opened = {**closed, "HEIMDALL_SIGNING_KEY_PASSPHRASE": PASSPHRASE}
    key = KeySource(pem=encrypted, passphrase=PASSPHRASE).read()
    assert ask_doctor(heimdall, 1, **closed)["told"].startswith("found an encrypted key, expected its passphrase")
    unknown = ask_doctor(heimdall, 1, **opened)
    assert unknown["state"] == "wrong"
    assert unknown["told"] == (
        f"in the environment: found key {key.id}, which nobody knows; heimdall keys add --owner NAME"
    )
    made = json.loads(heimdall("keys", "add", "--owner", "Office", "--json", **opened).stdout)
    assert made["id"] == key.id
    good = ask_doctor(heimdall, 0, **opened)
    assert (good["state"], good["told"]) == ("ok", f"in the environment: key {key.id} of Office, which counts")
    path = {"HEIMDALL_SIGNING_KEY": str(tmp_path / "encrypted.pem"), "HEIMDALL_SIGNING_KEY_PASSPHRASE": PASSPHRASE}
    assert ask_doctor(heimdall, 0, **path)["told"] == f"{tmp_path}/encrypted.pem: key {key.id} of Office, which counts"
    gone = ask_doctor(heimdall, 1, HEIMDALL_SIGNING_KEY=str(tmp_path / "nowhere.pem"))
    assert "could not be read" in gone["told"]
    heimdall("keys", "retire", key.id, "--by", "ada", "--reason", "sold")
    assert re.search(
        r"key \w{64} was retired at .*, expected one that counts", ask_doctor(heimdall, 1, **opened)["told"]
    )
    nowhere = ask_doctor(heimdall, 0, **opened, HEIMDALL_HOME=str(tmp_path / "new"))
    assert nowhere["state"] == "warning"
    assert "which no log knows yet" in nowhere["told"]


def test_keys_are_made_encrypted_and_sign_by_their_passphrase(heimdall: Callable[..., Result], tmp_path: Path):
    path = tmp_path / "mine.pem"
    assert (
        "--encrypt: found no HEIMDALL_SIGNING_KEY_PASSPHRASE"
        in heimdall("keys", "make", str(path), "--owner", "Rita", "--encrypt", code=2).stderr
    )
    assert not path.exists()
    opens = {"HEIMDALL_SIGNING_KEY_PASSPHRASE": PASSPHRASE}
    heimdall("keys", "make", str(path), "--owner", "Rita", "--encrypt", **opens)
    assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert "\u2014 heimdall-assets/log/" in heimdall("ledger", "checkpoint", "--key", str(path), **opens).stdout
    assert "--key: found an encrypted key" in heimdall("ledger", "checkpoint", "--key", str(path), code=2).stderr
    assert (
        "key: found no FILE, no HEIMDALL_SIGNING_KEY and no" in heimdall("keys", "add", "--owner", "X", code=2).stderr
    )


def test_a_fault_with_its_traceback_shows_no_key(pem: str, tmp_path: Path):
    """As a process of its own: what a person sees with --debug."""
    broken = pem.replace("-----END", "")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from heimdall_assets.cli import main; main()",
            "--debug",
            *["keys", "add", "--owner", "X"],
        ],
        capture_output=True,
        text=True,
        env={"HEIMDALL_SIGNING_KEY_PEM": broken, "HEIMDALL_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode != 0
    assert "HEIMDALL_SIGNING_KEY_PEM" in done.stderr
    assert body_of(pem)[:20] not in done.stdout + done.stderr
