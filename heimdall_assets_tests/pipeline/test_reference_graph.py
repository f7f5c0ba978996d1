"""Sessions whose clocks a reference set, through the whole graph: learned from, released, asked, and verified."""

from dataclasses import replace

import numpy as np
import pytest

from heimdall_assets.domain import ApprovalStatus, Position
from heimdall_assets.formats import Stated
from heimdall_assets.manifests import Manifest
from heimdall_assets.pipeline.intake.files import import_recordings
from heimdall_assets.pipeline.intake.identities import make_source
from heimdall_assets.pipeline.intake.iq_session import SessionClaim
from heimdall_assets.pipeline.prediction.files import predict_files
from heimdall_assets.pipeline.releases.audit import audit_release
from heimdall_assets.pipeline.stages.datasets import load_sessions
from heimdall_assets.specs import SplitSpec, TimingSpec
from heimdall_assets_tests.homes import make_places, release
from heimdall_assets_tests.pipeline.reference_world import (
    RECEIVERS,
    SMALL,
    START_NS,
    make_claim,
    make_world,
    write_rtl_sdr,
)

STATED = Stated(sample_rate_hz=SMALL.rate_hz, start_unix_ns=START_NS, frequency_hz=SMALL.wanted_hz)
NUM_SESSIONS = 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A home whose graph ran on sessions that a reference timed: its stores, what was made, files of the last one."""
    folder = tmp_path_factory.mktemp("reference")
    places = make_places(folder / "home")
    stores, files, rng = places.open_stores(), [], np.random.default_rng(3)
    for number in range(NUM_SESSIONS):
        truth = Position(latitude=float(rng.uniform(45.6, 46.4)), longitude=float(rng.uniform(7.5, 8.6)))
        world = replace(SMALL, seed=number, truth=truth)
        (folder / str(number)).mkdir()
        files = write_rtl_sdr(folder / str(number), make_world(world).samples)
        source = make_source(f"X{number}", truth)
        claim = SessionClaim(f"call-{number}", source, "field", RECEIVERS, reference=make_claim(world))
        import_recordings(stores.measurements, stores.objects, claim, files, STATED)
    ids = [row["id"] for row in stores.measurements.list_sessions()]
    stores.measurements.decide(ids, ApprovalStatus.APPROVED, "me", "positions by GPS")
    return stores, release(places, SplitSpec(val_fraction=0.3, test_fraction=0.3)), files


def test_sessions_timed_by_a_reference_are_learned_from_with_their_sigmas(trained):
    stores, made, _ = trained
    num, sigmas_s = 0, []
    for name in ("train_split", "val_split", "test_split"):
        split = Manifest.decode(stores.objects.read_bytes(made["manifests"][name]))
        sessions = load_sessions(stores.objects, split)
        assert set(sessions.strata["clock_class"]) <= {"reference"}
        num += len(sessions.session_id)
        sigmas_s += sessions.timing_sigma_s[np.isfinite(sessions.arrival_s)].tolist()
    assert num == NUM_SESSIONS
    assert len(sigmas_s) > 0.8 * 4 * NUM_SESSIONS
    # the reference's echoes, and beside them what noise and places leave open of each start
    assert min(sigmas_s) > TimingSpec().reference_s
    assert max(sigmas_s) < 2.0 * TimingSpec().reference_s


def test_the_release_verifies_down_to_the_users_bytes(trained):
    stores, made, _ = trained
    assert audit_release(stores, made["version"]) == []


def test_a_released_model_takes_files_that_a_reference_times(trained):
    stores, made, files = trained
    found = predict_files(stores, made["version"], files, RECEIVERS, STATED, reference=make_claim(SMALL))
    assert len([remark for remark in found["remarks"] if "clock set by DAB" in remark]) == len(RECEIVERS)
    assert found["ellipse_90"]["semi_major_m"] < 20_000.0
