"""README's table of what is possible, computed again: the network, area and noise are the simulator's defaults."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from heimdall_assets.locating.bounds import compute_delay_bound_s, compute_position_covariance
from heimdall_assets.signals.geodesy import LocalFrame
from heimdall_assets.simulation.network import ITALIAN_STATIONS
from heimdall_assets.specs import SimulationSpec, TimingSpec
from heimdall_assets_tests.package_names import ROOT

SPEC = SimulationSpec()
PLACES = np.array([[s.position.latitude, s.position.longitude, s.position.altitude_m] for s in ITALIAN_STATIONS])
LOW, HIGH = PLACES[:, :2].min(axis=0) - SPEC.area_margin_deg, PLACES[:, :2].max(axis=0) + SPEC.area_margin_deg
FRAME = LocalFrame(*(0.5 * (LOW + HIGH)))
RECEIVERS = np.stack(FRAME.to_local(*PLACES.T), axis=-1)
VOICE_RMS_HZ = 800.0  # FM voice of +-2.5 kHz
CHANNEL_HZ = 12_500.0
CALIBRATED_S = TimingSpec().gnss_calibrated_s


def draw_sources(count: int) -> NDArray[np.float64]:
    """East and north of sources anywhere in the simulated area, float64 (count, 2), metres."""
    latitude, longitude = np.random.default_rng(1).uniform(LOW, HIGH, (count, 2)).T
    return np.stack(FRAME.to_local(latitude, longitude)[:2], axis=-1)


def compute_ranges(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres from each point to each receiver, (..., 7)."""
    return np.sqrt(np.square(points[..., None, :] - RECEIVERS[:, :2]).sum(-1) + np.square(RECEIVERS[:, 2]))


def locate_by_levels(heard: int) -> float:
    """Median error in m of the posterior mean from the levels of ``heard`` receivers, power and law known."""
    generator = np.random.default_rng(2)
    sources, grid = draw_sources(1500), draw_sources(6000)
    expected = -10.0 * SPEC.path_loss_exponent * np.log10(compute_ranges(grid))
    level = -10.0 * SPEC.path_loss_exponent * np.log10(compute_ranges(sources))
    level += generator.normal(0.0, SPEC.shadowing_db, level.shape)
    errors = []
    for source, levels in zip(sources, level, strict=True):
        chosen = generator.permutation(len(RECEIVERS))[:heard]
        squared = np.square((expected[:, chosen] - levels[chosen]) / SPEC.shadowing_db).sum(axis=1)
        weight = np.exp(-0.5 * (squared - squared.min()))
        errors.append(np.hypot(*(weight @ grid / weight.sum() - source)))
    return float(np.median(errors))


def bound_delays(snr_db: float, *clocks_s: float) -> float:
    """Median in m of errors that reach the bound of seven arrival times, line of sight, one second of voice."""
    sources = draw_sources(20_000)
    sigma_s = np.hypot(np.linalg.norm(clocks_s), compute_delay_bound_s(snr_db, CHANNEL_HZ, 1.0, VOICE_RMS_HZ))
    covariance = compute_position_covariance(RECEIVERS, np.full((len(sources), len(RECEIVERS)), sigma_s), sources)
    drawn = np.random.default_rng(3).standard_normal((len(sources), 2))
    return float(np.median(np.hypot(*np.einsum("nij,nj->ni", np.linalg.cholesky(covariance), drawn).T)))


def read_row(start: str) -> list[float]:
    """The figures in metres of README's row that starts so."""
    text = (ROOT / "README.md").read_text()
    (cell,) = re.findall(rf"^\| {re.escape(start)}.*\| ([^|]*) \|$", text, re.MULTILINE)
    values, unit = re.fullmatch(r"([\d/ ]+) (k?m)(?: at .*)?", cell).groups()
    return [float(value) * (1000.0 if unit == "km" else 1.0) for value in values.split("/")]


@pytest.mark.parametrize(
    ("start", "compute"),
    [
        ("nothing", lambda: [np.median(np.hypot(*draw_sources(20_000).T))]),
        ("one receiver's level", lambda: [locate_by_levels(1)]),
        ("seven levels", lambda: [locate_by_levels(7)]),
        ("seven raw IQ, GNSS", lambda: [bound_delays(snr, CALIBRATED_S) for snr in (30, 20, 10, 0)]),
        ("seven raw IQ, clocks of 30 ns", lambda: [bound_delays(30, 30e-9)]),
        ("the same with 1 us", lambda: [bound_delays(20, CALIBRATED_S, 1e-6)]),
    ],
)
def test_the_figure_is_what_physics_gives(start, compute):
    np.testing.assert_allclose(read_row(start), compute(), rtol=0.04)


def test_delays_of_network_time_say_less_than_nothing():
    assert bound_delays(30, TimingSpec().ntp_s) > 1e6  # metres; the area is a fraction of that wide
    assert "| seven raw IQ, NTP clocks (10 ms) | no delay information |" in (ROOT / "README.md").read_text()
