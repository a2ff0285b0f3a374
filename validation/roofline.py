"""The usual estimate, at its best: a roofline whose three constants are fitted to measured runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import NamedTuple

import numpy as np

from .compare import Row

ENOUGH = 6
"""Rows from which on three constants are fitted."""


class Roofline(NamedTuple):
    """max(FLOPs / rate, bytes / bandwidth) + overhead, in FLOP/ms, bytes/ms and ms; bytes are those of Q, K, V and O."""

    flop_per_ms: float
    bytes_per_ms: float
    overhead_ms: float

    def ms(self, row: Row) -> float:
        """Its estimate of a run.

        >>> Roofline(1e9, 1e9, 0.01).ms(Row("x", "g", "k", "dense", 1.0, flops=1e9, bytes=2e9))
        2.01
        """
        return max(row.flops / self.flop_per_ms, row.bytes / self.bytes_per_ms) + self.overhead_ms


def fitted_roofline(rows: Sequence[Row]) -> Roofline | None:
    """The roofline that fits some runs best; None where they are too few, or where scipy is not installed."""
    used = [row for row in rows if row.error is not None]
    if len(used) < ENOUGH:
        return None
    try:
        from scipy.optimize import least_squares
    except ImportError:
        return None
    flops, moved, measured = (np.array([getattr(row, name) for row in used]) for name in ("flops", "bytes", "measured_ms"))
    # From the fastest of the runs: no rate is far above what one of them reached.
    start = [log((flops / measured).max()), log((moved / measured).max()), log(measured.min() / 2)]

    def residuals(constants: np.ndarray) -> np.ndarray:
        rate, bandwidth, overhead = np.exp(constants)
        return np.asarray(np.log((np.maximum(flops / rate, moved / bandwidth) + overhead) / measured))

    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.1)
    return Roofline(*(exp(x) for x in found.x))
