"""The noise floor: how far measured runs of a table contradict each other, below which no model error can be told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .measurement import Measurement
from .protocol import window_of

LONG_MS = 0.3
"""Calls from which on launches do not bend the line over batches."""

LONG_TOKENS = 4096
"""Keys from which on the start of a window weighs nothing."""


class Floor(NamedTuple):
    """Medians of what should not differ, as fractions, with the number of comparisons; None where there are none.

    Attributes
    ----------
    windows : float
        Windows of B sequences of N tokens against B/2 of 2 N: the same work.
    batches : float
        Dense calls at batch 2 B against the line through B and 4 B, brought to the scatter of one call.
    sibling : float
        The same calls in another version of the framework, less the median change.
    """

    windows: float | None = None
    windows_n: int = 0
    batches: float | None = None
    batches_n: int = 0
    sibling: float | None = None
    sibling_n: int = 0


def noise_floor(runs: Iterable[Measurement], sibling: Iterable[Measurement] = ()) -> Floor:
    """The floor of a table's rows of one kernel; `sibling` are the rows of another version or framework on the same GPU."""
    times, other = _times(runs), _times(sibling)
    return Floor(*_median(_windows(times)), *_median(_batches(times)), *_median(_sibling(times, other)))


def _median(differences: list[float]) -> tuple[float | None, int]:
    return (float(np.median(np.abs(differences))) if differences else None, len(differences))


def _times(runs: Iterable[Measurement]) -> dict[Key, float]:
    """Milliseconds by shape, of prefills: in a decode, splits and L2 bend the line over batches and lengths."""
    return {
        _key(run): run.latency_ms for run in runs if run.latency_ms and not run.suspect and run.phase in ("prefill", "diffusion")
    }


Key = tuple[int, int, int, int, int, int]


def _key(run: Measurement) -> Key:
    """Batch, tokens, heads, KV heads, head dim and window."""
    return (run.batch or 0, run.seq_q or 0, run.q_heads or 0, run.kv_heads or 0, run.head_dim or 0, window_of(run))


def _windows(times: dict[Key, float]) -> list[float]:
    pairs = [
        (ms, times.get((batch // 2, 2 * tokens, heads, kv_heads, width, window)))
        for (batch, tokens, heads, kv_heads, width, window), ms in times.items()
        if batch % 2 == 0 and tokens >= LONG_TOKENS and 0 < window <= tokens // 16
    ]
    return [ms / twin - 1 for ms, twin in pairs if twin]


def _batches(times: dict[Key, float]) -> list[float]:
    found = []
    for (batch, tokens, heads, kv_heads, width, window), ms in times.items():
        twice, four_times = (times.get((batch * factor, tokens, heads, kv_heads, width, window)) for factor in (2, 4))
        if ms > LONG_MS and not window and twice and four_times:
            expected = ms + (four_times - ms) / 3
            # Of three calls with the same scatter, that of the middle one and 2/3 and 1/3 of the others' are in the difference.
            found.append((twice / expected - 1) / (1 + 4 / 9 + 1 / 9) ** 0.5)
    return found


def _sibling(times: dict[Key, float], other: dict[Key, float]) -> list[float]:
    ratios = np.array([ms / other[key] for key, ms in times.items() if ms > LONG_MS and key in other])
    return list(ratios / np.median(ratios) - 1) if len(ratios) else []
