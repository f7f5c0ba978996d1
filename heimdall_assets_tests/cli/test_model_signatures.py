"""Releases signed as OpenSSF's model-signing does: its library reads ours, we read its own, and no change passes."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.errors import InvalidSetting, MissingDependency
from heimdall_assets.stores.model_signatures import sign_files
from heimdall_assets_tests.lineage.world import World, make_world
from heimdall_assets_tests.stores.releasing import take_away

Run = Callable[..., Result]
PASSPHRASE = "open" + "-sesame"


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("model_signing", reason="model-signing is not installed")


@pytest.fixture(params=["folder", "bucket"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("HEIMDALL_DATABASE_URL", "HEIMDALL_OBJECTS", "HEIMDALL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "home"))
    models = None
    if request.param == "bucket":
        models = request.getfixturevalue("bucket")
        monkeypatch.setenv("HEIMDALL_MODELS", models)
    world = make_world(tmp_path / "home", 5, models)
    world.release(world.make_chain())
    return world


def run(*arguments: Any, code: int = 0, **variables: str) -> Result:
    result = CliRunner().invoke(main, ["models", *map(str, arguments)], env=variables)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def make_pair(folder: Path, name: str, passphrase: str = "") -> tuple[Path, Path]:
    """A private key of P-256 and its public one, as openssl makes them."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    private = generate_private_key(SECP256R1())
    closed = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    paths[0].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed))
    paths[1].write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return paths


def test_its_own_library_reads_what_we_sign_and_we_what_it_signs(library: Any, home: World, tmp_path: Path):
    from model_signing import signing, verifying

    private, public = make_pair(tmp_path, "key")
    signature, copy = tmp_path / "model.sig", tmp_path / "copy"
    told = json.loads(run("sign", "latest", "--key", private, "--output", signature, "--json").stdout)
    names = home.releases.files.list_files("v1.0.0")
    assert told == {"version": "v1.0.0", "file": str(signature), "num_files": len(names)}
    copy.mkdir()
    for name in names:
        (copy / name).write_bytes(home.releases.files.read("v1.0.0", name))
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(copy, signature)
    payload = json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))
    assert payload["predicateType"] == "https://model_signing/signature/v1.0"
    assert [each["name"] for each in payload["predicate"]["resources"]] == sorted(names)
    assert payload["subject"][0]["name"] == "v1.0.0"
    said = run("check-signature", "v1.0.0", signature, "--key", public).stdout
    assert said == "model v1.0.0: the signature holds\n"
    theirs = tmp_path / "theirs.sig"
    signing.Config().use_elliptic_key_signer(private_key=private).sign(copy, theirs)
    assert json.loads(run("check-signature", "latest", theirs, "--key", public, "--json").stdout)["holds"] is True
    assert list((tmp_path / "home" / "scratch").glob("*")) == []  # what was laid out is gone


def test_no_change_of_a_file_a_key_or_the_signature_passes(library: Any, home: World, tmp_path: Path):
    private, public = make_pair(tmp_path, "key")
    _, other = make_pair(tmp_path, "other")
    signature = tmp_path / "model.sig"
    run("sign", "latest", "--key", private, "--output", signature)

    def check(file: Path, key: Path) -> str:
        told = json.loads(run("check-signature", "latest", file, "--key", key, "--json", code=1).stdout)
        assert told["holds"] is False
        return str(told["problem"])

    assert "Key mismatch" in check(signature, other)
    bundle = json.loads(signature.read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).decode()
    forged = tmp_path / "forged.sig"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace("v1.0.0", "v1.0.1").encode()).decode()
    forged.write_text(json.dumps(bundle))
    assert check(forged, public) == "found a signature that is not of this key"
    for text in ("", "{}", "[]", "nothing"):
        forged.write_text(text)
        assert check(forged, public)
    home.releases.files.write_file("v1.0.0", "README.md", b"another story")
    home.releases.files.write_file("v1.0.0", "more.txt", b"from somebody else")
    take_away(home.releases, "v1.0.0", "model.onnx")
    expected = "found model.onnx missing; more.txt not signed; README.md changed, expected the files that were signed"
    assert check(signature, public) == expected
    assert run("sign", "latest", "--key", private, "--output", tmp_path / "late.sig", code=2).stderr.startswith(
        "Error: "
    )
    assert not (tmp_path / "late.sig").exists()  # what was not published is not signed


def test_a_key_of_another_kind_is_refused_in_one_line(library: Any, home: World, tmp_path: Path):
    from heimdall_assets.stores.keys import make_key

    make_key(tmp_path / "ours.pem")
    _, public = make_pair(tmp_path, "key")
    closed, opened = make_pair(tmp_path, "closed", PASSPHRASE)
    signature = tmp_path / "model.sig"
    (tmp_path / "garbage.pem").write_text("garbage")
    for key in ("ours.pem", "garbage.pem", "key.pub"):
        failed = run("sign", "latest", "--key", tmp_path / key, "--output", signature, code=2).stderr
        assert "expected a private key of a curve P-256, P-384 or P-521" in failed
    assert "could not be read" in run("sign", "latest", "--key", tmp_path / "no", "--output", signature, code=2).stderr
    assert "found an encrypted key" in run("sign", "latest", "--key", closed, "--output", signature, code=2).stderr
    run("sign", "latest", "--key", closed, "--output", signature, HEIMDALL_SIGNING_KEY_PASSPHRASE=PASSPHRASE)
    run("check-signature", "latest", signature, "--key", opened)
    failed = run("check-signature", "latest", signature, "--key", tmp_path / "garbage.pem", code=2).stderr
    assert "expected a public key of a curve" in failed
    assert public.exists()


def test_without_its_library_one_line_says_what_to_install(tmp_path: Path):
    import importlib.util

    if importlib.util.find_spec("model_signing") is not None:
        pytest.skip("model-signing is installed")
    private, _ = make_pair(tmp_path, "key")
    with pytest.raises(MissingDependency, match=r"install heimdall-assets\[model-signing\]"):
        sign_files(tmp_path, "v1.0.0", {}, (private, ""))
    assert issubclass(InvalidSetting, Exception)
