"""Augmentation changes what it says it changes, by no more than it says, and only that."""

import numpy as np

from heimdall_assets.signals.augment import augment_spectrograms
from heimdall_assets.specs import AugmentationSpec
from heimdall_assets_tests.variation import make_rng

STILL = AugmentationSpec(dropout=0.0, max_shift_frames=0, max_gain_db=0.0)


def make_pictures(num=40):
    return make_rng(0).uniform(-70.0, -30.0, (num, 3, 32, 16)).astype(np.float32)


def augment(seed=1, **changes):
    pictures = make_pictures()
    spec = STILL.model_copy(update=changes)
    return pictures, augment_spectrograms(pictures, spec, make_rng(seed))


def test_nothing_asked_changes_nothing():
    before, after = augment()
    np.testing.assert_array_equal(before, after)


def test_input_is_left_alone_and_equal_seeds_give_equal_pictures():
    before, after = augment(max_gain_db=6.0, dropout=0.5, max_shift_frames=3)
    np.testing.assert_array_equal(before, make_pictures())
    np.testing.assert_array_equal(after, augment(max_gain_db=6.0, dropout=0.5, max_shift_frames=3)[1])
    assert not np.array_equal(after, augment(2, max_gain_db=6.0, dropout=0.5, max_shift_frames=3)[1])


def test_gain_is_one_number_a_picture_within_its_bounds():
    before, after = augment(max_gain_db=6.0)
    change = after - before
    np.testing.assert_allclose(change, np.broadcast_to(change[:, :1, :1, :1], change.shape), atol=1e-5)
    assert 4.0 < np.abs(change).max() <= 6.0 + 1e-5
    assert change.min() < -2.0 < 2.0 < change.max()


def test_gain_saturates_like_a_receiver():
    loud = np.full((200, 3, 8, 4), -1.0, dtype=np.float32)
    spec = STILL.model_copy(update={"max_gain_db": 10.0})
    after = augment_spectrograms(loud, spec, make_rng(0))
    assert after.max() == 0.0
    quiet = augment_spectrograms(loud - 98.0, spec, make_rng(0))
    assert quiet.min() == -100.0


def test_shift_turns_the_frames_of_all_channels_alike():
    before, after = augment(max_shift_frames=3)
    shifts = set()
    for one, other in zip(before, after, strict=True):
        matches = [shift for shift in range(-3, 4) if np.array_equal(np.roll(one, shift, axis=-1), other)]
        assert len(matches) == 1
        shifts.update(matches)
    assert shifts == set(range(-3, 4))


def test_dropout_takes_one_band_of_about_the_asked_share():
    before, after = augment(dropout=0.5)
    lost = (after == -100.0).all(axis=(1, 3))
    np.testing.assert_array_equal(after[:, 0][~lost], before[:, 0][~lost])
    assert 8 < lost.any(axis=1).sum() < 32
    for rows in lost[lost.any(axis=1)]:
        assert np.ptp(np.flatnonzero(rows)) == rows.sum() - 1
        assert rows.sum() <= 3
