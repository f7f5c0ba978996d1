"""Sessions whose receivers come in another order: what must change nothing."""

from dataclasses import replace

import numpy as np

from heimdall_assets.session_set import SessionSet

RECEIVER_COLUMNS = (
    "receiver_latitude", "receiver_longitude", "receiver_altitude_m", "station_id", "frequency_hz", "level_db",
    "snr_db", "carrier_offset_hz", "timing_sigma_s", "arrival_s", "arrival_sigma_s", "coherence", "feature_row",
)  # fmt: skip


def shuffle_receivers(sessions: SessionSet, rng: np.random.Generator) -> SessionSet:
    """Return ``sessions`` with the receivers of each in a random order, their pairs renamed after them."""
    parts = [rng.permutation(count) for count in sessions.num_receivers]
    order = np.concatenate([start + part for start, part in zip(sessions.offsets[:-1], parts, strict=True)])
    columns = {name: getattr(sessions, name)[order] for name in RECEIVER_COLUMNS}
    for name in ("blocked", "bearing_deg", "bearing_sigma_deg", "track_row"):
        if getattr(sessions, name) is not None:
            columns[name] = getattr(sessions, name)[order]
    if sessions.pairs is not None:
        place = np.concatenate([np.argsort(part) for part in parts])
        start = np.repeat(sessions.offsets[:-1], sessions.pairs.num_pairs)
        first, second = (place[start + rows] for rows in (sessions.pairs.first, sessions.pairs.second))
        turned = first > second
        columns["pairs"] = replace(
            sessions.pairs,
            first=np.where(turned, second, first),
            second=np.where(turned, first, second),
            correlation=np.where(
                turned[:, None], sessions.pairs.correlation[:, ::-1].conj(), sessions.pairs.correlation
            ),
        )
    return replace(sessions, **columns)
