"""Sessions as delays and levels only, drawn from the physics without making IQ: training data at any size in seconds.

Belongs here: what a perfect delay estimator would report. Does not belong here: samples (``network``, ``waveforms``).
Every number of session i is a hash of (seed, i), so a session never depends on which others are drawn with it.
Shapes: S sessions, R receiver slots of the widest session; slots beyond a session's count are dropped at the end.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from heimdall_assets.errors import InvalidSetting
from heimdall_assets.locating.bounds import compute_delay_bound_s
from heimdall_assets.physical import CHANNEL_HZ, SIGNAL_SPEED_M_S, SPEED_OF_LIGHT_M_S, SignalType
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_straight_range_m
from heimdall_assets.simulation.propagation import MAN_MADE_CITY_DBM
from heimdall_assets.specs import SimulationSpec, TimingSpec

Floats = NDArray[np.float64]

ITALIAN_NETWORK: tuple[tuple[str, float, float, float], ...] = (
    ("Aquila di Giaveno", 45.02, 7.29, 600.0),
    ("Montanaro", 45.234, 7.857, 300.0),
    ("Torino", 45.044, 7.672, 250.0),
    ("Coazze", 45.03, 7.27, 700.0),
    ("Passo del Giovi", 44.561, 8.956, 480.0),
    ("Genova", 44.395, 8.956, 100.0),
    ("Milano Baggio", 45.478, 9.123, 120.0),
)
"""Name, latitude, longitude in degrees, altitude in metres of the seven 2 m / 70 cm WebSDRs of north-west Italy."""

LOWEST_DELAY_SNR_DB = -10.0
"""Below it a correlation peak of one second no longer stands out of the noise: no delay is reported."""

SIGNAL_TYPES = (SignalType.VOICE, SignalType.TONE, SignalType.DTMF)

RMS_BANDWIDTH_HZ = np.array([800.0, 1768.0, 1251.0])
"""Centred rms bandwidth of voice, tone, DTMF at 2.5 kHz peak deviation; of FM it is the rms deviation."""


@dataclass(frozen=True)
class _Geometry:
    """Who stands where, degrees and metres; receivers (S, R), sources (S,); ``present`` marks slots in use."""

    present: NDArray[np.bool_]
    station: NDArray[np.str_]
    latitude: Floats
    longitude: Floats
    altitude_m: Floats
    source_latitude: Floats
    source_longitude: Floats


def simulate_observations(
    spec: SimulationSpec, indices: NDArray[np.int64], network: Literal["italian", "random"] = "italian"
) -> SessionSet:
    """Return sessions ``indices`` of the traffic that ``spec`` describes: arrivals, levels, SNR and truth, no IQ.

    ``italian`` takes a random subset of the seven stations for each session; ``random`` draws a network anywhere
    between 60 S and 60 N, 10 to 200 km wide, with a source power and a path-loss exponent of its own, so that a
    model trained on it holds no map. Sources lie at sea level: a session says nothing about their height.

    Args:
        spec: the traffic; ``num_sessions`` and ``sample_rate_hz`` play no part.
        indices: int (S,), which sessions, not negative.
        network: where the receivers stand.

    Raises:
        InvalidSetting: more receivers than the Italian network has, or negative indices.

    Examples:
        Any session can be had alone, and none changes because others are drawn:

        >>> many = simulate_observations(SimulationSpec(), np.arange(10))
        >>> alone = simulate_observations(SimulationSpec(), np.array([7]))
        >>> bool(alone.source_latitude[0] == many.source_latitude[7]), alone.num_receivers.tolist()
        (True, [7])
    """
    indices = np.asarray(indices, dtype=np.int64)
    if len(indices) and indices.min() < 0:
        raise InvalidSetting(f"session index {indices.min()}: expected 0 or more")
    if network == "italian" and spec.max_receivers > len(ITALIAN_NETWORK):
        raise InvalidSetting(
            f"max_receivers {spec.max_receivers}: expected at most {len(ITALIAN_NETWORK)}, the Italian network"
        )
    draw = _Draw(spec.seed, indices)
    place = _draw_italian(draw, spec) if network == "italian" else _draw_random(draw, spec)
    at_sea_level = (place.source_latitude[:, None], place.source_longitude[:, None], 0.0)
    range_m = compute_straight_range_m(place.latitude, place.longitude, place.altitude_m, *at_sea_level)
    blocked = draw.uniform("blocked", range_m.shape[1]) < spec.blocked_fraction
    level_db, snr_db = _draw_levels(draw, spec, range_m, blocked, network)
    signal = np.searchsorted(np.cumsum([spec.voice_fraction, spec.tone_fraction]), draw.uniform("signal", 1)[:, 0])
    sigma_s = compute_delay_bound_s(snr_db, CHANNEL_HZ, spec.duration_s, RMS_BANDWIDTH_HZ[signal][:, None])
    clock_s, timing_sigma_s = _draw_clocks(draw, spec, place)
    arrival_s = range_m / SIGNAL_SPEED_M_S + clock_s + sigma_s * draw.normal("arrival", range_m.shape[1])
    arrival_s += np.where(blocked, draw.exponential("excess", range_m.shape[1]) * spec.blocked_excess_s, 0.0)
    if spec.rician_k_db is not None:
        # A correlator sees the power centroid: scattered power pulls it by its share of the delay spread.
        share = 1.0 / (1.0 + 10.0 ** (spec.rician_k_db / 10.0))
        arrival_s += share * spec.delay_spread_s * draw.exponential("multipath", range_m.shape[1])
    arrival_s += draw.uniform("zero", 1) - 0.5
    offset_hz = spec.carrier_hz * (2.5e-6 * (2.0 * draw.uniform("carrier", 1) - 1.0)) + np.zeros_like(range_m)
    if spec.impairments:
        offset_hz += spec.carrier_hz * 0.1e-6 * draw.normal("oscillator", range_m.shape[1])

    keep = place.present
    heard = keep & (snr_db >= LOWEST_DELAY_SNR_DB) & np.isfinite(timing_sigma_s)
    num = keep.sum(1)
    return SessionSet(
        session_id=np.array([f"sim-{network}-{spec.seed}-{i}" for i in indices], dtype=np.str_),
        offsets=np.concatenate([[0], np.cumsum(num)]).astype(np.int64),
        receiver_latitude=place.latitude[keep],
        receiver_longitude=place.longitude[keep],
        receiver_altitude_m=place.altitude_m[keep],
        station_id=place.station[keep],
        frequency_hz=np.full(int(num.sum()), spec.carrier_hz),
        level_db=level_db[keep],
        snr_db=snr_db[keep],
        carrier_offset_hz=offset_hz[keep],
        timing_sigma_s=timing_sigma_s[keep],
        arrival_s=np.where(heard, arrival_s, np.nan)[keep],
        arrival_sigma_s=np.where(heard, sigma_s, np.nan)[keep],
        coherence=_compute_coherence(snr_db, keep)[keep],
        feature_row=np.full(int(num.sum()), -1, dtype=np.int64),
        source_latitude=place.source_latitude,
        source_longitude=place.source_longitude,
        error_margin_m=np.zeros(len(indices)),
        strata={
            "signal_type": np.array([SIGNAL_TYPES[i].value for i in signal], dtype=np.str_),
            "origin": np.full(len(indices), "simulated"),
            "line_of_sight": np.logical_not(np.any(blocked & keep, axis=1)),
        },
        blocked=blocked[keep],
    )


class _Draw:
    """Random numbers of each session, named: the same name gives the same numbers again, other names others.

    Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """

    def __init__(self, seed: int, indices: NDArray[np.int64]) -> None:
        self._key = _mix(_mix(np.full(len(indices), seed, dtype=np.uint64)) + indices.astype(np.uint64))

    def uniform(self, name: str, num: int) -> Floats:
        """Return float64 (S, num) in the open interval (0, 1)."""
        stream = np.frombuffer(name.encode().ljust(16, b"\0")[:16], dtype="<u8")
        key = _mix(_mix(self._key + stream[0]) + stream[1])
        bits = _mix(key[:, None] + np.arange(num, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52

    def normal(self, name: str, num: int) -> Floats:
        """Return float64 (S, num), standard normal."""
        drawn: Floats = ndtri(self.uniform(name, num))
        return drawn

    def exponential(self, name: str, num: int) -> Floats:
        """Return float64 (S, num), exponential with mean 1."""
        return -np.log(self.uniform(name, num))


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _draw_present(draw: _Draw, spec: SimulationSpec) -> NDArray[np.bool_]:
    span = spec.max_receivers - spec.min_receivers + 1
    num = spec.min_receivers + np.floor(draw.uniform("num", 1) * span)
    return np.arange(spec.max_receivers) < num


def _draw_italian(draw: _Draw, spec: SimulationSpec) -> _Geometry:
    """Return subsets of the seven stations, and sources uniform in the network's box and its margin."""
    names, latitude, longitude, altitude_m = (np.array(column) for column in zip(*ITALIAN_NETWORK, strict=True))
    present = _draw_present(draw, spec)
    order = draw.uniform("order", len(names)).argsort(axis=1)[:, : spec.max_receivers]
    spot = draw.uniform("source", 2)
    box = [
        (column.min() - spec.area_margin_deg, np.ptp(column) + 2 * spec.area_margin_deg)
        for column in (latitude, longitude)
    ]
    return _Geometry(
        present,
        names[order],
        latitude[order],
        longitude[order],
        altitude_m[order],
        box[0][0] + box[0][1] * spot[:, 0],
        box[1][0] + box[1][1] * spot[:, 1],
    )


def _draw_random(draw: _Draw, spec: SimulationSpec) -> _Geometry:
    """Return networks of random place, size (10 to 200 km) and layout; sources in the square widened by a quarter."""
    present = _draw_present(draw, spec)
    centre = np.stack([120.0 * draw.uniform("latitude", 1) - 60.0, 360.0 * draw.uniform("longitude", 1) - 180.0])
    half_m = 0.5 * 10_000.0 * 20.0 ** draw.uniform("size", 1)
    north_m = half_m * (2.0 * draw.uniform("north", spec.max_receivers) - 1.0)
    east_m = (
        half_m * (2.0 * draw.uniform("east", spec.max_receivers) - 1.0) * 2.0 ** draw.normal("aspect", 1).clip(-1, 1)
    )
    spot = 1.25 * (2.0 * draw.uniform("source", 2) - 1.0)
    source_east_m, source_north_m = spot[:, :1] * np.abs(east_m * present).max(1, keepdims=True), spot[:, 1:] * half_m
    # Metres to degrees on a sphere is enough to scatter points; ranges are exact whatever the layout.
    degree_m = math.pi / 180.0 * 6_371_000.0
    stretch = degree_m * np.cos(np.radians(centre[0]))
    return _Geometry(
        present,
        np.char.add("random-", np.broadcast_to(np.arange(spec.max_receivers).astype(np.str_), present.shape)),
        centre[0] + north_m / degree_m,
        _wrap_deg(centre[1] + east_m / stretch),
        1000.0 * draw.uniform("altitude", spec.max_receivers) ** 2,
        (centre[0] + source_north_m / degree_m)[:, 0],
        _wrap_deg(centre[1] + source_east_m / stretch)[:, 0],
    )


def _wrap_deg(longitude: Floats) -> Floats:
    return (longitude + 180.0) % 360.0 - 180.0


def _draw_levels(
    draw: _Draw, spec: SimulationSpec, range_m: Floats, blocked: NDArray[np.bool_], network: str
) -> tuple[Floats, Floats]:
    """Return received level in dBm and SNR in dB, each (S, R): free space to 1 km, then the log-distance law.

    What reaches a blocked receiver is an echo or bent round an edge, weaker by the spec's loss. An SNR drawn from a
    range stays as drawn.

    Source: free space 20 log10(4 pi d f / c) (ITU-R P.525-4); log-distance, Rappaport 2002, eq. 4.69.
    """
    num = range_m.shape[1]
    exponent, power_dbm = (
        np.full((len(range_m), 1), spec.path_loss_exponent),
        np.full((len(range_m), 1), spec.source_power_dbm),
    )
    if network == "random":
        exponent = (exponent + draw.uniform("exponent", 1) - 0.5).clip(2.0)
        power_dbm = power_dbm + 12.0 * (draw.uniform("power", 1) - 0.5)
    one_km_db = 20.0 * math.log10(4.0 * math.pi * 1000.0 * spec.carrier_hz / SPEED_OF_LIGHT_M_S)
    loss_db = one_km_db + 10.0 * exponent * np.log10(np.maximum(range_m, 10.0) / 1000.0)
    loss_db = loss_db + np.where(blocked, spec.blocked_loss_db, 0.0)
    level_db = power_dbm - loss_db + spec.shadowing_db * draw.normal("shadowing", num)
    if spec.snr_min_db is None or spec.snr_max_db is None:
        return level_db, level_db - MAN_MADE_CITY_DBM
    return level_db, spec.snr_min_db + (spec.snr_max_db - spec.snr_min_db) * draw.uniform("snr", num)


def _draw_clocks(draw: _Draw, spec: SimulationSpec, place: _Geometry) -> tuple[Floats, Floats]:
    """Return clock error and its one-sigma size in seconds, each (S, R); infinite sigma: a free-running clock.

    A station's bias stays the same in all sessions of one seed; random networks are new stations every time.
    """
    shape = place.latitude.shape
    normal = draw.normal("clock", shape[1])
    if spec.clock_class != "gnss_calibrated":
        sigma_s = TimingSpec.model_validate({}).sigma_s(spec.clock_class)
        return normal * (sigma_s if math.isfinite(sigma_s) else 0.0), np.full(shape, sigma_s)
    bias = draw.normal("bias", shape[1])
    if not place.station.size or not place.station[0, 0].startswith("random-"):
        names = [name for name, *_ in ITALIAN_NETWORK]
        fixed = _Draw(spec.seed, np.zeros(1, dtype=np.int64)).normal("station bias", len(names))[0]
        order = np.argsort(names)
        bias = fixed[order[np.searchsorted(np.array(names)[order], place.station)]]
    sigma_s = math.hypot(spec.clock_bias_s, spec.clock_jitter_s)
    return spec.clock_bias_s * bias + spec.clock_jitter_s * normal, np.full(shape, sigma_s)


def _compute_coherence(snr_db: Floats, present: NDArray[np.bool_]) -> Floats:
    """Return the mean coherence of each receiver's pairs, (S, R), NaN where it has no partner.

    Source: |gamma_ij|^2 = q_i q_j with q = SNR / (1 + SNR); Carter 1987, "Coherence and time delay estimation".
    """
    snr = 10.0 ** (snr_db / 10.0)
    root = np.where(present, np.sqrt(snr / (1.0 + snr)), 0.0)
    partners = present.sum(1, keepdims=True) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(partners > 0, root * (root.sum(1, keepdims=True) - root) / partners, np.nan)
