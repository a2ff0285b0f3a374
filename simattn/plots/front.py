"""Two goals against each other: every answer as a mark, and the front of those that nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any, Literal, NamedTuple

from .look import COLOURS, FAINT, SYMBOLS, figure

Better = Literal["low", "high"]


NAMED = 12
"""Names along a front, of more marks every second or third."""


class Mark(NamedTuple):
    """One answer: where it lies, what it is called, which kind it is of, and a shorter name for the front where there is one."""

    x: float
    y: float
    name: str
    kind: str = ""
    label: str = ""


def front(marks: Sequence[Mark], better: tuple[Better, Better] = ("low", "low"), gain: float = 0.0) -> list[Mark]:
    """The marks that no other beats in one goal without losing in the other, from left to right.

    A mark joins the front if along y it is better by more than the share `gain` than all that are as good along x.

    >>> marks = [Mark(1, 5, "a"), Mark(2, 3, "b"), Mark(3, 4, "c"), Mark(4, 2.99, "d")]
    >>> [mark.name for mark in front(marks)], [mark.name for mark in front(marks, gain=0.01)]
    (['a', 'b', 'd'], ['a', 'b'])
    """
    sign_x, sign_y = (1 if goal == "low" else -1 for goal in better)
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda m: (sign_x * m.x, sign_y * m.y)):
        if not best or sign_y * (best[-1].y - mark.y) > gain * abs(best[-1].y):
            best.append(mark)
    return sorted(best)


def front_figure(
    marks: Sequence[Mark],
    *,
    title: str,
    x: str,
    y: str,
    better: tuple[Better, Better] = ("low", "low"),
    gain: float = 0.0,
    log: tuple[bool, bool] = (False, False),
) -> Any:
    """All marks, by kind, and their front as a line with names.

    Parameters
    ----------
    x, y : str
        Titles of the axes, with units.
    better : pair of str
        Which way is better along x and along y.
    gain : float
        As of `front`.
    log : pair of bool
        Logarithmic axes.
    """
    drawn = figure(title, height=520)
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
    best = front(marks, better, gain)
    # Where both goals are better there is nothing else: that is where names have room.
    side = f"{'bottom' if better[1] == 'low' else 'top'} {'left' if better[0] == 'low' else 'right'}"
    line = {"color": FAINT, "width": 1.5, "dash": "dash"}
    drawn.add_scatter(x=[m.x for m in best], y=[m.y for m in best], mode="lines", name="front", line=line, hoverinfo="skip")
    named = best[:: -(-len(best) // NAMED)]
    words = [f" {m.label or m.name} " for m in named]
    names = {"text": words, "textposition": side, "textfont": {"size": 12}, "cliponaxis": False}
    drawn.add_scatter(x=[m.x for m in named], y=[m.y for m in named], mode="text", hoverinfo="skip", showlegend=False, **names)
    drawn.update_xaxes(title_text=x, **_scale([m.x for m in marks], log[0], better[0]))
    drawn.update_yaxes(title_text=y, **_scale([m.y for m in marks], log[1], better[1]))
    return drawn


def _scale(values: Sequence[float], log: bool, better: Better) -> dict[str, Any]:
    """An axis with room for names on its better side."""
    low, high = min(values), max(values)
    if log:
        low, high = log10(low), log10(high)
    span = (high - low) or 1.0
    room = (0.12, 0.04) if better == "low" else (0.04, 0.12)
    return {
        "type": "log" if log else "linear",
        "range": [low - room[0] * span, high + room[1] * span],
        "tickformat": ",",
        **({"dtick": 1} if log and span > 1 else {}),
    }
