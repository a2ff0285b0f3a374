"""Times of a sweep over what varies, and of the dense call beside them."""

from __future__ import annotations

from typing import Any

from ..facts import UserError
from ..sweeps import Sweep
from ..sweeps.row import Row
from ..sweeps.spec import text_of
from .look import COLOURS, INK, SYMBOLS, figure


def sweep_figure(answer: Sweep) -> Any:
    """Time over the name that varies first; a curve for each combination of the others, the fastest where there are many.

    Raises
    ------
    UserError
        Nothing varies, or no point has an answer.
    """
    rows = [row for row in answer.rows if row["error"] is None]
    spec = answer.spec
    lists = [name for name, names in (("gpu", spec.hw), ("pattern", spec.patterns), ("kernel", spec.kernels)) if len(names) > 1]
    varied = [name for name in (*spec.vary, *lists) if len({row.get(name) for row in rows}) > 1]
    if not varied:
        raise UserError("a picture of a sweep needs a name that varies, and two points with an answer")
    across, others = varied[0], varied[1:]
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        curves.setdefault(tuple(row[name] for name in others), []).append(row)
    drawn = sorted(curves, key=lambda own: min(row["latency_ms"] for row in curves[own]))[: len(COLOURS)]
    values = sorted({row[across] for row in rows}, key=lambda value: (isinstance(value, str), value))
    more = "" if len(drawn) == len(curves) else f": the fastest {len(drawn)} of {len(curves)} curves"
    made = figure(f"{', '.join(sorted({row['pattern'] for row in rows}))} over {across}{more}", height=500)
    for own, colour, symbol in zip(drawn, COLOURS, SYMBOLS, strict=False):
        name = ", ".join(f"{title} {text_of(value)}" for title, value in zip(others, own, strict=True)) or "time"
        found = sorted(curves[own], key=lambda row: values.index(row[across]))
        made.add_scatter(
            x=[values.index(row[across]) for row in found],
            y=[row["latency_ms"] for row in found],
            mode="lines+markers",
            name=name,
            line={"color": colour},
            marker={"color": colour, "symbol": symbol, "size": 8},
            customdata=[[*(row[column] for column in _SHOWN), text_of(row[across])] for row in found],
            hovertemplate=f"{name}<br>{across} %{{customdata[6]}}: %{{y:,.4g}} ms, %{{customdata[0]:.2f}} x dense<br>"
            "tiles: %{customdata[1]:,} visited, %{customdata[2]:,} full, %{customdata[3]:,} partial<br>"
            "%{customdata[4]} CTAs an SM, limiter %{customdata[5]}<extra></extra>",
        )
    dense = {value: {row["dense_ms"] for row in rows if row[across] == value} for value in values}
    if all(len(times) == 1 for times in dense.values()):
        made.add_scatter(
            x=list(range(len(values))),
            y=[min(times) for times in dense.values()],
            mode="lines",
            name="dense",
            line={"color": INK, "dash": "dash"},
            hovertemplate="dense: %{y:,.4g} ms<extra></extra>",
        )
    most = max(time for trace in made.data for time in trace.y)
    made.update_xaxes(title_text=across, tickvals=list(range(len(values))), ticktext=[text_of(value) for value in values])
    made.update_yaxes(title_text="time, ms", range=[0, 1.05 * most], tickformat=",")
    made.update_layout(legend={"orientation": "h", "y": -0.2}, showlegend=True)
    return made


_SHOWN = ("speedup", "tiles_visited", "tiles_full", "tiles_partial", "ctas_per_sm", "limiter")
