"""Clusters of queries and keys by k-means, and which of them see each other (SVG2).

The rule is that of svg-project/Sparse-VideoGen at 5ce7b01; its kernels find the same clusters but for the first centroids.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..selection import row_mass, top_k
from .scores import Bools, Floats, softmax

Ints = NDArray[np.int64]


class ClusterMap(NamedTuple):
    """Clusters of one head.

    Attributes
    ----------
    q_sizes, k_sizes : int64 array [clusters]
        Tokens of each cluster.
    kept : bool array [q clusters, k clusters]
        Clusters of keys that each cluster of queries sees.
    """

    q_sizes: Ints
    k_sizes: Ints
    kept: Bools


def k_means(x: Floats, clusters: int, iterations: int, seed: int) -> tuple[Ints, Floats]:
    """Cluster of each row of `x` [tokens, width], and the centroids; an empty cluster keeps its centroid.

    >>> labels, centroids = k_means(np.array([[0.0], [0.1], [9.0], [9.1]]), 2, 10, 0)
    >>> sorted(np.bincount(labels).tolist()), sorted(centroids.ravel().round(2).tolist())
    ([2, 2], [0.05, 9.05])
    """
    rng = np.random.default_rng(seed)
    centroids = x[rng.choice(len(x), clusters, replace=False)]
    labels = np.zeros(len(x), np.int64)
    for _ in range(iterations):
        # |x - c|^2 less |x|^2, which is the same for all centroids.
        labels = ((centroids**2).sum(1) - 2 * x @ centroids.T).argmin(1)
        count = np.bincount(labels, minlength=clusters)
        used = np.flatnonzero(count)
        order = np.argsort(labels, kind="stable")
        sums = np.add.reduceat(x[order], (np.cumsum(count) - count)[used])
        centroids[used] = sums / count[used, None]
    return labels, centroids


def cluster_map(
    q: Floats, k: Floats, q_clusters: int, k_clusters: int, *, mass: float, least: float, iterations: int, seed: int
) -> ClusterMap:
    """Clusters of a head's queries and keys [tokens, width], and those that hold `mass` of each other's attention.

    Scores are those of the centroids, each as often as its cluster has keys; at least the share `least` of the clusters is kept.
    Empty clusters are left out.
    """
    (q_labels, q_centres), (k_labels, k_centres) = (
        k_means(x, n, iterations, seed) for x, n in ((q, q_clusters), (k, k_clusters))
    )
    q_sizes, k_sizes = (np.bincount(labels, minlength=n) for labels, n in ((q_labels, q_clusters), (k_labels, k_clusters)))
    q_used, k_used = q_sizes > 0, k_sizes > 0
    scores = q_centres[q_used] @ k_centres[k_used].T / np.sqrt(q.shape[1])
    shares = softmax(scores + np.log(k_sizes[k_used]))[None]
    kept = row_mass(shares, mass) | top_k(shares, max(1, int(least * k_clusters)))
    return ClusterMap(q_sizes[q_used], k_sizes[k_used], kept[0])
