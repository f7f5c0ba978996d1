"""Sources outside the network, and receivers on one line: `make bench-outside`.

Sources stand all around random networks at 0.5 to 8 network radii (the largest distance of a receiver from their
middle, 30 to 120 km), without levels, at VHF and HF, with both GNSS clock classes. Of `locate` and of a model trained
on simulated sessions the table shows: coverage of the 90 % ellipse, median error, median semi-major axis, share with
several places named, share in which the ellipse or that of a named place holds the truth, and the median bound.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from worlds import fit

from heimdall_assets.locating.bounds import compute_session_bounds
from heimdall_assets.locating.ellipses import compute_mahalanobis_square
from heimdall_assets.locating.tdoa import locate_by_delays
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import Predictions, SessionSet
from heimdall_assets.signals.geodesy import LocalFrame, compute_distance_m, compute_range_m
from heimdall_assets.specs import TimingSpec

HERE = Path(__file__).resolve().parent
RADII = (0.5, 1.0, 2.0, 4.0, 8.0)
BANDS_HZ = {"VHF": 145e6, "HF": 7e6}
CLOCKS = ("gnss", "gnss_calibrated")
LAYOUTS = (("3", 3, False), ("5", 5, False), ("7", 7, False), ("3 on a line", 3, True), ("5 on a line", 5, True))
CORRELATION_S = 300e-9
MIDDLE = (46.0, 8.0)
QUANTILE_90 = -2.0 * np.log(0.10)

Locator = Callable[[SessionSet], Predictions]


def draw_receivers(num: int, on_a_line: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return receivers (R, 2) in m about their middle, none of the layouts but a line nearly one."""
    while True:
        if on_a_line:
            angle, place = (
                rng.uniform(0.0, 2.0 * np.pi),
                np.linspace(-1.0, 1.0, num) + rng.uniform(-0.2, 0.2, num) / num,
            )
            places = place[:, None] * np.array([np.cos(angle), np.sin(angle)])
        else:
            places = rng.normal(size=(num, 2))
        places -= places.mean(axis=0)
        main, cross = np.linalg.svd(places, compute_uv=False)
        if on_a_line or cross > 0.3 * main:
            radius_m = 1e3 * np.exp(rng.uniform(np.log(30.0), np.log(120.0)))
            return places * (radius_m / np.hypot(*places.T).max())


def simulate(num: int, radii: float, layout: tuple[str, int, bool], clock: str, frequency_hz: float) -> SessionSet:
    """Return sessions of one cell of the table, from a seed of its own."""
    _, count, on_a_line = layout
    rng, frame = np.random.default_rng([round(10 * radii), count, on_a_line]), LocalFrame(*MIDDLE)
    receivers = [draw_receivers(count, on_a_line, rng) for _ in range(num)]
    angle = rng.uniform(0.0, 2.0 * np.pi, num)
    away = radii * np.array([np.hypot(*places.T).max() for places in receivers])
    latitude, longitude, _ = frame.to_geodetic(*np.concatenate(receivers).T)
    truth = frame.to_geodetic(away * np.cos(angle), away * np.sin(angle))[:2]
    row = np.repeat(np.arange(num), count)
    way = compute_range_m(truth[0][row], truth[1][row], 0.0, latitude, longitude, 0.0, frequency_hz)
    clock_s = TimingSpec.model_validate({}).sigma_s(clock)
    error_s = np.hypot(clock_s, CORRELATION_S) * rng.normal(size=len(row))
    nothing = np.full(len(row), np.nan)
    return SessionSet(
        session_id=np.array([f"session-{index}" for index in range(num)]),
        offsets=np.arange(num + 1, dtype=np.int64) * count,
        receiver_latitude=latitude,
        receiver_longitude=longitude,
        receiver_altitude_m=np.zeros(len(row)),
        station_id=np.array([f"station-{index}" for index in range(len(row))]),
        frequency_hz=np.full(len(row), frequency_hz),
        level_db=nothing,
        snr_db=nothing,
        carrier_offset_hz=nothing,
        timing_sigma_s=np.full(len(row), clock_s),
        arrival_s=way / SIGNAL_SPEED_M_S + error_s,
        arrival_sigma_s=np.full(len(row), CORRELATION_S),
        coherence=nothing,
        feature_row=np.full(len(row), -1, dtype=np.int64),
        source_latitude=truth[0],
        source_longitude=truth[1],
        error_margin_m=np.zeros(num),
    )


def judge(sessions: SessionSet, found: Predictions) -> str:
    """Return one cell of the table."""
    inside = compute_mahalanobis_square(sessions, found) < QUANTILE_90
    named, held, branches = np.zeros(len(sessions), dtype=bool), inside.copy(), found.branches
    assert branches is not None
    places = Predictions(branches.latitude, branches.longitude, branches.covariance_m2, "")
    named[branches.session] = True
    of_place = compute_mahalanobis_square(sessions.take(branches.session), places) < QUANTILE_90
    np.logical_or.at(held, branches.session, of_place)
    error = compute_distance_m(found.latitude, found.longitude, sessions.source_latitude, sessions.source_longitude)
    east, north, both = found.covariance_m2.T
    major = np.sqrt(QUANTILE_90 * (0.5 * (east + north) + np.hypot(0.5 * (east - north), both)))
    bound = compute_session_bounds(sessions)[1]
    km = [f"{np.median(values) / 1e3:.3g}" for values in (error, major, bound)]
    return f"{np.mean(inside):.0%} / {np.mean(held):.0%}, {km[0]}, {km[1]}, {np.mean(named):.0%}, {km[2]}"


def tell_beside(predict: Locator) -> Locator:
    """Return a model's answers with the places that arrivals leave open, as `heimdall predict` names them."""
    return lambda sessions: replace(predict(sessions), branches=locate_by_delays(sessions, robust=True).branches)


def make_table(title: str, locate: Locator, num: int) -> list[str]:
    lines = [f"## {title}", "", "| band, clock, receivers | " + " | ".join(f"{r:g} radii" for r in RADII) + " |"]
    lines.append("|---" * (1 + len(RADII)) + "|")
    for band, clock, layout in product(BANDS_HZ, CLOCKS, LAYOUTS):
        cells = []
        for radii in RADII:
            sessions = simulate(num, radii, layout, clock, BANDS_HZ[band])
            cells.append(judge(sessions, locate(sessions)))
        lines.append(f"| {band}, {clock}, {layout[0]} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=300, help="of each cell")
    parser.add_argument("--training", type=int, default=3000, help="sessions that the model is trained on; 0: no model")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    lines = ["# Sources outside the network", "", "Written by `make bench-outside`; figures as measured.", ""]
    lines += ["Cells: 90 % ellipse holds the truth / it or that of a named place does, median error in km, median"]
    lines += ["semi-major axis in km, share with several places named, median bound in km (of unbiased estimates,"]
    lines += [f"without any area). {options.sessions} sessions a cell, so that 90 % is known to 3 points.", ""]
    lines += make_table("locate", lambda sessions: locate_by_delays(sessions, robust=True), options.sessions)
    if options.training:
        fitted, _ = fit("line_of_sight", options.training, options.epochs, 1)
        what = f"predict: {options.training} sessions of calibrated clocks within a network, {options.epochs} epochs"
        lines += make_table(what, tell_beside(fitted.predict), options.sessions)
    (HERE / "outside.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
