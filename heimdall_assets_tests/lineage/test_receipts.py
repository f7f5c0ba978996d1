"""Receipts: whole ones agree, and every change is found and named alike by the program and by the script."""

import base64
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from heimdall_assets.lineage import verify_release
from heimdall_assets.lineage.attestations import PAYLOAD_TYPE
from heimdall_assets.lineage.receipts import Judged
from heimdall_assets.manifests import compute_digest, decode_canonical_json, encode_canonical_json
from heimdall_assets.pipeline.prediction.receipts import make_receipt
from heimdall_assets.pipeline.prediction.used import Used
from heimdall_assets.pipeline.releases.receipts import audit_receipt
from heimdall_assets.specs import TimingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets.stores.keys import SigningKey, make_key
from heimdall_assets_tests.lineage.world import World, make_world

TIME = "2026-12-01T10:00:00.000+00:00"
ANSWER: dict[str, Any] = {
    "version": "v1.0.0",
    "session_id": "session-0000",
    "latitude": 44.5,
    "longitude": 8.01,
    "sigma_m": 120.25,
    "ellipse_90": {"semi_major_m": 300.0, "semi_minor_m": 150.5, "azimuth_deg": 12.0},
    "method": "network",
    "alternatives": [],
    "refused": ["Station-C: no arrival time: \u2026"],
}
SESSION = "session-0000"
RECORDING = f"recording {SESSION}-station-a"


@dataclass
class Shop:
    """A home that gives out receipts, and what a stranger was given of it."""

    folder: Path
    world: World
    key: SigningKey

    @property
    def stores(self) -> Stores:
        return Stores(self.world.measurements, self.world.objects, self.world.releases, self.folder / "scratch")

    def use(self) -> Used:
        """Return what a prediction of a stored session tells."""
        rows = self.world.measurements.read_session_rows(SESSION)
        heard = rows[rows["iq_data_location"].notna()].head(1)
        digest = heard["iq_data_location"].str.removeprefix("sha256:")
        checked = pd.DataFrame({"measurement_id": heard["measurement_id"], "status": "ok", "digest": digest})
        used = Used()
        used.add_session(rows, checked.astype("string"), (TimingSpec(),))
        return used

    def make(self, key: SigningKey | None = None, answer: Any = ANSWER, time: str = TIME) -> bytes:
        return make_receipt(self.stores, "v1.0.0", answer, self.use(), time, key)

    def ask_program(self, data: bytes) -> Judged:
        return audit_receipt(self.stores, data, "receipt.json")

    def ask_script(self, data: bytes, keys: tuple[SigningKey, ...] | None = None) -> tuple[list[Any], list[str]]:
        """Return the faults that the script finds, and what it tells, by a stranger who has everything."""
        (self.folder / "receipt.json").write_bytes(data)
        files = []
        for number, key in enumerate((self.key,) if keys is None else keys):
            files.append(self.folder / f"public{number}.pem")
            files[-1].write_text(key.public_pem)
        log = self.folder / "log.jsonl"
        log.write_text("".join(f"{line}\n" for line in self.world.releases.read_log()))
        release = self.world.releases.files.folder("v1.0.0")
        return verify_release.verify(release, self.world.objects.root, log, None, files, self.folder / "receipt.json")

    def name_both(self, data: bytes) -> tuple[set[str], set[str]]:
        """Return the things that program and script find wrong, called alike."""
        errors = [finding for finding in self.ask_program(data).findings if finding.severity == "error"]
        ours = {f"{finding.kind} {finding.name}" for finding in errors}
        ours = {"log" if name.startswith("ledger_row log") else name for name in ours}
        assert all("\n" not in finding.describe() for finding in errors)
        faults = self.ask_script(data)[0]
        assert all("\n" not in what for _, what in faults)
        return {name.removesuffix(" receipt.json") for name in ours}, {name for name, _ in faults}


def make_shop(folder: Path, num_sessions: int = 3) -> Shop:
    world = make_world(folder, num_sessions)
    world.key = make_key(folder / "key.pem")
    world.releases.add_key(world.key.id, world.key.public_pem, "Office", "ada")
    world.release(world.make_chain())
    return Shop(folder, world, world.key)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


def read_envelope(data: bytes) -> dict[str, Any]:
    envelope: dict[str, Any] = decode_canonical_json(data)
    return envelope


def read_statement(data: bytes) -> dict[str, Any]:
    statement: dict[str, Any] = decode_canonical_json(base64.b64decode(read_envelope(data)["payload"]))
    return statement


def rewrite(data: bytes, payload: bytes, key: SigningKey | None = None) -> bytes:
    """Return a receipt with another payload: behind its signature's back, or signed by ``key``."""
    envelope = read_envelope(data) | {"payload": base64.b64encode(payload).decode()}
    return encode_canonical_json(envelope if key is None else key.sign(payload, PAYLOAD_TYPE)) + b"\n"


def edit(data: bytes, change: Callable[[dict[str, Any]], object], key: SigningKey | None = None) -> bytes:
    statement = read_statement(data)
    change(statement)
    return rewrite(data, encode_canonical_json(statement), key)


# --- whole ones


def test_a_whole_receipt_agrees_in_both_and_says_whose_it_is(shop: Shop) -> None:
    data = shop.make(shop.key)
    judged = shop.ask_program(data)
    assert judged.findings == []
    assert shop.world.name(judged.signers) == [f"Office (key {shop.key.id[:16]})"]
    assert (judged.num_held, judged.num_named) == (1, 1)
    faults, told = shop.ask_script(data)
    assert faults == []
    assert "receipt" in told
    assert not [line for line in told if line.startswith("NOT")]


def test_a_receipt_holds_what_traces_a_position_back(shop: Shop) -> None:
    said = read_statement(shop.make(shop.key))
    predicate = said["predicate"]
    release = shop.world.releases.files
    assert predicate["release"] == {
        "version": "v1.0.0",
        **{name: compute_digest(release.read("v1.0.0", name)) for name in ("model.onnx", "provenance.json")},
    }
    assert predicate["answer"] == ANSWER
    assert predicate["time"] == TIME
    assert predicate["program"].startswith("heimdall-assets ")
    assert predicate["settings"] == {"TimingSpec": decode_canonical_json(encode_canonical_json(TimingSpec().dump()))}
    values = predicate["inputs"][0]["values"]
    assert [row["station_id"] for row in values] == ["station-a", "station-b", "station-c"]
    assert values[0]["iq_data_location"] == f"sha256:{predicate['inputs'][1]['sha256']}"
    assert {each["name"]: each["digest"]["sha256"] for each in said["subject"]} == {
        "answer": compute_digest(encode_canonical_json(ANSWER)),
        f"values of {SESSION}": compute_digest(encode_canonical_json(values)),
        RECORDING: predicate["inputs"][1]["sha256"],
    }


def test_the_same_answer_at_the_same_time_gives_the_same_bytes(shop: Shop) -> None:
    assert shop.make(shop.key) == shop.make(shop.key)
    assert shop.make(shop.key) != shop.make(shop.key, time=TIME.replace("10:00", "10:01"))
    assert shop.make() != shop.make(shop.key)


def test_a_receipt_without_signature_says_so(shop: Shop) -> None:
    data = shop.make()
    judged = shop.ask_program(data)
    assert (judged.findings, judged.signers, judged.is_signed) == ([], [], False)
    faults, told = shop.ask_script(data, keys=())
    assert faults == []
    assert "NO signature is on the receipt" in told
    faults, _ = shop.ask_script(data)
    assert faults == [("receipt signature", "is missing: the receipt is not signed")]


def test_the_script_says_that_it_did_not_look_at_signatures(shop: Shop) -> None:
    faults, told = shop.ask_script(shop.make(shop.key), keys=())
    assert faults == []
    assert "NOT the signature of the receipt (--key)" in told


def test_the_script_checks_a_receipt_with_python_alone(shop: Shop) -> None:
    data = shop.make(shop.key)
    folder = shop.world.releases.files.folder("v1.0.0")
    file = shop.folder / "alone.json"
    command = [sys.executable, "-I", "-S", str(folder / "verify_release.py"), str(folder), "--receipt", str(file)]
    for content, status in ((data, 0), (edit(data, lambda s: s["predicate"].update(answer={})), 1)):
        file.write_bytes(content)
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (status, "")
        assert ("FAULT receipt answer: is " in done.stdout) == bool(status)
        assert "NOT the signature of the receipt (--key)" in done.stdout
    file.unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAULT receipt: cannot be checked (FileNotFoundError" in done.stdout


# --- single changes


def change_input(number: int, **said: Any) -> Callable[[dict[str, Any]], object]:
    return lambda statement: statement["predicate"]["inputs"][number].update(said)


def change(*path: str | int, to: Any) -> Callable[[dict[str, Any]], object]:
    """Return what sets the value at a path of the statement."""

    def act(statement: dict[str, Any]) -> None:
        place: Any = statement
        for step in path[:-1]:
            place = place[step]
        assert place[path[-1]] != to
        place[path[-1]] = to

    return act


ZEROS = "0" * 64
VALUES = f"receipt values of {SESSION}"
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], set[str]]] = {
    "the position, by 1e-9 degrees": (change("predicate", "answer", "latitude", to=44.500000001), {"receipt answer"}),
    "the ellipse": (change("predicate", "answer", "ellipse_90", "azimuth_deg", to=12.5), {"receipt answer"}),
    "sigma": (change("predicate", "answer", "sigma_m", to=12.0), {"receipt answer"}),
    "what was refused": (change("predicate", "answer", "refused", to=[]), {"receipt answer"}),
    "time": (change("predicate", "time", to="2026-12-01T10:00:01.000+00:00"), set()),
    "program": (change("predicate", "program", to="heimdall-assets 0"), set()),
    "a setting": (change("predicate", "settings", "TimingSpec", to={}), set()),
    "version": (change("predicate", "release", "version", to="v1.0.1"), {"receipt version"}),
    "version as nobody writes it": (change("predicate", "release", "version", to="../v1"), {"receipt version"}),
    "digest of the model": (change("predicate", "release", "model.onnx", to=ZEROS), {"receipt model.onnx"}),
    "digest of the provenance": (
        change("predicate", "release", "provenance.json", to=ZEROS), {"receipt provenance.json"},
    ),
    "digest of a recording": (change("predicate", "inputs", 1, "sha256", to=ZEROS), {f"receipt {RECORDING}"}),
    "name of a recording": (
        change("predicate", "inputs", 1, "name", to="recording x"), {f"receipt {RECORDING}", "receipt recording x"},
    ),
    "a value": (change("predicate", "inputs", 0, "values", 1, "receiver_latitude", to=45.0), {VALUES}),
    "a value dropped": (lambda statement: statement["predicate"]["inputs"][0]["values"].pop(), {VALUES}),
    "values in the place of a digest": (change_input(1, values=[]), {f"receipt {RECORDING}"}),
    "an input dropped": (
        lambda statement: statement["predicate"]["inputs"].pop(), {f"receipt {RECORDING}", "receipt subject"},
    ),
    "an input twice": (
        lambda statement: statement["predicate"]["inputs"].append(statement["predicate"]["inputs"][1]),
        {"receipt subject"},
    ),
    "a subject's digest": (change("subject", 0, "digest", "sha256", to=ZEROS), {"receipt answer"}),
    "a subject dropped": (lambda statement: statement["subject"].pop(0), {"receipt answer", "receipt subject"}),
    "a subject twice": (
        lambda statement: statement["subject"].append(statement["subject"][0]), {"receipt subject"},
    ),
    "root of the log": (change("predicate", "log", "root", to=ZEROS), {"log"}),
    "name of the log": (change("predicate", "log", "log", to="0" * 32), {"log"}),
    "size of the log": (change("predicate", "log", "size", to=99), {"log"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_one_thing_is_found_and_named_by_both(shop: Shop, name: str) -> None:
    """Once behind the signature's back, once by whoever holds the key and signs what does not agree."""
    act, expected = CHANGES[name]
    data = shop.make(shop.key)
    assert shop.name_both(edit(data, act)) == (expected | {"receipt signature"},) * 2
    if expected:  # whoever holds the key may state another time, program and settings
        assert shop.name_both(edit(data, act, shop.key)) == (expected,) * 2


UNFIT: dict[str, Callable[[Shop, bytes], bytes]] = {
    "another type of payload": lambda _, data: encode_canonical_json(
        read_envelope(data) | {"payloadType": "text/plain"}
    ),
    "a statement of another kind": lambda shop, data: edit(data, lambda s: s.update(predicateType="x"), shop.key),
    "a payload with blanks": lambda shop, data: rewrite(data, json.dumps(read_statement(data)).encode(), shop.key),
    "a payload with a key twice": lambda shop, data: rewrite(
        data, encode_canonical_json(read_statement(data)).replace(b'{"_type"', b'{"_type":1,"_type"', 1), shop.key
    ),
    "an envelope with blanks": lambda _, data: json.dumps(read_envelope(data)).encode(),
    "two receipts": lambda _, data: data + data,
    "a blank line": lambda _, data: data + b"\n",
    "nothing": lambda *_: b"",
    "no JSON": lambda *_: b"\xff{",
    "null": lambda *_: b"null\n",
    "a list": lambda *_: b"[]\n",
    "no payload": lambda *_: b'{"payloadType":"application/vnd.in-toto+json","signatures":[]}\n',
    "a payload that is none": lambda shop, data: rewrite(data, b"[]", shop.key),
    "a statement without predicate": lambda shop, data: edit(data, lambda s: s.pop("predicate"), shop.key),
    "a predicate that is a text": lambda shop, data: edit(data, lambda s: s.update(predicate="x"), shop.key),
    "a release that is none": lambda shop, data: edit(data, lambda s: s["predicate"].update(release=1), shop.key),
    "a digest that is a path": lambda shop, data: edit(data, change_input(1, sha256="../../x"), shop.key),
    "a log that is none": lambda shop, data: edit(data, lambda s: s["predicate"].update(log=[]), shop.key),
    "no log": lambda shop, data: edit(data, lambda s: s["predicate"].update(log=None), shop.key),
    "nested without end": lambda *_: b"[" * 100_000,
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_receipt_is_one_line_in_both(shop: Shop, name: str) -> None:
    ours, theirs = shop.name_both(UNFIT[name](shop, shop.make(shop.key)))
    assert ours == {"receipt"}
    assert "receipt" in theirs
    assert all(fault.startswith("receipt") for fault in theirs)


def flip_signature(data: bytes) -> bytes:
    envelope = read_envelope(data)
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[7] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return encode_canonical_json(envelope) + b"\n"


def rename_key(data: bytes) -> bytes:
    envelope = read_envelope(data)
    envelope["signatures"][0]["keyid"] = ZEROS
    return encode_canonical_json(envelope) + b"\n"


def add_stranger(data: bytes, key: SigningKey) -> bytes:
    """Return a receipt that somebody whom nobody knows signed too."""
    envelope = read_envelope(data)
    envelope["signatures"] += key.sign(base64.b64decode(envelope["payload"]), PAYLOAD_TYPE)["signatures"]
    return encode_canonical_json(envelope) + b"\n"


def test_signatures_that_do_not_hold_are_named_by_both(shop: Shop, tmp_path: Path) -> None:
    data, stranger = shop.make(shop.key), make_key(tmp_path / "stranger.pem")
    for forged in (flip_signature(data), rename_key(data), shop.make(stranger), add_stranger(data, stranger)):
        assert shop.name_both(forged) == ({"receipt signature"},) * 2
        judged = shop.ask_program(forged)
        assert (judged.signers, judged.is_signed) == ([], True)


def test_a_receipt_of_another_home_is_found_by_both(shop: Shop, tmp_path: Path) -> None:
    """Its release is called v1.0.0 too."""
    other = make_shop(tmp_path, 4)
    assert other.name_both(other.make(other.key)) == (set(), set())
    expected = {"log", "receipt model.onnx", "receipt provenance.json", "receipt signature"}
    assert shop.name_both(other.make(other.key)) == (expected,) * 2


def test_a_recording_that_lies_in_the_store_as_other_bytes_is_found_by_both(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    data = shop.make(shop.key)
    digest = read_statement(data)["predicate"]["inputs"][1]["sha256"]
    path = shop.world.objects.local_path(digest)
    path.chmod(0o644)
    whole = path.read_bytes()
    path.write_bytes(b"x" + whole[1:])
    ours, theirs = shop.name_both(data)
    assert ours == {f"object {RECORDING} {digest}"}
    assert theirs == ours | {f"object recording of {SESSION}-station-a {digest}"}  # the model hangs on it too
    path.unlink()  # gone: nothing that a receipt could say
    judged = shop.ask_program(data)
    assert (judged.findings, judged.num_held, judged.num_named) == ([], 0, 1)
    assert not [name for name, _ in shop.ask_script(data)[0] if RECORDING in name]


def test_what_a_key_signed_before_it_was_retired_agrees_and_nothing_after(tmp_path: Path) -> None:
    shop = make_shop(tmp_path)
    before = shop.make(shop.key)
    shop.world.releases.retire_key(shop.key.id, "ada", 'sold, "action":"retired"')
    after = shop.make(shop.key)  # by somebody who still has the file
    assert shop.name_both(before) == (set(), set())
    judged = shop.ask_program(before)
    assert shop.world.name(judged.signers) == [f"Office (key {shop.key.id[:16]})"]
    (notice,) = judged.findings  # when it was signed, nobody but the receipt says
    assert (notice.severity, notice.kind, notice.name) == ("notice", "receipt", "signature")
    assert "retired since" in notice.found
    assert shop.name_both(after) == ({"receipt signature"},) * 2
    assert shop.ask_program(after).signers == []


def test_random_changes_of_bytes_are_found_by_both_or_say_the_same(shop: Shop) -> None:
    draw, whole = random.Random(20261202), shop.make(shop.key)
    meant = read_meaning(whole)
    for _ in range(120):
        data, at = bytearray(whole), draw.randrange(len(whole) - 1)
        how = draw.choice(["flip", "cut", "drop", "swap", "grow"])
        if how == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at]
        elif how == "swap":
            data[at], data[at + 1] = data[at + 1], data[at]
        else:
            data.insert(at, draw.randrange(256))
        if read_meaning(bytes(data)) == meant:  # bits of the last letter of base64 that stand for nothing
            continue
        ours, theirs = shop.name_both(bytes(data))
        assert ours, (how, at)
        assert theirs, (how, at)


def read_meaning(data: bytes) -> Any:
    """Return what an envelope means, whichever way its base64 is written; None: nothing."""
    try:
        envelope = decode_canonical_json(data)
        each = envelope["signatures"][0]
        return base64.b64decode(envelope["payload"]), base64.b64decode(each["sig"]), each["keyid"], list(envelope)
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def test_a_copy_of_the_home_tells_the_same(shop: Shop, tmp_path: Path) -> None:
    """What is judged lies in the home and the receipt alone."""
    shop.world.measurements.close()
    shutil.copytree(shop.folder, tmp_path / "copy")
    copied = make_world(tmp_path / "copy", 0)
    assert Shop(tmp_path / "copy", copied, shop.key).name_both(shop.make(shop.key)) == (set(), set())
