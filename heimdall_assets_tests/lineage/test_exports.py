"""The lineage of a release in the formats of others: each judged by the validator of its own field, offline."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import attr
import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema import Draft202012Validator, FormatChecker
from mlcroissant import Dataset, ValidationError
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde
from packageurl import PackageURL
from prov.model import ProvDocument, ProvException

from heimdall_assets.cli import main
from heimdall_assets.domain import APPROVED_COLUMNS
from heimdall_assets.errors import Refused
from heimdall_assets.lineage.attestations import BUNDLE_FILE
from heimdall_assets.lineage.exports import EXPORTS
from heimdall_assets.lineage.exports.annex_iv import ITEMS, PERSON
from heimdall_assets.lineage.exports.openlineage import encode_openlineage
from heimdall_assets.lineage.exports.prov_json import build_prov
from heimdall_assets.lineage.exports.released import Released, list_figures
from heimdall_assets.manifests import compute_digest, compute_json_digest
from heimdall_assets.pipeline.releases.reading import read_released
from heimdall_assets.places import read_places
from heimdall_assets_tests.lineage.world import FACTS, World, make_world

STRANGE = "Änne | <b>x</b> \u202e."
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def world(folder):
    """A home with one release; names that every format must carry as they are."""
    world = make_world(folder, 10)
    world.facts = {**FACTS, "started_by": STRANGE, "run_id": "19273515-01d0-4a0e-a5bf-27f769d859e7"}
    world.release(world.make_chain())
    return world


@pytest.fixture(autouse=True)
def home(world, folder, monkeypatch):
    for name in ("HEIMDALL_DATABASE_URL", "HEIMDALL_OBJECTS", "HEIMDALL_MODELS", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEIMDALL_HOME", str(folder))


@pytest.fixture
def released(home) -> Released:
    return read_released(read_places().open_stores(), "v1.0.0")


def run(*arguments, status=0):
    result = CliRunner().invoke(main, ["export", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


# W3C PROV


def test_prov_reads_back_as_the_same_document(released, world):
    document = EXPORTS["prov"](released)
    read = ProvDocument.deserialize(content=document.decode(), format="json")
    assert read == build_prov(released)
    assert read.unified() == read  # nothing is said twice in two ways
    told = json.loads(document)
    assert {name for name in told["entity"] if name.startswith("file:")} == {
        f"file:v1.0.0/{name}" for name in released.files
    }
    assert {world.name(agent["prov:label"]) for agent in told["agent"].values()} == {"Ada", "rita", STRANGE}
    nodes = released.provenance["nodes"]
    assert len(told["activity"]) == len(nodes) + 2  # the release, and Ada's approvals
    trained = told["activity"][f"computation:{released.nodes['trained_checkpoint']['digest']}"]
    assert (trained["prov:startTime"], trained["prov:endTime"]) == (
        "2026-01-01T12:00:00+00:00",
        "2026-01-01T12:00:12.500000+00:00",
    )
    derived = {(row["prov:generatedEntity"], row["prov:usedEntity"]) for row in told["wasDerivedFrom"].values()}
    for node in nodes:
        for name, parent in node["parents"].items():
            space = "database" if name == "measurement_database" else "manifest"
            assert (f"manifest:{node['digest']}", f"{space}:{parent}") in derived


def test_prov_that_names_what_no_prefix_explains_is_refused(released):
    broken = json.loads(EXPORTS["prov"](released))
    del broken["prefix"]["manifest"]
    with pytest.raises(ProvException, match="identifier"):
        ProvDocument.deserialize(content=json.dumps(broken), format="json")


# OpenLineage

RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job", "eventType"],
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "eventType": {"enum": ["START", "COMPLETE", "FAIL", "ABORT"]},
        "run": {
            "required": ["runId"],
            "properties": {"runId": {"format": "uuid"}, "facets": {"$ref": "#/$defs/facets"}},
        },
        "job": {"$ref": "#/$defs/named"},
        "inputs": {"type": "array", "items": {"$ref": "#/$defs/named"}},
        "outputs": {"type": "array", "items": {"$ref": "#/$defs/named"}},
    },
    "additionalProperties": False,
    "$defs": {
        "named": {
            "required": ["namespace", "name"],
            "properties": {
                "namespace": {"type": "string"},
                "name": {"type": "string"},
                "facets": {"$ref": "#/$defs/facets"},
            },
        },
        "facets": {
            "additionalProperties": {
                "type": "object",
                "required": ["_producer", "_schemaURL"],
                "properties": {"_producer": {"format": "uri"}, "_schemaURL": {"format": "uri"}},
            }
        },
    },
}
"""What the specification 2-0-2 asks of a run event: the library ships no JSON schema."""


def rebuild_facet(told):
    """Return the library's own object of a facet, which checks its fields."""
    kind = told["_schemaURL"].rpartition("/")[2]
    modules = [value for _, value in inspect.getmembers(facet_v2, inspect.ismodule)]
    (facet,) = {getattr(module, kind) for module in modules if getattr(module, kind, None) is not None}
    module = importlib.import_module(facet.__module__)
    given = {name: value for name, value in told.items() if not name.startswith("_")}
    for name, part in (("run", "Run"), ("job", "Job")):
        if name in given:
            given[name] = getattr(module, part)(**given[name])
    built = facet(**given, producer=told["_producer"])
    assert built._schemaURL == told["_schemaURL"]
    return built


def check_event(event):
    """Check an event against what the specification asks, and build it anew from the library's classes."""
    Draft202012Validator(RUN_EVENT, format_checker=FormatChecker()).validate(event)

    def rebuild(kind, told):
        facets = {name: rebuild_facet(facet) for name, facet in told.get("facets", {}).items()}
        return kind(**{**told, "facets": facets})

    built = event_v2.RunEvent(
        eventTime=event["eventTime"],
        eventType=event_v2.RunState(event["eventType"]),
        producer=event["producer"],
        run=rebuild(event_v2.Run, event["run"]),
        job=rebuild(event_v2.Job, event["job"]),
        inputs=[rebuild(event_v2.InputDataset, told) for told in event["inputs"]],
        outputs=[rebuild(event_v2.OutputDataset, told) for told in event["outputs"]],
    )
    assert Serde.to_dict(attr.asdict(built)) == event


def test_openlineage_events_are_those_of_its_library(released):
    events = [json.loads(line) for line in EXPORTS["openlineage"](released).splitlines()]
    for event in events:
        check_event(event)
    nodes = released.provenance["nodes"]
    assert [event["job"]["name"] for event in events[::2]] == [*(node["kind"] for node in nodes), "model_release"]
    for start, complete in zip(events[::2], events[1::2], strict=True):
        assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
        assert start["run"] == complete["run"]
        assert start["run"]["facets"]["parent"]["run"]["runId"] == "19273515-01d0-4a0e-a5bf-27f769d859e7"
    made = {data["name"] for event in events for data in event["outputs"]}
    read = {data["name"] for event in events for data in event["inputs"]}
    assert [name for name in read - made if not name.startswith("measurement_database ")] == []
    table = released.nodes["approved_measurements"]["artifacts"]["table"]["digest"]
    (told,) = (data for data in events[1]["outputs"] if data["name"] == table)
    assert {field["name"] for field in told["facets"]["schema"]["fields"]} <= APPROVED_COLUMNS.keys()


@pytest.mark.parametrize(
    ("place", "value"),
    [("eventTime", "yesterday"), ("producer", None), ("run", {"runId": "run-0"}), ("job", {"name": "x"}), ("more", 1)],
)
def test_an_event_that_is_none_is_refused(released, place, value):
    event = json.loads(EXPORTS["openlineage"](released).splitlines()[0])
    event[place] = value
    with pytest.raises(Exception, match=r"(?i)not|invalid|badly|required|additional"):
        check_event(event)


def test_a_facet_with_a_field_too_many_is_refused(released):
    event = json.loads(EXPORTS["openlineage"](released).splitlines()[0])
    event["job"]["facets"]["documentation"]["other"] = 1
    with pytest.raises(TypeError, match="other"):
        check_event(event)


def test_without_a_time_no_event_is_made_up(released):
    nodes = [{**node, "facts": None} for node in released.provenance["nodes"]]
    untold = Released({**released.provenance, "nodes": nodes}, released.files, released.decisions, released.tables)
    with pytest.raises(Refused, match=r"approved_measurements .*: found no facts of its computation"):
        encode_openlineage(untold)
    for form in EXPORTS.keys() - {"openlineage"}:  # the others leave out what nobody kept
        assert EXPORTS[form](untold)


# CycloneDX


def find_cyclonedx_error(document):
    newest = max((version for version in SchemaVersion), key=lambda version: version.to_version())
    assert document["specVersion"] == newest.to_version()
    return JsonStrictValidator(newest).validate_str(json.dumps(document))


def test_cyclonedx_follows_its_strict_schema(released):
    document = json.loads(EXPORTS["cyclonedx"](released))
    assert find_cyclonedx_error(document) is None
    model = document["metadata"]["component"]
    assert (model["type"], model["version"]) == ("machine-learning-model", "v1.0.0")
    assert {part["name"]: part["hashes"][0]["content"] for part in model["components"]} == released.files
    metrics = released.provenance["metrics"]
    told = {
        (*metric.get("slice", "").split(), metric["type"]): json.loads(metric["value"])
        for metric in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert told == dict(list_figures(metrics))
    by_reference = {part["bom-ref"]: part for part in document["components"]}
    for data in model["modelCard"]["modelParameters"]["datasets"]:
        assert by_reference[data["ref"]]["type"] == "data"
    libraries = {part["name"]: part["purl"] for part in document["components"] if part["type"] == "library"}
    assert libraries == {"numpy": "pkg:pypi/numpy@2.4.6", "torch": "pkg:pypi/torch@2.15.0"}
    assert model["pedigree"] == {"commits": [{"uid": "a" * 40}]}


def test_packages_are_named_as_package_urls_write_them(released):
    packages = ["Foo_Bar.baz==1.0+cu130", "x==1!2.0"]
    environments = {name: {**told, "packages": packages} for name, told in released.provenance["environments"].items()}
    provenance = {**released.provenance, "environments": environments}
    document = json.loads(EXPORTS["cyclonedx"](Released(provenance, released.files, {}, released.tables)))
    found = [part["purl"] for part in document["components"] if part["type"] == "library"]
    expected = [PackageURL("pypi", None, "foo-bar-baz", "1.0+cu130"), PackageURL("pypi", None, "x", "1!2.0")]
    assert [PackageURL.from_string(purl) for purl in found] == expected
    assert found == [purl.to_string() for purl in expected]


def test_a_broken_bill_of_materials_is_refused(released):
    document = json.loads(EXPORTS["cyclonedx"](released))
    document["metadata"]["component"]["hashes"][0]["content"] = "no digest"
    assert find_cyclonedx_error(document) is not None
    document = json.loads(EXPORTS["cyclonedx"](released))
    document["metadata"]["component"]["modelCard"]["accuracy"] = 1
    assert find_cyclonedx_error(document) is not None


# Croissant

OLD_GRAPH = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
"""rdflib, which reads JSON-LD for mlcroissant, uses its own deprecated class."""


@OLD_GRAPH
def test_croissant_is_read_with_its_rows_by_its_library(released, world, folder):
    file = folder / "objects" / "croissant.json"
    run("latest", "croissant", "--output", file)
    dataset = Dataset(jsonld=str(file))
    assert not dataset.metadata.ctx.issues.errors
    table = world.read_table(released.nodes["approved_measurements"]["artifacts"]["table"]["digest"])
    rows = list(dataset.records("records/approved_measurements/table"))
    name = "records/approved_measurements/table/measurement_id"
    assert [row[name].decode() for row in rows] == table["measurement_id"].tolist()
    fields = {field.name: field for field in dataset.metadata.record_sets[1].fields}
    assert list(fields) == list(table)
    assert "Hz, above 0 to 3e+11" in fields["frequency_hz"].description
    kinds = {name: str(field.data_types[0]).rpartition("/")[2] for name, field in fields.items()}
    assert kinds["frequency_hz"] == "Float"
    assert kinds["iq_start_unix_ns"] == "Integer"
    assert kinds["session_start"] == "DateTime"
    assert kinds["session_id"] == "Text"


@OLD_GRAPH
def test_a_file_without_digest_is_no_croissant(released):
    document = json.loads(EXPORTS["croissant"](released))
    del document["distribution"][0]["sha256"]
    with pytest.raises(ValidationError, match="sha256"):
        Dataset(jsonld=document)


# Annex IV


def check_dossier(text: str, released: Released, world: World) -> None:
    """Check that every item is there, each hash is that of the named file or an object, each figure in metrics.json."""
    items = re.findall(r"^### (\d(?: \([a-h]\))?) ", text, re.MULTILINE)
    assert items == [f"{n} ({letter})" for n in (1, 2) for letter in "abcdefgh"] + list("3456789")
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        assert part.count(PERSON) == 1
    quoted = re.findall(r"^- (file|object) `([^`]+)`, SHA-256 `(\w+)`", text, re.MULTILINE)
    assert len(quoted) == len(DIGEST.findall(text))
    for what, name, digest in quoted:
        if what == "file":
            assert compute_digest(world.releases.read_file("v1.0.0", name)) == digest
        else:
            assert compute_digest(world.objects.read_bytes(digest)) == digest
    figures = {" ".join(keys): number for keys, number in list_figures(read_metrics(world))}
    rows = re.findall(r"^\| ([^|]+) \| ([-\d.e]+) \|$", text, re.MULTILINE)
    assert rows
    for name, value in rows:
        assert json.loads(value) == figures[re.sub(r"\\(.)", r"\1", name)]


def read_metrics(world):
    return json.loads(world.releases.read_file("v1.0.0", "metrics.json"))


def test_the_dossier_has_every_item_and_nothing_but_evidence(released, world):
    text = EXPORTS["annex-iv"](released).decode()
    check_dossier(text, released, world)
    assert len(ITEMS) == 23
    assert "| median\\_m | 120 |" in text
    assert "started by Änne \\| \\<b\\>x\\</b\\> \\\\u202e." in text
    assert "approved by person:" in text
    assert "approved by Ada" in world.name(text)
    for claim in ("compliant", "complies", "conforms"):
        assert claim not in text


def test_the_dossier_tells_signatures_and_what_nobody_kept(released):
    text = EXPORTS["annex-iv"](released).decode()
    assert text.count("- the release is not signed\n") == 2
    told = released.provenance["environments"]
    environments = {name: {"packages": [], "git_sha": None, "code_sha256": "c" * 64} for name in told}
    bare = {**released.provenance, "log": None, "environments": environments}
    signed = {**released.files, BUNDLE_FILE: "b" * 64}
    text = EXPORTS["annex-iv"](Released(bare, signed, {}, released.tables)).decode()
    assert text.count(f"- file `{BUNDLE_FILE}`, SHA-256 `{'b' * 64}`: signatures over") == 2
    assert "not signed" not in text
    assert "python not kept, git\\_sha not kept, 0 packages" in text
    assert "no log was kept" in text
    assert "approved by" not in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| 120 |", "| 12 |"),
        ("### 2 (e) ", "### 2 (x) "),
        ("file `metrics.json`, SHA-256 `", "file `metrics.json`, SHA-256 `0"),
        (f"{PERSON}: the release holds no evidence of it.", ""),
    ],
)
def test_a_dossier_that_says_otherwise_is_found(released, world, old, new):
    text = EXPORTS["annex-iv"](released).decode()
    assert old in text
    with pytest.raises((AssertionError, KeyError)):
        check_dossier(text.replace(old, new, 1), released, world)


# All of them


@pytest.mark.parametrize("form", EXPORTS)
def test_every_digest_in_an_export_is_one_of_the_release(released, world, form):
    provenance = released.provenance
    named = {str(provenance["database"]["fingerprint"])}
    for digest, environment in provenance["environments"].items():
        assert compute_json_digest(environment) == digest
        named |= {digest, environment["code_sha256"]}
    found = set(DIGEST.findall(EXPORTS[form](released).decode())) - named
    assert found
    files = {compute_digest(world.releases.read_file("v1.0.0", name)) for name in released.files}
    for digest in found - files:
        assert compute_digest(world.objects.read_bytes(digest)) == digest
    if form in ("prov", "openlineage"):
        assert found >= files | {node["digest"] for node in provenance["nodes"]}


def test_the_same_release_gives_the_same_bytes_in_any_process(released, folder):
    program = f"""
import sys
from heimdall_assets.cli import main
for form in {list(EXPORTS)}:
    main(["export", "v1.0.0", form, "--output", sys.argv[1] + form], standalone_mode=False)
"""
    first = {form: EXPORTS[form](released) for form in EXPORTS}
    assert {form: EXPORTS[form](released) for form in EXPORTS} == first
    subprocess.run(
        [sys.executable, "-c", program, str(folder / "again-")],
        check=True,
        capture_output=True,
        timeout=120,
        env={"HEIMDALL_HOME": str(folder), "PYTHONHASHSEED": "7", "PATH": "", "TZ": "Asia/Tokyo"},
        cwd=Path(__file__).parents[2],
    )
    assert {form: (folder / f"again-{form}").read_bytes() for form in EXPORTS} == first


@pytest.mark.parametrize("form", EXPORTS)
def test_the_command_prints_writes_and_tells(released, form, tmp_path):
    document = EXPORTS[form](released)
    assert run("latest", form).stdout == document.decode()
    file = tmp_path / "document"
    told = json.loads(run("latest", form, "--output", file, "--json").stdout)
    assert told == {"version": "v1.0.0", "format": form, "sha256": compute_digest(document), "file": str(file)}
    assert file.read_bytes() == document
    shown = json.loads(run("v1.0.0", form, "--json").stdout)["document"]
    if form == "annex-iv":
        assert shown == document.decode()
    elif form == "openlineage":
        assert shown == [json.loads(line) for line in document.splitlines()]
    else:
        assert shown == json.loads(document)


@pytest.mark.parametrize(("form", "package"), [("prov", "prov.model"), ("openlineage", "openlineage.client.serde")])
def test_without_the_extra_one_line_says_what_to_install(form, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    result = run("latest", form, status=2)
    assert result.stdout == ""
    assert re.fullmatch(
        rf"Error: export {form}: found no package .*; install heimdall-assets\[exports\]\n", result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "said"), [(("v9.9.9", "prov"), "v9.9.9"), (("latest", "word"), "'word' is not one of 'prov'")]
)
def test_unknown_models_and_formats_are_one_line(arguments, said):
    result = run(*arguments, status=2)
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert said in result.stderr
