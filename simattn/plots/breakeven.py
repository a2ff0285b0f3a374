"""Time of a pattern and of dense attention over the length or a parameter, and where the wanted speedup begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..breakeven import Breakeven
from .look import COLOURS, INK, SYMBOLS, figure


def breakeven_figure(found: Breakeven) -> Any:
    """Both times over what was varied, on two logarithmic scales, with the part of the pattern's that is beside its attention."""
    drawn = figure(f"{found.pattern} on {found.gpu}: {found.words()}", height=500)
    curves = (
        (f"{found.pattern} by {found.kernel}", [p.latency_ms for p in found.points], COLOURS[0], SYMBOLS[0], "solid"),
        ("of it beside the attention", [p.side_ms or None for p in found.points], COLOURS[0], SYMBOLS[1], "dot"),
        (f"dense by {found.dense_kernel}", [p.dense_ms for p in found.points], INK, SYMBOLS[2], "dash"),
    )
    for name, times, colour, symbol, dash in curves:
        if any(times):
            drawn.add_scatter(
                x=[p.value for p in found.points],
                y=times,
                mode="lines+markers",
                name=name,
                line={"color": colour, "dash": dash},
                marker={"color": colour, "symbol": symbol, "size": 7},
                customdata=[p.speedup for p in found.points],
                hovertemplate=f"{name}<br>{found.vary} %{{x:,.4g}}: %{{y:,.4g}} ms<br>%{{customdata:.2f}} x dense<extra></extra>",
            )
    if found.value is not None:
        drawn.add_vline(x=found.value, line={"color": INK, "width": 1, "dash": "solid"})
    drawn.update_xaxes(title_text=found.vary, type="log", tickformat=",", dtick=_ticks([p.value for p in found.points]))
    drawn.update_yaxes(
        title_text="time, ms", type="log", tickformat=",", dtick=_ticks([t for _, times, *_ in curves for t in times if t])
    )
    drawn.update_layout(legend={"orientation": "h", "y": -0.2})
    return drawn


def _ticks(values: Sequence[float]) -> Any:
    """Powers of ten, with twice and five times each where there is room."""
    return 1 if max(values) > 1e3 * min(values) else "D2"
