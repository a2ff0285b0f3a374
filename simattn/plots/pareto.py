"""What a search found: time against overlap or against the keys that a query sees, or bars where neither differs."""

from __future__ import annotations

from typing import Any

import msgspec

from ..optimize.candidate import RESOLUTION, Configuration, Optimum
from .front import Mark, front_figure
from .look import COLOURS, figure

MOST_BARS = 30
"""Configurations that are drawn as bars, fastest first."""


def pareto_figure(found: Optimum) -> Any:
    """Everything that was simulated, and the pattern's usual setting."""
    rows = found.configurations
    title = f"{found.pattern} on {found.gpu}: {len(rows):,} simulated of {found.combinations:,} combinations"
    by_keys = len({round(c.sparsity, 6) for c in rows}) > 1 and found.sparsity is None
    if not by_keys and len({c.shared for c in rows}) == 1:
        return _bars(found, title)
    marks = [_mark(c, _kind(c), by_keys) for c in sorted(rows, key=lambda c: (c.front, c.perfect))]
    return front_figure(
        [*marks, _mark(found.usual, "usual setting", by_keys)],
        title=title,
        x="keys that a query sees, share of all" if by_keys else "queries that share one window",
        y="latency, ms",
        better=("high" if by_keys else "low", "low"),
        gain=1 - 1 / RESOLUTION,
        log=(not by_keys, False),
    )


def _mark(c: Configuration, kind: str, by_keys: bool) -> Mark:
    name = f"{_name(c)}, {c.speedup:.2f} x dense, sparsity {100 * c.sparsity:.1f} %"
    label = _words(c.params.get("window" if by_keys else "stride", next(iter(c.params.values()), c.q_tile)))
    return Mark(1 - c.sparsity if by_keys else c.shared, c.latency_ms, name, kind, label)


def _kind(c: Configuration) -> str:
    if not c.front:
        return "beaten"
    return "on the front, fully block-sparse" if c.perfect else "on the front"


def _bars(found: Optimum, title: str) -> Any:
    """A bar each, of attention and of what runs beside it; named by what differs among them."""
    rows = [*found.configurations[:MOST_BARS], found.usual]
    alike = {k for k, v in found.usual.params.items() if all(c.params.get(k) == v for c in rows)}
    names = [_name(msgspec.structs.replace(c, params={k: v for k, v in c.params.items() if k not in alike})) for c in rows]
    names[-1] = f"usual: {names[-1]}"
    drawn = figure(title, height=160 + 28 * len(rows), barmode="overlay", legend={"orientation": "h", "y": -0.14})
    attention, beside = [c.attention_ms for c in rows], [c.side_ms for c in rows]
    drawn.add_bar(orientation="h", name="attention", y=names, x=attention, marker={"color": COLOURS[0]})
    drawn.add_bar(orientation="h", name="beside it", y=names, x=beside, base=attention, marker={"color": COLOURS[1]})
    drawn.update_xaxes(title_text="latency, ms", range=[0, 1.04 * max(c.latency_ms for c in rows)])
    drawn.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return drawn


def _name(c: Configuration) -> str:
    return ", ".join([*(f"{k} {_words(v)}" for k, v in c.params.items()), f"tiles {_words(c.q_tile)} / {_words(c.kv_tile)}"])


def _words(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
