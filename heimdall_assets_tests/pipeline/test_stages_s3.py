"""The stages of the pipeline with objects in a bucket: the same results as in a folder, and few requests."""

from pathlib import Path

from heimdall_assets.pipeline.intake.simulated import import_simulated
from heimdall_assets.places import read_places
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.fault_proxy import run_proxy
from heimdall_assets_tests.homes import ignore, split_home

SIMULATION = SimulationSpec(num_sessions=10, min_receivers=4, max_receivers=4, duration_s=0.8)
NUM_RECORDINGS = 40


def test_results_are_those_of_a_folder_and_found_again_in_few_requests(bucket: str, s3, quick_path: Path):
    with run_proxy(s3.endpoint) as proxy:
        made = {}
        for name, objects in (("folder", ""), ("bucket", f"{bucket}/home")):
            places = read_places(
                {
                    "HEIMDALL_HOME": str(quick_path / name),
                    "HEIMDALL_OBJECTS": objects,
                    "AWS_ENDPOINT_URL_S3": proxy.endpoint,
                }
            )
            import_simulated(places.open_stores(), SIMULATION, "demo", ignore)
            asked = proxy.count()
            made[name] = {kind: manifest.artifacts for kind, manifest in split_home(places)[1].items()}
            first = proxy.count()
        assert {kind: set(parts) for kind, parts in made["bucket"].items()} == {
            kind: set(parts) for kind, parts in made["folder"].items()
        }
        assert asked == {"PUT": NUM_RECORDINGS}
        assert first["PUT"] <= 51  # tables, two listings, shards, manifests, facts and references
        assert first["GET"] <= 20  # none of the recordings, which are at hand
        split_home(places)
        again = proxy.count()
        assert again["PUT"] == 0
        assert again["HEAD"] + again["GET"] <= 16  # a reference a result, a head an artifact, no recording
        elsewhere = read_places({**places.share(), "HEIMDALL_CACHE": str(quick_path / "elsewhere")})
        split_home(elsewhere)
        assert sum(proxy.count().values()) <= 30  # manifests and tables are fetched, no recording
