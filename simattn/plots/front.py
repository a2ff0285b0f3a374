"""Two goals against each other: every answer as a mark, and the front of those that nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from .look import COLOURS, FAINT, SYMBOLS, figure

Better = Literal["low", "high"]


class Mark(NamedTuple):
    """One answer: where it lies, what it is called, and which kind it is of."""

    x: float
    y: float
    name: str
    kind: str = ""


def front(marks: Sequence[Mark], better: tuple[Better, Better]) -> list[Mark]:
    """The marks that no other beats in one goal without losing in the other, from left to right.

    >>> marks = [Mark(1, 5, "a"), Mark(2, 3, "b"), Mark(3, 4, "c"), Mark(4, 1, "d")]
    >>> [mark.name for mark in front(marks, ("low", "low"))]
    ['a', 'b', 'd']
    """
    sign_x, sign_y = (1 if goal == "low" else -1 for goal in better)
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda m: (sign_x * m.x, sign_y * m.y)):
        if not best or sign_y * mark.y < sign_y * best[-1].y:
            best.append(mark)
    return sorted(best)


def front_figure(
    marks: Sequence[Mark],
    *,
    title: str,
    x: str,
    y: str,
    better: tuple[Better, Better] = ("low", "low"),
    named: Sequence[str] = (),
    log: tuple[bool, bool] = (False, False),
) -> Any:
    """All marks, by kind, and their front as a line.

    Parameters
    ----------
    x, y : str
        Titles of the axes, with units.
    better : pair of str
        Which way is better along x and along y.
    named : sequence of str
        Names that stand beside their marks; all are shown where one points.
    log : pair of bool
        Logarithmic axes.
    """
    drawn = figure(title, height=520)
    best = front(marks, better)
    drawn.add_scatter(
        x=[m.x for m in best],
        y=[m.y for m in best],
        mode="lines",
        name="front",
        line={"color": FAINT, "width": 1.5, "dash": "dash"},
    )
    kinds = list(dict.fromkeys(mark.kind for mark in marks))
    for number, kind in enumerate(kinds):
        own = [mark for mark in marks if mark.kind == kind]
        drawn.add_scatter(
            x=[m.x for m in own],
            y=[m.y for m in own],
            text=[m.name for m in own],
            mode="markers",
            name=kind,
            showlegend=bool(kind),
            marker={
                "color": COLOURS[number % len(COLOURS)],
                "symbol": SYMBOLS[number % len(SYMBOLS)],
                "size": 9,
                "opacity": 0.85,
            },
            hovertemplate=f"<b>%{{text}}</b><br>{x}: %{{x:,.4g}}<br>{y}: %{{y:,.4g}}<extra></extra>",
        )
    shown = [mark for mark in marks if mark.name in named]
    drawn.add_scatter(
        x=[m.x for m in shown],
        y=[m.y for m in shown],
        text=[m.name for m in shown],
        mode="text",
        textposition="top center",
        textfont={"size": 12},
        hoverinfo="skip",
        showlegend=False,
    )
    drawn.update_xaxes(title_text=x, type="log" if log[0] else "linear")
    drawn.update_yaxes(title_text=y, type="log" if log[1] else "linear")
    return drawn
