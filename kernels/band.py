"""Bands: how far measured times lie from predicted ones, by class of call."""

from __future__ import annotations

from functools import cache
from math import ceil, floor
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

PROMISE = 0.9
"""Share of measured times that a band is to hold."""

ENOUGH = 19
"""Residuals of a class from which on they make a band of their own: so many have one rank that stands for the outermost 5 %."""


class Band(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quantiles of predicted over measured time, and how many residuals they rest on."""

    n: int
    low: float
    high: float


Bands = dict[str, Band]
"""By class of call."""


def classes(mask_class: str, head_dim: int, tokens: int) -> tuple[str, ...]:
    """The classes that a call belongs to, from the narrowest to that of all calls.

    >>> classes("window", 64, 8192)
    ('sparse, other head dims, 4k tokens and more', 'sparse, other head dims', 'sparse', 'all')
    """
    kind = "dense" if mask_class == "dense" else "sparse"
    width = f"{kind}, head dim 128" if head_dim == 128 else f"{kind}, other head dims"
    return (f"{width}, {size_class(tokens)}", width, kind, "all")


SIZES = ("under 1k tokens", "1k to 4k tokens", "4k tokens and more")


def size_class(tokens: int) -> str:
    """Class of a number of keys: starts and ends of CTAs weigh in short calls, the loop in long ones.

    >>> size_class(1023), size_class(4096)
    ('under 1k tokens', '4k tokens and more')
    """
    return SIZES[0] if tokens < 1024 else SIZES[1] if tokens < 4096 else SIZES[2]


def band(ratios: list[float]) -> Band:
    """The band that holds `PROMISE` of calls like those whose predicted over measured times are given.

    The ranks are those of the next call rather than of the given ones, so that few residuals make a wide band.

    >>> band([0.9, 1.0, 1.1])
    Band(n=3, low=0.9, high=1.1)
    """
    ordered, n = np.sort(np.array(ratios)), len(ratios)
    outside = (1 - PROMISE) / 2
    low = min(max(floor(outside * (n + 1)), 1), n)
    high = min(max(ceil((1 - outside) * (n + 1)), 1), n)
    return Band(n=n, low=round(float(ordered[low - 1]), 5), high=round(float(ordered[high - 1]), 5))


def bands(residuals: list[tuple[tuple[str, ...], float]]) -> Bands:
    """Bands of all classes with enough residuals; each of these is the classes of a call and its predicted over measured time."""
    members: dict[str, list[float]] = {}
    for names, ratio in residuals:
        for name in names:
            members.setdefault(name, []).append(ratio)
    return {name: band(found) for name, found in sorted(members.items()) if len(found) >= ENOUGH or name == "all"}


def narrowest(known: Bands, names: tuple[str, ...]) -> Band | None:
    """The band of the narrowest class that has one."""
    return next((known[name] for name in names if name in known), None)


@cache
def shared_bands() -> dict[str, Bands]:
    """Bands of kernels without a calibration of their own, by what their constants rest on: `simattn calibrate --all` made them.

    `profile`: nothing but the profile, or a relative of another kernel; `architecture`: the kernel's calibration on another GPU
    of the architecture; `generation`: on a GPU of another.
    """
    return msgspec.json.decode((Path(__file__).parent / "bands.json").read_bytes(), type=dict[str, Bands])
