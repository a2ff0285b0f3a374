"""Block masks that are measured: which blocks of keys each block of queries visits, drawn from a seed.

A mask is a function of its parameters alone, so that a stored row can be simulated again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...facts import UserError, unknown_name
from ...workloads import TileSchedule, from_bsr, schedule

Bools = NDArray[np.bool_]

UNMASKED = ("dense", "causal")
"""Patterns that a kernel runs without a list of blocks."""


def schedule_of(pattern: str, params: dict[str, Any], seq_q: int, seq_kv: int) -> TileSchedule | None:
    """The blocks of a case as a schedule of FULL tiles for one head; None for dense and causal calls.

    Raises
    ------
    UserError
        The pattern is unknown, or tiles of it would need an element mask, which is another kernel's work.
    """
    if pattern in UNMASKED:
        return None
    if pattern == "gna":
        return _gna(params)
    if pattern not in GENERATORS:
        raise unknown_name("pattern", pattern, [*UNMASKED, "gna", *GENERATORS])
    block = int(params["block"])
    mask = GENERATORS[pattern](-(-seq_q // block), -(-seq_kv // block), params)
    return listed(mask, block, block, seq_q, seq_kv)


def listed(mask: Bools, q_tile: int, kv_tile: int, seq_q: int, seq_kv: int) -> TileSchedule:
    """A bool array [q blocks, kv blocks] as a schedule."""
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return from_bsr(indptr, np.nonzero(mask)[1], q_tile=q_tile, kv_tile=kv_tile, seq_q=seq_q, seq_kv=seq_kv)


def _gna(params: dict[str, Any]) -> TileSchedule:
    """Neighborhoods in tile-permuted token order, where they need no mask: there a flat list of blocks."""
    boxes: dict[str, Any] = {name: tuple(params[name]) for name in ("window", "stride", "q_tile", "kv_tile")}
    made = schedule("gna", grid=tuple(params["feature_map"]), **boxes)
    if made.partial or made.q_tile * made.q_tiles != made.seq_q or made.kv_tile * made.kv_tiles != made.seq_kv:
        raise UserError(f"gna {params}: tiles are padded or need an element mask")
    return listed(made.to_mask()[0], made.q_tile, made.kv_tile, made.seq_q, made.seq_kv)


def _rng(params: dict[str, Any]) -> np.random.Generator:
    return np.random.default_rng(int(params.get("seed", 0)))


def _kept(params: dict[str, Any], columns: int) -> int:
    """Blocks that a row keeps: `keep`, or `density` of them."""
    kept = int(params["keep"]) if "keep" in params else round(float(params["density"]) * columns)
    return min(max(kept, 1), columns)


def random_blocks(rows: int, columns: int, params: dict[str, Any]) -> Bools:
    """Every row draws as many blocks, anywhere.

    >>> random_blocks(4, 8, {"density": 0.25, "seed": 1}).sum(1).tolist()
    [2, 2, 2, 2]
    """
    order = _rng(params).random((rows, columns)).argsort(1)
    mask = np.zeros((rows, columns), bool)
    np.put_along_axis(mask, order[:, : _kept(params, columns)], True, axis=1)
    return mask


def banded(rows: int, columns: int, params: dict[str, Any]) -> Bools:
    """A band around the diagonal, moved inwards at the ends so that every row has as many blocks.

    >>> banded(3, 6, {"keep": 2}).astype(int).tolist()
    [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    """
    kept = _kept(params, columns)
    centre = (np.arange(rows) + 0.5) * columns / rows
    first = np.clip(np.round(centre - kept / 2).astype(int), 0, columns - kept)
    column = np.arange(columns)
    mask: Bools = (column >= first[:, None]) & (column < first[:, None] + kept)
    return mask


def vertical_slash(rows: int, columns: int, params: dict[str, Any]) -> Bools:
    """Columns that all rows see, and diagonals, half of the budget each, below the main diagonal; that one is always kept.

    >>> bool(vertical_slash(8, 8, {"density": 0.3}).diagonal().all())
    True
    """
    rng, budget = _rng(params), max(_kept(params, columns), 2)
    distance = np.arange(rows)[:, None] + (columns - rows) - np.arange(columns)
    verticals = np.append(0, 1 + rng.permutation(columns - 1))[: max(budget // 2, 1)]
    slashes = np.append(0, 1 + rng.permutation(columns - 1))[: max(budget - budget // 2, 1)]
    seen = np.isin(np.arange(columns), verticals)[None, :] | np.isin(distance, slashes)
    kept: Bools = seen & (distance >= 0)
    return kept


def imbalanced(rows: int, columns: int, params: dict[str, Any]) -> Bools:
    """Few rows see nearly everything, most see little: the n-th longest row is as long as 1 / n^0.8 of the longest.

    >>> counts = imbalanced(64, 64, {"density": 0.2}).sum(1)
    >>> int(counts.max()) > 4 * int(np.median(counts))
    True
    """
    rng, wanted = _rng(params), _kept(params, columns) * rows
    shape = np.arange(1, rows + 1) ** -0.8
    low, high = 0.0, float(columns) * rows
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * shape, 1, columns).sum() < wanted else (low, middle)
    counts = rng.permutation(np.round(np.clip(high * shape, 1, columns)).astype(int))
    order = rng.random((rows, columns)).argsort(1).argsort(1)
    mask: Bools = order < counts[:, None]
    return mask


def radial(rows: int, columns: int, params: dict[str, Any]) -> Bools:
    """Radial Attention over `frames` frames, blocks only."""
    block, frames = int(params["block"]), int(params["frames"])
    tokens = rows * block
    if rows != columns or tokens % frames:
        raise UserError(f"radial needs as many queries as keys, in {frames} equal frames, got {rows} x {columns} blocks")
    layout: dict[str, Any] = {"frames": frames, "tokens_per_frame": tokens // frames}
    made = schedule("radial", **layout, q_tile=block, kv_tile=block, block=block, decay=params["decay"])
    mask: Bools = made.to_mask()[0]
    return mask


GENERATORS: dict[str, Callable[[int, int, dict[str, Any]], Bools]] = {
    "block_random": random_blocks,
    "block_banded": banded,
    "block_vertical_slash": vertical_slash,
    "block_imbalanced": imbalanced,
    "block_radial": radial,
}
"""Block masks by pattern name."""
