"""Pictures of what a search found. They need the extra `viz`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from .facts import UserError
from .optimize.candidate import Configuration, Optimum

OTHER, FRONT, PERFECT, USUAL = "#b9b4a7", "#1f5f8b", "#2e8b57", "#e08e45"
"""Colours of configurations: beaten ones, those of the front, those of it that need no mask, the usual one."""


def write_pareto(found: Optimum, path: Path) -> None:
    """Write what was simulated as .png or .html: time against overlap or keys, or bars where neither differs.

    Raises
    ------
    UserError
        The drawing library is not installed.
    """
    try:
        (_write_png if path.suffix == ".png" else _write_html)(found, path)
    except ImportError as error:
        raise UserError(f"pictures need {error.name}: pip install 'simattn[viz]'") from None


class _View:
    """What is drawn: the axis against which time stands, and its scale."""

    def __init__(self, found: Optimum) -> None:
        rows = found.configurations
        self.by_keys = len({round(c.sparsity, 6) for c in rows}) > 1 and found.sparsity is None
        self.bars = not self.by_keys and len({c.shared for c in rows}) == 1
        self.label = "keys that a query sees (share of all)" if self.by_keys else "queries that share one window"
        self.title = f"{found.pattern} on {found.gpu}: {len(rows):,} simulated of {found.combinations:,} combinations"

    def value(self, c: Configuration) -> float:
        return 1 - c.sparsity if self.by_keys else c.shared


def _name(c: Configuration) -> str:
    params = ", ".join(f"{k} {'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in c.params.items())
    return f"{params}, tiles {'x'.join(map(str, c.q_tile))} / {'x'.join(map(str, c.kv_tile))}".removeprefix(", ")


def _bars(found: Optimum, most: int) -> tuple[list[str], list[Configuration]]:
    """Names and rows of bars: what differs among the fastest, and the usual setting."""
    rows = [*found.configurations[:most], found.usual]
    alike = {k for k, v in found.usual.params.items() if all(c.params.get(k) == v for c in rows)}
    names = [_name(msgspec.structs.replace(c, params={k: v for k, v in c.params.items() if k not in alike})) for c in rows]
    names[-1] = "usual: " + names[-1]
    return names, rows


def _short(c: Configuration) -> str:
    value = c.params.get("stride", next(iter(c.params.values()), c.q_tile))
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _groups(found: Optimum) -> list[tuple[str, str, list[Configuration]]]:
    front = [c for c in found.front if not c.perfect]
    perfect = [c for c in found.front if c.perfect]
    return [
        ("beaten", OTHER, [c for c in found.configurations if not c.front]),
        ("on the front", FRONT, front),
        ("on the front, fully block-sparse", PERFECT, perfect),
        ("usual setting", USUAL, [found.usual]),
    ]


def _write_png(found: Optimum, path: Path) -> None:
    from matplotlib.figure import Figure

    view = _View(found)
    names, rows = _bars(found, 30)
    figure = Figure(figsize=(8.5, 1.6 + 0.32 * len(rows)) if view.bars else (8.5, 5.5), layout="constrained")
    figure.suptitle(view.title, fontsize=10)
    axes = figure.add_subplot()
    axes.set_xlabel("latency (ms)")
    axes.grid(color="#e6e2d8", linewidth=0.6)
    axes.set_axisbelow(True)
    if view.bars:
        axes.barh(names, [c.attention_ms for c in rows], color=FRONT, label="attention")
        axes.barh(names, [c.side_ms for c in rows], left=[c.attention_ms for c in rows], color=USUAL, label="beside it")
        axes.set_xlim(0, 1.04 * max(c.latency_ms for c in rows))
        axes.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    else:
        front = sorted(found.front, key=lambda c: c.latency_ms)
        axes.step([c.latency_ms for c in front], [view.value(c) for c in front], where="post", color=FRONT, linewidth=1)
        for label, color, group in _groups(found):
            if group:
                marker, size = ("*", 140) if label == "usual setting" else ("o", 12 if label == "beaten" else 42)
                axes.scatter(
                    [c.latency_ms for c in group],
                    [view.value(c) for c in group],
                    c=color,
                    s=size,
                    marker=marker,
                    label=label,
                    zorder=2 if label == "beaten" else 3,
                )
        for c in front[:: max(1, len(front) // 12)]:
            axes.annotate(_short(c), (c.latency_ms, view.value(c)), xytext=(5, 5), textcoords="offset points", fontsize=7)
        axes.set_ylabel(view.label)
        if not view.by_keys:
            axes.set_yscale("log", base=2)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def _write_html(found: Optimum, path: Path) -> None:
    import plotly.graph_objects as go

    view, traces = _View(found), []
    if view.bars:
        names, rows = _bars(found, 40)
        for label, color, part in (("attention", FRONT, "attention_ms"), ("beside it", USUAL, "side_ms")):
            values = [getattr(c, part) for c in rows]
            traces.append(go.Bar(x=values, y=names, orientation="h", name=label, marker_color=color))
    else:
        front = sorted(found.front, key=lambda c: c.latency_ms)
        line: dict[str, Any] = {"color": FRONT, "width": 1, "shape": "hv"}
        steps = [view.value(c) for c in front]
        traces.append(go.Scatter(x=[c.latency_ms for c in front], y=steps, mode="lines", line=line, showlegend=False))
        for label, color, group in _groups(found):
            if group:
                symbol, size = ("star", 13) if label == "usual setting" else ("circle", 5 if label == "beaten" else 9)
                traces.append(
                    go.Scatter(
                        x=[c.latency_ms for c in group],
                        y=[view.value(c) for c in group],
                        mode="markers",
                        name=label,
                        marker={"color": color, "size": size, "symbol": symbol},
                        text=[f"{_name(c)}<br>{c.speedup:.2f} x dense, sparsity {100 * c.sparsity:.1f} %" for c in group],
                        hovertemplate="%{text}<br>%{x:.4g} ms<extra></extra>",
                    )
                )
    figure = go.Figure(traces)
    figure.update_xaxes(title="latency (ms)")
    if view.bars:
        figure.update_layout(barmode="stack")
        figure.update_yaxes(autorange="reversed")
    else:
        figure.update_yaxes(title=view.label, type="linear" if view.by_keys else "log")
    figure.update_layout(title={"text": view.title, "font": {"size": 14}}, template="plotly_white")
    figure.write_html(path, include_plotlyjs=True, full_html=True)
