"""Predictions against measured times, errors, and errors by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..facts import UserError
from ..validation import FORWARD, PARTS, Row, is_dense
from .look import COLOURS, INK, figure
from .page import as_page

SYMBOLS = (("circle", "diamond"), ("square", "triangle-up"), ("cross", "x"))
"""Dense and sparse; those of GPUs beyond as many as there are colours."""

WITHIN = 0.1
"""Error that the plots mark."""

LOWEST, HIGHEST = -60, 80
"""Errors between which they are drawn, %."""


def validation_page(rows: Sequence[Row]) -> str:
    """A page of predicted over measured times, and errors by time and by group, for each class of the scoreboard.

    Raises
    ------
    UserError
        No row was simulated.
    """
    done = [row for row in rows if row.error is not None]
    if not done:
        raise UserError("no row was simulated, so there is nothing to draw")
    parts: list[Any] = ["<h1>Predictions against measured runs</h1>", _summary(rows, done)]
    for part in sorted({row.part for row in done}):
        members = [row for row in done if row.part == part]
        if part:
            parts.append(f"<h2>Class {part}: {PARTS[part]}</h2>")
        parts += [times_figure(members), errors_figure(members), groups_figure(members)]
    return as_page("simattn validate", parts)


def _summary(rows: Sequence[Row], done: Sequence[Row]) -> str:
    mean = 100 * sum(abs(row.error or 0) for row in done) / len(done)
    return (
        f"<p>{len(done):,} of {len(rows):,} rows were simulated; mean absolute error {mean:.1f} %. Circles, squares and crosses "
        f"are dense calls, diamonds, triangles and x sparse ones; dashed lines mark {100 * WITHIN:.0f} % either way. Point at a "
        "mark for its row, click a name to hide it.</p>"
    )


def times_figure(rows: Sequence[Row]) -> Any:
    """Predicted over measured time; on the line they are equal."""
    done = _simulated(rows)
    drawn = _over_time("Predicted and measured time", done, [row.predicted_ms or 0.0 for row in done], "ms predicted")
    times = [row.measured_ms or 1.0 for row in done]
    ends = [min(times) / 1.5, max(times) * 1.5]
    for factor in (1 / (1 + WITHIN), 1.0, 1 + WITHIN):
        line = {"color": INK, "width": 1, "dash": "solid" if factor == 1 else "dash"}
        drawn.add_scatter(x=ends, y=[x * factor for x in ends], mode="lines", line=line, showlegend=False, hoverinfo="skip")
    drawn.update_yaxes(title_text="predicted, ms", type="log", dtick=1, tickformat=",")
    return drawn


def errors_figure(rows: Sequence[Row]) -> Any:
    """Relative errors over measured time."""
    done = _simulated(rows)
    outside = sum(not LOWEST <= 100 * (row.error or 0) <= HIGHEST for row in done)
    beyond = f" ({outside} rows lie outside the picture)" if outside else ""
    drawn = _over_time(f"Error by time{beyond}", done, [100 * (row.error or 0) for row in done], "% error")
    for level in (-100 * WITHIN, 0.0, 100 * WITHIN):
        drawn.add_hline(level, line={"color": INK, "width": 1, "dash": "solid" if level == 0 else "dash"})
    drawn.update_yaxes(title_text="error: predicted over measured less one, %", range=[LOWEST, HIGHEST])
    return drawn


def groups_figure(rows: Sequence[Row]) -> Any:
    """Relative errors as a box for each GPU, kernel and kind."""
    groups: dict[str, list[float]] = {}
    for row in _simulated(rows):
        width = "" if not row.head_dim else f" D{row.head_dim}"
        name = f"{row.gpu} {row.kernel.split('/')[-1]} {_kind(row)}{width}"
        groups.setdefault(name, []).append(100 * (row.error or 0))
    drawn = figure("Errors by group", height=max(360, 21 * len(groups) + 130))
    for name in sorted(groups, reverse=True):
        colour = COLOURS[0] if " dense" in name else COLOURS[1]
        drawn.add_box(x=groups[name], name=name, marker={"color": colour, "size": 3}, line={"width": 1}, showlegend=False)
    for level in (-100 * WITHIN, 0.0, 100 * WITHIN):
        drawn.add_vline(level, line={"color": INK, "width": 1, "dash": "solid" if level == 0 else "dash"})
    drawn.update_xaxes(title_text="error: predicted over measured less one, %", range=[LOWEST, HIGHEST])
    drawn.update_yaxes(tickfont={"size": 11}, dtick=1, showgrid=False, ticks="")
    return drawn


def _simulated(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.error is not None]


def _over_time(title: str, rows: Sequence[Row], y: Sequence[float], unit: str) -> Any:
    """Marks over measured time: a colour a GPU, a symbol for dense and one for sparse calls."""
    drawn = figure(title, height=600)
    for number, gpu in enumerate(sorted({row.gpu for row in rows})):
        for dense in (True, False):
            own = [(row, value) for row, value in zip(rows, y, strict=True) if row.gpu == gpu and is_dense(row) == dense]
            if own:
                symbol = SYMBOLS[number // len(COLOURS) % len(SYMBOLS)][not dense]
                drawn.add_scatter(
                    x=[row.measured_ms for row, _ in own],
                    y=[value for _, value in own],
                    mode="markers",
                    name=f"{gpu}, {'dense' if dense else 'sparse'}",
                    marker={"color": COLOURS[number % len(COLOURS)], "symbol": symbol, "size": 5, "opacity": 0.7},
                    text=[row.id for row, _ in own],
                    hovertemplate=f"%{{text}}<br>measured %{{x:.4g}} ms<br>%{{y:.4g}} {unit}<extra></extra>",
                )
    drawn.update_layout(legend={"font": {"size": 12}, "itemsizing": "constant"})
    drawn.update_xaxes(title_text="measured, ms", type="log", dtick=1, tickformat=",")
    return drawn


def _kind(row: Row) -> str:
    """Dense or sparse, and the phase where it is not forward attention over a whole sequence."""
    return ("dense" if is_dense(row) else "sparse") + ("" if row.phase in FORWARD else f" {row.phase}")
