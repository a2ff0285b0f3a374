"""Token orders: in which order the tokens of a grid lie in memory, as permutations."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from .layout import TokenLayout

Ints = NDArray[np.int64]
Order = Literal["rows", "blocks", "morton", "hilbert"]


def token_order(order: Order, layout: TokenLayout, tile: int = 128) -> Ints:
    """Tokens of a layout in the order in which they lie: for each place, the row-major index of its token; text stays last.

    Parameters
    ----------
    order : str
        `rows` (row-major), `blocks` (boxes of about `tile` tokens, each row-major), `morton` (Z-order: bits of the coordinates
        interleaved) or `hilbert`; curves of the cube around the grid, without what lies outside.
    tile : int
        Tokens of a box.

    Examples
    --------
    >>> token_order("morton", TokenLayout(grid=(4, 4))).reshape(4, 4)[0]
    array([0, 1, 4, 5])
    >>> token_order("hilbert", TokenLayout(grid=(2, 2)))
    array([0, 1, 3, 2])
    """
    if order == "rows":
        return np.arange(layout.tokens)
    if layout.queries:
        raise UserError(f"order {order} needs as many queries as keys")
    grid = layout.grid
    places = np.stack(np.unravel_index(np.arange(prod(grid)), grid)).astype(np.int64)
    if order == "blocks":
        found = box_order(places, box_of(tile, len(grid)))
    else:
        bits = max(1, (max(grid) - 1).bit_length())
        found = np.argsort(_interleaved(places if order == "morton" else _hilbert(places, bits), bits), kind="stable")
    return np.concatenate([found, np.arange(prod(grid), layout.tokens)])


def box_of(tile: int, axes: int) -> tuple[int, ...]:
    """A box of about `tile` tokens, as near to a cube as powers of two are; the last axis is the longest.

    >>> box_of(128, 2), box_of(128, 3)
    ((8, 16), (4, 4, 8))
    """
    bits = tile.bit_length() - 1
    return tuple(2 ** ((bits + axis) // axes) for axis in range(axes))


def box_order(places: Ints, box: tuple[int, ...]) -> Ints:
    """Tokens box by box, each box row-major; `places` are coordinates [axes, tokens]."""
    inside = [p % b for p, b in zip(places, box, strict=True)]
    outside = [p // b for p, b in zip(places, box, strict=True)]
    return np.lexsort([*inside[::-1], *outside[::-1]])


def _interleaved(places: Ints, bits: int) -> Ints:
    """One number of each column: bits of its coordinates in turn, highest first."""
    code = np.zeros(places.shape[1], np.int64)
    for bit in range(bits - 1, -1, -1):
        for axis in places:
            code = (code << 1) | ((axis >> bit) & 1)
    return code


def _hilbert(places: Ints, bits: int) -> Ints:
    """Coordinates whose interleaved bits are the distance along the Hilbert curve.

    References
    ----------
    J. Skilling, Programming the Hilbert curve, AIP Conference Proceedings 707 (2004).
    """
    x: Any = places.copy()
    for bit in range(bits - 1, 0, -1):
        low = (1 << bit) - 1
        for axis in range(len(x)):
            flip = (x[axis] >> bit) & 1 == 1
            swap = np.where(flip, 0, (x[0] ^ x[axis]) & low)
            x[0] ^= np.where(flip, low, swap)
            x[axis] ^= swap
    for axis in range(1, len(x)):
        x[axis] ^= x[axis - 1]
    turn = np.zeros_like(x[0])
    for bit in range(bits - 1, 0, -1):
        turn ^= np.where((x[-1] >> bit) & 1 == 1, (1 << bit) - 1, 0)
    return np.asarray(x ^ turn)
