"""What a search found, as a table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..fitting import print_fitting
from .candidate import Configuration, Optimum

LONGEST = 24
"""Rows of the front that are shown; JSON has all."""


def print_optimum(found: Optimum) -> None:
    """Print the front, fastest first, and what the pattern's own setting loses against it."""
    console = Console(highlight=False, width=None)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(
        Text.assemble(
            (found.pattern, "bold"), f" on {found.gpu}, dense {found.dense_ms:,.4g} ms by {found.dense_kernel}", end="\n\n"
        )
    )
    front = found.front
    varied = list(dict.fromkeys(name for c in front for name in c.params))
    shared = len({c.shared for c in found.configurations}) > 1
    titles = [*varied, "q tile", "kv tile", "visited", *(["queries\na window"] if shared else []), "sparsity", "perfect"]
    titles += ["attention", "beside", "ms", "speedup", "by FLOPs", "by worst tile"]
    if len({c.kernel for c in found.configurations}) > 1:
        titles.insert(len(varied), "kernel")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(Text(title), justify="left" if title in (*varied, "kernel") else "right", no_wrap=True)
    shown = front if len(front) > 1 else found.configurations
    for c in shown[:LONGEST]:
        row = _row(c, varied)
        table.add_row(*(Text(row[title], style="bold" if c.perfect else "") for title in titles))
    print_fitting(console, table, ("by worst tile", "by FLOPs", "sparsity", "visited", "beside", "attention"), "--json")
    if len(shown) > LONGEST:
        console.print(f"... and {len(shown) - LONGEST} more (--json)")
    console.print("\nvisited: tiles, over all heads; attention and beside: ms of the attention kernels and of those beside them")
    if any(c.perfect for c in shown[:LONGEST]):
        console.print("perfect: fully block-sparse, no visited tile needs an element mask")
    _print_usual(console, found)
    console.print(
        f"{found.combinations:,} combinations, {found.distinct:,} that tiles can tell apart, {found.simulated:,} simulated, "
        f"in {found.seconds:.1f} s"
    )
    if found.unresolved:
        console.print(f"{found.unresolved:,} more might belong to the front: closed forms do not rule them out (--most)")


def _print_usual(console: Console, found: Optimum) -> None:
    usual, best = found.usual, found.best
    where = " ".join(f"{name} {_value(value)}" for name, value in usual.params.items())
    by = "" if usual.kernel == best.kernel else f"{usual.kernel}, "
    tiles = f"{by}tiles {_value(usual.q_tile)} / {_value(usual.kv_tile)}"
    loss = usual.latency_ms / best.latency_ms
    words = f"{loss:.2f} x the fastest above" if loss > 1.005 else "faster than all above" if loss < 0.995 else "as fast"
    console.print(f"\nusual setting: {where}{', ' if where else ''}{tiles}: {_ms(usual.latency_ms)} ms, {words}")


def _row(c: Configuration, varied: list[str]) -> dict[str, str]:
    return {
        **{name: _value(c.params.get(name, "")) for name in varied},
        "kernel": c.kernel,
        "q tile": _value(c.q_tile),
        "kv tile": _value(c.kv_tile),
        "visited": f"{c.visited:,}",
        "queries\na window": f"{c.shared:,}",
        "sparsity": f"{100 * c.sparsity:.1f} %",
        "perfect": "●" if c.perfect else "",
        "attention": _ms(c.attention_ms),
        "beside": _ms(c.side_ms),
        "ms": _ms(c.latency_ms),
        "speedup": f"{c.speedup:.2f}",
        "by FLOPs": f"{c.bound_flop:.2f}",
        "by worst tile": f"{c.bound_worst:.2f}",
    }


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def _value(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
