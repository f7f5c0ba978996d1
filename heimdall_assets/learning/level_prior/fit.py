"""Fitting ``LevelPrior``: maps in closed form, the likelihood's numbers on blocks of ground that the maps never saw.

A map judged on the transmissions it was drawn from looks sharper than it is. So the training split is cut into blocks
of ground, each block is judged by maps drawn from the others, and the dozen numbers of ``likelihood.TUNING`` are those
that make these judgements most likely. Small blocks show what a gap in a map costs, large ones what a new district
does. Days left out show what the next campaign costs, whose gains and handhelds are not those of the last.

Belongs here: folds, tuning, calibration. Does not belong here: any number of the test split.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heimdall_assets.counts import say_count
from heimdall_assets.errors import CannotLocate
from heimdall_assets.learning.level_prior.field import fit_field
from heimdall_assets.learning.level_prior.likelihood import LOG_NEVER, TUNING, compute_negative_log_likelihood
from heimdall_assets.learning.level_prior.links import (
    Links,
    collect_links,
    compute_site_radius,
    compute_spread,
    find_centre,
    find_sites,
)
from heimdall_assets.learning.level_prior.prior import LevelPrior
from heimdall_assets.session_set import SessionSet

BLOCK_SIZES = (0.25, 1.0)
"""Sides of the blocks left out, in units of the transmitters' root-mean-square spread: a gap, a district."""

NUM_FOLDS = 3
NUM_OCCASIONS, MIN_OCCASION = 3, 50
"""Spells of whole days that are left out in turn, and the sessions one needs to say anything."""

MIN_TUNED_SESSIONS = 200
"""Fewer say less about the likelihood's numbers than their starting values do."""

MAX_TUNED_SESSIONS = 6000
BATCH = 32
LEARNING_RATE = 0.1
POINT_STRIDE = 2
"""Every other point of the map is enough to tune on."""

MAX_LOSS = 20.0
"""One session's loss is cut here: a wrong label must not decide."""

LOST_RECEIVERS = 0.5
"""Largest share of receivers that tuning drops from a session, as the field does."""

STRAY_DB = 1.0
"""Gain error of single receivers that tuning adds: campaigns are never calibrated alike."""

COVERAGE = 0.90
MAX_HELD_OUT = 200
"""Sessions of a fold that the width is found on."""

POWER_DB = 1.5
"""Change of the transmitted power that tuning adds to a session: the next campaign holds its handheld differently."""

JUMPS, JUMP_DB = 0.01, 15.0
"""Share and size of receivers whose gain is plainly wrong: changes of 10 to 20 dB between seasons are common."""

STRANGERS = 0.05
"""Share of receivers that tuning moves off their site's map, so that strangers are judged honestly."""


@dataclass(frozen=True)
class Fold:
    """Maps of all blocks but some, and the sessions of those."""

    prior: LevelPrior
    held_out: Links


def fit_level_prior(train: SessionSet, seed: int = 42, num_steps: int = 60) -> LevelPrior:
    """Return the module fitted on the training split.

    Args:
        train: sessions with known sources and levels; their stratum ``date``, where there is one, tells days apart.
        seed: of folds and of the tuning's draws.
        num_steps: gradient steps of the tuning; 0 keeps the starting values.

    Raises:
        CannotLocate: no level of a known source.
    """
    centre = find_centre(train)
    links = collect_links(train, centre)
    usable = np.flatnonzero(np.isfinite(links.source_km).all(axis=1) & links.heard.any(axis=1))
    links = links.take(usable)
    if not len(links):
        found = say_count(len(train), "session")
        raise CannotLocate(f"{found}: no levels of known sources: expected at least one to learn from")
    tuning = None
    if num_steps and len(links) >= MIN_TUNED_SESSIONS:
        chosen = np.unique(np.linspace(0, len(links) - 1, MAX_TUNED_SESSIONS).astype(np.int64))
        date = np.asarray(train.strata.get("date", np.full(len(train), ""))).astype(str)[usable][chosen]
        ground = make_folds(links.take(chosen), centre, seed)
        days = make_occasions(links.take(chosen), date, centre)
        tuning = tune(ground, seed, num_steps)
        tuning = widen([folds for folds in (ground, days) if folds], tuning)
    return _draw(links, links, centre, tuning)


def _draw(links: Links, whole: Links, centre: tuple[float, float], tuning: Tensor | None = None) -> LevelPrior:
    reach = np.concatenate([whole.receiver_km[whole.heard], whole.source_km])
    farthest = float(np.quantile(np.hypot(*reach.T), 0.99)) if len(reach) else 1.0
    sites = find_sites(whole, compute_site_radius(compute_spread(whole.source_km)))
    return LevelPrior.from_field(fit_field(links, sites), centre, max(farthest, 0.1), tuning)


def assign_blocks(source_km: NDArray[np.float64], size_km: float, seed: int) -> NDArray[np.int64]:
    """Return the fold, 0 to ``NUM_FOLDS`` - 1, of the square block that each source (S, 2) lies in."""
    rng = np.random.default_rng(seed)
    cell = np.floor(source_km / size_km + rng.uniform(size=2)).astype(np.int64)
    blocks, inverse = np.unique(cell, axis=0, return_inverse=True)
    return (rng.permutation(len(blocks)) % NUM_FOLDS)[inverse.reshape(-1)].astype(np.int64)


def make_folds(links: Links, centre: tuple[float, float], seed: int) -> list[Fold]:
    """Return folds of every block size."""
    spread = compute_spread(links.source_km)
    folds = []
    for size in BLOCK_SIZES:
        folds += _leave_out(links, assign_blocks(links.source_km, size * spread, seed), centre, 1)
    return folds


def make_occasions(links: Links, date: NDArray[np.str_], centre: tuple[float, float]) -> list[Fold]:
    """Return folds of whole days, about equal spells of them; none where all sessions are of one day.

    Args:
        links: S sessions.
        date: (S,), ISO dates, so that their order is that of time.
        centre: of the frame.
    """
    _, inverse, counts = np.unique(date, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - 0.5 * counts
    return _leave_out(links, (NUM_OCCASIONS * middle / len(links)).astype(np.int64)[inverse], centre, MIN_OCCASION)


def _leave_out(links: Links, fold: NDArray[np.int64], centre: tuple[float, float], least: int) -> list[Fold]:
    """Return each fold of at least so many sessions, with the maps of all others; none where there are no others."""
    made = []
    for number in np.unique(fold):
        kept, left = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(kept) and len(left) >= least:
            made.append(Fold(_draw(links.take(kept), links, centre), links.take(left)))
    return made


def to_tensors(links: Links) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return receivers (S, R, 2) km, levels (S, R) dB, mask (S, R) and sources (S, 2) km, float32."""
    return (
        torch.as_tensor(links.receiver_km, dtype=torch.float32),
        torch.as_tensor(links.level_db, dtype=torch.float32),
        torch.as_tensor(links.heard),
        torch.as_tensor(links.source_km, dtype=torch.float32),
    )


def tune(folds: list[Fold], seed: int, num_steps: int) -> Tensor:
    """Return the numbers of ``TUNING`` that make the held-out sessions of all folds most likely.

    Each step sees one fold of each block size, in turn. The numbers are those of sane receivers: were any
    taken for mad, tuning would blunt what all say, so that a strong level stays worth its odds.
    """
    generator = torch.Generator().manual_seed(seed)
    tuning = folds[0].prior.tuning.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([tuning], lr=LEARNING_RATE)
    data = [to_tensors(fold.held_out) for fold in folds]
    for step in range(num_steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, 2.0 * (1.0 - step / num_steps))
        loss = torch.zeros(())
        for fold, (place, level, heard, source) in list(zip(folds, data, strict=True))[step % NUM_FOLDS :: NUM_FOLDS]:
            rows = torch.randint(len(source), (BATCH,), generator=generator)
            place, level, heard = disturb(place[rows], level[rows], heard[rows], generator)
            mean, factor = torch.func.functional_call(
                fold.prior,
                _thin(fold.prior, step % POINT_STRIDE) | {"tuning": tuning, "log_mad": torch.tensor(LOG_NEVER)},
                (place, level, heard),
            )
            loss = loss + compute_negative_log_likelihood(mean, factor, source[rows])[0].clamp(max=MAX_LOSS).mean()
        optimiser.zero_grad()
        (loss / len(BLOCK_SIZES)).backward()
        optimiser.step()
    return tuning.detach()


def widen(kinds: list[list[Fold]], tuning: Tensor) -> Tensor:
    """Return ``tuning`` with the width that lets the ellipses of every kind of fold hold what they promise.

    Split-conformal: the 90 % quantile of the squared distances is brought to that of a Gaussian. Gaps and districts
    weigh alike, so the ellipses are a little wide where a map is known and not far too small where ground is new; and
    where other days cost more than either, they decide, for every session to come is of another day.
    """
    ratios = []
    for folds in kinds:
        squares = []
        for fold in folds:
            fold.prior.tuning.copy_(tuning)
            chosen = fold.held_out.take(np.arange(0, len(fold.held_out), 1 + len(fold.held_out) // MAX_HELD_OUT))
            truth = torch.as_tensor(chosen.source_km, dtype=torch.float32)
            squares.append(compute_negative_log_likelihood(*compute_posterior(fold.prior, chosen), truth)[1])
        ratios.append(torch.cat(squares).quantile(COVERAGE) / (-2.0 * math.log1p(-COVERAGE)))
    tuning = tuning.clone()
    tuning[list(TUNING).index("width")] += torch.stack(ratios).amax().log().clamp(-2.0, 4.0)
    return tuning


def _thin(prior: LevelPrior, start: int) -> dict[str, Tensor]:
    """Return the buffers over points with every ``POINT_STRIDE``-th of them."""
    density = prior.density[start::POINT_STRIDE]
    return {
        "points": prior.points[start::POINT_STRIDE],
        "density": density / density.sum(),
        "residual": prior.residual[:, start::POINT_STRIDE],
        "doubt": prior.doubt[:, start::POINT_STRIDE],
    }


def disturb(place: Tensor, level: Tensor, heard: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return links as the field may give them: receivers missing, of another gain, or at no known site."""
    share = LOST_RECEIVERS * torch.rand(len(level), 1, generator=generator)
    kept = heard & (torch.rand(level.shape, generator=generator) >= share)
    jump = JUMP_DB * (torch.rand(level.shape, generator=generator) < JUMPS)
    level = level + (STRAY_DB + jump) * torch.randn(level.shape, generator=generator)
    level = level + POWER_DB * torch.randn(len(level), 1, generator=generator)
    stranger = torch.rand(level.shape, generator=generator) < STRANGERS
    return place + 0.05 * stranger.unsqueeze(-1), level, kept


def compute_posterior(prior: LevelPrior, links: Links, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Return mean (S, 2) in km and information factor (S, 3) in 1/km of all links."""
    place, level, heard, _ = to_tensors(links)
    with torch.no_grad():
        parts = [
            prior(place[start : start + batch], level[start : start + batch], heard[start : start + batch])
            for start in range(0, len(links), batch)
        ]
    return torch.cat([mean for mean, _ in parts]), torch.cat([factor for _, factor in parts])
