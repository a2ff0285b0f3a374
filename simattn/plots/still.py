"""A figure drawn by matplotlib, without a browser: the kinds of marks that our figures are made of, and no others."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from html import unescape
from io import BytesIO
from typing import Any

import numpy as np

from ..facts import UserError
from .look import COLOURS, GRID, INK, WIDTH

DOTS = 100
"""Pixels an inch, before they are scaled for fine screens."""

MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle-up": "^", "cross": "P", "x": "X"}
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
PLACES = {"left": ("right", -5), "center": ("center", 0), "right": ("left", 5)}
HEIGHTS = {"top": ("bottom", 4), "middle": ("center", 0), "bottom": ("top", -4)}
"""Where words stand beside a point, and how far away."""


def draw(figure: Any, scale: float = 2.0) -> bytes:
    """The figure as a PNG with a transparent ground, `scale` pixels for each of its own.

    Raises
    ------
    UserError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"still pictures need {error.name}: pip install 'simattn[viz]'") from None
    layout = figure.layout
    size = ((layout.width or WIDTH) / DOTS, layout.height / DOTS)
    canvas = Figure(figsize=size, dpi=scale * DOTS, layout="constrained")
    axes = canvas.add_subplot()
    axes.set_facecolor("none")
    bars = [trace for trace in figure.data if trace.type == "bar"]
    for number, trace in enumerate(figure.data):
        colour = COLOURS[number % len(COLOURS)]
        if trace.type == "bar":
            beside = (0, 1) if layout.barmode == "overlay" else (bars.index(trace), len(bars))
            _bars(axes, trace, colour, *beside)
        else:
            _KINDS[trace.type](axes, trace, colour)
    for shape in layout.shapes:
        rule, at = (axes.axvline, shape.x0) if shape.x0 == shape.x1 else (axes.axhline, shape.y0)
        rule(at, color=_colour(shape.line.color), linewidth=shape.line.width / 1.4, linestyle=DASHES[shape.line.dash])
    _dress(axes, layout)
    handles = axes.get_legend_handles_labels()[0]
    handles = handles[::-1] if layout.legend.traceorder == "reversed" else handles
    if handles and layout.showlegend is not False:
        below = (layout.legend.orientation or "v") == "h"
        place = {"loc": "outside lower center", "ncols": 3} if below else {"loc": "outside right upper"}
        canvas.legend(handles=handles, frameon=False, labelcolor=INK, fontsize=9, **place)
    canvas.suptitle(plain(layout.title.text), x=0.01, ha="left", color=INK, fontsize=11)
    target = BytesIO()
    canvas.savefig(target, format="png", transparent=True, metadata={"Software": None})
    return target.getvalue()


def plain(text: str | None) -> str:
    """Words without the marks of HTML.

    >>> plain("<b>4 &times; 2</b><br>TFLOP/s")
    '4 × 2\\nTFLOP/s'
    """
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"<br ?/?>", "\n", text or ""))).replace("$", r"\$")


def _label(trace: Any) -> str:
    return "_hidden" if trace.showlegend is False or not trace.name else plain(trace.name)


def _scatter(axes: Any, trace: Any, colour: str) -> None:
    mode, marker, line = trace.mode or "lines", trace.marker, trace.line
    x, y = _numbers(trace.x), _numbers(trace.y)
    label = _label(trace)
    if "lines" in mode:
        dash, width = DASHES[line.dash or "solid"], (line.width or 2) / 1.4
        steps = "steps-post" if line.shape == "hv" else "default"
        axes.plot(
            x,
            y,
            dash,
            color=_colour(line.color or colour),
            linewidth=width,
            drawstyle=steps,
            label="_line" * ("markers" in mode) or label,
        )
    if "markers" in mode:
        symbols = marker.symbol or "circle"
        alike = [(symbols, slice(None))] if isinstance(symbols, str) else [(s, slice(i, i + 1)) for i, s in enumerate(symbols)]
        for symbol, some in alike:
            paint = _colour(marker.color if isinstance(marker.color, str) else colour)
            style = {"markerfacecolor": "none" if symbol.endswith("-open") else paint, "markeredgecolor": paint}
            size, name = (marker.size or 7) * 0.75, "_open" if symbol.endswith("-open") else label
            axes.plot(
                x[some],
                y[some],
                MARKERS[symbol.removesuffix("-open")],
                markersize=size,
                alpha=marker.opacity or 1.0,
                label=name,
                markeredgewidth=1.2 if symbol.endswith("-open") else 0,
                **style,
            )
    if "text" in mode:
        places = trace.textposition or "middle center"
        places = [places] * len(x) if isinstance(places, str) else list(places)
        for at_x, at_y, words, place in zip(x, y, trace.text, places, strict=True):
            _words(axes, at_x, at_y, words, place, trace.textfont.size or 12)


def _words(axes: Any, x: Any, y: Any, words: str, place: str, size: float) -> None:
    high, _, side = place.partition(" ")
    (va, dy), (ha, dx) = HEIGHTS[high], PLACES[side]
    axes.annotate(
        plain(words), (x, y), (dx, dy), textcoords="offset points", ha=ha, va=va, color=INK, fontsize=size * 0.72, clip_on=False
    )


def _bars(axes: Any, trace: Any, colour: str, place: int, of: int) -> None:
    lying = trace.orientation == "h"
    names, lengths = (trace.y, trace.x) if lying else (trace.x, trace.y)
    at, thick = np.arange(len(names)), 0.8 / of
    middle = at + (place - (of - 1) / 2) * thick
    base = np.zeros(len(names)) if trace.base is None else _numbers(trace.base)
    paint = trace.marker.color or colour
    paint = [_colour(p) for p in ([paint] * len(names) if isinstance(paint, str) else paint)]
    (axes.barh if lying else axes.bar)(
        middle, _numbers(lengths), thick * 0.9, base, color=paint, alpha=trace.marker.opacity or 1.0, label=_label(trace)
    )
    (axes.set_yticks if lying else axes.set_xticks)(at, [plain(str(name)) for name in names])
    for where, start, length, words in zip(
        middle, base, _numbers(lengths), trace.text if trace.text is not None else (), strict=False
    ):
        end = (start + length, where) if lying else (where, start + length)
        _words(axes, *end, words, "middle right" if lying else "top center", 11)


def _heatmap(axes: Any, trace: Any, colour: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    z = _numbers(trace.z)
    dx, dy = trace.dx or 1, trace.dy or 1
    x0, y0 = trace.x0 or 0, trace.y0 or 0
    extent = (x0 - dx / 2, x0 - dx / 2 + z.shape[1] * dx, y0 - dy / 2 + z.shape[0] * dy, y0 - dy / 2)
    shades = LinearSegmentedColormap.from_list("shades", [(stop, _colour(paint)) for stop, paint in trace.colorscale], N=512)
    drawn = axes.imshow(z, cmap=shades, vmin=trace.zmin, vmax=trace.zmax, extent=extent, interpolation="nearest", aspect="auto")
    if trace.showscale is not False:
        bar = axes.figure.colorbar(drawn, ax=axes, shrink=0.5, anchor=(0, 1))
        if trace.colorbar.tickvals is not None:
            bar.set_ticks(list(trace.colorbar.tickvals), labels=list(trace.colorbar.ticktext))
        bar.set_label(plain(trace.colorbar.title.text), color=INK)
        bar.ax.tick_params(colors=INK, labelcolor=INK)
        bar.outline.set_visible(False)


def _box(axes: Any, trace: Any, colour: str) -> None:
    at, paint = len(axes.get_yticks()) if axes.has_data() else 0, _colour(trace.marker.color or colour)
    names = [tick.get_text() for tick in axes.get_yticklabels()] if at else []
    parts = axes.boxplot([_numbers(trace.x)], positions=[at], orientation="horizontal", widths=0.6, flierprops={"markersize": 2})
    for lines in parts.values():
        for line in lines:
            line.set(color=paint, markeredgecolor=paint, linewidth=1)
    axes.set_yticks(range(at + 1), [*names, plain(trace.name)])


_KINDS: dict[str, Callable[[Any, Any, str], None]] = {"scatter": _scatter, "heatmap": _heatmap, "box": _box}


def _numbers(values: Any) -> Any:
    """Values as an array, packed ones too; what is missing as NaN, so that lines break there."""
    if isinstance(values, dict):
        packed = np.frombuffer(b64decode(values["bdata"]), values["dtype"])
        return (
            packed.reshape([int(n) for n in values["shape"].split(",")]).astype(float)
            if "shape" in values
            else packed.astype(float)
        )
    return np.array([np.nan if v is None else v for v in values], float) if np.ndim(values) == 1 else np.asarray(values, float)


def _colour(text: str) -> Any:
    """A colour of CSS for matplotlib."""
    found = re.fullmatch(r"rgba\((.+)\)", text)
    if not found:
        return text
    red, green, blue, alpha = (float(part) for part in found[1].split(","))
    return (red / 255, green / 255, blue / 255, alpha)


def _dress(axes: Any, layout: Any) -> None:
    """Titles, ranges and ticks of both axes."""
    for side, own, limits, scale in (
        (layout.xaxis, axes.xaxis, axes.set_xlim, axes.set_xscale),
        (layout.yaxis, axes.yaxis, axes.set_ylim, axes.set_yscale),
    ):
        if side.type == "log":
            scale("log")
        if side.tickformat == ",":
            own.set_major_formatter(lambda value, place: f"{value:,g}")
        if side.range is not None:
            limits(*(10.0**end for end in side.range) if side.type == "log" else side.range)
        elif side.autorange == "reversed" and not axes.images:
            limits(*reversed(limits()))
        if side.tickvals is not None:
            own.set_ticks(list(side.tickvals), [plain(str(t)) for t in side.ticktext or side.tickvals])
            own.set_ticks([], minor=True)
        own.grid(side.showgrid is not False)
        own.set_tick_params(grid_color=_colour(GRID), grid_linewidth=0.7)
        own.label.set(text=plain(side.title.text), color=INK, fontsize=10)
    axes.tick_params(which="both", colors=_colour(GRID), labelcolor=INK, labelsize=9)
    axes.set_axisbelow(True)
    if layout.yaxis.scaleanchor:
        axes.set_aspect(layout.yaxis.scaleratio)
    for spine in axes.spines.values():
        spine.set_color(_colour(GRID))
