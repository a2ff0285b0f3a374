"""Clusters of queries that see clusters of keys: k-means (SVG2, Routing Transformer), buckets (SMYRF, AnnSA), chunks (VMoBA).

Tokens are reordered cluster by cluster, and queries of different clusters share no tile. Where a cluster of queries sees several
clusters of keys, those are packed into tiles across their borders, as FlashInfer does it (a list of single keys, page size 1).
Where it sees its own one, the call is a batch of dense attentions of unlike lengths.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Annotated, Literal, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from ...facts import UserError
from ..estimators.clusters import cluster_map
from ..layout import Tiling, TokenLayout
from ..qk import load_qk
from ..runs import Runs
from ..schedule import Buffer, Group, Kind, TileSchedule
from ..scores import head_shares, row_loads
from .band import Band

Ints = NDArray[np.int64]
Size = Annotated[int, Meta(ge=1, le=2**24)]
Spread = Annotated[float, Meta(ge=0, le=3)]


class Clustered(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each cluster of queries sees its own cluster of keys, or the clusters that hold most of its attention.

    Parameters
    ----------
    q_clusters, k_clusters : int
        Clusters of queries and of keys.
    keep : float or None
        Mean share of the key clusters that a cluster of queries sees; None: its own one only, of as many clusters.
    least : float
        Least share of them (of the key clusters).
    size : int
        Tokens of every cluster where a cluster is filled by choice (then a token may be in none or in several); 0: the clusters
        divide the sequence.
    memory : int
        Keys that each cluster of keys has besides.
    reads : float
        Clusters in which each query takes part; not with a `size`.
    q_spread, k_spread : float
        Unlike sizes, of clusters of queries and of keys: standard deviation of the logarithm of their tokens; 0 for equal ones.
    imbalance, head_spread : float
        Spread of the clusters that a cluster of queries sees, and of the mean share of a head: of the logarithm again.
    causal : bool
        Within what is seen, keys after a query are masked.
    seed : int
        Of sizes and of what is kept, or of the first centroids.
    qk : str
        File of real queries and keys (.npz, `q` and `k` [heads, tokens, width]): clusters are then those of `estimator`.
    estimator : str
        `k_means` (SVG2), or `none` where no rule was published.
    mass, iterations : float, int
        Share of the attention of the centroids that what is kept must hold; steps of k-means.

    Notes
    -----
    Text is a cluster of its own, that sees and is seen by all.

    Examples
    --------
    >>> routing = Clustered(q_clusters=8, k_clusters=8, size=64, memory=1)
    >>> s = routing.schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,)))
    >>> s.q_tiles, s.visited
    (8, 16)
    """

    q_clusters: Size
    k_clusters: Size
    keep: Annotated[float, Meta(gt=0, le=1)] | None = None
    least: Annotated[float, Meta(ge=0, le=1)] = 0.0
    size: Annotated[int, Meta(ge=0)] = 0
    memory: Annotated[int, Meta(ge=0)] = 0
    reads: Annotated[float, Meta(gt=0, le=2**20)] = 1.0
    q_spread: Spread = 0.0
    k_spread: Spread = 0.0
    imbalance: Spread = 0.0
    head_spread: Spread = 0.0
    causal: bool = False
    seed: Annotated[int, Meta(ge=0)] = 0
    qk: str = ""
    estimator: Literal["none", "k_means"] = "none"
    mass: Annotated[float, Meta(gt=0, le=1)] = 0.9
    iterations: Size = 50

    def __post_init__(self) -> None:
        if self.keep is None and self.q_clusters != self.k_clusters:
            raise UserError(f"its own cluster needs as many of queries as of keys, got {self.q_clusters} and {self.k_clusters}")
        if self.reads > self.q_clusters:
            raise UserError(f"a query takes part in at most all {self.q_clusters} clusters, got reads={self.reads}")

    def mask_class(self) -> str:
        if self.causal:
            return "element"
        return "varlen" if self.keep is None else "blocks"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        """The work of `heads` heads of one item, each with clusters of its own."""
        tiling.require_flat("a clustered pattern")
        tokens = prod(layout.grid)
        if tiling.pack != 1 or layout.queries:
            raise UserError("a clustered pattern has no form with packed GQA heads or fewer queries than keys")
        if not self.size and max(self.q_clusters, self.k_clusters) > tokens:
            raise UserError(f"clusters must be at most the {tokens} tokens, got {self.q_clusters} and {self.k_clusters}")
        heads_of = self._measured(tokens, heads) if self.qk else self._drawn(tokens, heads)
        if layout.text:
            heads_of = [_with_text(head, layout.text) for head in heads_of]
        parts = [_tiles(head, tiling.q_rows) for head in heads_of]
        first = np.cumsum([0, *(len(live) for live, _ in parts)])
        live = np.concatenate([live for live, _ in parts])
        keys = np.concatenate([keys for _, keys in parts])
        # Nominal places, drawn at random: rows of one cluster read the same keys, and each cluster others.
        reach = -(-(layout.tokens + self.memory * self.k_clusters) // tiling.kv_rows)
        span = np.maximum(reach - -(-keys // tiling.kv_rows), 0)
        fresh = np.append(True, keys[1:] != keys[:-1])
        place = np.random.default_rng(self.seed).random(int(fresh.sum()))[np.cumsum(fresh) - 1]
        start = (place * (span + 1)).astype(np.int64) * tiling.kv_rows
        kind = Kind.PARTIAL if self.causal else Kind.FULL if self.keep is None else Kind.GATHER
        pairs = [int((queries * seen).sum()) for queries, seen in parts]
        if self.causal:
            # In a cluster of queries and keys in order, half of the pairs and half of the diagonal.
            pairs = [(both + int(queries.sum())) // 2 for both, (queries, _) in zip(pairs, parts, strict=True)]
        return TileSchedule(
            q_tile=tiling.q_rows,
            kv_tile=tiling.kv_rows,
            seq_q=layout.tokens,
            seq_kv=layout.tokens,
            row_live=live,
            runs=Runs(np.arange(len(live)), start, keys, np.full(len(live), kind, np.uint8), len(live)),
            groups=tuple(
                Group(int(begin), len(queries), head.copies)
                for begin, (queries, _), head in zip(first, parts, heads_of, strict=False)
            ),
            buffers=(Buffer("kv", 0, max(layout.tokens, int((start + keys).max()))),),
            pairs_per_copy=tuple(pairs),
            mask_free=not self.causal,
            segment=max(tokens // self.k_clusters, 1),
        )

    def _drawn(self, tokens: int, heads: int) -> list[_Head]:
        """Clusters of each head from the statistics."""
        rng = np.random.default_rng(self.seed)
        shares = head_shares(rng, heads, self.keep, self.head_spread) if self.keep else np.zeros(heads)
        return [self._head(rng, float(share), tokens) for share in shares]

    def _head(self, rng: np.random.Generator, share: float, tokens: int) -> _Head:
        q_sizes = self._sizes(rng, self.q_clusters, tokens, self.reads, self.q_spread)
        k_sizes = self._sizes(rng, self.k_clusters, tokens, 1.0, self.k_spread) + self.memory
        if self.keep is None:
            return _Head(q_sizes, k_sizes, int(k_sizes.sum()))
        clusters, most = np.full(self.q_clusters, self.k_clusters), np.int64(self.k_clusters)
        least = np.minimum(np.maximum(np.full_like(clusters, ceil(self.least * most)), 1), most)
        counts = row_loads(rng, clusters, least, round(share * most * self.q_clusters), imbalance=self.imbalance)
        # Each sees a random set of clusters: a stretch of a random order of them.
        order = k_sizes[rng.permutation(self.k_clusters)]
        ends = np.concatenate([[0], np.cumsum(np.concatenate([order, order]))])
        begin = rng.integers(0, self.k_clusters, self.q_clusters)
        return _Head(q_sizes, ends[begin + counts] - ends[begin], int(k_sizes.sum()))

    def _measured(self, tokens: int, heads: int) -> list[_Head]:
        """Clusters of each head of a file; each stands for as many heads of the call."""
        if self.estimator == "none" or self.keep is None:
            raise UserError("how these clusters are found was not published, so they cannot be found from queries and keys")
        q, k = load_qk(self.qk).each_head(heads, tokens)
        found = []
        for head_q, head_k in zip(q, k, strict=True):
            clusters = cluster_map(
                head_q, head_k, self.q_clusters, self.k_clusters,
                mass=self.mass, least=self.least, iterations=self.iterations, seed=self.seed,
            )  # fmt: skip
            found.append(_Head(clusters.q_sizes, clusters.kept @ clusters.k_sizes, tokens, heads // len(q)))
        return found

    def _sizes(self, rng: np.random.Generator, clusters: int, tokens: int, reads: float, spread: float) -> Ints:
        """Tokens of each cluster: one at least, and together all of them, `reads` times."""
        if self.size:
            return np.full(clusters, self.size, np.int64)
        every = np.full(clusters, tokens, np.int64)
        return row_loads(rng, every, np.ones(clusters, np.int64), round(reads * tokens), imbalance=spread)


class _Head(NamedTuple):
    """Clusters of one head: their queries, the keys that each sees, and the keys of all; and heads that it stands for."""

    q_sizes: Ints
    seen: Ints
    keys: int
    copies: int = 1


def _with_text(head: _Head, text: int) -> _Head:
    """Text as a cluster that sees and is seen by all."""
    return head._replace(q_sizes=np.append(head.q_sizes, text), seen=np.append(head.seen + text, head.keys + text))


def _tiles(head: _Head, q_tile: int) -> tuple[Ints, Ints]:
    """Owner tiles of one head: live queries, and keys that they read."""
    tiles = -(-head.q_sizes // q_tile)
    owner = np.repeat(np.arange(len(tiles)), tiles)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
    return np.minimum(head.q_sizes[owner] - place * q_tile, q_tile), head.seen[owner]
