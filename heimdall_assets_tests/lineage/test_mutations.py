"""A thousand changes of every kind of stored thing: audit and script find each, and name it as what it is.

The audit sees everything: files, objects, references, tables, with a checkpoint that somebody kept. The script sees
what can be handed to a stranger: a release, the objects, the exported log, that checkpoint, a public key.
"""

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from heimdall_assets.domain import ApprovalStatus
from heimdall_assets.errors import HeimdallError
from heimdall_assets.lineage import verify_release
from heimdall_assets.manifests import (
    Manifest,
    compute_digest,
    compute_json_digest,
    decode_canonical_json,
    encode_canonical_json,
)
from heimdall_assets.merkle import compute_root, decode_checkpoint, hash_leaf
from heimdall_assets.people import make_pseudonym
from heimdall_assets.pipeline.releases.audit import audit_log, audit_release
from heimdall_assets.places import read_places
from heimdall_assets.stores.keys import make_key
from heimdall_assets.stores.objects.references import encode_reference
from heimdall_assets.stores.objects.tables import decode_table, encode_table
from heimdall_assets_tests.conftest import make_quick_folder
from heimdall_assets_tests.lineage.world import REASON, make_world

OLD, NEW = "v1.0.0", "v1.0.1"
SHORT, LONG = 100, 1000

NO_EVIDENCE = {
    "heimdall_schema_version": {"version_num"},  # nothing opens
    "websdr_stations": {"url", "frequency_min_hz", "frequency_max_hz", "is_active"},
    "known_sources": {"frequency_hz", "power_dbm", "source_type"},
    "recording_sessions": {"session_end"},
    "model_releases": {"allocated_at"},
}
"""Columns that decide no result and stand in no release."""


@dataclass
class Home:
    """A copy of a home with two releases, which one test spoils, and what a stranger was given of it."""

    root: Path
    told: str = ""
    """What was changed, where chance chose it; for whoever reads a failure."""

    @property
    def database(self) -> Path:
        return self.root / "heimdall.db"

    def release(self, version: str = NEW) -> Path:
        return self.root / "heimdall-models" / version

    def list_objects(self) -> list[Path]:
        """Return the objects behind the newer release."""
        provenance = json.loads((self.release() / "provenance.json").read_bytes())
        hung = verify_release.list_objects(self.root / "objects", provenance)
        return [verify_release.find_object(self.root / "objects", digest) for digest in sorted(hung)]

    def list_references(self) -> list[Path]:
        """Return the references of the results behind the newer release."""
        provenance = json.loads((self.release() / "provenance.json").read_bytes())
        digests = {node["digest"] for node in provenance["nodes"]}
        found = sorted((self.root / "objects" / "references" / "results").iterdir())
        return [path for path in found if path.read_bytes()[7:71].decode() in digests]

    def change(self, act: Callable[[sqlite3.Connection], object]) -> None:
        """Change the database behind the store's back, its guards taken away first."""
        connection = sqlite3.connect(self.database)
        for (name,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            connection.execute(f'drop trigger "{name}"')
        act(connection)
        connection.commit()
        connection.close()

    def audit(self) -> list[str]:
        """Return what an audit of the newer release says is wrong, or the one line that it ends with."""
        places = read_places({"HEIMDALL_HOME": str(self.root)})
        try:
            stores = places.open_stores()
            try:
                found = audit_release(stores, NEW)
                found += audit_log(stores, decode_checkpoint((self.root / "checkpoint.txt").read_text()))
            finally:
                stores.measurements.close()
        except HeimdallError as error:
            return [str(error)]
        return [finding.describe() for finding in found if finding.severity == "error"]

    def ask_script(self) -> list[str]:
        """Return what the script says is wrong with the newer release."""
        connection = sqlite3.connect(self.database)
        try:
            bodies = connection.execute("select body from log_entries order by id").fetchall()
        finally:
            connection.close()
        (self.root / "log.jsonl").write_text("".join(f"{body}\n" for (body,) in bodies))
        faults, _ = verify_release.verify(
            self.release(), self.root / "objects", self.root / "log.jsonl", self.root / "checkpoint.txt",
            [self.root / "public.pem"],
        )  # fmt: skip
        return [f"{name}: {what}" for name, what in faults]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a signed release, a withdrawal, a promotion, another release; beside it the database of between."""
    folder = tmp_path_factory.mktemp("made")
    world = make_world(folder, 4)
    world.key = make_key(folder / "key.pem")
    world.releases.add_key(world.key.id, world.key.public_pem, "Office", "ada")
    world.release(world.make_chain())
    world.releases.set_alias("champion", OLD, "Zoe", "the first")
    world.measurements.close()
    shutil.copy(world.database, folder / "older.db")
    world.withdraw(["session-0001"])
    signer = make_key(folder / "ada.pem")
    world.releases.add_key(signer.id, signer.public_pem, "Ada", "Ada")
    world.measurements.decide(world.add_sessions(4, 1), ApprovalStatus.APPROVED, "Ada", REASON, key=signer)
    world.release(world.make_chain(median_m=90.0))
    world.releases.set_alias("champion", NEW, "Zoe", "better")
    (folder / "public.pem").write_text(world.key.public_pem)
    (folder / "checkpoint.txt").write_text(world.releases.read_checkpoint().encode())
    world.measurements.close()
    home = Home(folder)
    assert home.audit() == home.ask_script() == []
    return folder


@pytest.fixture(scope="module")
def templates(made: Path):
    """Where copies are made: in memory, writable."""
    with make_quick_folder() as folder:
        yield folder


def copy_home(made: Path, folder: Path) -> Home:
    root = folder / "home"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(made, root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)
    return Home(root)


# --- each change returns what an audit must name, and what the script must; None: the script is not shown it

Named = tuple[str, str | None]


def flip(data: bytes, draw: random.Random) -> bytes:
    """Return other bytes: one bit, a cut, a byte gone, two swapped, one too many."""
    changed, at = bytearray(data), draw.randrange(len(data))
    how = draw.choice(["flip", "cut", "drop", "swap", "grow"])
    if how == "flip":
        changed[at] ^= 1 << draw.randrange(8)
    elif how == "cut":
        del changed[at:]
    elif how == "drop":
        del changed[at]
    elif how == "swap" and at and changed[at] != changed[at - 1]:
        changed[at], changed[at - 1] = changed[at - 1], changed[at]
    else:
        changed.insert(at, draw.randrange(256))
    return bytes(changed)


def change_file(home: Home, draw: random.Random) -> Named:
    path = draw.choice(sorted(home.release().iterdir()))
    path.write_bytes(flip(path.read_bytes(), draw))
    return f"{NEW}/{path.name}", path.name


def change_object(home: Home, draw: random.Random) -> Named:
    path = draw.choice(home.list_objects())
    path.write_bytes(flip(path.read_bytes(), draw))
    return path.name, path.name


def drop_file(home: Home, draw: random.Random) -> Named:
    path = draw.choice(sorted(home.release().iterdir()))
    path.unlink()
    return f"{NEW}/{path.name}", path.name


def drop_object(home: Home, draw: random.Random) -> Named:
    path = draw.choice(home.list_objects())
    path.unlink()
    return path.name, path.name


def swap_objects(home: Home, draw: random.Random) -> Named:
    first, second = draw.sample(home.list_objects(), 2)
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    return first.name, first.name


def swap_files(home: Home, draw: random.Random) -> Named:
    first, second = draw.sample(sorted(home.release().iterdir()), 2)
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(whole)
    return f"{NEW}/{first.name}", first.name


def replay_file(home: Home, draw: random.Random) -> Named:
    names = [path.name for path in home.release().iterdir()
             if path.read_bytes() != (home.release(OLD) / path.name).read_bytes()]  # fmt: skip
    name = draw.choice(sorted(names))
    shutil.copy(home.release(OLD) / name, home.release() / name)
    return f"{NEW}/{name}", name


def replay_release(home: Home, draw: random.Random) -> Named:
    shutil.rmtree(home.release())
    shutil.copytree(home.release(OLD), home.release())
    return f"{NEW}/model.onnx", r"release v1\.0\.0"


def rename_object(home: Home, draw: random.Random) -> Named:
    first, second = draw.sample(home.list_objects(), 2)
    first.rename(second)
    return first.name, first.name


def rename_file(home: Home, draw: random.Random) -> Named:
    path = draw.choice(sorted(home.release().iterdir()))
    path.rename(path.with_name("other.bin"))
    return f"{NEW}/{path.name}", path.name


def rename_release(home: Home, draw: random.Random) -> Named:
    shutil.copytree(home.release(), home.release("v7.0.0"))
    return "v7.0.0", None


def relink_reference(home: Home, draw: random.Random) -> Named:
    first, second = draw.sample(home.list_references(), 2)
    name = f"results/{first.name.removesuffix('@')}"
    first.write_bytes(encode_reference(name, second.read_bytes()[7:71].decode()))
    return name, None


def change_reference(home: Home, draw: random.Random) -> Named:
    path = draw.choice(home.list_references())
    path.write_bytes(flip(path.read_bytes(), draw))
    return f"results/{path.name.removesuffix('@')}", None


def relink_latest(home: Home, draw: random.Random) -> Named:
    path = home.root / "heimdall-models" / "latest.json"
    if draw.random() < 0.5:
        path.write_bytes(path.read_bytes().replace(NEW.encode(), OLD.encode()))
    else:
        path.write_bytes(flip(path.read_bytes(), draw))
    return "latest.json", None


def list_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    return [
        (table, row[1])
        for table in sorted(tables)
        for row in connection.execute(f'pragma table_info("{table}")')
        if row[1] not in NO_EVIDENCE.get(table, set())
        and connection.execute(f'select count(*) from "{table}"').fetchone()[0]
    ]


USED = {
    "recording_sessions": "id <> 'session-0001'",
    "measurements": "recording_session_id <> 'session-0001'",
    "known_sources": "id <> 'source-1'",
}
"""Which rows the newer release hangs on: not those of the session that was withdrawn before it."""


def edit_row(home: Home, draw: random.Random) -> Named:
    """Another value of the same type, or of another, in one cell; what the database itself refuses is no change."""

    def act(connection: sqlite3.Connection) -> None:
        connection.execute("pragma foreign_keys = off")
        while not home.told:
            table, column = draw.choice(list_columns(connection))
            where = USED.get(table, "true")
            rows = connection.execute(f'select rowid, "{column}" from "{table}" where {where}').fetchall()
            number, value = draw.choice(rows)
            if isinstance(value, int | float):
                other: object = draw.choice([value + 1, -value - 1, str(value) + "x"])
            elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
                other = f"{int(value[:4]) - 1}{value[4:]}"  # one more digit of a second would be the same time
            else:
                text = value or ""
                other = draw.choice([text + "0", text[1:] if len(text) > 1 else "y", 7, text.swapcase() + "!"])
            with suppress(sqlite3.IntegrityError):
                connection.execute(f'update "{table}" set "{column}" = ? where rowid = ?', (other, number))
                home.told = f"{table}.{column} of row {number}: {value!r} -> {other!r}"

    home.change(act)
    return ".", "." if home.told.startswith("log_entries.body") else None


def drop_rows(home: Home, draw: random.Random) -> Named:
    def act(connection: sqlite3.Connection) -> None:
        table = draw.choice(sorted({table for table, _ in list_columns(connection)}))
        rows = connection.execute(f'select rowid from "{table}" where {USED.get(table, "true")}').fetchall()
        connection.execute(f'delete from "{table}" where rowid = ?', draw.choice(rows))
        home.told = f"{table}: a row gone"

    home.change(act)
    return ".", "." if home.told.startswith("log_entries") else None


def cut_log(home: Home, draw: random.Random) -> Named:
    """The end of the log, and of the ledgers that it is of."""

    def act(connection: sqlite3.Connection) -> None:
        size = connection.execute("select count(*) from log_entries").fetchone()[0]
        first = draw.randrange(1, size)
        for (body,) in connection.execute("select body from log_entries where id >= ?", (first,)).fetchall():
            entry = json.loads(body)
            if entry["kind"] in ("approval", "promotion"):
                connection.execute(f"delete from {entry['kind']}_events where id = ?", (entry["id"],))
        connection.execute("delete from log_entries where id >= ?", (first,))

    home.change(act)
    return "log", "log"


def roll_back(home: Home, draw: random.Random) -> Named:
    """The database of before the newer release, under the folders of today."""
    shutil.copy(home.root / "older.db", home.database)
    return f"release {NEW}", "log"


def rewrite_entry(home: Home, draw: random.Random) -> Named:
    """An entry of the log and the row that it is of, changed alike: another reason, name, key, or an earlier date."""

    def act(connection: sqlite3.Connection) -> None:
        rows = connection.execute("select id, body from log_entries where id > 0").fetchall()
        entries = [(number, decode_canonical_json(body)) for number, body in rows]
        number, entry = draw.choice([(number, entry) for number, entry in entries if entry["kind"] != "signature"])
        texts = sorted(name for name, value in entry.items() if isinstance(value, str) and name != "kind")
        name = draw.choice(texts)
        if name.endswith("_at"):
            other = f"{int(entry[name][:4]) - 1}{entry[name][4:]}"
        elif name == "public_pem":
            other = make_key(home.root / "forged.pem").public_pem
        else:
            other = entry[name] + "x"
        entry[name] = other
        encoded = encode_canonical_json(entry)
        connection.execute(
            "update log_entries set body = ?, leaf = ? where id = ?",
            (encoded.decode(), hash_leaf(encoded).hex(), number),
        )
        if entry["kind"] in ("approval", "promotion") and name != "id":
            written = other if not name.endswith("_at") else other.removesuffix("+00:00").replace("T", " ")
            connection.execute("pragma foreign_keys = off")
            connection.execute(f'update {entry["kind"]}_events set "{name}" = ? where id = ?', (written, entry["id"]))

    home.change(act)
    return "log", "log"


def swap_type(home: Home, draw: random.Random) -> Named:
    """A value of the provenance as another type, its encoding canonical, and the sums right again."""
    path = home.release() / "provenance.json"
    provenance = decode_canonical_json(path.read_bytes())
    place = draw.choice([provenance["model"], provenance["database"], provenance["released"], *provenance["nodes"]])
    name = draw.choice(sorted(place))
    place[name] = {"text": str(place[name])} if not isinstance(place[name], dict) else [place[name]]
    path.write_bytes(encode_canonical_json(provenance))
    names = sorted(file.name for file in home.release().iterdir() if file.name != "SHA256SUMS")
    sums = "".join(f"{compute_digest((home.release() / each).read_bytes())}  {each}\n" for each in names)
    (home.release() / "SHA256SUMS").write_text(sums)
    return f"{NEW}/provenance.json", "provenance.json|attestations"


def swap_key(home: Home, draw: random.Random) -> Named:
    """Statements signed with a key that nobody knows."""
    path = home.release() / "attestations.intoto.jsonl"
    path.write_bytes(b"".join(
        re.sub(rb'"keyid":"[0-9a-f]{64}"', b'"keyid":"%064x"' % draw.getrandbits(256), line) + b"\n"
        for line in path.read_bytes().splitlines()
    ))  # fmt: skip
    return f"{NEW}/attestations", "attestations"


def forge_everything(home: Home, draw: random.Random) -> Named:
    """Another approver, commit and check, and all that hangs on them written anew: what a forger without the key can.

    Decisions, tables' manifests, provenance, model card, the stamp in the model, sums, objects, references, the rows,
    and the whole log with its leaves: they agree with one another, and not with the signatures, nor with who kept a
    checkpoint.
    """
    store = home.root / "objects" / "objects" / "sha256"

    def put(data: bytes) -> str:
        digest = compute_digest(data)
        (store / digest[:2]).mkdir(exist_ok=True)
        (store / digest[:2] / digest).write_bytes(data)
        return digest

    def get(digest: str) -> bytes:
        return (store / digest[:2] / digest).read_bytes()

    folder, forger, secret = home.release(), draw.choice(["Eve", "Mallory"]), draw.randbytes(32)
    eve = make_pseudonym(secret, forger)
    with sqlite3.connect(home.database) as connection:
        ((ada,),) = connection.execute("select pseudonym from people where name = 'Ada'")
    provenance = decode_canonical_json((folder / "provenance.json").read_bytes())
    new: dict[str, str] = {}
    for node in provenance["nodes"]:
        if node["kind"] == "approved_measurements":
            table = decode_table(get(node["artifacts"]["table"]["digest"])).assign(approved_by=eve)
            table["approved_by"] = table["approved_by"].astype("string")
            lines = get(node["artifacts"]["decisions.jsonl"]["digest"]).replace(ada.encode(), eve.encode())
            node["artifacts"]["table"]["digest"] = put(encode_table(table))
            node["artifacts"]["decisions.jsonl"]["digest"] = put(lines)
        node["parents"] = {name: new.get(digest, digest) for name, digest in node["parents"].items()}
        manifest = Manifest.model_validate({part: node[part] for part in verify_release.MANIFEST})
        new[node["digest"]] = put(manifest.encode())
        node["digest"] = new[node["digest"]]
    provenance["model"]["manifests"] = {name: new[digest] for name, digest in provenance["model"]["manifests"].items()}
    provenance["checks"] = [{**check, "passed": True, "description": "forged"} for check in provenance["checks"]]
    for environment in provenance["environments"].values():
        environment["git_sha"] = "f" * 40
    renamed = {digest: compute_json_digest(one) for digest, one in provenance["environments"].items()}
    provenance["environments"] = {renamed[digest]: one for digest, one in provenance["environments"].items()}
    for facts in [provenance["released"], *(node["facts"] for node in provenance["nodes"])]:
        facts["environment"] = renamed[facts["environment"]]

    def write_log(connection: sqlite3.Connection) -> None:
        connection.execute("update approval_events set decided_by = ? where decided_by = ?", (eve, ada))
        connection.execute("update people set pseudonym = ?, name = ?, secret = ? where pseudonym = ?",
                           (eve, forger, secret.hex(), ada))  # fmt: skip
        bodies = [body for (body,) in connection.execute("select body from log_entries order by id")]
        entries = [decode_canonical_json(body.replace(ada, eve)) for body in bodies]
        place = next(number for number, entry in enumerate(entries) if entry.get("version") == NEW)
        leaves = [hash_leaf(encode_canonical_json(entry)) for entry in entries[:place]]
        provenance["log"]["root"] = compute_root(leaves).hex()
        before = compute_digest((folder / "provenance.json").read_bytes())
        (folder / "provenance.json").write_bytes(encode_canonical_json(provenance))
        digest = compute_digest((folder / "provenance.json").read_bytes())
        model = (folder / "model.onnx").read_bytes().replace(before.encode(), digest.encode())
        (folder / "model.onnx").write_bytes(model)
        (folder / "README.md").write_text("# a forged model\n")
        names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
        sums = "".join(f"{compute_digest((folder / name).read_bytes())}  {name}\n" for name in names)
        (folder / "SHA256SUMS").write_text(sums)
        listed = {
            path.name: {"sha256": put(path.read_bytes()), "size": path.stat().st_size} for path in folder.iterdir()
        }
        (record,) = connection.execute("select record from model_releases where version = ?", (NEW,)).fetchone()
        said = decode_canonical_json(record)
        said |= {"provenance": digest, "manifest": new[said["manifest"]], "evaluation": new[said["evaluation"]]}
        record = encode_canonical_json(said).decode()
        files = encode_canonical_json(listed).decode()
        connection.execute("update model_releases set files = ?, record = ? where version = ?", (files, record, NEW))
        entries[place]["files"] = {name: entry["sha256"] for name, entry in listed.items()}
        entries[place]["record_sha256"] = compute_digest(record.encode())
        latest = {"version": NEW, "folder": NEW, "files": listed}
        path = home.root / "heimdall-models" / "latest.json"
        path.write_text(json.dumps(latest, indent=2, sort_keys=True) + "\n")
        for number, entry in enumerate(entries):
            body = encode_canonical_json(entry)
            connection.execute(
                "update log_entries set body = ?, leaf = ? where id = ?", (body.decode(), hash_leaf(body).hex(), number)
            )

    home.change(write_log)
    return "signature .*/attestations", "attestations.*none of the keys|attestations.*otherwise"


MUTATIONS: dict[str, Callable[[Home, random.Random], Named]] = {
    change.__name__: change
    for change in (
        change_file, change_object, drop_file, drop_object, swap_objects, swap_files, replay_file, replay_release,
        rename_object, rename_file, rename_release, relink_reference, change_reference, relink_latest, edit_row,
        drop_rows, cut_log, roll_back, rewrite_entry, swap_type, swap_key,
        forge_everything,
    )
}  # fmt: skip


def mutate(made: Path, folder: Path, kind: str, seed: int) -> None:
    home = copy_home(made, folder)
    audited, scripted = MUTATIONS[kind](home, random.Random(f"{kind} {seed}"))
    found = home.audit()
    assert any(re.search(audited, line) for line in found), (kind, seed, home.told, audited, found)
    assert all("\n" not in line for line in found), found
    if scripted is not None:
        faults = home.ask_script()
        assert any(re.search(scripted, line) for line in faults), (kind, seed, scripted, faults)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_change_is_found_and_named(made: Path, templates: Path, kind: str):
    for seed in range(SHORT // len(MUTATIONS)):
        mutate(made, templates, kind, seed)


@pytest.mark.long
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_thousand_changes_are_found_and_named(made: Path, templates: Path, kind: str):
    for seed in range(1000, 1000 + LONG // len(MUTATIONS) + 1):
        mutate(made, templates, kind, seed)
