"""Sessions as one table of receivers each, in kilometres of a tangent plane: what the network model reads.

Belongs here: padding, local frames, missing values, training-only disturbances. Does not belong here: torch modules.
The plane is the true east-north-up one of WGS-84 around the mean of a session's receivers, its origin subtracted in
float64; sources lie on the ellipsoid under it (``physics`` bends it). Everything missing is NaN.
Legend of shapes: S sessions, R receiver slots of the widest one, K columns.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.signal_labels import LABEL_STRATA
from heimdall_assets.locating.arrays import compute_arrival_sigma_s
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.session_set import PairSet, SessionSet
from heimdall_assets.signals.geodesy import compute_centre

if TYPE_CHECKING:
    from heimdall_assets.specs import AugmentationSpec

Floats = NDArray[np.float64]

RECEIVER_COLUMNS = (
    "east_km",
    "north_km",
    "up_km",
    "log10_frequency_hz",
    "level_db",
    "snr_db",
    "carrier_offset_hz",
    "coherence",
    "timing_sigma_km",
    "arrival_sigma_km",
    "arrival_km",
)
"""Columns of the receivers' table. A slot whose ``east_km`` is NaN holds no receiver; ``arrival_km`` has any zero."""

BEARING_COLUMNS = ("direction_rad", "sigma_rad")
"""Columns of bearings: angle at the receiver in the tangent plane, from its north over its east, and its error."""

MAX_RECEIVERS = 64

WGS84_A_KM = 6378.137
WGS84_F = 1.0 / 298.257223563
"""Semi-major axis and flattening (NIMA TR8350.2, section 3.2)."""

WGS84_E2 = WGS84_F * (2.0 - WGS84_F)

FARTHEST_ARRIVAL_KM = 45_000.0
"""An arrival that differs from the session's median by more than once around the earth is a broken clock, no delay."""


@dataclass(frozen=True)
class ReceiverTable:
    """What ``assemble_table`` gives.

    Attributes:
        origin_deg: float64 (S, 2), latitude and longitude of each plane's origin; NaN: no receiver at a known place.
        receivers: float32 (S, R, K), ``RECEIVER_COLUMNS``.
        feature_row: int64 (S, R), row of the spectrogram; -1: none.
        truth_km: float32 (S, 2), east and north of the source; NaN: unknown.
        margin_km: float32 (S,), one-sigma error of the truth.
        bearings: float32 (S, R, 2), ``BEARING_COLUMNS``; NaN: none.
    """

    origin_deg: Floats
    receivers: NDArray[np.float32]
    feature_row: NDArray[np.int64]
    truth_km: NDArray[np.float32]
    margin_km: NDArray[np.float32]
    bearings: NDArray[np.float32]


def assemble_table(sessions: SessionSet, num_slots: int | None = None) -> ReceiverTable:
    """Return ``sessions`` as padded tables; receivers keep their order, those at unknown places are left empty.

    Args:
        sessions: S sessions.
        num_slots: R; None: as many as the widest session has, at least 1.
    """
    counts, total = sessions.num_receivers, slice(int(sessions.offsets[0]), int(sessions.offsets[-1]))
    width = max(int(counts.max(initial=0)), 1) if num_slots is None else num_slots
    row = np.repeat(np.arange(len(sessions)), counts)
    column = np.arange(len(row)) - np.repeat(sessions.offsets[:-1] - sessions.offsets[0], counts)
    latitude, longitude = sessions.receiver_latitude[total], sessions.receiver_longitude[total]
    origin = np.stack(compute_centre(latitude, longitude, row, len(sessions)), axis=1)
    table = np.full((len(sessions), width, len(RECEIVER_COLUMNS)), np.nan)
    place_km = to_plane_km(origin[row], latitude, longitude, np.nan_to_num(sessions.receiver_altitude_m[total]))
    placed = np.asarray(np.isfinite(place_km).all(axis=1))
    sigma_s = compute_arrival_sigma_s(sessions)[total]
    frequency_hz = sessions.frequency_hz[total]
    columns = {
        "log10_frequency_hz": np.log10(np.where(frequency_hz > 0, frequency_hz, np.nan)),
        "level_db": _keep_finite(sessions.level_db[total]),
        "snr_db": _keep_finite(sessions.snr_db[total]),
        "carrier_offset_hz": _keep_finite(sessions.carrier_offset_hz[total]),
        "coherence": _keep_finite(sessions.coherence[total]),
        **_compute_arrivals(sessions, total, row, placed & np.isfinite(sigma_s)),
    }
    for name, values in columns.items():
        table[row, column, RECEIVER_COLUMNS.index(name)] = np.where(placed, values, np.nan)
    table[row, column, :3] = np.where(placed[:, None], place_km, np.nan)
    feature_row = np.full((len(sessions), width), -1, dtype=np.int64)
    feature_row[row, column] = np.where(placed, sessions.feature_row[total], -1)
    truth = to_plane_km(origin, sessions.source_latitude, sessions.source_longitude, np.zeros(len(sessions)))
    return ReceiverTable(
        origin_deg=origin,
        receivers=table.astype(np.float32),
        feature_row=feature_row,
        truth_km=truth[:, :2].astype(np.float32),
        margin_km=(sessions.error_margin_m / 1000.0).astype(np.float32),
        bearings=_assemble_bearings(sessions, total, origin, table.shape[:2], (row, column), placed),
    )


def _assemble_bearings(
    sessions: SessionSet,
    total: slice,
    origin_deg: Floats,
    shape: tuple[int, int],
    slots: tuple[NDArray[np.int64], NDArray[np.int64]],
    placed: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Return ``BEARING_COLUMNS`` of each slot, float32 (S, R, 2)."""
    out = np.full((*shape, len(BEARING_COLUMNS)), np.nan, dtype=np.float32)
    if sessions.bearing_deg is None or sessions.bearing_sigma_deg is None:
        return out
    bearing, sigma = np.radians(sessions.bearing_deg[total]), np.radians(sessions.bearing_sigma_deg[total])
    direction = to_plane_angle(
        origin_deg[slots[0]], sessions.receiver_latitude[total], sessions.receiver_longitude[total], bearing
    )
    known = placed & np.isfinite(bearing) & np.isfinite(sigma) & (sigma > 0)
    out[slots] = np.where(known[:, None], np.stack([direction, sigma], axis=1), np.nan)
    return out


def to_plane_angle(origin_deg: Floats, latitude: Floats, longitude: Floats, azimuth_rad: Floats) -> Floats:
    """Return azimuths (N,) at points as angles in the tangent planes at ``origin_deg`` (N, 2), from north over east.

    Meridians converge: 100 km to the east of 45 degrees north true north is turned by 0.9 degrees. A great circle is no
    straight line in the plane, but bends by less than 0.1 degrees in 200 km.

    Source: unit vectors to the east and north at a point, projected on those at the origin.
    """
    phi, phi0 = np.radians(latitude), np.radians(origin_deg[:, 0])
    turn = np.radians(longitude - origin_deg[:, 1])
    sin, cos = np.sin(azimuth_rad), np.cos(azimuth_rad)
    east = np.cos(turn) * sin - np.sin(phi) * np.sin(turn) * cos
    across = np.sin(phi) * np.sin(phi0) * np.cos(turn) + np.cos(phi) * np.cos(phi0)
    north = np.sin(phi0) * np.sin(turn) * sin + across * cos
    angle: Floats = np.arctan2(east, north)
    return angle


def to_plane_km(origin_deg: Floats, latitude: Floats, longitude: Floats, altitude_m: Floats) -> Floats:
    """Return east, north, up (N, 3) in km of points in the tangent planes at ``origin_deg`` (N, 2); NaN spreads.

    Source: geodetic to geocentric to topocentric, IOGP Guidance Note 7-2 (2019), sections 4.1.1 and 4.1.2.
    """
    origin_km = to_geocentric_km(origin_deg[:, 0], origin_deg[:, 1], np.zeros(len(origin_deg)))
    offset = to_geocentric_km(latitude, longitude, altitude_m) - origin_km
    phi, lam = np.radians(origin_deg.T)
    along = np.cos(lam) * offset[:, 0] + np.sin(lam) * offset[:, 1]
    east = -np.sin(lam) * offset[:, 0] + np.cos(lam) * offset[:, 1]
    north = -np.sin(phi) * along + np.cos(phi) * offset[:, 2]
    up = np.cos(phi) * along + np.sin(phi) * offset[:, 2]
    return np.stack([east, north, up], axis=1)


def to_geocentric_km(latitude: Floats, longitude: Floats, altitude_m: Floats) -> Floats:
    """Return geocentric x, y, z (N, 3) in km of points on WGS-84.

    Source: IOGP Guidance Note 7-2 (2019), section 4.1.1.
    """
    phi, lam = np.radians(latitude), np.radians(longitude)
    radius = WGS84_A_KM / np.sqrt(1.0 - WGS84_E2 * np.sin(phi) ** 2)
    height = altitude_m / 1000.0
    flat = (radius + height) * np.cos(phi)
    z = (radius * (1.0 - WGS84_E2) + height) * np.sin(phi)
    return np.stack([flat * np.cos(lam), flat * np.sin(lam), z], axis=1)


def join_sessions(parts: list[SessionSet]) -> SessionSet:
    """Return several session sets as one; only the first may have spectrograms and signal tracks.

    Strata that they do not share are dropped, but for those that labels are made of: there sessions are unknown. Where
    one set has pairs, the sessions of a set without have none.

    Raises:
        InvalidInput: a later set has spectrograms or tracks, or the pairs of two differ in their number of lags.
    """
    if any(part.features is not None or part.tracks is not None for part in parts[1:]):
        raise InvalidInput("joining session sets: only the first may carry spectrograms or signal tracks")
    columns: dict[str, Any] = {}
    for item in fields(SessionSet):
        if item.name not in _JOINED_APART:
            columns[item.name] = np.concatenate([getattr(part, item.name) for part in parts])
    counts = np.concatenate([part.num_receivers for part in parts])
    shared = set.intersection(*(set(part.strata) for part in parts))
    labels = {name: missing for name, missing in LABEL_STRATA.items() if any(name in part.strata for part in parts)}
    strata = {name: np.concatenate([part.strata[name] for part in parts]) for name in sorted(shared - set(labels))}
    for name, missing in labels.items():
        values = [part.strata.get(name, np.full(len(part), missing)) for part in parts]
        strata[name] = np.concatenate(values)
    blocked = [part.blocked for part in parts if part.blocked is not None]
    track_rows = [np.where(part.tracked, -1 if part.track_row is None else part.track_row, -1) for part in parts]
    return SessionSet(
        **columns,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        features=parts[0].features,
        track_row=None if parts[0].tracks is None else np.concatenate(track_rows),
        tracks=parts[0].tracks,
        strata=strata,
        blocked=np.concatenate(blocked) if len(blocked) == len(parts) else None,
        pairs=_join_pairs(parts),
        bearing_deg=_join_bearings([part.bearing_deg for part in parts], parts),
        bearing_sigma_deg=_join_bearings([part.bearing_sigma_deg for part in parts], parts),
    )


_JOINED_APART = {
    "offsets", "features", "track_row", "tracks", "strata", "blocked", "pairs", "bearing_deg", "bearing_sigma_deg",
}  # fmt: skip


def _join_bearings(values: list[Floats | None], parts: list[SessionSet]) -> Floats | None:
    if all(value is None for value in values):
        return None
    nothing = [np.full(len(part.station_id), np.nan) for part in parts]
    return np.concatenate([none if value is None else value for value, none in zip(values, nothing, strict=True)])


def _join_pairs(parts: list[SessionSet]) -> PairSet | None:
    known = [part.pairs for part in parts if part.pairs is not None]
    if not known:
        return None
    num_lags = sorted({pairs.correlation.shape[1] for pairs in known})
    if len(num_lags) > 1:
        raise InvalidInput(f"joining session sets: found pairs of {num_lags} lags, expected one number of them")
    counts = [np.zeros(len(part), dtype=np.int64) if part.pairs is None else part.pairs.num_pairs for part in parts]
    columns = {
        item.name: np.concatenate([getattr(pairs, item.name) for pairs in known])
        for item in fields(PairSet)
        if item.name != "offsets"
    }
    return PairSet(offsets=np.concatenate([[0], *counts]).cumsum().astype(np.int64), **columns)


def disturb_table(
    table: ReceiverTable, spec: "AugmentationSpec", rng: np.random.Generator, turn: bool = True
) -> ReceiverTable:
    """Return the table as another day could have given it: turned, receivers lost, features gone, gains off.

    A session keeps at least as many receivers as a position needs (3), or all it had. Turning the plane changes
    nothing physical, and keeps the model from learning a map; ``turn`` False leaves it.
    """
    receivers, truth = table.receivers.copy(), table.truth_km
    num, width, _ = receivers.shape
    angle = rng.uniform(0.0, 2.0 * np.pi, num) * turn
    matrix = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(num, 2, 2)
    receivers[..., :2] = np.einsum("sij,srj->sri", matrix, receivers[..., :2])
    truth = np.einsum("sij,sj->si", matrix, truth).astype(np.float32)
    present = np.isfinite(receivers[..., 0])
    lost = present & (rng.random((num, width)) < spec.dropout)
    lost &= (present.sum(1) - lost.sum(1) >= 3)[:, None]
    receivers[lost] = np.nan
    bearings = table.bearings.copy()
    bearings[..., 0] -= np.asarray(angle, dtype=np.float32)[:, None]
    bearings[lost] = np.nan
    level = RECEIVER_COLUMNS.index("level_db")
    receivers[..., level] += rng.uniform(-spec.max_gain_db, spec.max_gain_db, (num, width)).astype(np.float32)
    feature_row = np.where(lost | (rng.random((num, width)) < spec.dropout), -1, table.feature_row)
    return ReceiverTable(table.origin_deg, receivers, feature_row, truth, table.margin_km, bearings)


def _keep_finite(values: Floats) -> Floats:
    """Return ``values`` with infinities (a level of no power at all) as NaN: nothing was measured."""
    return np.where(np.isfinite(values), values, np.nan)


def _compute_arrivals(
    sessions: SessionSet, total: slice, row: NDArray[np.int64], timed: NDArray[np.bool_]
) -> dict[str, Floats]:
    """Return arrival, its statistical and its clock's sigma in km, NaN where there is no usable delay."""
    arrival = np.where(timed, sessions.arrival_s[total], np.nan) * (SIGNAL_SPEED_M_S / 1000.0)
    order = np.lexsort((arrival, row))
    num = np.bincount(row[timed], minlength=len(sessions))
    first = np.concatenate([[0], np.cumsum(sessions.num_receivers)])[:-1]
    middle = np.minimum(first + np.maximum(num - 1, 0) // 2, max(len(row) - 1, 0))
    median = np.where(num > 0, arrival[order][middle], np.nan) if len(row) else np.zeros(len(sessions))
    arrival = arrival - median[row]
    usable = timed & (np.abs(arrival) < FARTHEST_ARRIVAL_KM)
    to_km = SIGNAL_SPEED_M_S / 1000.0
    with np.errstate(invalid="ignore"):
        clock, noise = sessions.timing_sigma_s[total] * to_km, sessions.arrival_sigma_s[total] * to_km
    return {
        "arrival_km": np.where(usable, arrival, np.nan),
        "timing_sigma_km": np.where(np.isfinite(clock), clock, np.nan),
        "arrival_sigma_km": np.where(usable, noise, np.nan),
    }
