"""Search by halves: HiP Attention finds keys without scoring all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .scores import Floats

Ints = NDArray[np.int64]


def search_by_halves(q: Floats, k: Floats, block_k: int, found: int) -> Ints:
    """Key blocks that one block of queries finds: int64 [found], or all where there are no more.

    The blocks are cut into as many groups as are to be found. Each group is halved, a half is scored by the largest product of
    every second query with the keys of its first block, and the best halves are the next groups, until they are single blocks.

    Parameters
    ----------
    q, k : float arrays [queries, width], [keys, width]
        Queries of the block, and the keys that they can see.

    References
    ----------
    arXiv 2406.09827; DeepAuto-AI/hip-attention @fea42c7, version 1.1.

    Examples
    --------
    >>> keys = np.eye(8)
    >>> search_by_halves(np.stack([keys[0], keys[5]]), keys, block_k=1, found=2).tolist()
    [4, 5]
    """
    blocks = -(-len(k) // block_k)
    if len(k) <= found * block_k:
        return np.arange(blocks)
    edges = (blocks / found * np.arange(found + 1)).astype(np.int64)
    start, size = edges[:-1], np.diff(edges)
    widest = blocks / found
    while widest > 1:
        middle = (start + size * 0.5).astype(np.int64)
        halves = np.stack([start, middle], axis=1).ravel()
        sizes = np.stack([middle - start, start + size - middle], axis=1).ravel()
        score = np.full(len(halves), -np.inf)
        for i in np.flatnonzero(sizes >= 1):
            score[i] = (q[1::2] @ k[halves[i] * block_k : (halves[i] + 1) * block_k].T).max()
        best = np.argsort(-score, kind="stable")[:found]
        start, size, widest = halves[best], sizes[best], widest / 2
    return np.sort(start)
