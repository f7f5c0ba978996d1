"""From the approved table and what was computed from its recordings to the flat columns that models take.

Belongs here: ``assemble_sessions``. Does not belong here: pairs (``pairs``), reading tables or features from a store,
batching.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput, InvalidTable
from heimdall_assets.evaluation.signal_labels import UNKNOWN
from heimdall_assets.learning.pairs import match_pairs
from heimdall_assets.physical import compute_timing_sigma_s, count_from_earliest_s
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_sites
from heimdall_assets.specs import SplitSpec, TimingSpec


def assemble_sessions(
    approved: pd.DataFrame,
    features_index: pd.DataFrame | None,
    arrivals: pd.DataFrame | None,
    features: NDArray[Any] | None,
    timing: TimingSpec,
    assignment: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
    correlations: NDArray[Any] | None = None,
    tracks_index: pd.DataFrame | None = None,
    tracks: NDArray[Any] | None = None,
) -> SessionSet:
    """Return the approved measurements as flat columns, sessions sorted by id, each one's receivers by station id.

    Args:
        approved: rows with ``domain.APPROVED_COLUMNS``, any order.
        features_index: ``measurement_id``, ``row``: where a measurement's spectrogram lies in ``features``; may name
            measurements that are not in ``approved``.
        arrivals: ``measurement_id``, ``arrival_s``, ``arrival_sigma_s``, ``start_sigma_s``, ``coherence``; likewise.
        features: (F, 3, num_mels, num_frames) float32 or float16, dB; kept as it is, maybe memory-mapped.
        timing: sigma of each clock class.
        assignment: ``session_id``, ``site`` from ``splits.assign_splits``; None: sites of the default size.
        pairs: as in ``pairs.match_pairs``; may name measurements that are not in ``approved``.
        correlations: complex64 (Q, num_lags), where the rows of ``pairs`` count.
        tracks_index: as ``features_index``, of ``tracks``.
        tracks: float16 (F, signal_track.NUM_ROWS, NUM_STEPS).

    Raises:
        InvalidTable: a receiver twice in a session, a position missing, an infinite level, columns that differ
            within a session, an arrival both ready-made and from a recording, or nothing at all.
        InvalidInput: ``features_index``, ``tracks_index``, ``arrivals`` or ``pairs`` do not fit.
    """
    if not len(approved):
        raise InvalidTable("approved measurements: found 0 rows: expected at least 1")
    rows = approved.sort_values(["session_id", "station_id"], kind="stable", ignore_index=True)
    _check_rows(rows)
    first = rows.drop_duplicates("session_id", ignore_index=True)
    counts = rows.groupby("session_id", sort=True).size().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    arrival = _add_ready_made(rows, _match_arrivals(rows, arrivals))
    records = _list_attributes(first)
    strata = _compute_strata(rows, first, records, offsets, assignment)
    strata["true_snr_db"] = _compute_true_snr_db(rows, records, offsets)
    blocked = _read_blocked(rows, records, offsets)
    if blocked is not None:
        strata["line_of_sight"] = ~np.logical_or.reduceat(blocked, offsets[:-1])
    return SessionSet(
        session_id=first["session_id"].to_numpy(dtype=np.str_),
        offsets=offsets,
        receiver_latitude=_floats(rows, "receiver_latitude"),
        receiver_longitude=_floats(rows, "receiver_longitude"),
        receiver_altitude_m=_floats(rows, "receiver_altitude_m"),
        station_id=rows["station_id"].to_numpy(dtype=np.str_),
        frequency_hz=_floats(rows, "frequency_hz"),
        level_db=_floats(rows, "signal_strength_db"),
        snr_db=_floats(rows, "snr_db"),
        carrier_offset_hz=_floats(rows, "frequency_offset_hz"),
        timing_sigma_s=compute_timing_sigma_s(
            [str(name) for name in rows["clock_class"]],
            arrival["is_ready_made"].to_numpy(dtype=bool),
            arrival["start_sigma_s"].to_numpy(dtype=np.float64),
            timing,
        ),
        arrival_s=arrival["arrival_s"].to_numpy(dtype=np.float64),
        arrival_sigma_s=arrival["arrival_sigma_s"].to_numpy(dtype=np.float64),
        coherence=arrival["coherence"].to_numpy(dtype=np.float64),
        feature_row=_match_arrays(rows, features_index, _check_features(features_index, features), "features"),
        source_latitude=_floats(first, "source_latitude"),
        source_longitude=_floats(first, "source_longitude"),
        error_margin_m=_floats(first, "source_error_margin_m"),
        features=features,
        track_row=None if tracks is None else _match_arrays(rows, tracks_index, tracks, "tracks"),
        tracks=tracks,
        strata=strata,
        blocked=blocked,
        pairs=None if pairs is None and correlations is None else match_pairs(rows, offsets, pairs, correlations),
        **_read_bearings(rows),
    )


def _floats(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _check_rows(rows: pd.DataFrame) -> None:
    doubles = rows.duplicated(["session_id", "station_id"])
    if doubles.any():
        row = rows[doubles].iloc[0]
        raise InvalidTable(f"session {row.session_id}: station {row.station_id} stands in it twice: expected once")
    for column, required in (
        ("receiver_latitude", True),
        ("receiver_longitude", True),
        ("receiver_altitude_m", True),
        ("frequency_hz", True),
        ("source_error_margin_m", True),
        ("signal_strength_db", False),
        ("snr_db", False),
        ("frequency_offset_hz", False),
    ):
        values = _floats(rows, column)
        bad = ~np.isfinite(values) if required else np.isinf(values)
        if bad.any():
            row = rows[bad].iloc[0]
            raise InvalidTable(
                f"measurement {row.measurement_id}: {column} is {values[bad][0]}: expected a finite number"
                f"{'' if required else ' or none'} ({int(bad.sum())} of {len(rows)} rows)"
            )
    facts = ["session_id", "source_latitude", "source_longitude", "source_error_margin_m", "session_attributes"]
    distinct = rows[facts].drop_duplicates()
    if len(distinct) != distinct["session_id"].nunique():
        name = distinct["session_id"][distinct["session_id"].duplicated()].iloc[0]
        raise InvalidTable(f"session {name}: its rows name several sources or attributes: expected one")


def _check_features(index: pd.DataFrame | None, features: NDArray[Any] | None) -> NDArray[Any] | None:
    if index is not None and features is not None and (features.ndim != 4 or features.shape[1] != 3):
        raise InvalidInput(f"features: shape {features.shape}: expected (recordings, 3, mels, frames)")
    return features


def _match_arrays(
    rows: pd.DataFrame, index: pd.DataFrame | None, arrays: NDArray[Any] | None, name: str
) -> NDArray[np.int64]:
    """Return where the array of each of ``rows`` lies, int64 (M,); -1: it has none."""
    none = np.full(len(rows), -1, dtype=np.int64)
    if index is None:
        return none
    if arrays is None:
        raise InvalidInput(f"{name} index without {name}: expected both or neither")
    found = _index_by_measurement(index, f"{name} index")["row"]
    if len(found) and not ((found >= 0) & (found < len(arrays))).all():
        raise InvalidInput(
            f"{name} index: rows {found.min()} to {found.max()}: expected 0 to {len(arrays) - 1} of the {name}"
        )
    place = found.reindex(rows["measurement_id"].astype(str)).to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(place), none, place).astype(np.int64)


def _match_arrivals(rows: pd.DataFrame, arrivals: pd.DataFrame | None) -> pd.DataFrame:
    columns = ["arrival_s", "arrival_sigma_s", "start_sigma_s", "coherence"]
    if arrivals is None:
        return pd.DataFrame(np.nan, index=rows.index, columns=columns)
    # Arrivals that were found before starts were judged say nothing of them.
    table = _index_by_measurement(arrivals, "arrivals").reindex(columns=columns).astype(np.float64)
    timed = np.isfinite(table["arrival_s"])
    bad = timed & ~(np.isfinite(table["arrival_sigma_s"]) & (table["arrival_sigma_s"] > 0))
    if bad.any():
        name = table.index[bad][0]
        raise InvalidInput(
            f"arrivals: measurement {name} has arrival_sigma_s {table['arrival_sigma_s'][name]}: expected above 0 s"
        )
    return table.reindex(rows["measurement_id"].astype(str))


def _add_ready_made(rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Return arrivals with those that came ready-made, in s from the earliest of their session, and which these are."""
    table = found.reset_index(drop=True).assign(is_ready_made=False)
    if "arrival_unix_ns" not in rows:
        return table
    is_ready = rows["arrival_unix_ns"].notna().to_numpy()
    recorded = table["arrival_s"].notna().groupby(rows["session_id"]).transform("any").to_numpy()
    if (is_ready & recorded).any():
        row = rows[is_ready & recorded].iloc[0]
        raise InvalidTable(
            f"measurement {row.measurement_id}: found a ready-made arrival in session {row.session_id}, which has "
            "arrivals from recordings: they count from another zero, expected the one or the other"
        )
    ready = rows.loc[is_ready, ["session_id", "arrival_unix_ns", "arrival_sigma_s"]]
    earliest = ready.groupby("session_id")["arrival_unix_ns"].transform("min")
    table.loc[is_ready, "arrival_s"] = count_from_earliest_s(
        *(times.to_numpy(dtype=np.int64) for times in (ready["arrival_unix_ns"], earliest))
    )
    table.loc[is_ready, "arrival_sigma_s"] = ready["arrival_sigma_s"].to_numpy(dtype=np.float64)
    table["is_ready_made"] = is_ready
    return table


def _read_bearings(rows: pd.DataFrame) -> dict[str, Any]:
    """Return bearings and their sigmas, each float64 (M,), where some row has one; else None."""
    names = ("bearing_deg", "bearing_sigma_deg")
    return {name: _floats(rows, name) if name in rows and rows[name].notna().any() else None for name in names}


def _index_by_measurement(table: pd.DataFrame, name: str) -> pd.DataFrame:
    indexed = table.set_index(table["measurement_id"].astype(str))
    if indexed.index.has_duplicates:
        double = indexed.index[indexed.index.duplicated()][0]
        raise InvalidInput(f"{name}: measurement {double} stands in it twice: expected once")
    return indexed


def _compute_strata(
    rows: pd.DataFrame,
    first: pd.DataFrame,
    records: list[dict[str, Any]],
    offsets: NDArray[np.int64],
    assignment: pd.DataFrame | None,
) -> dict[str, NDArray[Any]]:
    """Return what sessions can be grouped by; scalar attributes of the sessions come along under their own names."""
    strata = _list_scalars(records) | _list_spans(records)
    for column in ("campaign", "origin", "source_id"):
        strata[column] = first[column].to_numpy(dtype=np.str_)
    start = pd.to_datetime(first["session_start"], utc=True)
    strata["month"] = start.dt.strftime("%Y-%m").to_numpy(dtype=np.str_)
    strata["date"] = start.dt.strftime("%Y-%m-%d").to_numpy(dtype=np.str_)
    strata["num_receivers"] = np.diff(offsets)
    snr_db = pd.Series(_floats(rows, "snr_db")).groupby(rows["session_id"].to_numpy(), sort=True).median()
    strata["median_snr_db"] = snr_db.to_numpy(dtype=np.float64)
    clocks = rows.groupby("session_id", sort=True)["clock_class"].agg(_name_common)
    strata["clock_class"] = clocks.to_numpy(dtype=np.str_)
    strata["duration_s"] = _floats(first, "duration_s")
    strata["site"] = _find_sites(first, assignment)
    strata.setdefault("signal_type", np.full(len(first), UNKNOWN))
    return strata


def _name_common(values: pd.Series) -> str:
    return str(values.iloc[0]) if values.nunique() == 1 else "mixed"


def _find_sites(first: pd.DataFrame, assignment: pd.DataFrame | None) -> NDArray[np.str_]:
    if assignment is None:
        latitude, longitude = _floats(first, "source_latitude"), _floats(first, "source_longitude")
        known = np.isfinite(latitude) & np.isfinite(longitude)
        found = np.full(len(first), UNKNOWN, dtype=object)
        if known.any():
            found[known] = compute_sites(latitude[known], longitude[known], SplitSpec.model_validate({}).site_size_m)
        return found.astype(np.str_)
    sites = assignment.set_index(assignment["session_id"].astype(str))["site"].reindex(first["session_id"].astype(str))
    if sites.isna().any():
        raise InvalidInput(f"assignment: session {sites.index[sites.isna()][0]} is not in it: expected every session")
    return sites.to_numpy(dtype=np.str_)


def _list_attributes(first: pd.DataFrame) -> list[dict[str, Any]]:
    return [json.loads(text) if isinstance(text, str) and text else {} for text in first["session_attributes"]]


def _list_scalars(records: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return the attributes that are one number or word, each as a stratum; numbers that are missing are NaN."""
    strata: dict[str, NDArray[Any]] = {}
    for name in sorted({name for record in records for name in record} - {"truth"}):
        values = [record.get(name) for record in records]
        known = [value for value in values if value is not None]
        if any(isinstance(value, (dict, list)) for value in known):
            continue
        if known and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
            strata[name] = np.array([np.nan if value is None else float(value) for value in values])
        else:
            strata[name] = np.array([UNKNOWN if value is None else str(value) for value in values], dtype=np.str_)
    return strata


def _list_spans(records: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return when the transmission of each session began and ended, in s from its start; NaN where nobody said."""
    spans = np.full((len(records), 2), np.nan)
    for number, record in enumerate(records):
        span = record.get("span")
        if isinstance(span, list) and len(span) == 2 and all(isinstance(edge, (int, float)) for edge in span):
            spans[number] = span
    return {"span_start_s": spans[:, 0], "span_end_s": spans[:, 1]}


def _read_blocked(rows: pd.DataFrame, records: list[dict[str, Any]], offsets: NDArray[np.int64]) -> Any:
    """Return the simulation's line-of-sight truth, bool (M,), or None: a truth that some receiver lacks is none."""
    blocked = [value for values in _list_truth(rows, records, offsets, "blocked") for value in values]
    return np.array(blocked, dtype=np.bool_) if all(isinstance(value, bool) for value in blocked) else None


def _compute_true_snr_db(
    rows: pd.DataFrame, records: list[dict[str, Any]], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the median of the receivers' true SNR of each session, which only a simulation knows; else NaN."""
    found = np.full(len(records), np.nan)
    for number, values in enumerate(_list_truth(rows, records, offsets, "snr_db")):
        if values and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            found[number] = np.median(values)
    return found


def _list_truth(
    rows: pd.DataFrame, records: list[dict[str, Any]], offsets: NDArray[np.int64], name: str
) -> list[list[Any]]:
    """Return of each session what its simulation says of each receiver under ``name``; None where it says nothing."""
    stations = rows["station_id"].to_numpy(dtype=np.str_)
    found = []
    for number, record in enumerate(records):
        truth = record.get("truth")
        receivers = truth.get("receivers") if isinstance(truth, dict) else None
        told = receivers if isinstance(receivers, list) else []
        known = {str(item.get("station_id")): item.get(name) for item in told if isinstance(item, dict)}
        found.append([known.get(str(station)) for station in stations[offsets[number] : offsets[number + 1]]])
    return found
