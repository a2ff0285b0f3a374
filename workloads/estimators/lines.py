"""Vertical and slash lines from the last queries: MInference, FlexPrefill, DHSA."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import selection
from .scores import Bools, Floats, attention, mean_pool, past, pooled, softmax

Ints = NDArray[np.int64]


class LineScores(NamedTuple):
    """Weight of the columns and of the diagonals of each head in its last queries: float arrays [heads, keys].

    A diagonal is a distance from query to key.
    """

    vertical: Floats
    slash: Floats


def line_scores(q: Floats, k: Floats, last: int) -> LineScores:
    """Column and diagonal sums of the causal softmax of the last queries."""
    weights = attention(q[:, -last:], k, causal=True)
    heads, queries, keys = weights.shape
    slash = np.zeros((heads, keys))
    for row in range(queries):
        position = keys - queries + row
        slash[:, : position + 1] += weights[:, row, position::-1]
    return LineScores(weights.sum(-2), slash)


def top_lines(scores: LineScores, verticals: int, slashes: int, *, first: int = 30, recent: int = 100) -> list[tuple[Ints, Ints]]:
    """MInference: the best columns and diagonals of each head, the first keys and the nearest diagonals among them.

    >>> found = top_lines(LineScores(np.array([[0.0, 3.0, 2.0]]), np.array([[1.0, 0.0, 5.0]])), 2, 2, first=1, recent=1)
    >>> [line.tolist() for line in found[0]]
    [[0, 1], [0, 2]]
    """
    vertical, slash = scores.vertical.copy(), scores.slash.copy()
    vertical[:, :first], slash[:, :recent] = np.inf, np.inf
    kept = selection.top_k(vertical, verticals), selection.top_k(slash, slashes)
    return [(np.flatnonzero(v), np.flatnonzero(s)) for v, s in zip(*kept, strict=True)]


def flexprefill(
    q: Floats, k: Floats, block: int, *, gamma: float = 0.9, tau: float = 0.1, least: int = 4, most: int = 2**30
) -> Bools:
    """FlexPrefill: per head columns and diagonals of blocks that cover `gamma`, or the best blocks of all: [heads, rows, rows].

    Parameters
    ----------
    tau : float
        Below this distance of the pooled estimate from the true one, a head chooses by the pooled map.
    least, most : int
        Bounds on the columns, and on the diagonals, in blocks.

    References
    ----------
    bytedance/FlexPrefill @a24b27b get_active_blocks. Covered tokens are divided by a literal 128, whatever the block.
    """
    heads, tokens, _ = q.shape
    rows = tokens // block
    lines = line_scores(q, k, block)
    vertical, slash = lines.vertical / block, lines.slash / block
    budget = [np.clip(_covering(x, gamma) // 128 + 1, least, min(most, rows)) for x in (vertical, slash)]
    of_columns, of_distances = (x.reshape(heads, rows, block).sum(-1) for x in (vertical, slash))
    # The first column and the diagonal are part of the budgets.
    estimated = of_columns.copy()
    of_columns[:, 0], of_distances[:, 0] = np.inf, np.inf
    estimate = softmax(pooled(q[:, -block:], block) @ pooled(k, block).swapaxes(-1, -2) / q.shape[-1] ** 0.5)[:, 0]
    by_pool = _js_distance(estimate, estimated) < tau
    seen = np.tri(rows, dtype=bool)
    weights = softmax(np.where(seen, mean_pool(q, k, block, block) / q.shape[-1] ** 0.5, -np.inf))
    kept = np.zeros((heads, rows, rows), bool)
    distance = np.arange(rows)[:, None] - np.arange(rows)
    for head in range(heads):
        columns, distances = budget[0][head], budget[1][head]
        if by_pool[head]:
            columns = distances = least
            kept[head] = _global(weights[head], gamma)
        kept[head][:, np.argsort(-of_columns[head], kind="stable")[:columns]] = True
        kept[head] |= np.isin(distance, np.argsort(-of_distances[head], kind="stable")[:distances])
    return np.asarray(kept & seen)


def _covering(scores: Floats, share: float) -> Ints:
    """How many of the highest scores it takes to hold a share."""
    ranked = np.cumsum(np.sort(scores, axis=-1)[:, ::-1], axis=-1)
    return np.asarray((ranked <= share).sum(-1) + 1)


def _global(weights: Floats, gamma: float) -> Bools:
    """The highest weights of a head until they hold `gamma` of all."""
    flat = weights.ravel()
    order = np.argsort(-flat, kind="stable")
    count = int((np.cumsum(flat[order]) <= gamma * len(weights)).sum()) + 1
    kept = np.zeros(flat.shape, bool)
    kept[order[:count]] = True
    return np.asarray(kept.reshape(weights.shape))


def _js_distance(p: Floats, q: Floats) -> Floats:
    """Square root of the Jensen-Shannon divergence of two distributions, in natural logarithms."""
    middle = (p + q) / 2

    def divergence(a: Floats) -> Any:
        return (a * np.log(np.maximum(a, 1e-300) / np.maximum(middle, 1e-300))).sum(-1)

    return np.asarray(np.sqrt(np.maximum((divergence(p) + divergence(q)) / 2, 0)))


def dhsa(q: Floats, k: Floats, block_q: int, block_k: int, top_k: int, rule: str = "top_k") -> Bools:
    """DHSA: `top_k` key blocks of each row of query blocks: [heads, rows, columns].

    Parameters
    ----------
    rule : str
        `top_k`: the best pooled products, chosen before what lies above the diagonal is dropped. `a_shape`: chosen below it, the
        first and the newest block among them. `lines`: half of the blocks by columns, half by diagonals of the last queries.

    References
    ----------
    xiongsiheng/DHSA @cc8e9c7 DHSA_patch.py.
    """
    heads, tokens, _ = q.shape
    rows, columns = tokens // block_q, tokens // block_k
    seen = past(rows, columns, block_q, block_k)
    scores = mean_pool(q, k, block_q, block_k)
    if rule == "top_k":
        return selection.top_k(scores, top_k) & seen
    dense = np.arange(rows) < -(-top_k * block_k // block_q)
    if rule == "a_shape":
        scores = np.where(seen, scores, -np.inf)
        scores[:, :, 0] = np.inf
        scores[:, np.arange(rows), seen.sum(-1) - 1] = np.inf
        return (selection.top_k(scores, top_k) | dense[:, None]) & seen
    dense[-1] = True
    found = line_scores(q, k, block_q)
    columns_of, distances_of = (
        selection.top_k(x.reshape(heads, columns, block_k).sum(-1), top_k // 2) for x in (found.vertical, found.slash)
    )
    kept = np.repeat(columns_of[:, None], rows, axis=1)
    # A block of distances lies, in a row of queries, from its farthest distance at the first query to its nearest at the last.
    for head, distance in np.argwhere(distances_of):
        low = np.arange(rows) * block_q - (distance + 1) * block_k + 1
        high = (np.arange(rows) + 1) * block_q - 1 - distance * block_k
        column = np.arange(columns)
        kept[head] |= (column >= (low // block_k)[:, None]) & (column <= (high // block_k)[:, None])
    return (kept | dense[:, None]) & seen


def anchor_stripes(q: Floats, k: Floats, block: int, step: int, theta: float) -> list[Bools]:
    """AnchorAttention: keys that each group of `step` blocks of queries gathers: bool [heads, keys before the group].

    A key is kept if, for any block's mean query, its product comes within `theta` of the mean anchor, the largest product of a
    query with the first group and its own. The first block of keys and the last one before the group are not looked at.

    References
    ----------
    arXiv 2505.23520.
    """
    _, tokens, width = q.shape
    group, key = block * step, np.arange(tokens)
    found = []
    for begin in range(0, tokens, group):
        query = np.arange(begin, begin + group)
        scores = q[:, query] @ k.swapaxes(-1, -2) / np.sqrt(width)
        near = ((key < group) | (key >= begin)) & (key <= query[:, None])
        anchor = pooled(np.where(near, scores, -np.inf).max(-1)[..., None], block)
        close = pooled(q[:, query], block) @ k[:, :begin].swapaxes(-1, -2) / np.sqrt(width) + theta >= anchor
        found.append(close.any(1) & (key[:begin] >= block) & (key[:begin] < begin - block))
    return found
