"""What the session model takes from its training sessions before any fitting: laws, choices, counts.

Belongs here: numbers measured on sessions whose sources are known, in closed form or by trying both. Does not belong
here: what is learned by gradients (``session_model.task``).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from heimdall_assets.errors import InvalidInput
from heimdall_assets.evaluation.signal_labels import list_labelled, make_signal_labels
from heimdall_assets.learning.session_model.feed import count_marked
from heimdall_assets.learning.session_model.model import NetworkLocalizationNet
from heimdall_assets.learning.session_model.physics import LEVEL_EXPONENT, LevelLaw
from heimdall_assets.learning.session_model.table import assemble_table
from heimdall_assets.learning.session_model.tracks import list_tracked
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.geodesy import compute_distance_m

MIN_TIMED = 3
MAX_PROBED = 1000
"""Training sessions on which the two classical solutions are compared."""

MIN_HEARD = 20
"""Sessions with a level that a law of levels needs."""

MIN_LOSS_DB = 3.0
"""A smaller mean loss of blocked receivers drowns in shadowing."""

MIN_POWER_SIGMA_DB = 3.0
"""Power is never believed better than this: tomorrow's transmitter may be another one."""


def measure_level_law(sessions: SessionSet) -> LevelLaw:
    """Return how levels follow distance in these sessions, whose sources are known; the default where too few tell.

    Blocked receivers are left out of the law where it is known who they are, which only a simulation knows; how much
    weaker they are is 0 below ``MIN_LOSS_DB``.
    """
    blocked = np.zeros(len(sessions.level_db), dtype=np.bool_) if sessions.blocked is None else sessions.blocked
    owner = np.repeat(np.arange(len(sessions)), sessions.num_receivers)
    distance_m = compute_distance_m(
        sessions.source_latitude[owner],
        sessions.source_longitude[owner],
        sessions.receiver_latitude,
        sessions.receiver_longitude,
    )
    power = sessions.level_db + 10.0 * LEVEL_EXPONENT * np.log10(np.maximum(distance_m, 10.0) / 1000.0)
    known = np.isfinite(power)
    clear, late = known & ~blocked, known & blocked
    count = np.bincount(owner[clear], minlength=len(sessions))
    mean = np.bincount(owner[clear], power[clear], len(sessions)) / np.maximum(count, 1)
    heard, several = count > 0, clear & (count[owner] > 1)
    if heard.sum() < MIN_HEARD or not several.any():
        return LevelLaw()
    freedom = several.sum() - np.sum(count > 1)
    sigma_db = max(float(np.sqrt(np.square((power - mean[owner])[several]).sum() / max(freedom, 1))), 1.0)
    between = float(mean[heard].var()) - sigma_db**2 * float(np.mean(1.0 / count[heard]))
    late &= heard[owner]
    loss_db = float(np.mean((mean[owner] - power)[late])) if late.any() else 0.0
    return LevelLaw(
        sigma_db=round(sigma_db, 2),
        power_db=round(float(mean[heard].mean()), 2),
        power_sigma_db=round(max(between, MIN_POWER_SIGMA_DB**2) ** 0.5, 2),
        late_loss_db=round(loss_db, 2) if loss_db >= MIN_LOSS_DB else 0.0,
    )


def choose_trust(sessions: SessionSet) -> float:
    """Return 1.0 where the late-arrival likelihood is closer than least squares on these training sessions, else 0.0.

    Differences below a tenth are chance or clear sight, where least squares is the bound.
    """
    timed = np.flatnonzero(count_timed(sessions) >= MIN_TIMED)
    # Evenly from all of them: sessions of one kind stand together.
    sessions = sessions.take(timed[np.linspace(0, len(timed) - 1, min(len(timed), MAX_PROBED)).astype(np.int64)])
    if not len(sessions):
        return 0.0
    table = assemble_table(sessions)
    truth, receivers = torch.from_numpy(table.truth_km), torch.from_numpy(table.receivers)
    errors = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for trust in (0.0, 1.0):
            network = NetworkLocalizationNet(width=8, num_layers=0, num_heads=1, trust=trust).eval()
            position = network(receivers, torch.zeros(len(receivers), 2)).position
            errors.append(float((position - truth).square().sum(-1).sqrt().median()))
    return 1.0 if errors[1] < 0.9 * errors[0] else 0.0


def list_signal_tasks(train: SessionSet) -> list[str]:
    """Return the signal tasks that training sessions with a signal track have a label of.

    Raises:
        InvalidInput: there is no such session: heads that learned nothing would guess.
    """
    tasks = list_labelled(make_signal_labels(train.take(list_tracked(train))))
    if not tasks:
        raise InvalidInput(
            f"training split: 0 of {len(train)} sessions have both a demodulated recording and a label of their "
            "signal (type, span or SNR): expected at least 1 for ModelSpec.multi_target"
        )
    return tasks


def count_timed(sessions: SessionSet) -> NDArray[np.int64]:
    """Return how many receivers of each session (S,) have a usable delay."""
    return count_marked(sessions, np.isfinite(sessions.arrival_s) & np.isfinite(sessions.timing_sigma_s))


def find_bearings(sessions: SessionSet) -> NDArray[np.bool_]:
    """Return which receivers (M,) have a bearing."""
    if sessions.bearing_deg is None or sessions.bearing_sigma_deg is None:
        return np.zeros(len(sessions.level_db), dtype=np.bool_)
    return np.isfinite(sessions.bearing_deg) & np.isfinite(sessions.bearing_sigma_deg)


def count_observed(sessions: SessionSet, with_bearings: bool) -> NDArray[np.int64]:
    """Return how many usable delays each session (S,) has, and bearings where the model looks at them."""
    return count_timed(sessions) + (count_marked(sessions, find_bearings(sessions)) if with_bearings else 0)


def count_rows(sessions: SessionSet) -> NDArray[np.int64]:
    """Return how many numbers tell of each session's position (S,): delays but for one, and bearings."""
    return np.maximum(count_timed(sessions) - 1, 0) + count_marked(sessions, find_bearings(sessions))


def count_usable(sessions: SessionSet) -> NDArray[np.int64]:
    """Return how many receivers of each session (S,) stand at a known place and measured anything."""
    placed = np.isfinite(sessions.receiver_latitude) & np.isfinite(sessions.receiver_longitude)
    heard = np.isfinite(sessions.arrival_s) | np.isfinite(sessions.level_db) | (sessions.feature_row >= 0)
    heard |= find_bearings(sessions)
    return count_marked(sessions, placed & heard)
