"""Clocks of receivers from a transmitter of known place that all of them heard: the reference.

Belongs here: from parts of recordings that hold the reference to each clock's error and rate, with covariances. Does
not belong here: the search (``acquisition``), which part of a file holds what, rows (``pipeline.intake``).

Model: the block of the reference that left at time k arrives at receiver i after the way D_i, when that one's clock
reads k + D_i - x_i(t), x_i = c_i + e_i (t - t_i), t_i the middle of its wanted part. Delays a of B blocks are found by
joint maximum likelihood (``likelihood``); c, e and k follow by least squares. Only differences of clocks are
determined, so one receiver, the anchor, keeps its own. What no block shows is added to the sigmas: doubt about places,
and the rate of the anchor's clock, with which all delays are measured.

Errors that receivers share. Whoever locates takes errors of arrivals as independent beside a common time. What noise
does nearly is. What a reference does that stands elsewhere is not: it moves all clocks in one pattern, smooth across
the network, and such a pattern moves the position as a whole, however many receivers there are. Position has two
directions, so each receiver is given half of the pattern's whole power, trace(C) / 2 without the common time: enough
where all of it falls into those two.

Shapes: R receivers, B blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.counts import say_count
from heimdall_assets.domain import Position
from heimdall_assets.errors import CannotLocate
from heimdall_assets.physical import SIGNAL_SPEED_M_S
from heimdall_assets.signals.acquisition import (
    LOBE_WIDTHS,
    ONLY_SHARE,
    Occupied,
    Search,
    Shift,
    Stretch,
    find_occupied,
    find_shift,
)
from heimdall_assets.signals.alignment import Alignment
from heimdall_assets.signals.geodesy import LocalFrame, compute_range_m
from heimdall_assets.signals.likelihood import compute_delay_information, split_information
from heimdall_assets.signals.refinement import compute_coherence, load_aligned, refine

Floats = NDArray[np.float64]

BLOCK_PRODUCT = 1000.0  # duration times bandwidth of the smallest block

MAX_BLOCKS = 4
"""Blocks of one stretch at most: their scatter tells whether the likelihood's sigma is honest."""

TUNING_SIGMA_HZ = 20.0
"""Of a carrier offset as a measure of its oscillator: steps of a tuner's synthesiser, other ones in each receiver."""

LEAST_FREEDOM = 2.0  # of the scatter of blocks, below which it tells nothing

NUM_ANCHORS = 3  # receivers tried as the one that others are compared with

_NS = 1e9


@dataclass(frozen=True)
class Reference:
    """The transmitter that clocks are compared by.

    Attributes:
        name: of it.
        position: where it stands.
        search: how far apart clocks and oscillators may be, and its radio frequency.
        margin_m: one-sigma doubt about its position.
        receiver_margin_m: one-sigma doubt about each receiver's.
        min_coherence: a receiver below it does not share the reference.
        is_one_oscillator: each receiver's carrier and sample rate come from one oscillator, so that the carrier's
            offset tells the rate.
    """

    name: str
    position: Position
    search: Search
    margin_m: float = 0.0
    receiver_margin_m: float = 5.0
    min_coherence: float = 0.05
    is_one_oscillator: bool = False


@dataclass(frozen=True)
class Clock:
    """One receiver's clock, as the reference shows it.

    Attributes:
        shift: against the anchor's, as it was found first.
        correction_s: to be added to it then, at ``middle_s`` of the anchor's clock.
        rate_error: by how much more it must be advanced from there on, relative.
        middle_s: of the wanted part.
        sigma_s: one-sigma error at ``middle_s``, independent between receivers beside an unknown common time.
        rate_sigma: one-sigma error of the rate.
        coherence: mean of the receiver's pairs, 0 to 1.
        offset_hz: its carrier less the anchor's.
    """

    shift: Shift
    correction_s: float
    rate_error: float
    middle_s: float
    sigma_s: float
    rate_sigma: float
    coherence: float
    offset_hz: float

    def correct(self, stretch: Stretch) -> Stretch:
        """Return a stretch of this receiver on the clock that all share."""
        return self.shift.undo(stretch).move(self.correction_s, self.rate_error, self.middle_s)


@dataclass(frozen=True)
class ClockFit:
    """The clocks of R receivers, and how well the blocks agree: reduced chi-square, by which sigmas grow above 1.

    ``covariance_s2`` is what noise leaves of the corrections, float64 (R, R), the anchor's zero.
    """

    clocks: tuple[Clock, ...]
    covariance_s2: Floats
    chi_square: float
    num_blocks: int


def fit_clocks(
    names: Sequence[str],
    heard: Sequence[Sequence[Stretch]],
    wanted: Sequence[Stretch],
    receivers: Sequence[Position],
    reference: Reference,
) -> ClockFit:
    """Return each receiver's clock against the others', from the reference that all of them heard.

    Args:
        names: what to call the R receivers' files in an error.
        heard: of each receiver the stretches that hold the reference, one for each time it was heard.
        wanted: of each receiver the stretch that is to be timed.
        receivers: where they stood.
        reference: the transmitter, and how far to look for it.

    Raises:
        CannotLocate: fewer than two receivers, one does not hold the reference, its lag lies at the end of the search,
            another lag is as likely, or they hear too little of it at the same time.
    """
    if len(heard) < 2:
        raise CannotLocate(
            f"reference {reference.name}: {say_count(len(heard), 'recording')}, expected at least 2 to compare"
        )
    anchor, shifts, occupied = _find_shifts(names, heard, reference)
    moved = [[shift.undo(one) for one in parts] for shift, parts in zip(shifts, heard, strict=True)]
    aims = [shift.undo(one) for shift, one in zip(shifts, wanted, strict=True)]
    middles_s = np.array([0.5 * (one.start_s + one.end_s) for one in aims])
    blocks = _measure_blocks(names, moved, shifts, anchor, occupied, reference)
    ways_s = _compute_ways_s(receivers, reference)
    found = _solve(blocks, ways_s, middles_s, shifts, anchor, reference)
    own_s = reference.receiver_margin_m / SIGNAL_SPEED_M_S
    shared_s = compute_shared_s(receivers, reference)
    sigma_s = np.sqrt(np.square(_split(found.covariance_s2)) + own_s**2 + shared_s**2)
    clocks = tuple(
        Clock(
            shift=shifts[place],
            correction_s=float(found.correction_s[place]),
            rate_error=float(found.rate_error[place]),
            middle_s=float(middles_s[place]),
            sigma_s=float(sigma_s[place]),
            rate_sigma=float(found.rate_sigma[place]),
            coherence=float(np.mean([block.coherence[place] for block in blocks])),
            offset_hz=shifts[place].offset_hz,
        )
        for place in range(len(heard))
    )
    return ClockFit(clocks, found.covariance_s2, found.chi_square, len(blocks))


def _find_shifts(
    names: Sequence[str], heard: Sequence[Sequence[Stretch]], reference: Reference
) -> tuple[int, list[Shift], Occupied]:
    """Return the receiver that most others could be compared with, and how they are shifted against it."""
    best: tuple[int, list[Shift], Occupied] | None = None
    most = -1
    for anchor in range(min(NUM_ANCHORS, len(heard))):
        longest = max(heard[anchor], key=lambda one: one.recording.duration_s)
        bandwidth_hz = min(longest.recording.sample_rate_hz, reference.search.bandwidth_hz or np.inf)
        occupied = find_occupied(longest, bandwidth_hz)
        shifts = [
            Shift(0.0, 0.0, longest.start_s, 0.0, np.inf, 0.0, is_edge=False)
            if place == anchor
            else find_shift(heard[anchor], parts, reference.search, occupied)
            for place, parts in enumerate(heard)
        ]
        num = sum(shift.peak >= 1.0 for shift in shifts)
        if num > most:
            best, most = (anchor, shifts, occupied), num
        if 2 * num > len(heard):
            break
    assert best is not None
    anchor, shifts, occupied = best
    for place, (name, shift) in enumerate(zip(names, shifts, strict=True)):
        _check_shift(name, names[anchor], shift, reference, alone=most == 1 and place != anchor)
    return anchor, shifts, occupied


def _check_shift(name: str, anchor: str, shift: Shift, reference: Reference, alone: bool) -> None:
    search = reference.search
    if shift.peak < 1.0:
        who = f"{name} and {anchor}" if alone else name
        raise CannotLocate(
            f"{who}: reference {reference.name} not found: its best lag reaches {shift.peak:.0%} of what must stand "
            f"out of chance, expected 100 % within {search.reach_s:g} s and {search.max_offset_hz:,.0f} Hz of {anchor}"
        )
    if shift.is_edge or shift.rival > 1.0:
        raise CannotLocate(
            f"{name}: reference {reference.name} {shift.lag_s:.6f} s from {anchor}, at the end of the search or beyond "
            f"it, expected well within {search.reach_s:g} s"
        )
    if shift.rival > ONLY_SHARE:
        raise CannotLocate(
            f"{name}: another lag of reference {reference.name} has {shift.rival:.0%} of the best one's power, "
            f"expected at most {ONLY_SHARE:.0%}: it repeats itself within {search.reach_s:g} s"
        )


@dataclass(frozen=True)
class _Block:
    """Delays of one block: its middle, delays and coherences (R,), weights (R,) in 1/s^2; 0: not heard in it."""

    middle_s: float
    delay_s: Floats
    weight: Floats
    coherence: Floats


def _measure_blocks(
    names: Sequence[str],
    moved: Sequence[Sequence[Stretch]],
    shifts: Sequence[Shift],
    anchor: int,
    occupied: Occupied,
    reference: Reference,
) -> list[_Block]:
    blocks: list[_Block] = []
    for number in range(len(moved[anchor])):
        parts = [stretches[number] for stretches in moved]
        begin_s, end_s = max(one.start_s for one in parts), min(one.end_s for one in parts)
        product = (end_s - begin_s) * occupied.width_hz
        num = min(MAX_BLOCKS, int(product / BLOCK_PRODUCT) + 1)
        edges = np.linspace(begin_s, end_s, num + 1)
        if end_s > begin_s:
            blocks += [
                _measure_block(parts, shifts, anchor, (edges[at], edges[at + 1]), occupied, reference)
                for at in range(num)
            ]
    for place, name in enumerate(names):
        if not any(block.weight[place] > 0 for block in blocks):
            found = max((float(block.coherence[place]) for block in blocks), default=0.0)
            raise CannotLocate(
                f"{name}: reference {reference.name} not found: coherence {found:.3f} with the others, expected at "
                f"least {reference.min_coherence:g} and more than chance"
            )
    return blocks


def _measure_block(
    parts: Sequence[Stretch],
    shifts: Sequence[Shift],
    anchor: int,
    interval_s: tuple[float, float],
    occupied: Occupied,
    reference: Reference,
) -> _Block:
    """Return the delays that are left in one block after the shifts."""
    num = len(parts)
    limit_s = LOBE_WIDTHS / occupied.width_hz
    recordings = [one.recording for one in parts]
    start_s = np.array([one.start_s for one in parts])
    bandwidth_hz = min(occupied.extent_hz, reference.search.bandwidth_hz or np.inf)
    rough = Alignment(
        used=np.ones(num, dtype=np.bool_),
        reference=anchor,
        delay_s=np.zeros(num),
        offset_hz=np.array([occupied.centre_hz + shift.offset_hz for shift in shifts]),
        start_s=interval_s[0],
        end_s=interval_s[1],
        num_cells=100,
    )
    limits_s = np.full((num, num), limit_s)
    aligned = refine(load_aligned(recordings, start_s, rough, bandwidth_hz), limits_s, reference.min_coherence)
    coherence = np.abs(compute_coherence(aligned)).astype(np.float64)
    mean_coherence = (coherence.sum(axis=1) - 1.0) / (num - 1)
    weight = np.zeros(num)
    found = aligned.select(aligned.detected).fit()
    if len(found.places) >= 2:
        information = compute_delay_information(found.model, found.grid.frequency_hz)
        weight[found.places] = split_information(information, found.model.snr)
    delay_s = aligned.delay_s - aligned.delay_s[anchor]
    return _Block(0.5 * sum(interval_s), delay_s, np.where(np.isfinite(weight), weight, 0.0), mean_coherence)


@dataclass(frozen=True)
class _Solved:
    """Corrections (R,), rates and their sigmas (R,), covariance of corrections (R, R), reduced chi-square."""

    correction_s: Floats
    rate_error: Floats
    rate_sigma: Floats
    covariance_s2: Floats
    chi_square: float


def _solve(
    blocks: Sequence[_Block],
    ways_s: Floats,
    middles_s: Floats,
    shifts: Sequence[Shift],
    anchor: int,
    reference: Reference,
) -> _Solved:
    """Return the least squares solution, in ns and ns/s within; the anchor's correction and rate are zero."""
    num, num_blocks = len(ways_s), len(blocks)
    others = [place for place in range(num) if place != anchor]
    columns = {place: number for number, place in enumerate(others)}
    size = 2 * len(others) + num_blocks
    rows, values, weights = [], [], []
    for number, block in enumerate(blocks):
        for place in np.flatnonzero(block.weight > 0).tolist():
            row = np.zeros(size)
            row[2 * len(others) + number] = 1.0
            if place != anchor:
                row[columns[place]] = 1.0
                row[len(others) + columns[place]] = block.middle_s - middles_s[place]
            rows.append(row)
            values.append(_NS * (ways_s[place] - block.delay_s[place]))
            weights.append(block.weight[place] / _NS**2)
    num_data = len(rows)
    rate_sigma = reference.search.max_rate_error * np.sqrt(2.0 / 3.0)  # of a difference, each spread evenly
    for place in others:
        row = np.zeros(size)
        row[len(others) + columns[place]] = 1.0
        taken = -shifts[place].rate_error / (1.0 + shifts[place].rate_error)
        if reference.is_one_oscillator:
            carrier_hz = reference.search.carrier_hz
            told, sigma = shifts[place].offset_hz / carrier_hz, TUNING_SIGMA_HZ / carrier_hz
        else:
            told, sigma = 0.0, rate_sigma
        rows.append(row)
        values.append(_NS * (told - taken))
        weights.append(1.0 / (_NS * sigma) ** 2)
    matrix, seen, weight = np.array(rows), np.array(values), np.array(weights)
    normal = (matrix.T * weight) @ matrix
    scale = 1.0 / np.sqrt(np.diagonal(normal))
    covariance = np.linalg.inv(normal * np.outer(scale, scale)) * np.outer(scale, scale)
    solution = covariance @ (matrix.T @ (weight * seen))
    misfit = float((weight * np.square(seen - matrix @ solution))[:num_data].sum())
    used = ((matrix @ covariance) * matrix).sum(axis=1) * weight  # by each line, of what is free; the rest is told
    freedom = num_data - float(used[:num_data].sum())
    chi_square = misfit / freedom if freedom > LEAST_FREEDOM else 1.0
    covariance *= max(1.0, chi_square)
    out = _Solved(np.zeros(num), np.zeros(num), np.zeros(num), np.zeros((num, num)), chi_square)
    out.correction_s[others] = solution[: len(others)] / _NS
    out.rate_error[others] = solution[len(others) : 2 * len(others)] / _NS
    out.rate_sigma[others] = np.sqrt(np.diagonal(covariance)[len(others) : 2 * len(others)]) / _NS
    out.covariance_s2[np.ix_(others, others)] = covariance[: len(others), : len(others)] / _NS**2
    return out


def _compute_ways_s(receivers: Sequence[Position], reference: Reference) -> Floats:
    return _range_m(receivers, reference.position, reference.search.carrier_hz) / SIGNAL_SPEED_M_S


def _range_m(receivers: Sequence[Position], place: Position, frequency_hz: float) -> Floats:
    latitude, longitude, altitude_m = _list_places(receivers)
    return compute_range_m(
        place.latitude, place.longitude, place.altitude_m, latitude, longitude, altitude_m, frequency_hz
    )


def _list_places(receivers: Sequence[Position]) -> tuple[Floats, Floats, Floats]:
    values = np.array([[one.latitude, one.longitude, one.altitude_m] for one in receivers], dtype=np.float64)
    return values[:, 0], values[:, 1], values[:, 2]


def compute_shared_s(receivers: Sequence[Position], reference: Reference) -> float:
    """Return one sigma of what errors shared by all receivers add to each clock, in s.

    A reference that stands elsewhere changes each way along its own direction. A clock that runs too fast by e measures
    e times the delays of reference and wanted transmitter, either at most the way across the receivers.
    """
    latitude, longitude, _ = _list_places(receivers)
    here = reference.position
    frame = LocalFrame(here.latitude, here.longitude)
    east, north = (np.asarray(part, dtype=np.float64) for part in frame.to_local(latitude, longitude)[:2])
    away_m = np.maximum(np.hypot(east, north), 1.0)
    direction = np.stack([east / away_m, north / away_m], axis=1)
    by_place_m2 = reference.margin_m**2 * np.square(direction - direction.mean(axis=0)).sum()
    across_m2 = np.square(east - east.mean()).sum() + np.square(north - north.mean()).sum()
    by_rate_m2 = 2.0 * reference.search.max_rate_error**2 / 3.0 * across_m2
    return float(np.sqrt(0.5 * (by_place_m2 + by_rate_m2)) / SIGNAL_SPEED_M_S)


def _split(covariance_s2: Floats) -> Floats:
    """Return sigmas (R,) of independent errors beside an unknown common time that come closest to a covariance."""
    num = len(covariance_s2)
    centre = np.eye(num) - 1.0 / num
    between = centre @ covariance_s2 @ centre
    information = np.asarray(np.linalg.pinv(between, rcond=1e-9, hermitian=True), dtype=np.float64)
    weights = split_information(information, np.ones(num))
    sigma_s: Floats = 1.0 / np.sqrt(weights)
    return sigma_s
