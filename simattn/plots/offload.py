"""Decoding with keys and values in host memory, over the share of blocks that are on the GPU already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..simulator.offload import Offload
from .look import COLOURS, INK, SYMBOLS, figure

HIT_RATES = (*(n / 20 for n in range(20)), 0.98, 1.0)
"""Where a curve is simulated."""


def offload_figure(curves: Mapping[str, Sequence[Offload]]) -> Any:
    """Tokens a second of offloaded decoding over the hit rate, a curve a name; level, of each GPU: all keys and values on it."""
    first = next(iter(curves.values()))[0]
    gpus = list(dict.fromkeys(runs[0].gpu for runs in curves.values()))
    where = f" on {first.gpu}" if len(gpus) == 1 else ""
    drawn = figure(f"{first.model}{where}, {first.pattern}, {first.context:,} tokens a sequence", height=500)
    for number, (name, runs) in enumerate(curves.items()):
        _curve(drawn, name, runs, COLOURS[number % len(COLOURS)], SYMBOLS[number % len(SYMBOLS)])
    for gpu in gpus:
        number, run = next((n, runs[0]) for n, runs in enumerate(curves.values()) if runs[0].gpu == gpu)
        if run.resident is not None:
            drawn.add_scatter(
                x=[0, 100],
                y=[run.resident.tokens_per_s] * 2,
                mode="lines",
                name=f"all on {'the GPU' if len(gpus) == 1 else gpu}, {run.resident.batch} sequences",
                line={"color": INK if len(gpus) == 1 else COLOURS[number % len(COLOURS)], "dash": "dash", "width": 1.5},
                hovertemplate="%{y:,.0f} tokens/s<extra></extra>",
            )
    drawn.update_xaxes(title_text="blocks of a step that are on the GPU already, %", range=[-2, 102])
    drawn.update_yaxes(title_text="tokens a second", rangemode="tozero", tickformat=",")
    drawn.update_layout(legend={"orientation": "h", "y": -0.2})
    return drawn


def _curve(drawn: Any, name: str, runs: Sequence[Offload], colour: str, symbol: str) -> None:
    bound, batch = runs[0].link_bound_below, runs[0].offloaded.batch
    drawn.add_scatter(
        x=[100 * run.hit_rate for run in runs],
        y=[run.offloaded.tokens_per_s for run in runs],
        mode="lines+markers",
        name=f"{name}, {batch} sequences",
        line={"color": colour},
        marker={"color": colour, "symbol": symbol, "size": 8},
        customdata=[
            [run.offloaded.step_ms, run.offloaded.host_link_ms, "link" if run.hit_rate < bound else "GPU"] for run in runs
        ],
        hovertemplate=f"{name}<br>%{{x:g}} % hits: %{{y:,.0f}} tokens/s<br>step %{{customdata[0]:,.2f}} ms, host link busy "
        "%{customdata[1]:,.2f} ms<br>the %{customdata[2]} sets the pace<extra></extra>",
    )
