"""The accuracy page of the documentation, written anew from a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..simulator.prediction import UNCALIBRATED_FACTOR
from .compare import GroupScore, Row, Score, group_scores

HEADER = """\
# Accuracy

Written by `simattn validate --page docs/accuracy.md`; do not edit by hand.

Predictions of fidelity `fast`. Kernel constants are those of the profiles, or where a calibration knows better, its own or those
that a kernel borrows from a relative ([calibrations](calibrations.md)). None was fitted to the rows below. Not blind are four
choices that were revisited after a look at some of them: the share of L2 bandwidth (1 of an achieved figure, where it had been
0.77 of it), the clusters of FlashAttention-3's dense calls, the tile of cuDNN on Blackwell at head width 192, and the operations
of NATTEN's element mask, now counted in compiled code. The form of NATTEN's Hopper loop was read in its source after its masked
runs had been missed, and so was the persistence of FlashAttention-3 after its short ones had been; NATTEN's warpgroups there were
taken to run in step after the loop as read had not been enough. Triton's kernel that masks every tile and its loop on Blackwell
got profiles of their own, from compiled code, after their runs had been seen.
Each published run of `validation/measured/published.jsonl` is simulated on the GPU that its label stands for
(`hwspecs/labels.toml`). Errors are predicted over measured time, less one, in percent; bias is signed, negative where we are too
fast. Beside them stand two estimators that need no simulator: the FLOP bound (live pairs at the peak tensor rate) and the tile
bound (whole tiles at the peak tensor rate). The width of the band was chosen after a look at these runs.
"""


def accuracy_page(rows: list[Row]) -> str:
    """The page, in Markdown."""
    scores = group_scores(rows)
    done = [row for row in rows if row.error is not None]
    factor = UNCALIBRATED_FACTOR
    inside = sum(1 / factor <= 1 + (row.error or 0) <= factor for row in done)
    skipped = Counter(row.skipped for row in rows if row.skipped)
    parts = [
        HEADER,
        f"{len(done)} of {len(rows)} runs were simulated; {100 * inside / max(len(done), 1):.0f} % of them lie within the band "
        f"that an uncalibrated prediction states (a factor of {factor:g} either way).\n",
        "## By GPU, kernel and pattern\n",
        _group_table(scores),
        "## NATTEN, row by row\n",
        _row_table([row for row in done if row.kernel.startswith("natten")]),
        "## The ten worst rows\n",
        _row_table(sorted(done, key=lambda row: -abs(row.error or 0))[:10]),
        "## Runs that were not simulated\n",
        "\n".join(["| runs | why |", "|---:|---|", *(f"| {n} | {why} |" for why, n in skipped.most_common())]) + "\n",
    ]
    return "\n".join(parts)


def _group_table(scores: Iterable[GroupScore]) -> str:
    lines = [
        "| GPU | kernel | pattern | runs | MAPE | median | p90 | max | bias | FLOP bound MAPE | bias | tile bound MAPE | bias |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for g in scores:
        s = g.simulated
        ours = " | ".join(_percent(x) for x in (s.mape, s.median, s.p90, s.max)) + f" | {_signed(s.bias)}"
        lines.append(f"| {g.gpu} | {g.kernel} | {g.pattern} | {g.n} | {ours} | {_naive(g.flop_bound)} | {_naive(g.tile_bound)} |")
    return "\n".join(lines) + "\n"


def _row_table(rows: Iterable[Row]) -> str:
    lines = [
        "| run | GPU | measured ms | predicted ms | error | FLOP bound ms | mean-tile bound ms | worst-tile bound ms |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        numbers = " | ".join(f"{x:.4g}" for x in (r.measured_ms or 0, r.predicted_ms or 0))
        bounds = " | ".join(f"{x:.4g}" for x in (r.flop_bound_ms or 0, r.tile_bound_ms or 0, r.worst_tile_ms or 0))
        lines.append(f"| {r.id} | {r.gpu} | {numbers} | {_signed(r.error or 0)} | {bounds} |")
    return "\n".join(lines) + "\n"


def _naive(s: Score) -> str:
    return f"{_percent(s.mape)} | {_signed(s.bias)}"


def _percent(x: float) -> str:
    return f"{100 * x:.1f}"


def _signed(x: float) -> str:
    return f"{100 * x:+.1f}"
