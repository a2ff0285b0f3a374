"""The roofline of a GPU, with patterns below it."""

from __future__ import annotations

from math import log10
from typing import Any

from ..report import LIMITER_WORDS
from ..roofline import Point, Roof, Roofline
from .look import COLOURS, INK, SYMBOLS, figure

DASHES = {"tensor": "solid", "ex2": "dash", "l2": "solid", "dram": "dash", "host": "dot"}

NAME_OF_L2 = 0.25
"""Height at which the name of L2 stands beside its slope, of the peak of the tensor cores."""


def roofline_figure(found: Roofline) -> Any:
    """Roofs as lines; each pattern twice at the height of its rate: over its bytes from L2 (hollow) and from DRAM (filled)."""
    points, roofs = found.points, found.roofs
    top = max(roof.tflops for roof in roofs if roof.tflops is not None)
    intensities = [x for p in points for x in (p.l2_intensity, p.dram_intensity)] or [1.0, 1e4]
    tensor = roofs[0].tflops or top
    # Room for the name of L2, on the left of its slope.
    names = [tensor * NAME_OF_L2 / ((roof.gbps or 0.0) / 1e3) / 5 for roof in roofs if roof.name == "l2"]
    low, high = min(*intensities, *names, 10.0) / 3, max(*intensities, 1e4) * 4
    floor = min([top / 300, *(p.tflops / 3 for p in points)])
    drawn = figure(f"Roofline of {found.title}: {found.dtype}, {found.clock_mhz:,.0f} MHz", height=560)
    for roof in roofs:
        _roof(drawn, roof, tensor, (low, high), floor)
    for number, point in enumerate(points):
        _point(drawn, point, COLOURS[number % len(COLOURS)], SYMBOLS[number % len(SYMBOLS)])
    drawn.update_xaxes(
        type="log",
        title_text="live FLOPs a byte moved (hollow marks: through L2; filled: from DRAM)",
        range=[log10(low), log10(high)],
        dtick=1,
        tickformat=",",
    )
    drawn.update_yaxes(type="log", title_text="live TFLOP/s", range=[log10(floor), log10(top * 2)], dtick=1, tickformat=",")
    return drawn


def _roof(drawn: Any, roof: Roof, tensor: float, across: tuple[float, float], floor: float) -> None:
    """A line with its name beside it."""
    low, high = across
    if roof.tflops is not None:
        words, above = f"{roof.words}, {roof.tflops:,.0f} TFLOP/s", roof.name == "tensor" or roof.tflops > 1.3 * tensor
        x, y = [low, high], [roof.tflops] * 2
        at, place = (high / 1.2, roof.tflops * (1.06 if above else 0.94)), f"{'top' if above else 'bottom'} left"
    else:
        slope = (roof.gbps or 0.0) / 1e3
        words = f"{roof.words}, {slope:,.1f} TB/s" if slope >= 1 else f"{roof.words}, {1e3 * slope:,.0f} GB/s"
        x, y = [floor / slope, tensor / slope], [floor, tensor]
        # Names stand where no other slope is: that of L2 above all slopes, the others below, at heights of their own.
        height = {"l2": tensor * NAME_OF_L2, "dram": max(3.2 * floor, 1.3 * low * slope), "host": 1.6 * floor}[roof.name]
        at, place = (height / slope, height), "middle left" if roof.name == "l2" else "middle right"
    line = {"color": INK, "width": 2, "dash": DASHES[roof.name]}
    hover = f"{words}<br>%{{x:,.3g}} FLOPs a byte: %{{y:,.3g}} TFLOP/s<extra></extra>"
    drawn.add_scatter(x=x, y=y, mode="lines", line=line, hovertemplate=hover, showlegend=False)
    name = {"x": [at[0]], "y": [at[1]], "text": [f" {words} "], "textposition": place, "textfont": {"size": 12}}
    drawn.add_scatter(**name, mode="text", hoverinfo="skip", showlegend=False)


def _point(drawn: Any, point: Point, colour: str, symbol: str) -> None:
    name = f"{point.pattern}, {point.kernel}"
    about = (
        f"<b>{point.pattern}</b> by {point.kernel}<br>{point.latency_ms:,.3g} ms, {point.speedup:.2f} x over dense<br>"
        f"{point.tflops:,.0f} TFLOP/s, {100 * point.tflops / point.roof_tflops:.0f} % of the lowest roof ({point.roof}, "
        f"{point.roof_tflops:,.0f})<br>limited by {LIMITER_WORDS[point.limiter]}<br>"
    )
    drawn.add_scatter(
        x=[point.l2_intensity, point.dram_intensity],
        y=[point.tflops, point.tflops],
        mode="lines+markers",
        name=name,
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "size": 11, "symbol": [f"{symbol}-open", symbol]},
        customdata=["L2", "DRAM"],
        hovertemplate=about + "%{x:,.0f} FLOPs a byte of %{customdata}<extra></extra>",
    )
