"""Disturbances of training pictures (augmentation) that match what fails in the field.

Never cached, never on other splits.

Shapes: B pictures, C channels, M mel bands, F frames.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from heimdall_assets.specs import AugmentationSpec

MAX_BAND_FRACTION = 0.1
"""Widest dropped band as a share of all bands: a narrow interferer or a notch."""


def augment_spectrograms(
    features: NDArray[np.floating], spec: "AugmentationSpec", rng: np.random.Generator, floor_db: float = -100.0
) -> NDArray[np.float32]:
    """Return disturbed copies: another receiver gain, a start moved in time, sometimes a band lost.

    A gain that leaves the range [floor_db, 0] saturates there, as a receiver does. A moved picture goes round: what
    leaves at one end enters at the other, so that no silence is invented.

    Args:
        features: (B, C, M, F), dB of full scale.
        spec: largest gain and shift, probability of a lost band.
        rng: decides everything; equal states give equal pictures.
        floor_db: what a lost band shows.

    Examples:
        Nothing asked for changes nothing:

        >>> from heimdall_assets.specs import AugmentationSpec
        >>> still = AugmentationSpec(max_gain_db=0.0, max_shift_frames=0, dropout=0.0)
        >>> pictures = np.full((2, 3, 8, 4), -60.0)
        >>> bool((augment_spectrograms(pictures, still, np.random.default_rng(0)) == pictures).all())
        True
    """
    out = np.array(features, dtype=np.float32, copy=True)
    num_pictures, _, num_bands, num_frames = out.shape
    gain_db = np.asarray(rng.uniform(-spec.max_gain_db, spec.max_gain_db, num_pictures), dtype=np.float32)
    shift = np.asarray(rng.integers(-spec.max_shift_frames, spec.max_shift_frames, num_pictures, endpoint=True))
    lost = np.asarray(rng.random(num_pictures)) < spec.dropout
    width = np.asarray(rng.integers(1, max(1, round(MAX_BAND_FRACTION * num_bands)), num_pictures, endpoint=True))
    first = np.asarray(rng.integers(0, num_bands - width, endpoint=True))
    np.clip(out + gain_db[:, None, None, None], floor_db, 0.0, out=out)
    for index in range(num_pictures):
        if shift[index] % num_frames:
            out[index] = np.roll(out[index], int(shift[index]), axis=-1)
        if lost[index]:
            out[index, :, first[index] : first[index] + width[index]] = floor_db
    return out
