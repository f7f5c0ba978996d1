"""What a run opens: no name is looked up and nothing written elsewhere; a stage reads what it declares, and all of it.

Seen from outside Python, in every process and whatever a library does by itself (``opened.c``).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from heimdall_assets.kinds import (
    APPROVED_MEASUREMENTS,
    EVALUATION_METRICS,
    IQ_FILES,
    MEASUREMENT_DATABASE,
    MODEL_RELEASE,
    ONNX_MODEL,
    SPECTROGRAM_FEATURES,
    TEST_SPLIT,
    TRAIN_SPLIT,
    TRAINED_CHECKPOINT,
    VAL_SPLIT,
)
from heimdall_assets.lineage.listings import DECISIONS, RECORDINGS, decode_recordings
from heimdall_assets.lineage.walk import Node, list_parents, walk_manifests
from heimdall_assets.manifests import RESULTS, Manifest, decode_canonical_json
from heimdall_assets.pipeline.recipe import STAGES
from heimdall_assets.pipeline.stages.trained_checkpoint import MEDIA_TYPES
from heimdall_assets.stores.computing import CACHES, ENVIRONMENT
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets_tests.conftest import make_quick_folder
from heimdall_assets_tests.opened import (
    LOOKING,
    READING,
    WRITING,
    NoCompiler,
    Opened,
    build_shim,
    list_installed,
    read_log,
    watch,
)

PLANTED = """
import pathlib, socket, subprocess, sys
try:
    socket.getaddrinfo("planted.example.org", 443)
except socket.gaierror:
    pass
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as opened:
        try:
            opened.sendto(b"", ("192.0.2.7", 53)) if kind == socket.SOCK_DGRAM else opened.connect(("192.0.2.8", 80))
        except OSError:
            continue
        raise AssertionError("another machine was reached")
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
subprocess.run(["sh", "-c", 'echo planted > "$0"', sys.argv[1]], check=True)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_shim(tmp_path_factory.mktemp("shim"))
    except NoCompiler as error:
        pytest.skip(str(error))


# --- No other machine, nothing elsewhere


def list_written_elsewhere(log: list[Opened], root: Path) -> list[str]:
    """Files that were written outside home and temporary folder."""
    own = (f"{root}/home/", f"{root}/tmp/")
    return [
        opened.thing
        for opened in log
        if opened.what in WRITING
        and not opened.thing.startswith(own)
        and opened.thing != "/dev/null"
        and Path(opened.thing).parent.name != "__pycache__"  # Python's own, beside the code that it read
    ]


def list_looked_for(log: list[Opened]) -> list[str]:
    return [f"{opened.what} {opened.thing}" for opened in log if opened.what in LOOKING]


def test_a_planted_look_for_another_machine_and_a_planted_file_are_seen(shim: Path, tmp_path: Path):
    root = tmp_path.resolve()
    watch(shim, root, "-c", PLANTED, str(root / "user" / "planted"))
    log = read_log(root / "opened.log")
    assert list_looked_for(log) == [
        "resolve planted.example.org",
        "connect 192.0.2.8 port 80",
        "connect 192.0.2.7 port 53",
    ]
    assert list_written_elsewhere(log, root) == [str(root / "user" / "planted")]


def test_a_whole_run_looks_for_no_other_machine_and_writes_nothing_elsewhere(shim: Path):
    """With every switch as a user finds it: MLflow is told of the training, and nothing is set in the environment."""
    with make_quick_folder() as folder:
        root = folder.resolve()
        done = watch(shim, root, "-m", "heimdall_assets_tests.quiet_run")
        assert "all is as it was released" in done.stdout
        log = read_log(root / "opened.log")
        libraries = {"dagster", "mlflow", "onnxruntime", "huggingface_hub", "lightning", "matplotlib", "timm", "torch"}
        seen = {part for opened in log for part in libraries if f"/site-packages/{part}/" in opened.thing}
        assert seen == libraries, "a library was not even loaded: nothing is proven of it"
        assert list_looked_for(log) == []
        assert list_written_elsewhere(log, root) == []
        assert list((root / "user").iterdir()) == []  # no folder either


# --- What is read is what is declared

DATABASE, FORMAT = "database", "home.json"
FACTS = "facts"

READ_BESIDE: dict[str, dict[str, str]] = {
    APPROVED_MEASUREMENTS: {FORMAT: "whoever opens a home asks of which format it is"},
    MODEL_RELEASE: {
        FORMAT: "whoever opens a home asks of which format it is",
        DATABASE: "numbers of releases, and the log, whose checkpoint stands in provenance.json",
        FACTS: "they are copied into provenance.json",
    },
}
"""Stage -> what it reads and no manifest declares, with the reason."""

SNAPSHOT = {
    f"{APPROVED_MEASUREMENTS}/left_out": "for readers: what could not be used",
    f"{APPROVED_MEASUREMENTS}/{DECISIONS}": "for readers without Parquet: who approved stands in the table too",
}
LISTED = {f"{IQ_FILES}/{RECORDINGS}": "for readers without Parquet: the digests stand in the table too"}
COMPUTED = {
    **SNAPSHOT,
    **LISTED,
    f"{SPECTROGRAM_FEATURES}/refused": "for readers: what could not be used",
    f"{IQ_FILES}/table": "what was computed by it is read instead",
    "recording": "what was computed of it is read instead",
}
ARRAYS = {
    f"{SPECTROGRAM_FEATURES}{part}": "takes no features, and stands behind them: what has none is split all the same"
    for part in ("/index", "/tracks", "/arrivals", "/pairs", " shard")
}
FITTED = {f"{kind}/table": "what was fitted on it is read instead" for kind in (TRAIN_SPLIT, VAL_SPLIT)}
PUBLISHED = {
    **{f"{TRAINED_CHECKPOINT}/{name}": "the exported model is published" for name in MEDIA_TYPES},
    f"{EVALUATION_METRICS}/predictions": "its figures are published",
    f"{EVALUATION_METRICS}/plots": "its figures are published",
    f"{TEST_SPLIT}/table": "what was judged on it is read instead",
}
UNREAD: dict[str, dict[str, str]] = {
    IQ_FILES: SNAPSHOT,
    SPECTROGRAM_FEATURES: SNAPSHOT | LISTED,
    "splits": COMPUTED | ARRAYS,
    TRAINED_CHECKPOINT: COMPUTED,
    EVALUATION_METRICS: {
        **COMPUTED,
        VAL_SPLIT: "of the checkpoint's parents only the one that it looks for is opened",
        f"{VAL_SPLIT}/table": "decided when the training ended, and nothing after it",
    },
    ONNX_MODEL: COMPUTED | {f"{TRAIN_SPLIT}/table": "only variants that are calibrated read it, by default none"},
    MODEL_RELEASE: COMPUTED | ARRAYS | FITTED | PUBLISHED,
    f"{SPECTROGRAM_FEATURES} again": {"recording": "known from a cumulative table, which is declared"},
    f"{IQ_FILES} again": {"recording": "known from a cumulative table, which is declared"},
}
"""Stage -> what was made of its ancestors and it has no need of, with the reason; a second time, what comes on top."""


def pick(table: dict[str, dict[str, str]], name: str) -> dict[str, str]:
    return table.get(name.removesuffix(" again"), {}) | table.get(name, {})


@dataclass(frozen=True)
class Watched:
    """A stage's process: what it made, and the role -> what of it was read, and what was declared."""

    made: dict[str, str]
    read: dict[str, set[str]]
    declared: dict[str, set[str]]
    looked_for: list[str]

    def find_undeclared(self, name: str) -> list[str]:
        allowed = pick(READ_BESIDE, name)
        return sorted(
            f"{role}: {thing}"
            for role, things in self.read.items()
            if role not in allowed
            for thing in things - self.declared.get(role, set())
        )

    def list_unread(self) -> set[str]:
        """Roles of which something was declared and not read."""
        return {role for role, things in self.declared.items() if things - self.read.get(role, set())}


@dataclass(frozen=True)
class Objects:
    """The object store of a home, and what was written into it beside results: facts, and the environments of facts."""

    store: FolderObjectStore
    facts: dict[str, dict[str, Any]]
    """Digest of a manifest -> its facts."""

    @classmethod
    def read(cls, home: Path) -> "Objects":
        store = FolderObjectStore(home / "objects")
        names = [(name.removeprefix("facts/"), store.read_reference(name)) for name in store.list_references("facts/")]
        return cls(store, {name: decode_canonical_json(store.read_bytes(str(digest))) for name, digest in names})

    def list_facts(self) -> set[str]:
        found = {str(self.store.read_reference(f"facts/{name}")) for name in self.facts}
        return found | {facts[ENVIRONMENT] for facts in self.facts.values()}

    def read_manifest(self, digest: str) -> Manifest:
        return Manifest.decode(self.store.read_bytes(digest))

    def declare(self, made: list[Manifest]) -> dict[str, set[str]]:
        """Return what results declare that they were made from, role -> digests."""
        parents = {digest for manifest in made for digest in list_parents(manifest).values()}
        declared: dict[str, set[str]] = {}
        for node in walk_manifests(parents, self.store.read_bytes):
            for role, digest in self._list_held(node):
                declared.setdefault(role, set()).add(digest)
        for manifest in made:
            if MEASUREMENT_DATABASE in manifest.parents:
                declared[DATABASE] = {DATABASE}
            if pinned := self._list_recordings(manifest):  # by digest, where its parent names them by place
                declared["recording"] = pinned
            for name, digest in self.facts[manifest.digest].get(CACHES, {}).items():
                declared[name.split("/")[0]] = {digest}
        return declared

    def _list_held(self, node: Node) -> Iterator[tuple[str, str]]:
        kind = node.manifest.kind
        yield kind, node.digest
        for name, artifact in node.manifest.artifacts.items():
            yield f"{kind}/{'plots' if name.endswith('.svg') else name}", artifact.digest
        yield from (("recording", digest) for digest in self._list_recordings(node.manifest))
        yield from ((f"{kind} shard", digest) for digest in node.manifest.summary.get("shards", []))

    def _list_recordings(self, manifest: Manifest) -> set[str]:
        listed = manifest.artifacts.get(RECORDINGS)
        pairs = [] if listed is None else decode_recordings(self.store.read_bytes(listed.digest))
        return {digest for digest, _ in pairs}

    def find_name(self, digest: str) -> str:
        """Return what an object is, of whichever result."""
        results = {str(self.store.read_reference(name)) for name in self.store.list_references(RESULTS)}
        held = (pair for node in walk_manifests(results, self.store.read_bytes) for pair in self._list_held(node))
        return next((role for role, found in held if found == digest), "of no result")

    def list_made(self, made: list[Manifest]) -> set[str]:
        """Return the objects that a stage made; it looks at one that is there already, and takes nothing from it."""
        held = {artifact.digest for manifest in made for artifact in manifest.artifacts.values()}
        told = {self.facts[manifest.digest][ENVIRONMENT] for manifest in made}
        return held | told | {manifest.digest for manifest in made}


def read_stage(root: Path, told: dict[str, Any], log: list[Opened]) -> Watched:
    """Return what a stage's process read, by role, save what is its own, Python's or the system's."""
    objects = Objects.read(root / "home")
    made = [objects.read_manifest(digest) for digest in told["made"].values()]
    declared, before = objects.declare(made), set(told["before"])
    roles: dict[str, set[str]] = {digest: set() for digest in objects.list_made(made)}  # looked at, if there: no input
    for role, digests in declared.items():
        for digest in digests:
            roles.setdefault(digest, set()).add(role)
    for digest in objects.list_facts():
        roles.setdefault(digest, {FACTS})
    read: dict[str, set[str]] = {}
    for opened in log:
        is_own = opened.thing not in before if opened.thing.startswith(f"{root}/") else is_installed(opened.thing)
        if opened.what in READING and not is_own:
            for role, thing in name_file(Path(opened.thing), root / "home", roles, objects):
                read.setdefault(role, set()).add(thing)
    for part in declared:
        read.get("reference", set()).discard(part)
    return Watched(told["made"], read, declared, list_looked_for(log))


def name_file(path: Path, home: Path, roles: dict[str, set[str]], objects: Objects) -> list[tuple[str, str]]:
    """Return the roles of a file and what it is called in each."""
    if path.is_relative_to(home / "objects" / "references"):
        part = path.relative_to(home / "objects" / "references").parts[0]
        return [(FACTS if part == FACTS else "reference", part)]
    if path.is_relative_to(home / "objects"):
        known = roles.get(path.name)
        if known is None:
            return [("object", f"{path.name} ({objects.find_name(path.name)})")]
        return [(role, path.name) for role in known]
    if path.is_relative_to(home):
        return [(DATABASE, DATABASE) if path.name.startswith("heimdall.db") else (path.name, path.name)]
    return [("file", str(path))]


def is_installed(path: str) -> bool:
    return path.startswith(list_installed())


@pytest.fixture(scope="module")
def stages(shim: Path) -> Iterator[dict[str, tuple[Path, dict[str, Any], list[Opened]]]]:
    with make_quick_folder() as folder:
        root = folder.resolve()
        done = watch(shim, root, "-m", "heimdall_assets_tests.watched_stages", str(root))
        yield {told["name"]: (root, told, read_log(Path(told["log"]))) for told in json.loads(done.stdout)}


NAMES = [
    APPROVED_MEASUREMENTS, IQ_FILES, SPECTROGRAM_FEATURES, "splits", TRAINED_CHECKPOINT, EVALUATION_METRICS, ONNX_MODEL,
    MODEL_RELEASE, f"{APPROVED_MEASUREMENTS} again", f"{IQ_FILES} again", f"{SPECTROGRAM_FEATURES} again",
]  # fmt: skip


def test_every_stage_that_computes_is_watched(stages):
    """A promotion is no computation: it is decided anew each time. What stands aside hangs on more than its parents, a
    study or the champion of the moment, and has tests of its own: ``test_searching``, ``test_judging``.
    """
    assert set(stages) == {*NAMES, "planted"}
    made = {kind for _, told, _ in stages.values() for kind in told["made"]}
    assert made == {kind for kind, stage in STAGES.items() if not (stage.is_decided or stage.is_aside)}


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_reads_nothing_that_it_does_not_declare(stages, name: str):
    stage = read_stage(*stages[name])
    assert stage.find_undeclared(name) == []
    assert set(pick(READ_BESIDE, name)) <= set(stage.read), "an exception that nothing needs"
    assert stage.looked_for == []


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_reads_all_that_it_declares(stages, name: str):
    assert read_stage(*stages[name]).list_unread() == set(pick(UNREAD, name))


def test_what_is_planted_is_named(stages):
    root, told, log = stages["planted"]
    metrics = Objects.read(root / "home").read_manifest(stages[EVALUATION_METRICS][1]["made"][EVALUATION_METRICS])
    stage = read_stage(root, told, log)
    assert set(stage.find_undeclared("splits")) == {
        f"file: {root / 'elsewhere.bin'}",
        f"object: {metrics.digest} ({EVALUATION_METRICS})",
        f"object: {metrics.artifacts['metrics.json'].digest} ({EVALUATION_METRICS}/metrics.json)",
    }
    assert stage.looked_for == ["resolve planted.example.org", "connect 192.0.2.1 port 80"]


def test_a_table_that_nobody_declares_or_reads_is_named(stages):
    """Without what its facts say, a stage that took from cumulative tables is found out; so is one that reads less."""
    name = f"{SPECTROGRAM_FEATURES} again"
    root, told, log = stages[name]
    stage = read_stage(root, told, log)
    tables = {"features", "tracks", "delays", "pairs"}
    assert tables <= set(stage.declared)
    secret = {role: digests for role, digests in stage.declared.items() if role not in tables}
    assert len(replace(stage, declared=secret).find_undeclared(name)) == len(tables)
    table = next(iter(stage.declared[f"{IQ_FILES}/table"]))
    shorter = [opened for opened in log if not opened.thing.endswith(table)]
    assert read_stage(root, told, shorter).list_unread() - stage.list_unread() == {f"{IQ_FILES}/table"}
