"""``heimdall ledger prove``, ``prove-growth`` and ``check-proof``: from a real log to a file that needs none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heimdall_assets.cli import main
from heimdall_assets.stores.keys import make_key
from heimdall_assets_tests.lineage.world import World, make_world

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("HEIMDALL_DATABASE_URL", "HEIMDALL_OBJECTS", "HEIMDALL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path))
    world = make_world(tmp_path, 5, None)
    world.release(world.make_chain())
    return world


def run(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["ledger", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_a_release_is_proved_to_whoever_kept_a_checkpoint(home: World, tmp_path: Path, monkeypatch: Any):
    kept, proof, log = (tmp_path / name for name in ("kept.txt", "proof.json", "log.jsonl"))
    run("checkpoint", "--output", kept)
    run("export", log)
    entries = log.read_text().splitlines()
    home.approve(home.add_sessions(5, 1))
    assert run("prove", "latest", "--checkpoint", kept, "--output", proof).stdout == (
        f"wrote {proof}: proof of inclusion\n"
    )
    told = json.loads(proof.read_text())
    assert told["entry"] == entries[told["index"]]
    assert json.loads(told["entry"])["version"] == "v1.0.0"
    assert json.loads(run("prove", "v1.0.0", "--checkpoint", kept, "--json").stdout) == told
    assert json.loads(run("prove", told["index"], "--checkpoint", kept).stdout) == told
    monkeypatch.setenv("HEIMDALL_HOME", str(tmp_path / "nothing here"))  # from here on, files alone
    said = run("check-proof", proof, "--checkpoint", kept).stdout.splitlines()
    assert said[0] == told["entry"]
    assert said[1].startswith(f"proof {proof}: holds: entry {told['index']} is in log ")
    answer = json.loads(run("check-proof", proof, "--json").stdout)
    assert (answer["holds"], answer["problems"], answer["signed_by"], answer["entry"]) == (True, [], [], told["entry"])
    proof.write_text(json.dumps({**told, "entry": told["entry"].replace("v1.0.0", "v1.0.1")}))
    failed = run("check-proof", proof, code=1).stdout.splitlines()
    assert failed == [
        f"error: found a path that does not lead from entry {told['index']} to the root",
        f"proof {proof}: does not hold",
    ]
    assert json.loads(run("check-proof", proof, "--json", code=1).stdout)["holds"] is False
    assert not (tmp_path / "nothing here").exists()


def test_growth_is_proved_between_two_checkpoints_and_since_one(home: World, tmp_path: Path):
    old, new, proof, key = (tmp_path / name for name in ("old.txt", "new.txt", "proof.json", "key.pem"))
    signer = make_key(key)
    home.releases.add_key(signer.id, signer.public_pem, "Office", "ada")
    run("checkpoint", "--key", key, "--output", old)
    home.approve(home.add_sessions(5, 1))
    run("checkpoint", "--key", key, "--output", new)
    run("prove-growth", old, new, "--output", proof)
    assert json.loads(run("prove-growth", old).stdout)["path"] == json.loads(proof.read_text())["path"]
    public = tmp_path / "public.pem"
    public.write_text(signer.public_pem)
    told = json.loads(run("check-proof", proof, "--key", public, "--checkpoint", old, "--json").stdout)
    assert (told["holds"], told["signed_by"]) == (True, [signer.id])
    assert told["checkpoints"][0]["size"] < told["checkpoints"][1]["size"]
    said = run("check-proof", proof, "--key", public).stdout
    assert said.rstrip().endswith(f"signed by {signer.id}")
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(make_key(tmp_path / "other.pem").public_pem)
    assert "found no signature of a given key" in run("check-proof", proof, "--key", stranger, code=1).stdout
    assert "as heimdall keys list --json shows it" in run("check-proof", proof, "--key", key, code=2).stderr


def test_what_cannot_be_proved_is_one_line(home: World, tmp_path: Path):
    kept = tmp_path / "kept.txt"
    run("checkpoint", "--output", kept)
    size = json.loads(run("checkpoint", "--json").stdout)["size"]
    assert f"log entry {size}: found entries 0 to {size - 1}" in run("prove", size, code=2).stderr
    assert "model nobody: found no such release" in run("prove", "nobody", code=2).stderr
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join([lines[0], str(size + 1), lines[2], ""]))
    for arguments in (("prove", "0", "--checkpoint", kept), ("prove-growth", kept)):
        assert "was cut or written anew since" in run(*arguments, code=2).stderr
    kept.write_text("nothing")
    assert f"{kept}: found 'nothing'" in run("prove-growth", kept, code=2).stderr
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(10_000_001)
    assert "expected at most 10000000" in run("check-proof", large, code=2).stderr
