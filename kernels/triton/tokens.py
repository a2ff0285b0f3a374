"""Tokens of a grid in the order of a kernel's box-shaped tiles, padded to whole tiles."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


def boxes(grid: tuple[int, ...], tile: tuple[int, ...], dilation: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """Token (row-major index in the grid) of each place, -1 for padding: int64 [places].

    Places run over dilation groups, then tiles, then tokens of a tile, each row-major. All groups have the same number of tiles.

    >>> boxes((2, 3), (2, 2)).tolist()
    [0, 1, 3, 4, 2, -1, 5, -1]
    """
    dilation = dilation or (1,) * len(grid)
    tiles = [-(-length // (t * d)) for length, t, d in zip(grid, tile, dilation, strict=True)]
    # Axes of the places: groups, tiles, tokens of a tile, each with one axis for an axis of the grid.
    places = np.indices((*dilation, *tiles, *tile)).reshape(3, len(grid), -1)
    group, outer, inner = places
    coordinate = (outer * np.array(tile)[:, None] + inner) * np.array(dilation)[:, None] + group
    inside = (coordinate < np.array(grid)[:, None]).all(0)
    flat = np.ravel_multi_index(tuple(np.minimum(coordinate, np.array(grid)[:, None] - 1)), grid)
    assert inside.sum() == prod(grid)
    return np.where(inside, flat, -1)


def gather_tokens(x: Any, place: NDArray[np.int64]) -> Any:
    """Tensor [batch, heads, tokens, ...] with its tokens in the order of the places; padding is zero."""
    import torch

    at = torch.from_numpy(place).to(x.device)
    gathered = x.index_select(2, at.clamp(min=0))
    gathered[:, :, at < 0] = 0
    return gathered


def scatter_tokens(x: Any, place: NDArray[np.int64]) -> Any:
    """The inverse: tensor [batch, heads, places, ...] with its tokens back in the order of the grid, padding dropped."""
    import torch

    back = np.empty(int((place >= 0).sum()), np.int64)
    back[place[place >= 0]] = np.flatnonzero(place >= 0)
    return x.index_select(2, torch.from_numpy(back).to(x.device))
