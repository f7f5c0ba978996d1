"""A model that does not reach what is asked of it is kept as rejected, and nobody is given it."""

import json

import pytest
from click.testing import CliRunner

from heimdall_assets.cli import main
from heimdall_assets.errors import NotFound
from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.manifests import Manifest
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.pipeline.results import read_parent
from heimdall_assets.pipeline.retraining.baseline import read_baseline
from heimdall_assets.pipeline.stages.gates import find_rejections
from heimdall_assets.specs import GateSpec, SimulationSpec
from heimdall_assets.stores.objects.tables import artifact_of_table, load_table
from heimdall_assets_tests.homes import fill_home, make_places, release

STRICT = GateSpec(max_median_m=0.001)


def judge(median_m, skill, best="tdoa_robust"):
    return {"median_m": median_m, "best_baseline": best, "baselines": {"tdoa_robust": {"skill": skill}}}


@pytest.mark.parametrize(
    ("gates", "metrics", "said"),
    [
        (GateSpec(), judge(None, None, None), []),
        (GateSpec(max_median_m=100.0), judge(100.0, 0.1), []),
        (GateSpec(max_median_m=1000.0), judge(62_000.0, 0.1), ["median error 6.2e+04 m, expected at most 1000 m"]),
        (GateSpec(max_median_m=100.0), judge(None, 0.1), ["median error unknown m"]),
        (GateSpec(min_skill=0.0), judge(50.0, 0.0), []),
        (GateSpec(min_skill=0.0), judge(50.0, -0.05), ["skill over tdoa_robust -0.05, expected at least 0"]),
        (GateSpec(min_skill=0.0), judge(50.0, None, None), ["skill over None unknown"]),
        (GateSpec(max_median_m=10.0, min_skill=0.5), judge(50.0, 0.2), ["median error 50 m", "skill over tdoa_robust"]),
    ],
)
def test_each_gate_that_is_not_passed_is_named(gates, metrics, said, tmp_path):
    found = find_rejections(make_places(tmp_path).open_stores(), Manifest(kind="onnx_model", code_version="1"),
                            metrics, gates)  # fmt: skip
    assert len(found) == len(said)
    for line, start in zip(found, said, strict=True):
        assert line.startswith(start)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A rejected release, and the same model released with gates that it passes."""
    simulation = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
    places = fill_home(tmp_path_factory.mktemp("gates"), simulation)
    rejected = release(places, STRICT)
    stores = places.open_stores()
    with pytest.raises(NotFound):
        stores.releases.resolve("latest")
    assert not (stores.releases.files.root / "latest.json").exists()
    return places, rejected, release(places)


def run(places, *arguments, code=0):
    environment = {"HEIMDALL_HOME": str(places.home), "HEIMDALL_TRACKING": "off"}
    result = CliRunner().invoke(main, arguments, env=environment)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_a_rejected_release_is_neither_champion_nor_challenger(history):
    places, rejected, _ = history
    assert rejected["champion"] is None
    assert not rejected["promotion"]["promoted"]
    assert "is rejected: median error" in rejected["promotion"]["reason"]
    record = places.open_stores().releases.find_record("v1.0.0")
    assert (record["status"], record["aliases"]) == ("rejected", [])
    assert record["rejected"] == rejected["rejected"]


def test_it_is_listed_as_rejected_and_its_card_says_why(history):
    places, _, _ = history
    rows = json.loads(run(places, "models", "list", "--json").stdout)
    assert [row["status"] for row in rows] == ["rejected", "released"]
    assert "rejected" in run(places, "models", "list").stdout
    assert "rejected: median error" in run(places, "models", "show", "v1.0.0").stdout


def test_nobody_can_promote_it(history):
    places, _, _ = history
    refused = run(places, "models", "promote", "v1.0.0", "--by", "me", "--reason", "I want it", code=2)
    assert refused.stderr.startswith("Error: release v1.0.0 cannot be promoted: release v1.0.0 is rejected: median")


def test_other_gates_release_the_same_model_at_once(history):
    places, rejected, passed = history
    assert passed["manifests"]["onnx_model"] == rejected["manifests"]["onnx_model"]
    assert {name for name, count in passed["computed"].items() if count} == {"model_release"}
    releases = places.open_stores().releases
    assert passed["champion"] == passed["version"] == releases.resolve("latest") != "v1.0.0"
    assert json.loads((releases.files.root / "latest.json").read_text())["version"] == passed["version"]


def test_a_later_rejected_release_leaves_latest_where_it_is(history):
    places, _, passed = history
    later = release(places, GateSpec(min_skill=0.999999))
    releases = places.open_stores().releases
    assert later["version"] not in (passed["version"], "v1.0.0")
    assert releases.resolve("latest") == releases.resolve("champion") == passed["version"]
    assert json.loads((releases.files.root / "latest.json").read_text())["version"] == passed["version"]


def test_data_unlike_the_latest_releases_are_a_gate(history):
    places, _, passed = history
    stores = places.open_stores()
    onnx = Manifest.decode(stores.objects.read_bytes(passed["manifests"]["onnx_model"]))
    gates = GateSpec(max_drift=0.0)
    assert find_rejections(stores, onnx, judge(1.0, 1.0), gates) == []  # of the same data
    before = read_parent(stores.objects, onnx, APPROVED_MEASUREMENTS)
    louder = load_table(stores.objects, before.artifacts["table"]).assign(signal_strength_db=10.0)
    artifacts = {**before.artifacts, "table": artifact_of_table(stores.objects, louder)}
    snapshot = before.model_copy(update={"artifacts": artifacts})
    digest = stores.objects.put_bytes(snapshot.encode(), JSON_MEDIA_TYPE).digest
    other = onnx.model_copy(update={"parents": {APPROVED_MEASUREMENTS: digest}})
    assert find_rejections(stores, other, judge(1.0, 1.0), gates) == [
        "signal_strength_db drifted by 1, expected at most 0 (max_drift)"
    ]


def test_a_retraining_keeps_the_champions_gates(history):
    places, _, passed = history
    baseline = read_baseline(places.open_stores())
    assert baseline.settings_of == passed["version"]
    assert GateSpec() in baseline.specs


def test_an_audit_finds_nothing_wrong_with_either(history):
    places, _, _ = history
    for version in ("v1.0.0", "latest"):
        assert json.loads(run(places, "verify", version, "--json").stdout)["ok"]
