"""Plots of predictions against measured times, as one page that needs no network. They need the extra `viz`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .facts import UserError
from .validation import Row

COLOURS = ("#1f5f8b", "#e08e45", "#4a9a62", "#b0413e", "#7b5ea7", "#8c6d46", "#3ba6a6", "#c98bb9", "#6f6f6f", "#a3a847")
"""Of GPUs; told apart by colour-blind eyes as far as ten can be, and by their place in the legend."""

SYMBOLS = {True: "circle", False: "diamond"}
"""Dense and sparse."""

STYLE = """
body { font-family: sans-serif; max-width: 1240px; margin: 24px auto; color: #222 }
h1 { font-size: 24px }
h2 { font-size: 19px; margin-top: 36px }
"""

WITHIN = 0.1
"""Error that the plots mark."""

HEIGHT = 620


def write_scatter(rows: Sequence[Row], path: Path) -> None:
    """Write predicted over measured times, and errors by time and by group, as HTML.

    Raises
    ------
    UserError
        plotly is not installed, or no row was simulated.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise UserError(f"plots need {error.name}: pip install 'simattn[viz]'") from None
    done = [row for row in rows if row.error is not None]
    if not done:
        raise UserError("no row was simulated, so there is nothing to draw")
    parts = sorted({row.part for row in done})
    sections = ["<h1>Predictions against measured runs</h1>", _summary(rows, done)]
    scripts: bool | str = True
    for part in parts:
        from .validation import PARTS

        members = [row for row in done if row.part == part]
        if part:
            sections.append(f"<h2>Class {part}: {PARTS[part]}</h2>")
        for figure in (_times(go, members), _errors(go, members), _groups(go, members)):
            sections.append(figure.to_html(include_plotlyjs=scripts, full_html=False))
            scripts = False
    body = "\n".join(sections)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>simattn validate</title><style>{STYLE}</style></head>'
        f"<body>{body}</body></html>",
        encoding="utf-8",
    )


def _summary(rows: Sequence[Row], done: Sequence[Row]) -> str:
    mean = 100 * sum(abs(row.error or 0) for row in done) / len(done)
    return (
        f"<p>{len(done):,} of {len(rows):,} rows were simulated; mean absolute error {mean:.1f} %. Circles are dense calls, "
        f"diamonds sparse ones; dashed lines mark {100 * WITHIN:.0f} % either way. Point at a mark for its row, click a name to "
        "hide it.</p>"
    )


def _kinds(rows: Sequence[Row]) -> list[tuple[str, bool, str, list[Row]]]:
    """(GPU, dense, colour, rows), in the order of the legend."""
    from .validation import is_dense

    gpus = sorted({row.gpu for row in rows})
    kinds = []
    for number, gpu in enumerate(gpus):
        for dense in (True, False):
            members = [row for row in rows if row.gpu == gpu and is_dense(row) == dense]
            if members:
                kinds.append((gpu, dense, COLOURS[number % len(COLOURS)], members))
    return kinds


def _marks(go: Any, kind: tuple[str, bool, str, list[Row]], y: list[float], unit: str) -> Any:
    gpu, dense, colour, members = kind
    return go.Scatter(
        x=[row.measured_ms for row in members],
        y=y,
        mode="markers",
        name=f"{gpu}, {'dense' if dense else 'sparse'}",
        marker={"color": colour, "symbol": SYMBOLS[dense], "size": 4, "opacity": 0.4},
        text=[row.id for row in members],
        hovertemplate=f"%{{text}}<br>measured %{{x:.4g}} ms<br>%{{y:.4g}} {unit}<extra></extra>",
    )


def _times(go: Any, rows: Sequence[Row]) -> Any:
    figure = go.Figure([_marks(go, kind, [row.predicted_ms or 0.0 for row in kind[3]], "ms predicted") for kind in _kinds(rows)])
    ends = [min(row.measured_ms or 1 for row in rows) / 1.5, max(row.measured_ms or 1 for row in rows) * 1.5]
    for factor in (1 / (1 + WITHIN), 1.0, 1 + WITHIN):
        dash = "solid" if factor == 1 else "dash"
        figure.add_scatter(
            x=ends, y=[x * factor for x in ends], mode="lines", line={"color": "#222", "width": 1, "dash": dash}, showlegend=False
        )
    return _titled(figure, "Predicted and measured time", "measured, ms", "predicted, ms", log_y=True)


def _errors(go: Any, rows: Sequence[Row]) -> Any:
    figure = go.Figure([_marks(go, kind, [100 * (row.error or 0) for row in kind[3]], "% error") for kind in _kinds(rows)])
    for level in (-100 * WITHIN, 0.0, 100 * WITHIN):
        figure.add_hline(level, line={"color": "#999", "width": 1, "dash": "solid" if level == 0 else "dash"})
    figure.update_yaxes(range=[-60, 80])
    outside = sum(not -0.6 <= (row.error or 0) <= 0.8 for row in rows)
    beyond = f" ({outside} rows lie outside the picture)" if outside else ""
    return _titled(figure, f"Error by time{beyond}", "measured, ms", "predicted over measured less one, %")


def _groups(go: Any, rows: Sequence[Row]) -> Any:
    """One box for each GPU, kernel and kind."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        width = "" if not row.head_dim else f" D{row.head_dim}"
        name = f"{row.gpu} {row.kernel.split('/')[-1]} {_kind(row)}{width}"
        groups.setdefault(name, []).append(100 * (row.error or 0))
    figure = go.Figure()
    for name in sorted(groups, reverse=True):
        colour = COLOURS[0] if " dense" in name else COLOURS[1]
        figure.add_box(x=groups[name], name=name, marker={"color": colour, "size": 3}, line={"width": 1}, showlegend=False)
    for level in (-100 * WITHIN, 0.0, 100 * WITHIN):
        figure.add_vline(level, line={"color": "#999", "width": 1, "dash": "solid" if level == 0 else "dash"})
    figure.update_layout(
        height=max(360, 21 * len(groups) + 120), template="plotly_white", title="Errors by group", margin={"l": 360}
    )
    figure.update_xaxes(title="predicted over measured less one, %", range=[-60, 80])
    figure.update_yaxes(tickfont={"size": 11}, dtick=1)
    return figure


def _kind(row: Row) -> str:
    """Dense or sparse, and the phase where it is not forward attention over a whole sequence."""
    from .validation import FORWARD, is_dense

    return ("dense" if is_dense(row) else "sparse") + ("" if row.phase in FORWARD else f" {row.phase}")


def _titled(figure: Any, title: str, x: str, y: str, *, log_y: bool = False) -> Any:
    figure.update_layout(
        title=title, height=HEIGHT, template="plotly_white", legend={"font": {"size": 12}, "itemsizing": "constant"}
    )
    figure.update_xaxes(title=x, type="log", dtick=1)
    figure.update_yaxes(title=y)
    if log_y:
        figure.update_yaxes(type="log", dtick=1)
    return figure
