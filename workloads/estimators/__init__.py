"""estimators: masks from real queries and keys, by the systems' own estimates.

    scores   what systems score blocks by: pooled products, antidiagonals, exact mass, samples
    rules    systems that choose single blocks: their scores, rule and quirks
    lines    vertical and slash lines from the last queries; stripes of single keys
    search   a search that does not score all keys
    tokens   blocks and keys that single query tokens choose
    clusters k-means of queries and keys, and which clusters see each other

Only numpy: sizes are those of a test or of one head of a model, not of a benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import numpy as np

from .. import selection
from . import lines, rules
from .scores import Bools, Floats, antidiagonal, exact_mass, mean_pool, past, sampled_max, softmax


class Numbers(NamedTuple):
    """What an estimate needs to know beside Q and K.

    Attributes
    ----------
    block_q, block_k : int
        Tokens of a block.
    causal : bool
        Keys after a query are not seen.
    keep : float
        The rule's own number: a mass, a threshold, a share.
    top_k : int
        Blocks of a row.
    segment : int
        Keys that are sorted among themselves.
    seed : int
        Of samples.
    """

    block_q: int
    block_k: int
    causal: bool
    keep: float
    top_k: int
    segment: int
    seed: int


SCORES: dict[str, Callable[[Floats, Floats, Numbers], Floats]] = {
    "products": lambda q, k, n: _seen(mean_pool(q, k, n.block_q, n.block_k), n),
    "mean_pool": lambda q, k, n: softmax(_seen(mean_pool(q, k, n.block_q, n.block_k) / sqrt(q.shape[-1]), n)),
    "antidiagonal": lambda q, k, n: antidiagonal(q, k, n.block_q, 8),
    "exact": lambda q, k, n: exact_mass(q, k, n.block_q, n.block_k, causal=n.causal),
    "sampled": lambda q, k, n: sampled_max(q, k, n.block_q, 16, n.seed),
}
"""Scores of blocks [heads, rows, columns]: shares of a row's weight, and `products`, which only top-k and thresholds can take."""

OWN: dict[str, Callable[[Floats, Floats, Numbers], Bools]] = {
    "seer": lambda q, k, n: rules.seer(q, k, n.block_q, n.keep),
    "xattention": lambda q, k, n: rules.xattention(q, k, n.block_q, 8, n.keep),
    "pbs": lambda q, k, n: rules.pbs(q, k, n.block_q, n.segment, n.keep),
    "sparsed": lambda q, k, n: rules.sparsed(q, k, n.block_q, n.keep),
    "blasst": lambda q, k, n: rules.blasst(q, k, n.block_q, n.block_k, n.keep),
    "sale": lambda q, k, n: rules.sale(q, k, n.block_q, n.block_k, n.keep),
    "flexprefill": lambda q, k, n: lines.flexprefill(q, k, n.block_q, gamma=n.keep),
    "dhsa": lambda q, k, n: lines.dhsa(q, k, n.block_q, n.block_k, n.top_k, "lines"),
}
"""Kept blocks [heads, rows, columns] by systems whose choice is no plain rule on scores."""


RULES: dict[str, Callable[[Floats, Numbers], Bools]] = {
    "top_k": lambda scores, n: selection.top_k(scores, n.top_k),
    "row_mass": lambda scores, n: selection.row_mass(scores, n.keep),
    "global_mass": lambda scores, n: selection.global_mass(scores, n.keep),
    "global_threshold": lambda scores, n: selection.global_threshold(scores, 1 - n.keep),
    "threshold": lambda scores, n: selection.threshold(scores, n.keep),
    "relative_threshold": lambda scores, n: selection.relative_threshold(scores, n.keep),
}
"""Rules on scores by name, as the family's parameter `rule` has them."""


def choose(q: Floats, k: Floats, estimator: str, rule: str, numbers: Numbers) -> Bools:
    """Blocks that a system keeps: [heads, rows, columns].

    >>> q = k = np.random.default_rng(0).standard_normal((1, 256, 16))
    >>> numbers = Numbers(64, 64, causal=True, keep=0.0, top_k=2, segment=1, seed=0)
    >>> choose(q, k, "products", "top_k", numbers).sum(-1).tolist()
    [[1, 2, 2, 2]]
    """
    if estimator in OWN:
        return OWN[estimator](q, k, numbers)
    scores = SCORES[estimator](q, k, numbers)
    # Shares are 0 above the diagonal, products -inf: neither can be chosen.
    return RULES[rule](scores, numbers) & (_seen(scores, numbers) > -np.inf)


def _seen(scores: Floats, numbers: Numbers) -> Floats:
    """Scores with -inf above the diagonal of a causal call."""
    if not numbers.causal:
        return scores
    return np.where(past(scores.shape[1], scores.shape[2], numbers.block_q, numbers.block_k), scores, -np.inf)


__all__ = ["OWN", "RULES", "SCORES", "Numbers", "choose", "lines", "rules"]
