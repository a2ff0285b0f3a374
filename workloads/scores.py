"""Seeded block masks that stand for a model's own: how many blocks each row keeps, and which.

No scores are drawn. A mask is drawn from what is published about such masks: the share of blocks kept, how evenly rows and
heads share them, how local they are, and how far rows agree on columns. The cost grows with the kept blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..facts import UserError
from .blocks import BlockLists

Ints = NDArray[np.int64]


class Placement(NamedTuple):
    """Where the kept blocks of a head lie.

    Attributes
    ----------
    local : float
        Share of draws around the diagonal, as many in every octave of the distance: from 32 to 64 blocks as from 1 to 2.
    stripes : float
        Share of draws in the head's own columns, which all rows favour; the rest is drawn from all columns alike.
    stripe_columns : float
        The head's own columns, as a share of all.
    period : int
        Blocks of a frame: local draws then have a distance in frames and one in the frame. 0 for a sequence of no frames.
    """

    local: float = 0.5
    stripes: float = 0.25
    stripe_columns: float = 0.05
    period: int = 0


def head_shares(rng: np.random.Generator, heads: int, mean: float, spread: float) -> NDArray[np.float64]:
    """Share of blocks that each head keeps: lognormal about the mean, none above 1, and the mean met exactly.

    Parameters
    ----------
    spread : float
        Standard deviation of the logarithm.

    >>> head_shares(np.random.default_rng(0), 4, 0.25, 0.0).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    weight = np.exp(spread * rng.standard_normal(heads))
    return _shared_out(weight, np.zeros(heads), np.ones(heads), mean * heads)


def row_loads(
    rng: np.random.Generator, visible: Ints, least: Ints, total: int, *, imbalance: float = 0.0, growth: float = 1.0
) -> Ints:
    """Blocks that each row keeps: in the mean as the `growth`-th power of what it can keep, with a lognormal spread.

    Parameters
    ----------
    visible, least : int64 arrays [rows]
        Most and fewest blocks of each row.
    total : int
        Blocks of all rows; met exactly, but for rows that hit a limit everywhere.
    imbalance : float
        Standard deviation of the logarithm of a row's blocks about that mean.

    >>> row_loads(np.random.default_rng(0), np.array([1, 2, 3, 4]), np.ones(4, np.int64), 6).tolist()
    [1, 1, 2, 2]
    """
    total = int(np.clip(total, least.sum(), visible.sum()))
    weight = visible.astype(np.float64) ** growth * np.exp(imbalance * rng.standard_normal(len(visible)))
    exact = _shared_out(weight, least.astype(np.float64), visible.astype(np.float64), total)
    # Rounded along the sum, so that neighbours share what a fraction of a block is: none loses or gains as much as one.
    return np.diff(np.rint(np.cumsum(exact) + 1e-9), prepend=0).astype(np.int64)


def _shared_out(
    weight: NDArray[np.float64], least: NDArray[np.float64], most: NDArray[np.float64], total: float
) -> NDArray[np.float64]:
    """Parts of a total in proportion to weights, each within its limits."""
    low, high = 0.0, float((most / weight).max(initial=0.0)) + 1.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.clip(middle * weight, least, most).sum() < total else (low, middle)
    return np.clip(high * weight, least, most)


def draw_blocks(
    rng: np.random.Generator, loads: Ints, visible: Ints, own: Ints, sinks: int, text_from: int, columns: int, place: Placement
) -> BlockLists:
    """Which blocks each row keeps.

    Parameters
    ----------
    loads, visible : int64 arrays [rows]
        Blocks to keep, of the first `visible` columns.
    own : int64 array [rows, 2]
        First and end of the columns around the diagonal that are always kept; equal where none are.
    sinks : int
        First columns, always kept.
    text_from : int
        Column from which on all are always kept.
    columns : int
        Block columns; rows whose load covers what is forced get exactly their load.

    >>> rng, four = np.random.default_rng(0), np.full(4, 4)
    >>> own = np.stack([np.arange(4), np.arange(4) + 1], axis=1)
    >>> draw_blocks(rng, np.full(4, 2), four, own, 0, 4, 4, Placement()).indptr.tolist()
    [0, 2, 4, 6, 8]
    """
    if place.local + place.stripes > 1 + 1e-9:
        raise UserError(f"local and stripes are shares of one whole, got {place.local} + {place.stripes}")
    stripe = np.sort(rng.choice(columns, max(round(place.stripe_columns * columns), 1), replace=False))
    column = np.empty(
        int(np.minimum(loads, visible).sum() + ((own[:, 1] - own[:, 0]) + sinks + columns - text_from).sum()), np.int32
    )
    indptr = np.zeros(len(loads) + 1, np.int64)
    _draw(rng, loads, visible, own, sinks, text_from, stripe, place.local, place.stripes, place.period, columns, column, indptr)
    return BlockLists(indptr, column[: indptr[-1]].copy())


@njit(cache=True)
def _draw(
    rng: Any, loads: Any, visible: Any, own: Any, sinks: int, text_from: int, stripe: Any, local: float, stripes: float,
    period: int, columns: int, column: Any, indptr: Any,
) -> None:  # fmt: skip
    """Draw row by row: what is forced, then blocks one by one; a row that keeps most of its blocks draws those it drops."""
    taken = np.zeros(columns, np.bool_)
    at = 0
    for row in range(len(loads)):
        n, load = visible[row], min(loads[row], visible[row])
        drop = load > n // 2
        taken[:n] = False
        kept = 0
        for begin, end in ((0, sinks), (own[row, 0], own[row, 1]), (text_from, n)):
            for c in range(begin, min(end, n)):
                if not taken[c]:
                    taken[c] = True
                    kept += 1
        if drop and load > kept:
            # Forced blocks are marked: of the others, n - load are dropped.
            gone, wanted = 0, n - load
            dropped = np.zeros(n, np.bool_)
            while gone < wanted:
                c = int(rng.random() * n)
                if not taken[c] and not dropped[c]:
                    dropped[c] = True
                    gone += 1
            for c in range(n):
                taken[c] = not dropped[c]
        elif load > kept:
            middle = (own[row, 0] + own[row, 1]) // 2
            tries = 0
            while kept < load:
                tries += 1
                u = rng.random()
                if tries > 3 * load:
                    # What is favoured is taken: any column will do.
                    c = int(u * n)
                elif u < local:
                    c = middle + _step(u / local, n, middle, period)
                elif u < local + stripes:
                    c = stripe[int((u - local) / stripes * len(stripe))]
                else:
                    c = int((u - local - stripes) / (1 - local - stripes) * n)
                if 0 <= c < n and not taken[c]:
                    taken[c] = True
                    kept += 1
        for c in range(n):
            if taken[c]:
                column[at] = c
                at += 1
        indptr[row + 1] = at


@njit(cache=True)
def _step(u: float, n: int, middle: int, period: int) -> int:
    """A signed distance from the diagonal for a number in [0, 1): all octaves alike, and all distances of an octave."""
    sign, u = (-1, 2 * u) if u < 0.5 else (1, 2 * u - 1)
    if period == 0:
        return (-1 if middle >= n - 1 else sign) * _distance(u, n)
    frames = max(n // period, 1)
    # The first digits of the number give the frame, the others the place in it.
    apart = int(u * 1024)
    within = u * 1024 - apart
    side, within = (-1, 2 * within) if within < 0.5 else (1, 2 * within - 1)
    return sign * (_distance(apart / 1024, frames) - 1) * period + side * (_distance(within, period) - 1)


@njit(cache=True)
def _distance(u: float, most: int) -> int:
    """A distance from 1 to `most`, evenly over its logarithm but for what a step within an octave is."""
    octaves = 0
    while most >> (octaves + 1):
        octaves += 1
    # The last octave may be part of one.
    whole = octaves + (most / (1 << octaves) - 1.0)
    place = u * whole
    octave = int(place)
    return int((1 << octave) * (1.0 + place - octave))
