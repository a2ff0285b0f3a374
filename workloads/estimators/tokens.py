"""What systems of token-wise selection choose from real Q and K: their own estimates, on arrays of float64.

Q is [heads, queries, d] and K is [keys, d] of one K/V head; queries and keys are of the same sequence and causal. Every function
says what its reference is; all of them are quadratic in the sequence, since the real selections are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..lists import Lists
from ..selection import top_k

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class TokenNumbers(NamedTuple):
    """What a token-wise selection needs to know beside Q and K; as the parameters of the family."""

    block: int
    top: int
    init: int
    local: int


def softmax(scores: Floats) -> Floats:
    """Along the last axis; a row without a finite score gives zeros."""
    top = scores.max(axis=-1, keepdims=True)
    shares: Floats = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    shares /= np.maximum(shares.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
    return shares


def lists_of(kept: Bools) -> Lists:
    """The columns that each row keeps.

    >>> lists_of(np.array([[True, False], [True, True]])).ids.tolist()
    [0, 0, 1]
    """
    row, column = np.nonzero(kept)
    return Lists(np.searchsorted(row, np.arange(len(kept) + 1)), column)


def nsa_blocks(q: Floats, k: Floats, *, block: int, top: int) -> Lists:
    """Blocks of NSA, in the form with compressed keys of one block each: the own block, and the best by mean key.

    References
    ----------
    fla-org/native-sparse-attention @bd67af5 native_sparse_attention/ops/naive.py, naive_nsa_compression.
    """
    tokens, blocks = len(k), len(k) // block
    mean = k[: blocks * block].reshape(blocks, block, -1).mean(1)
    scores = q @ mean.T / np.sqrt(q.shape[-1])
    position, block_of = np.arange(tokens), np.arange(blocks)
    scores[:, block_of[None, :] >= ((position + 1) // block)[:, None]] = -np.inf
    total = softmax(scores).sum(0)
    own = position // block
    total[block_of[None, :] > own[:, None]] = -np.inf
    total[position, own] = np.inf
    return lists_of(top_k(total, np.minimum(own + 1, top)))


def infllm_blocks(
    q: Floats, k: Floats, *, block: int, top: int, init: int, local: int, size: int = 32, stride: int = 16
) -> Lists:
    """Blocks of InfLLM-V2: compressed keys of overlapping windows, their shares summed over heads and max-pooled.

    References
    ----------
    OpenBMB/infllmv2_cuda_impl @f908e73: mean of 32 keys every 16; maximum over 5 of them, every 4, padded by 1.
    """
    tokens = len(k)
    starts = np.arange(0, tokens - size + 1, stride)
    mean = np.stack([k[s : s + size].mean(0) for s in starts])
    position = np.arange(tokens)
    scores = q @ mean.T / np.sqrt(q.shape[-1])
    scores[:, (starts + size - 1)[None, :] > position[:, None]] = -np.inf
    shares = softmax(scores).sum(0)
    own, blocks = position // block, -(-tokens // block)
    pooled = np.full((tokens, blocks), -np.inf)
    per_block = block // stride
    for b in range(blocks):
        inside = slice(max(b * per_block - 1, 0), min(b * per_block + per_block, len(starts)))
        if inside.start < inside.stop:
            pooled[:, b] = shares[:, inside].max(1)
    block_of = np.arange(blocks)
    pooled[(block_of[None, :] < init) | (block_of[None, :] > (own - local - 1)[:, None])] = np.inf
    pooled[block_of[None, :] > own[:, None]] = -np.inf
    return lists_of(top_k(pooled, np.minimum(own + 1, top)))


def moba_blocks(q: Floats, k: Floats, *, block: int, top: int) -> list[Lists]:
    """Past blocks of MoBA, for each head: the best by mean key, beside the own one, which takes a place of `top`.

    References
    ----------
    MoonshotAI/MoBA @61e456b moba/moba_naive.py.
    """
    tokens, blocks = len(k), -(-len(k) // block)
    mean = np.stack([k[b * block : (b + 1) * block].mean(0) for b in range(blocks)])
    own = np.arange(tokens) // block
    past = np.arange(blocks)[None, :] < own[:, None]
    return [lists_of(top_k(np.where(past, head @ mean.T, -np.inf), top - 1)) for head in q]


def indexer_scores(q: Floats, k: Floats, weights: Floats) -> Floats:
    """Scores of DSA's indexer: sum over its heads of a weight times ReLU(q k). [queries, keys], -inf above the diagonal.

    Parameters
    ----------
    weights : array [queries, heads] or [heads]

    References
    ----------
    deepseek-ai/DeepSeek-V3.2-Exp @3b99a53 inference/model.py.
    """
    weights = np.broadcast_to(weights, (q.shape[1], len(q)))
    scores: Floats = np.einsum("hqk,qh->qk", np.maximum(q @ k.T, 0.0), weights)
    scores[np.triu_indices(len(scores), 1)] = -np.inf
    return scores


def hisa_keys(q: Floats, k: Floats, weights: Floats, *, block: int, top_blocks: int, keys: int) -> Bools:
    """Keys of HISA: the indexer on mean keys picks blocks, and on the keys of these, the first and the own one, picks keys.

    References
    ----------
    arXiv 2603.28458.
    """
    tokens, blocks = len(k), -(-len(k) // block)
    mean = np.stack([k[b * block : (b + 1) * block].mean(0) for b in range(blocks)])
    coarse = np.einsum("hqk,qh->qk", np.maximum(q @ mean.T, 0.0), np.broadcast_to(weights, (q.shape[1], len(q))))
    own, block_of = np.arange(tokens) // block, np.arange(blocks)
    coarse[block_of[None, :] > own[:, None]] = -np.inf
    chosen = top_k(coarse, top_blocks) | (block_of[None, :] == 0) | (block_of[None, :] == own[:, None])
    candidates = np.repeat(chosen, block, axis=1)[:, :tokens]
    return top_k(np.where(candidates, indexer_scores(q, k, weights), -np.inf), keys)


def quest_pages(q: Floats, k: Floats, *, page: int, pages: int) -> Ints:
    """Pages that Quest reads for one query of one head: the last one, and the best by an upper bound of their scores.

    References
    ----------
    arXiv 2406.10774.
    """
    cut = k.reshape(-1, page, k.shape[-1])
    bound = np.maximum(q * cut.min(1), q * cut.max(1)).sum(-1)
    kept = top_k(bound[None, :-1], pages - 1)[0]
    return np.append(np.flatnonzero(kept), len(cut) - 1)


def label_keys(q: Floats, k: Floats, *, channels: Ints, keys: int) -> Ints:
    """Keys of Double Sparsity for one query of one head: the best by a few channels.

    References
    ----------
    arXiv 2408.07092; andy-yang-1/DoubleSparse @b0575e6.
    """
    return np.flatnonzero(top_k((k[:, channels] @ q[channels])[None], keys)[0])


def grouped_pairs(tokens: int, block: int) -> int:
    """Scores of Landmark Attention before its selection: keys of the own block up to each query, and a landmark of past blocks.

    >>> grouped_pairs(512, 64)
    18432
    """
    position = np.arange(tokens)
    return int((position % block + 1 + position // block).sum())


def hip_blocks(q: Floats, k: Floats, *, block: int, keys: int) -> Ints:
    """First keys of the blocks that HiP's tree search picks for one block of queries, whose last one sees all of `k`.

    The keys are cut into as many groups as blocks are wanted. Level by level each group is halved, and the better half of all
    halves is kept; a half is as good as its first block, by the highest score of every second query.

    References
    ----------
    arXiv 2406.09827; DeepAuto-AI/hip-attention @fea42c7 src/hip_attn/v1_1/attention2_draft.py.
    """
    wanted, blocks = -(-keys // block), -(-len(k) // block)
    if len(k) <= keys:
        return np.arange(blocks) * block
    edge = np.arange(wanted + 1) * blocks // wanted
    first, size, widest = edge[:-1], np.diff(edge), blocks / wanted
    while widest > 1:
        middle = first + size // 2
        halves = np.stack([first, middle], axis=1).ravel()
        sizes = np.stack([middle - first, first + size - middle], axis=1).ravel()
        best = np.array([(q[1::2] @ k[h * block : (h + 1) * block].T).max() for h in halves])
        order = np.argsort(-np.where(sizes > 0, best, -np.inf), kind="stable")[:wanted]
        first, size, widest = halves[order], sizes[order], widest / 2
    return np.sort(first) * block


TOKEN_BLOCKS: dict[str, Callable[[Floats, Floats, TokenNumbers], list[Lists]]] = {
    "nsa": lambda q, k, n: [nsa_blocks(q, k, block=n.block, top=n.top)],
    "infllm_v2": lambda q, k, n: [infllm_blocks(q, k, block=n.block, top=n.top, init=n.init, local=n.local - 1)],
    "moba": lambda q, k, n: moba_blocks(q, k, block=n.block, top=n.top),
}
"""Blocks of every query of one K/V head, by system: a list for all heads that share it, or one for each head."""
