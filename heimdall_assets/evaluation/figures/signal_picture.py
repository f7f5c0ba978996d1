"""A small spectrogram of one recording, for a page that shows those of all receivers beside each other.

Belongs here: what is drawn of samples at the size of a thumb. Does not belong here: the whole picture of a recording
(``recording_picture``), the features that models take (``signals.spectrogram``).
"""

import numpy as np

from heimdall_assets.evaluation.drawing import encode_png, new_figure
from heimdall_assets.evaluation.figures.recording_picture import compute_power
from heimdall_assets.physical import Recording

WIDTH_IN, HEIGHT_IN = 3.6, 1.7
_NUM_FFT = 256
_FLOOR = 1e-15


def draw_signal(recording: Recording) -> bytes:
    """Return a PNG: time in s, kHz from the centre, power in dB from the 5th percentile to the 99.8th."""
    power_FT = 10 * np.log10(compute_power(recording.samples, _NUM_FFT).T + _FLOOR)
    half_khz = recording.sample_rate_hz / 2e3
    figure = new_figure(WIDTH_IN, HEIGHT_IN)
    axes = figure.add_subplot()
    low, high = np.percentile(power_FT, [5, 99.8])
    image = axes.imshow(
        power_FT, aspect="auto", origin="lower", extent=(0.0, recording.duration_s, -half_khz, half_khz),
        vmin=low, vmax=max(high, low + 1.0), cmap="cividis", interpolation="nearest",
    )  # fmt: skip
    axes.set_xlabel("s", fontsize=8, labelpad=1)
    axes.set_ylabel("kHz", fontsize=8, labelpad=1)
    axes.tick_params(labelsize=7, pad=2)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=14)
    bar.set_label("dBFS a bin", fontsize=7, labelpad=1)
    bar.ax.tick_params(labelsize=6, pad=1)
    return encode_png(figure)
