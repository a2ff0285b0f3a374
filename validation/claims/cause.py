"""Causes that the model itself shows: figures that no kernel could reach on the GPU."""

from __future__ import annotations

from .quantity import answer_to
from .setting import Ask

TIMES = ("kernel time", "kernel speedup")


def beyond(ask: Ask, published: float) -> str:
    """Why a figure is out of reach: live pairs at the peak tensor rate take longer; empty where they do not.

    Parameters
    ----------
    published : float
        The figure; a time in seconds.
    """
    if ask.setting.gives not in TIMES or ask.missing or ask.other:
        return ""
    answer = answer_to(ask.setting.pattern, ask.gpu, ask.call)
    ideal, dense = answer.waterfall[0].latency_ms * 1e-3, answer.dense.latency_ms * 1e-3
    if ask.setting.gives == "kernel time" and published < ideal:
        return f"its live pairs alone take {ideal * 1e3:.3g} ms at the peak tensor rate"
    if ask.setting.gives == "kernel speedup" and published > dense / ideal:
        most = f"{dense / ideal:.3g}x faster than {answer.dense.kernel}"
        return f"live pairs at the peak tensor rate are {most}: its baseline was slower"
    return ""
