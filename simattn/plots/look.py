"""The common look of all pictures: colours, a template, axes with units."""

from __future__ import annotations

from typing import Any

from ..facts import UserError

COLOURS = ("#2478b4", "#d87800", "#c00c54", "#9078fc", "#546c00", "#c0849c")
"""Told apart by colour-blind eyes, and each with a contrast of about 3 or more to white and to a dark page."""

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
"""Beside colours, where there may be more things than colours."""

INK, FAINT, GRID = "#767676", "#9a9a9a", "rgba(127,127,127,0.25)"
"""Words, lesser lines and grid lines: legible on white and on black. Pages replace them by the reader's own (`page.STYLE`)."""

EMPTY = "rgba(127,127,127,0.10)"
"""What is not computed."""

FULL, PARTIAL = COLOURS[0], COLOURS[1]
"""Tiles computed whole, and with a mask inside."""

WIDTH = 920
"""Pixels of a still picture; on a page a figure is as wide as the page."""

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def plotly() -> Any:
    """The module of plotly's figures.

    Raises
    ------
    UserError
        It is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise UserError(f"pictures need {error.name}: pip install 'simattn[viz]'") from None
    return go


def figure(title: str, *, height: int = 480, **layout: Any) -> Any:
    """An empty figure in the common look; transparent, so that it lies well on light and on dark."""
    axis = {
        "gridcolor": GRID,
        "linecolor": INK,
        "zerolinecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
        "exponentformat": "none",
    }
    look = {
        "title": {"text": title, "font": {"size": 16}, "x": 0, "xref": "paper", "xanchor": "left", "pad": {"b": 8}},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(COLOURS),
        "height": height,
        "margin": {"l": 72, "r": 24, "t": 64, "b": 64},
        "legend": {"bgcolor": "rgba(0,0,0,0)"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": COLOURS[0]},
        "hoverlabel": {"align": "left"},
        "xaxis": axis,
        "yaxis": axis,
    }
    found = plotly().Figure(layout={"template": {"layout": look}})
    found.update_layout(title_text=title, height=height, **layout)
    return found
