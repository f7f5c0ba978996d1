"""The script in each release: alone with Python it agrees that a release is whole, and names whatever was changed."""

import base64
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.lineage import verify_release
from heimdall_assets.lineage.attestations import BUNDLE_FILE
from heimdall_assets.lineage.verify_release import compute_root, decode, encode, main, verify
from heimdall_assets.manifests import compute_digest, encode_canonical_json
from heimdall_assets.merkle import compute_root as compute_root_ours
from heimdall_assets.merkle import hash_leaf
from heimdall_assets.stores.keys import make_key
from heimdall_assets_tests.lineage.world import World, make_world
from heimdall_assets_tests.test_words import JSON_VALUES


class Kept:
    """A release taken away: its folder, the store's objects, the log, and the checkpoint that somebody kept."""

    def __init__(self, folder: Path):
        self.folder, self.release = folder, folder / "v1.0.0"
        self.objects, self.log, self.checkpoint = folder / "objects", folder / "log.jsonl", folder / "checkpoint.txt"
        self.key = folder / "public.pem"

    def verify(self) -> list[tuple[str, str]]:
        return verify(self.release, self.objects, self.log, self.checkpoint, [self.key])[0]

    def read_provenance(self) -> dict:
        return json.loads((self.release / "provenance.json").read_bytes())

    def edit(self, change: Callable[[dict], object]) -> None:
        """Change the provenance, and the sums with it."""
        provenance = decode((self.release / "provenance.json").read_bytes())
        change(provenance)
        (self.release / "provenance.json").write_bytes(encode_canonical_json(provenance))
        self.write_sums()

    def edit_log(self, change: Callable[[list[dict]], object]) -> None:
        entries = [decode(line) for line in self.log.read_bytes().splitlines()]
        change(entries)
        self.log.write_bytes(b"".join(encode_canonical_json(entry) + b"\n" for entry in entries))

    def write_sums(self) -> None:
        names = sorted(path.name for path in self.release.iterdir() if path.name != "SHA256SUMS")
        lines = [f"{compute_digest((self.release / name).read_bytes())}  {name}\n" for name in names]
        (self.release / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"), 5)
    world.key = make_key(tmp_path_factory.mktemp("keys") / "key.pem")
    world.releases.add_key(world.key.id, world.key.public_pem, "Office", "ada")
    world.release(world.make_chain())
    world.withdraw(["session-0001"])
    return world


@pytest.fixture
def kept(world: World, tmp_path: Path) -> Kept:
    kept = Kept(tmp_path)
    shutil.copytree(world.releases.files.folder("v1.0.0"), kept.release)
    shutil.copytree(world.objects.root, kept.objects)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)
    kept.log.write_text("".join(f"{line}\n" for line in world.releases.read_log()))
    kept.key.write_text(world.key.public_pem)
    kept.checkpoint.write_text(world.releases.read_checkpoint().encode())
    return kept


# --- canonical JSON and trees as the program itself makes them


@given(JSON_VALUES)
@settings(max_examples=300, deadline=None)
def test_its_canonical_json_is_that_of_the_program(value):
    assert encode(value) == encode_canonical_json(value)
    assert encode(decode(encode(value))) == encode(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=500, deadline=None)
def test_its_numbers_are_those_of_the_program(value):
    assert encode(value) == encode_canonical_json(value)


@pytest.mark.parametrize("size", range(20))
def test_its_roots_are_those_of_the_program(size):
    leaves = [hash_leaf(bytes([number])) for number in range(size)]
    assert compute_root(list(leaves)) == compute_root_ours(leaves)


# --- a whole release


def test_a_whole_release_passes_and_says_what_was_not_checked(kept: Kept):
    assert kept.verify() == []
    faults, told = verify(kept.release, None, None, None, [])
    assert faults == []
    assert [line for line in told if line.startswith("NOT")] == [
        "NOT the signatures (--key)",
        "NOT the stored objects (--objects)",
        "NOT the log (--log)",
    ]


def test_it_runs_alone_with_nothing_but_python(kept: Kept):
    script = kept.release / "verify_release.py"
    assert len(script.read_text().splitlines()) <= 400
    more = ["--objects", str(kept.objects), "--log", str(kept.log), "--checkpoint", str(kept.checkpoint)]
    isolated = [sys.executable, "-I", "-S"]  # no packages at all
    done = subprocess.run([*isolated, str(script), ".", *more], cwd=kept.release, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all agrees" in done.stdout
    keyed = [sys.executable, str(script), ".", "--key", str(kept.key), *more]  # signatures want cryptography
    done = subprocess.run(keyed, cwd=kept.release, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NOT" not in done.stdout
    sums = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=kept.release, capture_output=True)
    assert sums.returncode == 0
    (kept.release / "README.md").write_text("# another model\n")
    done = subprocess.run([*isolated, str(script), ".", "--json"], cwd=kept.release, capture_output=True, text=True)
    assert done.returncode == 1
    faults = json.loads(done.stdout)["faults"]
    assert [name for name, _ in faults] == ["README.md", BUNDLE_FILE, BUNDLE_FILE]


@pytest.mark.parametrize("arguments", [["/nowhere"], [".", "--checkpoint", "x"]])
def test_what_cannot_be_checked_is_no_success(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


# --- what was changed


def rewrite_statements(kept: Kept) -> None:
    """Have statements, sums and files agree again over another model card; the signatures are those of before."""
    (kept.release / "README.md").write_text("# another")
    lines = []
    for line in (kept.release / BUNDLE_FILE).read_bytes().splitlines():
        envelope = decode(line)
        statement = decode(base64.b64decode(envelope["payload"]))
        for entry in statement["subject"]:
            entry["digest"]["sha256"] = compute_digest((kept.release / entry["name"]).read_bytes())
        envelope["payload"] = base64.b64encode(encode_canonical_json(statement)).decode()
        lines.append(encode_canonical_json(envelope) + b"\n")
    (kept.release / BUNDLE_FILE).write_bytes(b"".join(lines))
    kept.write_sums()


def find_listing(kept: Kept, kind: str, name: str) -> str:
    nodes = kept.read_provenance()["nodes"]
    return next(node["artifacts"][name]["digest"] for node in nodes if node["kind"] == kind)


def find_object(kept: Kept, digest: str) -> Path:
    return kept.objects / "objects" / "sha256" / digest[:2] / digest


def put_object(kept: Kept, data: bytes) -> str:
    digest = compute_digest(data)
    find_object(kept, digest).parent.mkdir(exist_ok=True)
    find_object(kept, digest).write_bytes(data)
    return digest


def forge_listing(kept: Kept, kind: str, name: str, change: Callable[[list[dict]], object]) -> None:
    """Change a listing, and every manifest, digest and sum that hangs on it: all that a forger without a key can."""
    lines = [decode(line) for line in find_object(kept, find_listing(kept, kind, name)).read_bytes().splitlines()]
    change(lines)
    listed = put_object(kept, b"".join(encode_canonical_json(line) + b"\n" for line in lines))

    def rebuild(provenance: dict) -> None:
        new: dict[str, str] = {}
        for node in provenance["nodes"]:  # parents first
            if node["kind"] == kind:
                node["artifacts"][name]["digest"] = listed
            node["parents"] = {parent: new.get(digest, digest) for parent, digest in node["parents"].items()}
            manifest = encode_canonical_json({part: node[part] for part in verify_release.MANIFEST})
            new[node["digest"]] = node["digest"] = put_object(kept, manifest)
        roots = provenance["model"]["manifests"]
        roots.update({part: new[digest] for part, digest in roots.items()})

    kept.edit(rebuild)


def forge_decision(**change: object) -> Callable[[Kept], None]:
    return lambda kept: forge_listing(kept, *verify_release.DECISIONS, lambda lines: lines[0].update(change))


FORGERIES: dict[str, tuple[Callable[[Kept], object], str]] = {
    "a file that was not released": (lambda kept: (kept.release / "more.txt").write_text("x"), "more.txt"),
    "a file gone": (lambda kept: (kept.release / "README.md").unlink(), "README.md"),
    "a link in place of a file": (
        lambda kept: ((kept.release / "README.md").rename(kept.folder / "a"),
                      (kept.release / "README.md").symlink_to(kept.folder / "a")),
        "README.md",
    ),
    "sums gone": (lambda kept: (kept.release / "SHA256SUMS").unlink(), "SHA256SUMS"),
    "sums without the model": (
        lambda kept: ((kept.release / "model.onnx").unlink(), kept.write_sums()), "SHA256SUMS",
    ),
    "a path in the sums": (
        lambda kept: (kept.release / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n"), "SHA256SUMS",
    ),
    "no signatures, sums too": (
        lambda kept: ((kept.release / BUNDLE_FILE).unlink(), kept.write_sums()), BUNDLE_FILE,
    ),
    "somebody else's signature": (
        lambda kept: kept.key.write_text(make_key(kept.folder / "other.pem").public_pem), BUNDLE_FILE,
    ),
    "a signature of other files": (
        lambda kept: ((kept.release / "README.md").write_text("# another"), kept.write_sums()), BUNDLE_FILE,
    ),
    "a statement rewritten": (lambda kept: rewrite_statements(kept), BUNDLE_FILE),
    "a key of garbage": (lambda kept: kept.key.write_text("garbage"), BUNDLE_FILE),
    "a code version": (lambda kept: kept.edit(lambda p: p["nodes"][0].update(code_version="9")), "node "),
    "a parent": (
        lambda kept: kept.edit(lambda p: p["nodes"][1]["parents"].update(approved_measurements="0" * 64)),
        "node iq_files",
    ),
    "a node taken out": (lambda kept: kept.edit(lambda p: p["nodes"].pop(1)), "node spectrogram_features"),
    "git commit": (
        lambda kept: kept.edit(lambda p: next(iter(p["environments"].values())).update(git_sha="f" * 40)),
        "environment ",
    ),
    "an approver": (forge_decision(decided_by="Eve"), "session session-0000"),
    "a decision that was none": (forge_decision(decision="rejected"), "session session-0000"),
    "a session approved twice": (
        forge_decision(recording_session_id="session-0001"), "session session-0001",
    ),
    "a decision dropped": (
        lambda kept: forge_listing(kept, *verify_release.DECISIONS, lambda lines: lines.pop()), "decisions.jsonl",
    ),
    "figures": (lambda kept: kept.edit(lambda p: p["metrics"].update(median_m=1.0)), "provenance.json"),
    "a weight in the model, sums too": (
        lambda kept: ((kept.release / "model.onnx").write_bytes(b"another model"), kept.write_sums()), "model.onnx",
    ),
    "figures' file, sums too": (
        lambda kept: ((kept.release / "metrics.json").write_bytes(b"{}"), kept.write_sums()), "metrics.json",
    ),
    "another encoding": (
        lambda kept: ((kept.release / "provenance.json").write_text(json.dumps(kept.read_provenance())),
                      kept.write_sums()),
        "provenance.json",
    ),
    "a recording": (
        lambda kept: forge_listing(kept, *verify_release.RECORDINGS, lambda lines: lines[0].update(digest="0" * 64)),
        "object recording of session-0000",
    ),
    "a path for a digest": (
        lambda kept: forge_listing(kept, *verify_release.RECORDINGS, lambda lines: lines[0].update(digest="../../x")),
        "objects",
    ),
    "a recording gone": (
        lambda kept: find_object(kept, decode(find_object(
            kept, find_listing(kept, *verify_release.RECORDINGS)).read_bytes().splitlines()[0])["digest"]).unlink(),
        "object recording of session-0000",
    ),
    "the list of recordings": (
        lambda kept: find_object(kept, find_listing(kept, *verify_release.RECORDINGS)).write_bytes(b"{}\n"),
        "object iq_files/recordings.jsonl",
    ),
    "the list of decisions gone": (
        lambda kept: find_object(kept, find_listing(kept, *verify_release.DECISIONS)).unlink(),
        "object approved_measurements/decisions.jsonl",
    ),
    "an entry's reason": (
        lambda kept: kept.edit_log(lambda log: log[1].update(reason="because")), "session session-0000",
    ),
    "the release's entry": (
        lambda kept: kept.edit_log(lambda log: log[7]["files"].update({"model.onnx": "0" * 64})), "release v1.0.0",
    ),
    "the log's end": (lambda kept: kept.edit_log(lambda log: log.pop()), "log"),
    "the log before the release": (lambda kept: kept.edit_log(lambda log: log.pop(2)), "log"),
    "another log": (lambda kept: kept.edit_log(lambda log: log[0].update(log="0" * 32)), "log"),
    "no log": (lambda kept: kept.log.write_bytes(b""), "log"),
    "a log of garbage": (lambda kept: kept.log.write_bytes(b"{}\n{}\n"), "entries of the log: 2"),
    "a checkpoint of garbage": (lambda kept: kept.checkpoint.write_text("garbage"), "checkpoint"),
    "another checkpoint": (
        lambda kept: kept.checkpoint.write_text(
            "\n".join([*kept.checkpoint.read_text().splitlines()[:2], base64.b64encode(b"0" * 32).decode()])
        ),
        "log",
    ),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_found_and_named(kept: Kept, forgery: str):
    forge, name = FORGERIES[forgery]
    forge(kept)
    faults = kept.verify()
    assert any(name in found for found, _ in faults), faults
    assert all("\n" not in what for _, what in faults)


def test_a_database_put_back_to_an_older_state_is_found(world: World, kept: Kept, tmp_path: Path):
    """All of the log after the release is cut: it agrees with the release, and not with who kept a checkpoint."""
    kept.edit_log(lambda log: log.pop())
    assert {name for name, _ in kept.verify()} == {"log"}
    assert verify(kept.release, kept.objects, kept.log, None, [kept.key])[0] == []


def test_every_random_change_of_a_byte_is_found(kept: Kept):
    draw = random.Random(20261201)
    places = [
        path
        for path in (*kept.release.iterdir(), *kept.objects.rglob("*"), kept.log)
        if path.is_file() and "references" not in path.parts
    ]
    hung = {
        digest: label for digest, label in verify_release.list_objects(kept.objects, kept.read_provenance()).items()
    }  # other objects belong to no release
    places = [path for path in places if path.parent.parent.name != "sha256" or path.name in hung]
    for _ in range(300):
        path = draw.choice(places)
        whole = path.read_bytes()
        data = bytearray(whole)
        how = draw.choice(["flip", "cut", "drop", "swap", "grow"])
        at = draw.randrange(len(data))
        if how == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at]
        elif how == "swap":
            data[at], data[at - 1] = data[at - 1], data[at]
        else:
            data.insert(at, draw.randrange(256))
        if bytes(data) == whole:
            continue
        path.write_bytes(bytes(data))
        faults = kept.verify()
        assert faults, (path, how, at)
        path.write_bytes(whole)
    assert kept.verify() == []
