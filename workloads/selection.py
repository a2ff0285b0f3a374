"""Selection rules: which blocks of a score array are kept.

Pure functions on scores of shape [..., rows, columns]. A score of -inf marks a block that cannot be chosen (above the
diagonal, say). Where rules speak of mass, scores are shares of a row's softmax: not negative, and 0 where they cannot be chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[Any]
Bools = NDArray[np.bool_]


def top_k(scores: Scores, k: int | NDArray[np.int64]) -> Bools:
    """The `k` highest scores of each row, fewer where a row has fewer to choose from; `k` is one number or one per row.

    >>> top_k(np.array([[3.0, 1.0, 2.0], [1.0, -np.inf, -np.inf]]), 2).tolist()
    [[True, False, True], [True, False, False]]
    """
    most = min(int(np.max(k)), scores.shape[-1])
    if most < 1:
        return np.zeros(scores.shape, bool)
    if np.ndim(k) == 0 and most < scores.shape[-1]:
        chosen = np.argpartition(-scores, most - 1, axis=-1)[..., :most]
        ranks: Any = True
    else:
        chosen = np.argsort(-scores, axis=-1, kind="stable")[..., :most]
        ranks = np.arange(most) < np.asarray(k)[..., None]
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, chosen, ranks, axis=-1)
    return kept & (scores > -np.inf)


def row_mass(shares: Scores, mass: float) -> Bools:
    """The highest shares of each row until they hold `mass` of it, the one that crosses included.

    >>> row_mass(np.array([[0.1, 0.6, 0.3]]), 0.8).tolist()
    [[False, True, True]]
    """
    order = np.argsort(-shares, axis=-1, kind="stable")
    ranked = np.take_along_axis(shares, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    kept = np.zeros(shares.shape, bool)
    np.put_along_axis(kept, order, before < mass * shares.sum(-1, keepdims=True), axis=-1)
    return kept & (shares > 0)


def global_mass(shares: Scores, mass: float) -> Bools:
    """As `row_mass`, over the whole map of a head: rows compete.

    >>> global_mass(np.array([[0.9, 0.1], [0.4, 0.6]]), 0.75).tolist()
    [[True, False], [False, True]]
    """
    flat = shares.reshape(*shares.shape[:-2], 1, -1)
    return row_mass(flat, mass).reshape(shares.shape)


def global_threshold(scores: Scores, dropped: float) -> Bools:
    """All but the `dropped` share of a head's scores, with one threshold for the whole map: what equals it stays.

    >>> int(global_threshold(np.arange(100.0).reshape(10, 10), 0.9).sum())
    11
    """
    flat = scores.reshape(*scores.shape[:-2], -1)
    rank = max(int(dropped * flat.shape[-1]) - 1, 0)
    edge = np.partition(flat, rank, axis=-1)[..., rank]
    return np.asarray((scores >= edge[..., None, None]) & (scores > -np.inf), bool)


def threshold(scores: Scores, least: float) -> Bools:
    """Scores above a number.

    >>> threshold(np.array([[0.1, 0.3]]), 0.2).tolist()
    [[False, True]]
    """
    return np.asarray(scores > least, bool)


def relative_threshold(scores: Scores, share: float) -> Bools:
    """Scores of at least `share` of the highest of their row.

    >>> relative_threshold(np.array([[0.1, 0.3, 0.9]]), 0.3).tolist()
    [[False, True, True]]
    """
    return np.asarray((scores >= share * scores.max(-1, keepdims=True)) & (scores > 0), bool)


def forced(rows: int, columns: int, *, sinks: int = 0, local: NDArray[np.int64] | None = None, last_rows: int = 0) -> Bools:
    """Blocks that are kept whatever they score: bool [rows, columns].

    Parameters
    ----------
    sinks : int
        First columns, for every row.
    local : int array [rows, 2], optional
        First and end of the columns around the diagonal of each row.
    last_rows : int
        Rows at the end that keep everything.

    >>> forced(3, 3, sinks=1, last_rows=1).tolist()
    [[True, False, False], [True, False, False], [True, True, True]]
    """
    column = np.arange(columns)
    kept = np.broadcast_to(column < sinks, (rows, columns)).copy()
    if local is not None:
        kept |= (column >= local[:, :1]) & (column < local[:, 1:])
    kept[rows - last_rows :] = True
    return kept
