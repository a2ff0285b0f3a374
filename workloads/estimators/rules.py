"""Which blocks a system keeps, from real Q and K: its scores, its rule, and its quirks."""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from .. import selection
from .scores import Bools, Floats, antidiagonal, attention, exact_mass, mean_pool, past, pooled, softmax


def mean_pool_top_k(q: Floats, k: Floats, block: int, top_k: int) -> Bools:
    """MInference's block-sparse heads: the best pooled products of each row, causal (microsoft/MInference @fb56c91)."""
    scores = mean_pool(q, k, block, block)
    return selection.top_k(np.where(past(scores.shape[1], scores.shape[2], block, block), scores, -np.inf), top_k)


def pooled_shares(q: Floats, k: Floats, block: int) -> Floats:
    """Causal softmax of pooled products."""
    scores = mean_pool(q, k, block, block) / sqrt(q.shape[-1])
    return softmax(np.where(past(scores.shape[1], scores.shape[2], block, block), scores, -np.inf))


def mean_pool_mass(q: Floats, k: Floats, block: int, mass: float) -> Bools:
    """Causal pooled shares up to a mass of each row, with the first column and the diagonal."""
    shares = pooled_shares(q, k, block)
    kept = selection.row_mass(shares, mass) | np.eye(shares.shape[1], dtype=bool)
    kept[:, :, 0] = True
    return kept


def seer(q: Floats, k: Floats, block: int, least: float) -> Bools:
    """SeerAttention's rule, with pooled products in place of its trained gate; diagonal and last row are kept (@aba03e3)."""
    shares = pooled_shares(q, k, block)
    kept = selection.threshold(shares, least) | np.eye(shares.shape[1], dtype=bool)
    kept[:, -1] = True
    return kept


def xattention(q: Floats, k: Floats, block: int, stride: int, mass: float) -> Bools:
    """XAttention's choice in the first chunk of a prefill (mit-han-lab/x-attention @e379887 find_blocks_chunked).

    There the first column is not forced, and the sum that is held against the mass lags one block behind.
    """
    scores = antidiagonal(q, k, block, stride)
    rows = scores.shape[-1]
    own = np.broadcast_to(np.eye(rows, dtype=bool), scores.shape)
    order = np.argsort(-np.where(own, np.inf, scores), axis=-1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    lagging = np.concatenate([np.zeros_like(before[..., :1]), before[..., :-1]], axis=-1)
    chosen = lagging < mass * scores.sum(-1, keepdims=True)
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, chosen, axis=-1)
    # What is not chosen is written to column 0.
    kept[..., 0] |= ~chosen.all(-1)
    return np.asarray(kept & np.tri(rows, dtype=bool))


def pbs(q: Floats, k: Floats, block: int, segment: int, mass: float) -> Bools:
    """PBS-Attn: keys sorted within segments, pooled shares of other segments up to a mass, the own segment whole.

    References
    ----------
    xinghaow99/pbs-attn @8ce8e02 pbs_attn/src/pbs.py.
    """
    heads, tokens, width = q.shape
    rows, whole = tokens // block, tokens // segment * segment
    weight = attention(q[:, -block:], k, causal=True).mean(-2)[:, :whole].reshape(heads, -1, segment)
    order = np.argsort(-weight, axis=-1, kind="stable") + np.arange(0, whole, segment)[:, None]
    order = np.concatenate([order.reshape(heads, whole), np.tile(np.arange(whole, tokens), (heads, 1))], axis=1)
    scores = pooled(q, block) @ pooled(np.take_along_axis(k, order[..., None], axis=1), block).swapaxes(-1, -2) / sqrt(width)
    at = np.arange(rows) * block // segment
    other = at[:, None] > at
    shares = np.where(other, softmax(np.where(other | (at[:, None] == 0), scores, -np.inf)), 0.0)
    kept = selection.row_mass(shares, mass) | (at[:, None] == at)
    first = np.argmax(order == 0, axis=1) // block
    kept[np.arange(heads), :, first] |= at >= 0
    return np.asarray(kept & (at[:, None] >= at))


def sparsed(q: Floats, k: Floats, block: int, share: float) -> Bools:
    """SparseD: of the exact mean weights of each row of blocks, both ways, the best share and one more (@52155b4)."""
    mass = exact_mass(q, k, block, block, causal=False)
    return selection.top_k(mass, int(mass.shape[-1] * share) + 1)


def blasst(q: Floats, k: Floats, block_q: int, block_k: int, least: float, *, backwards: bool = False) -> Bools:
    """BLASST: tiles in which any row comes within ln(least) of its running maximum; it depends on the order of the visits.

    References
    ----------
    arXiv 2512.12087; NVIDIA/Model-Optimizer @a2fbac7.
    """
    heads, tokens, width = q.shape
    rows, columns = -(-tokens // block_q), -(-tokens // block_k)
    seen = past(rows, columns, block_q, block_k)
    kept = np.zeros((heads, rows, columns), bool)
    for row in range(rows):
        query = np.arange(row * block_q, min((row + 1) * block_q, tokens))
        highest = np.full((heads, len(query)), -np.inf)
        visible = np.flatnonzero(seen[row])
        for column in visible[::-1] if backwards else visible:
            key = np.arange(column * block_k, min((column + 1) * block_k, tokens))
            scores = q[:, query] @ k[:, key].swapaxes(-1, -2) / sqrt(width)
            top = np.where(query[:, None] >= key, scores, -np.inf).max(-1)
            alive = top > -np.inf
            close = np.zeros(top.shape, bool)
            close[alive] = (highest[alive] == -np.inf) | (top[alive] - highest[alive] >= log(least))
            chosen = close.any(-1)
            kept[:, row, column] = chosen
            highest[chosen] = np.maximum(highest, top)[chosen]
    return kept


def sale(q: Floats, k: Floats, block_q: int, block_k: int, least: float, *, sinks: int = 64, local: int = 128) -> Bools:
    """SALE: first and newest keys, and tiles with a weight of at least `least` of what those two hold, in full precision.

    References
    ----------
    BirdChristopher/SALE @39d380c; its own estimate is in 4 bits.
    """
    heads, tokens, width = q.shape
    rows, columns = tokens // block_q, tokens // block_k
    kept = np.zeros((heads, rows, columns), bool)
    for row in range(rows):
        query = np.arange(row * block_q, (row + 1) * block_q)
        key = np.arange((row + 1) * block_q)
        scores = q[:, query] @ k[:, key].swapaxes(-1, -2) / sqrt(width)
        scores = np.where(query[:, None] >= key, scores, -np.inf)
        band = (key < sinks) | (key >= query[0] - local)
        top = scores[..., band].max(-1, keepdims=True)
        held = np.exp(scores[..., band] - top).sum(-1, keepdims=True)
        weight = np.where(band, np.inf, np.exp(scores - top) / held)
        own = len(key) // block_k
        kept[:, row, :own] = weight.reshape(heads, block_q, own, block_k).max((1, 3)) >= least
    return kept
