"""Copies: whether two receivers' samples are one recording: cut elsewhere, of another gain, rounded otherwise.

Belongs here: the search in memory, of samples against samples. Does not belong here: what follows from a copy for an
import or a session (``pipeline``), delays between receivers that are two (``delays``).

Physics: each receiver adds noise of its own. What is left of one recording when the other is taken from it, at the best
lag and gain, holds the noise of both; of a copy nothing is left but what rounding left. However strong a signal is,
noise of a fifth of its step and more is seen beside that; and receivers that are two have neither one carrier, nor
delays of whole samples, but by chance.

So a strong stretch near the beginning of either recording is looked for in the other: two cuts of one recording hold
the beginning of one of them. A place is given up at the first of ``NUM_ANCHORS`` samples that rounding does not
explain; what is left, most often nothing, is compared over all that both hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.counts import say_count

Samples = NDArray[np.complex64]

PROBE_SAMPLES = 2048
"""Length of the stretch looked for, or half of a shorter recording: the least that two cuts must have in common."""

NUM_ANCHORS = 64  # samples of it that are compared, the strongest of as many parts

MOST_SAMPLES = 1 << 22
"""Of each recording, from its beginning: 32 MiB, 6 min at 12 kHz, 1.7 s at 2.4 MHz. Nobody looks at what is later."""

ROUNDING = 1.25 / 6.0
"""Squared steps that rounding leaves, I and Q together, 1/12 each (Widrow and Kollar 2008, Quantization Noise), and a
quarter more: two receivers whose noise is a fifth of a step or more leave more than that."""

LARGEST_SHARE = 1e-4
"""Of the power: where rounding leaves more than -40 dB, two receivers may differ by no more than that."""

LOOSEST = 0.1
"""Relative error that one sample may have; ten times the root of ``LARGEST_SHARE``, for these are the strong ones."""

FLOAT_ERROR = 2.0**-22
"""Relative error of what was computed in 32-bit floats: some roundings of 2^-24."""

_NUM_RANKED = 8  # places compared over all that both hold
_NUM_LOOKED_AT = 8192  # samples that tell a recording's step
_BLOCK = 1 << 15  # samples compared in one go: they stay in the processor's cache


@dataclass(frozen=True)
class Copy:
    """Two recordings that are one: sample n of ``second`` is sample n + ``lag`` of ``first``, times a gain."""

    first: int
    second: int
    lag: int


@dataclass(frozen=True)
class _Probe:
    """A recording, its step, and the samples by which it is looked for: places in it, the strongest one first."""

    samples: Samples
    step: float
    anchors: NDArray[np.int64]
    extent: tuple[int, int]


def find_copies(recordings: Sequence[Samples], owners: Sequence[int] | None = None) -> list[Copy]:
    """Return which two of R recordings are one, each pair once, in their order.

    Args:
        recordings: complex64 (N,) each, none empty, in any unit; rates do not matter.
        owners: whose each is: two of one owner are not compared; None: each has another.

    Examples:
        One recording, cut 300 samples later, 3 dB weaker and rounded to 16 bits again; and another receiver's, of the
        same signal 60 dB above the noise:

        >>> rng = np.random.default_rng(1)
        >>> signal, *noise = (rng.normal(size=(3, 9000, 2)) @ np.array([0.1, 0.1j]))
        >>> one, other = ((signal + 1e-3 * part).astype(np.complex64) for part in noise)
        >>> cut = (np.rint(0.7 * one[300:].view(np.float32) * 32768) / 32768).astype(np.float32).view(np.complex64)
        >>> find_copies([one, other, cut])
        [Copy(first=0, second=2, lag=300)]
    """
    owners = range(len(recordings)) if owners is None else owners
    probes = [_make_probe(samples[:MOST_SAMPLES]) for samples in recordings]
    found = []
    for second, there in enumerate(probes):
        for first, here in enumerate(probes[:second]):
            if owners[first] == owners[second]:
                continue
            lag = _find_lag(here, there)
            if lag is None and (back := _find_lag(there, here)) is not None:
                lag = -back
            if lag is not None:
                found.append(Copy(first, second, lag))
    return sorted(found, key=lambda copy: (copy.first, copy.second))


def say_lag(lag: int) -> str:
    """Return how one cut of a recording lies to another.

    >>> say_lag(0), say_lag(1), say_lag(-300)
    ('from the same sample on', 'from 1 sample later on', 'from 300 samples earlier on')
    """
    if lag == 0:
        return "from the same sample on"
    return f"from {say_count(abs(lag), 'sample')} {'later' if lag > 0 else 'earlier'} on"


def _make_probe(samples: Samples) -> _Probe:
    """Return a recording and its anchors, in the stretch that begins where it is first half as strong as its mean."""
    power = np.square(samples.real) + np.square(samples.imag)
    size = max(1, min(PROBE_SAMPLES, len(samples) // 2))
    begin = min(int(np.argmax(power >= 0.25 * power.mean())), len(samples) - size)
    num = min(NUM_ANCHORS, size)
    bounds = begin + np.arange(num + 1) * size // num
    anchors = np.array(
        [low + int(power[low:high].argmax()) for low, high in pairwise(bounds)],
        dtype=np.int64,
    )
    strongest = anchors[power[anchors].argmax()]
    # Far ones first: neighbours of a narrow signal resemble each other everywhere.
    order = np.argsort(-np.abs(anchors - strongest), kind="stable")
    anchors = np.concatenate([[strongest], anchors[order][:-1]])
    return _Probe(samples, _find_step(samples), anchors, (begin, begin + size))


def _find_step(samples: Samples) -> float:
    """Return the smallest difference of two values of I, or of Q if that is larger: the step they were rounded to."""
    some = samples[:: max(1, len(samples) // _NUM_LOOKED_AT)]
    steps = [float(np.diff(values).min()) for values in map(np.unique, (some.real, some.imag)) if len(values) > 1]
    return max(steps, default=0.0)


def _find_lag(where: _Probe, what: _Probe) -> int | None:
    """Return at which sample of ``where`` a copy ``what`` begins, maybe before its first one; None: it is none."""
    begin, end = what.extent
    first, *others = (int(anchor) for anchor in what.anchors)
    strongest = complex(what.samples[first])
    places = np.arange(len(where.samples) - (end - begin) + 1)
    if not len(places) or strongest == 0:
        return None
    # Of where = g what, g from the strongest: each sample may err by sqrt(2) steps of each, the strongest too.
    own, relative = 8.0 * where.step**2, 8.0 * (what.step / abs(strongest)) ** 2 + FLOAT_ERROR**2
    misfit = np.zeros(len(places))
    for turn, anchor in enumerate(others):
        ratio = np.complex64(complex(what.samples[anchor]) / strongest)
        kept, errors = [], []
        for start in range(0, len(places), _BLOCK):
            some = places[start : start + _BLOCK]
            if turn == 0:  # all places, one after the other: no copy of them is made
                low = int(some[0])
                levels = where.samples[low + first - begin :][: len(some)]
                values = where.samples[low + anchor - begin :][: len(some)]
            else:
                levels, values = where.samples[some + (first - begin)], where.samples[some + (anchor - begin)]
            off = values - levels * ratio
            error = np.square(off.real) + np.square(off.imag)
            power = np.square(levels.real) + np.square(levels.imag)
            allowed = np.minimum(2.0 * (own + relative * power), LOOSEST**2 * power)
            inside = np.flatnonzero((error <= allowed) & (power > 0))
            kept.append(some[inside])
            errors.append(misfit[start + inside] + error[inside] / power[inside])
        places, misfit = np.concatenate(kept), np.concatenate(errors)
        if not len(places):
            return None
    for place in places[np.argsort(misfit, kind="stable")[:_NUM_RANKED]]:
        lag = int(place) - begin
        if _is_same(where, what, lag):
            return lag
    return None


def _is_same(where: _Probe, what: _Probe, lag: int) -> bool:
    """Return whether all that two recordings have in common at a lag differs by no more than rounding."""
    num = min(len(where.samples) - max(lag, 0), len(what.samples) - max(-lag, 0))
    heard, wanted = where.samples[max(lag, 0) :][:num], what.samples[max(-lag, 0) :][:num]
    gram = np.zeros((5, 5), dtype=np.complex128)
    for start in range(0, num, _BLOCK):
        one, other = (part[start : start + _BLOCK].astype(np.complex128) for part in (heard, wanted))
        # Cutting off towards zero takes half a step of each one's sign besides, cutting off downwards a constant.
        columns = np.stack([one, other, _sign(one), _sign(other), np.ones_like(one)])
        gram += columns.conj() @ columns.T / num
    fit = np.linalg.lstsq(gram[1:, 1:], gram[1:, 0], rcond=1e-12)[0]
    left = 0.0
    for start in range(0, num, _BLOCK):
        one, other = (part[start : start + _BLOCK].astype(np.complex128) for part in (heard, wanted))
        rest = one - fit[0] * other - fit[1] * _sign(one) - fit[2] * _sign(other) - fit[3]
        left += float(np.vdot(rest, rest).real) / num
    power = float(gram[0, 0].real)
    rounding = ROUNDING * (where.step**2 + abs(fit[0]) ** 2 * what.step**2) + FLOAT_ERROR**2 * power
    return bool(left <= min(rounding, LARGEST_SHARE * power))


def _sign(samples: NDArray[np.complex128]) -> NDArray[np.complex128]:
    signs: NDArray[np.complex128] = np.sign(samples.real) + 1j * np.sign(samples.imag)
    return signs
