"""Trials: an option that a source leaves out, and which of its values would reconcile a claim."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import exp, log
from typing import Any

NO_DIFFERENCE = 1.02
"""Most that values of an option may move a figure that does not hang on it."""


def fitting(ratios: dict[Any, float], allowed: float) -> str:
    """Values of an option at which predicted over published lies within a tolerance of 1: a range of numbers, or a list.

    Between two numbers that were tried, the ratio is taken to go straight in the logarithms (where a number is 0: of the ratio).

    >>> fitting({100: 0.5, 400: 2.0}, 0.1)
    '180 to 220'
    >>> fitting({"a100": 1.05, "h100": 0.4}, 0.1)
    'a100'
    """
    if not all(isinstance(value, int | float) for value in ratios):
        return listed(value for value, ratio in ratios.items() if abs(ratio - 1) <= allowed)
    low, high = log(1 - allowed), log(1 + allowed)
    forth, back = (log, exp) if min(ratios) > 0 else (float, float)
    points = sorted((forth(value), log(ratio)) for value, ratio in ratios.items())
    inside = [x for x, y in points if low <= y <= high]
    for (x0, y0), (x1, y1) in pairwise(points):
        for bound in (low, high):
            if min(y0, y1) < bound < max(y0, y1):
                inside.append(x0 + (bound - y0) / (y1 - y0) * (x1 - x0))
    return f"{back(min(inside)):.3g} to {back(max(inside)):.3g}"


def listed(values: Iterable[Any]) -> str:
    """Values in words.

    >>> listed([0.5, "a100", (256, 256)])
    '0.5, a100, 256x256'
    """
    return ", ".join("x".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
