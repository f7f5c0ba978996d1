"""Whether levels follow the places that transmitters are said to be at: what distance alone cannot contradict.

One session's levels say little of its place. Many sessions' do: each is asked whether its levels rather fit the place
that was stated for it, that of another session (rows that were joined wrongly), or its own with the coordinates turned.
No law is fitted: of two places the likelier one is that from which levels less ``LOSS_DB`` a decade scatter less.

Belongs here: the comparison. Does not belong here: how far radio reaches (``reach``), who is told (``pipeline.truth``).

Legend of shapes: M levels of all sessions, S sessions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heimdall_assets.locating.path_loss import MIN_DISTANCE_M, PathLoss
from heimdall_assets.signals.geodesy import GROUND_WAVE_MAX_HZ, FloatArray, compute_distance_m

LOSS_DB = 10.0 * PathLoss().exponent
"""Loss of a decade of distance. Which of two places fits better hardly depends on it."""

MIN_LEVELS, MIN_SITES = 4, 10
"""Levels of a session, one more than a position and a power are; sites from which a share is known."""

NUM_OTHERS = 8
"""Other sessions whose place each session's levels are asked about."""

SIGMAS = 3.0
"""How far from one half a share must be to say something: once in 740 by chance."""

LEAST_SHARE = 0.6
"""A smaller share may come of sites that stand in the middle, from where any levels scatter less: 0.54 was seen where
rows of real levels had been joined at random, and 0.8 to 0.9 where they had not."""

SITE_DECIMALS = 3
"""Places that agree to about 100 m are one site, whose sessions are no evidence apart from each other."""


@dataclass(frozen=True)
class LevelsHeard:
    """Levels of sessions whose source's place is stated; one element a level.

    Attributes:
        session: (M,), session ids.
        frequency_hz: float64 (M,).
        level_db: float64 (M,), NaN where there is none.
        receiver, source: float64 (M, 2), latitude and longitude in degrees; NaN where not known.
    """

    session: NDArray[np.object_]
    frequency_hz: FloatArray
    level_db: FloatArray
    receiver: FloatArray
    source: FloatArray


@dataclass(frozen=True)
class Preference:
    """How often levels fit one kind of place better than another.

    Attributes:
        share: of sites, 0.5 where levels say nothing.
        sigma: standard error of ``share``.
        num_sites: that it was found from.
    """

    share: float
    sigma: float
    num_sites: int

    @property
    def is_known(self) -> bool:
        """Whether there are sites enough to say anything."""
        return self.num_sites >= MIN_SITES

    @property
    def is_usual(self) -> bool:
        """Whether it is what levels of right places show."""
        return self.share > LEAST_SHARE

    @property
    def is_clear(self) -> bool:
        """Whether levels prefer it clearly."""
        return self.is_known and self.is_usual and self.share - SIGMAS * self.sigma > 0.5


def compare_with_others(heard: LevelsHeard) -> Preference:
    """Return how often levels fit the place stated for their session better than that stated for another one."""
    table = _Table(heard)
    own, better = table.compute_scatter(table.source), []
    num = len(table.source)
    for step in np.unique(np.linspace(0, num, NUM_OTHERS + 2)[1:-1].astype(np.int64)).tolist():
        other = np.roll(np.arange(num), -step)
        is_other = table.site != table.site[other]
        said = np.where(own < table.compute_scatter(table.source[other]), 1.0, 0.0)
        better.append(np.where(is_other, said, np.nan))
    if not better:
        return Preference(0.5, np.inf, 0)
    asked = np.isfinite(better).sum(axis=0)
    mean = np.nansum(better, axis=0) / np.maximum(asked, 1)
    return table.summarize(np.where(asked > 0, mean, np.nan))


@dataclass(frozen=True)
class Turned:
    """A way of mistaking coordinates that levels tell of.

    Attributes:
        what: the mistake.
        preference: for the mended places over the stated ones.
        stated_m, mended_m: median distance of each session's loudest receiver from either.
    """

    what: str
    preference: Preference
    stated_m: float
    mended_m: float


def find_turned(heard: LevelsHeard) -> Turned | None:
    """Return the mistake whose mending levels like best, of those they like better than what is stated; None: none."""
    table = _Table(heard)
    if not len(table.source):
        return None
    own, best = table.compute_scatter(table.source), None
    for what, place in _turn(table.source):
        scatter = table.compute_scatter(place)
        found = table.summarize(np.where(scatter < own, 1.0, np.where(scatter == own, 0.5, 0.0)))
        if found.is_clear and (best is None or found.share > best.preference.share):
            best = Turned(what, found, table.measure_loudest(table.source), table.measure_loudest(place))
    return best


def _turn(source: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield the ways of mistaking coordinates, and where places (S, 2) lie once that is mended."""
    latitude, longitude = source.T
    if np.abs(longitude).max() <= 90.0:
        yield "latitude and longitude swapped", source[:, ::-1]
    yield "the sign of its longitude turned", np.stack([latitude, -longitude], axis=1)
    yield "the sign of its latitude turned", np.stack([-latitude, longitude], axis=1)


class _Table:
    """Sessions of which enough is known, and what their levels say of places.

    Attributes:
        source: float64 (S, 2), stated places.
        site: int64 (S,), number of the site.
    """

    def __init__(self, heard: LevelsHeard) -> None:
        known = np.isfinite(heard.level_db) & np.isfinite(heard.receiver).all(axis=1)
        known &= np.isfinite(heard.source).all(axis=1) & (heard.frequency_hz >= GROUND_WAVE_MAX_HZ)
        names, session, counts = np.unique(heard.session[known].astype(str), return_inverse=True, return_counts=True)
        enough = counts >= MIN_LEVELS
        rows = np.flatnonzero(known)[enough[session]]
        self._row = (np.cumsum(enough) - 1)[session[enough[session]]]
        self._counts = counts[enough]
        self._level_db, self._receiver = heard.level_db[rows], heard.receiver[rows]
        self.source = np.zeros((len(names[enough]), 2))
        self.source[self._row] = heard.source[rows]
        self.site = np.unique(np.round(self.source, SITE_DECIMALS), axis=0, return_inverse=True)[1].reshape(-1)

    def measure(self, place: FloatArray) -> FloatArray:
        """Return the distances (M,) in m of the receivers from places (S, 2)."""
        return compute_distance_m(*place[self._row].T, *self._receiver.T)

    def compute_scatter(self, place: FloatArray) -> FloatArray:
        """Return the sum of squares (S,) in dB^2 that the law leaves of levels at places (S, 2), the power free."""
        left = self._level_db + LOSS_DB * np.log10(np.maximum(self.measure(place), MIN_DISTANCE_M))
        left -= (np.bincount(self._row, left, len(place)) / self._counts)[self._row]
        return np.asarray(np.bincount(self._row, np.square(left), len(place)), dtype=np.float64)

    def measure_loudest(self, place: FloatArray) -> float:
        """Return the median distance in m of each session's loudest receiver from places (S, 2)."""
        order = np.lexsort((self._level_db, self._row))
        last = np.cumsum(self._counts) - 1
        return float(np.median(self.measure(place)[order][last]))

    def summarize(self, share: FloatArray) -> Preference:
        """Return the mean over sites of shares (S,), NaN where nothing was asked."""
        asked = np.isfinite(share)
        if not asked.any():
            return Preference(0.5, np.inf, 0)
        count = np.bincount(self.site[asked])
        mean = (np.bincount(self.site[asked], share[asked]) / np.maximum(count, 1))[count > 0]
        # Sites that all say the same are no proof that the next one does.
        sigma = np.sqrt(max(mean.var(), 0.25 / (len(mean) + 1)) / len(mean))
        return Preference(float(mean.mean()), float(sigma), len(mean))
