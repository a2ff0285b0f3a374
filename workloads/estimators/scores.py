"""Scores of blocks from real Q and K: what a system looks at before it chooses."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...facts import UserError

Floats = NDArray[Any]
Bools = NDArray[np.bool_]


def softmax(scores: Floats) -> Floats:
    """Softmax over the last axis; -inf becomes 0.

    >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    weight = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Floats = weight / weight.sum(-1, keepdims=True)
    return shares


def past(rows: int, columns: int, block_q: int = 1, block_k: int = 1) -> Bools:
    """Whether any query of a block row sees any key of a block column, where both sequences begin together.

    >>> past(2, 4, 64, 32).tolist()
    [[True, True, False, False], [True, True, True, True]]
    """
    first, last = np.arange(columns) * block_k, (np.arange(rows) + 1) * block_q - 1
    return np.asarray(first <= last[:, None], bool)


def pooled(x: Floats, block: int) -> Floats:
    """Mean of each block of tokens: [heads, tokens, width] to [heads, blocks, width].

    >>> pooled(np.arange(4.0).reshape(1, 4, 1), 2).ravel().tolist()
    [0.5, 2.5]
    """
    heads, tokens, width = x.shape
    if tokens % block:
        edges = np.arange(0, tokens, block)
        counts = np.minimum(block, tokens - edges)
        means: Floats = np.add.reduceat(x, edges, axis=1) / counts[:, None]
        return means
    means = x.reshape(heads, tokens // block, block, width).mean(2)
    return means


def mean_pool(q: Floats, k: Floats, block_q: int, block_k: int) -> Floats:
    """Products of mean queries and mean keys: [heads, rows, columns]."""
    return np.asarray(pooled(q, block_q) @ pooled(k, block_k).swapaxes(-1, -2))


def attention(q: Floats, k: Floats, *, causal: bool) -> Floats:
    """Softmax weights of the queries, which are the last ones of the keys where they are fewer: [heads, queries, keys]."""
    scores = q @ k.swapaxes(-1, -2) / sqrt(q.shape[-1])
    if causal:
        queries, keys = scores.shape[-2:]
        scores = np.where(np.tri(queries, keys, keys - queries, dtype=bool), scores, -np.inf)
    return softmax(scores)


def block_sums(weights: Floats, block_q: int, block_k: int) -> Floats:
    """Sums over blocks of a map of tokens: [heads, queries, keys] to [heads, rows, columns]."""
    rows = np.add.reduceat(weights, np.arange(0, weights.shape[-2], block_q), axis=-2)
    return np.asarray(np.add.reduceat(rows, np.arange(0, weights.shape[-1], block_k), axis=-1))


def exact_mass(q: Floats, k: Floats, block_q: int, block_k: int, *, causal: bool) -> Floats:
    """Softmax weight that each row of blocks gives to each block, a share of the row; a row of blocks at a time."""
    heads, tokens, _ = q.shape
    rows = -(-tokens // block_q)
    mass = np.zeros((heads, rows, -(-k.shape[1] // block_k)))
    for row in range(rows):
        end = min((row + 1) * block_q, tokens)
        keys = k.shape[1] - tokens + end if causal else k.shape[1]
        weights = attention(q[:, row * block_q : end], k[:, :keys], causal=causal)
        sums = block_sums(weights, end - row * block_q, block_k)[:, 0]
        mass[:, row, : sums.shape[-1]] = sums / (end - row * block_q)
    return mass


def antidiagonal(q: Floats, k: Floats, block: int, stride: int) -> Floats:
    """XAttention: every block by the sum of every `stride`-th antidiagonal, as shares of a causal softmax.

    References
    ----------
    arXiv 2503.16428; mit-han-lab/x-attention @e379887.
    """
    heads, tokens, width = q.shape
    if tokens % block or block % stride:
        raise UserError(f"antidiagonals need tokens in blocks of {block} and blocks in strides of {stride}, got {tokens}")
    folded_k = k.reshape(heads, tokens // stride, stride * width)
    folded_q = q.reshape(heads, tokens // stride, stride, width)[:, :, ::-1].reshape(heads, tokens // stride, stride * width)
    scores = folded_q @ folded_k.swapaxes(-1, -2) / (stride * sqrt(width))
    seen = np.tri(tokens // stride, dtype=bool)
    return block_sums(softmax(np.where(seen, scores, -np.inf)), block // stride, block // stride)


def sampled_max(q: Floats, k: Floats, block: int, sample: int, seed: int) -> Floats:
    """Largest softmax weight among `sample` random queries and keys of each block (Video-BLADE): [heads, rows, columns]."""
    rng = np.random.default_rng(seed)

    def chosen(x: Floats) -> Floats:
        heads, tokens, width = x.shape
        blocks = x[:, : tokens // block * block].reshape(heads, -1, block, width)
        return blocks[:, :, np.sort(rng.choice(block, sample, replace=False))].reshape(heads, -1, width)

    weights = attention(chosen(q), chosen(k), causal=False)
    heads, queries, keys = weights.shape
    return np.asarray(weights.reshape(heads, queries // sample, sample, keys // sample, sample).max((2, 4)))
