"""The chirp transform against the sum that defines it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.signals.chirp import compute_chirp_transform
from heimdall_assets_tests.variation import make_rng


@given(
    num_in=st.integers(1, 200),
    num_out=st.integers(1, 200),
    in_start=st.floats(-2.0, 2.0),
    out_start=st.floats(-500.0, 500.0),
    out_step=st.floats(0.1, 9.0),
    sign=st.sampled_from([-1, 1]),
)
@settings(max_examples=40, deadline=None)
def test_equals_its_definition(num_in, num_out, in_start, out_start, out_step, sign):
    generator = make_rng(num_in)
    values = (generator.standard_normal(num_in) + 1j * generator.standard_normal(num_in)).astype(np.complex64)
    x, y = in_start + np.arange(num_in) / 997.0, out_start + out_step * np.arange(num_out)
    expected = np.exp(sign * 2j * np.pi * np.outer(y, x)) @ values
    found = compute_chirp_transform(values, num_out, in_start, 1 / 997.0, out_start, out_step, sign)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(num_in, 10))


def test_long_transform_keeps_its_phase():
    """Half a minute at 12 kHz: phases of 10^5 cycles stay exact to a few parts in 10^6."""
    num, rate_hz, tone_hz = 360_000, 12_001.1, 4321.5
    tone = np.exp(2j * np.pi * tone_hz / rate_hz * np.arange(num)).astype(np.complex64)
    found = compute_chirp_transform(tone, 3, 0.0, 1 / rate_hz, tone_hz - 0.5, 0.5, sign=-1)
    assert abs(found[1]) == pytest.approx(num, rel=1e-5)
    assert abs(np.angle(found[1])) < 1e-4
