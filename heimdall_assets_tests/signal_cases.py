"""Narrow-band FM from closed forms and from the simulator, demodulated: what signal tests are made of."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from heimdall_assets.physical import CHANNEL_HZ
from heimdall_assets.session_set import SessionSet
from heimdall_assets.signals.signal_track import compute_track
from heimdall_assets.simulation.network import simulate_session
from heimdall_assets.simulation.observations import simulate_observations
from heimdall_assets.simulation.waveforms import modulate_fm
from heimdall_assets.specs import SimulationSpec
from heimdall_assets_tests.variation import make_rng

RATE_HZ = 24_000.0
DEVIATION_HZ = 2_500.0


def make_time_s(duration_s=1.0, rate_hz=RATE_HZ):
    return np.arange(round(duration_s * rate_hz)) / rate_hz


def add_noise(samples, snr_db, rate_hz=RATE_HZ, seed=0):
    """``samples`` of power 1 while the key is down, with white noise at this SNR in 12.5 kHz."""
    rng = make_rng(seed)
    power = 10.0 ** (-snr_db / 10.0) * rate_hz / CHANNEL_HZ
    noise = rng.normal(size=len(samples)) + 1j * rng.normal(size=len(samples))
    return samples + noise * np.sqrt(0.5 * power)


def hear(deviation_hz, snr_db, rate_hz=RATE_HZ, seed=0, key=1.0):
    """The track of a transmission of this frequency deviation, keyed by amplitude ``key``."""
    return compute_track(add_noise(modulate_fm(deviation_hz, rate_hz) * key, snr_db, rate_hz, seed), rate_hz)


def simulate_tracked(spec: SimulationSpec, indices: Iterable[int]) -> SessionSet:
    """Sessions with tracks and labels of the simulated IQ; everything else is of delays simulated beside it."""
    made = [simulate_session(spec.model_copy(update={"num_sessions": 1}), index) for index in indices]
    tracks = [
        compute_track(receiver.recording.samples, receiver.recording.sample_rate_hz)
        for session in made
        for receiver in session.receivers
    ]
    sessions = simulate_observations(spec, np.arange(len(made)))
    assert (sessions.num_receivers == [len(session.receivers) for session in made]).all()
    attributes = [session.session.attributes for session in made]
    strata = {
        "signal_type": np.array([said["signal_type"] for said in attributes]),
        "span_start_s": np.array([said["span"][0] for said in attributes]),
        "span_end_s": np.array([said["span"][1] for said in attributes]),
        "duration_s": np.full(len(made), spec.duration_s),
        "true_snr_db": np.array([np.median([r.truth["snr_db"] for r in session.receivers]) for session in made]),
    }
    return replace(sessions, tracks=np.stack(tracks), track_row=np.arange(len(tracks)), strata=strata)
