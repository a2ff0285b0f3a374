"""The scoreboard page of the documentation, written anew from a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..kernels.band import PROMISE
from .bars import Reached, reached
from .causes import cause_of
from .compare import Row, is_dense
from .noise import Floor
from .protocol import MOST_OF_CLASS, SHORTEST_MS, makes_bands, protocol
from .scoreboard import PARTS, Board
from .scores import GroupScore, Score

HEADER = f"""\
# Accuracy

Written by `simattn validate --page docs/accuracy.md`; do not edit by hand. [validation](validation.md) says how it is done.

Errors are predicted over measured time, less one, in percent; bias is signed, negative where we are too fast. Predictions
are of fidelity `fast`. Four classes:

* **A, unseen GPU.** Serving tables of a GPU on which nothing was fitted: constants are those of the same kernel on another
  GPU.
* **B, same table.** A few constants were fitted to dense causal rows of head dim 128 of the table
  ([calibrations](calibrations.md)); scored are the rows that were not: the other half of these, sliding windows, other head
  dims.
* **C, published kernels.** Runs printed in papers and documentation; constants are those of the profiles, or borrowed.
* **D, scored only.** Tables of other frameworks, encoders, decode and fp8.

Of the tables (A, B, D) a fixed random choice of rows of each head dim and window is scored (at most {MOST_OF_CLASS["A"]},
{MOST_OF_CLASS["B"]} and {MOST_OF_CLASS["D"]}), and none shorter than {SHORTEST_MS} ms. Beside ours stand the FLOP bound
(live pairs at the peak tensor rate), the tile bound (whole tiles at that rate), and a roofline whose three constants were
fitted: in A and B to the rows that a calibration may see, in C and D to the very dense rows on which it is then scored.
Floor is how far the measured rows contradict each other. Tau is Kendall's: do we rank the patterns of a problem as they
were measured? Band is the share of rows that lie within the stated band, counted on rows that did not make it.

Not blind are choices that were revisited after a look at scored rows: the share of L2 bandwidth (1 of an achieved figure,
where it had been 0.77 of it), the clusters of FlashAttention-3's dense calls, the tile of cuDNN on Blackwell at head width
192, the operations of NATTEN's element mask (now counted in compiled code), the form of NATTEN's Hopper loop, whose
warpgroups run in step, the persistence of FlashAttention-3, what vLLM's FlashAttention-3 does otherwise (its tiles, how it
fetches packed Q and cuts windows), halves of wide heads on Blackwell, torch-sdpa on Hopper taken for cuDNN, profiles for
Triton's kernel that masks every tile and for its loop on Blackwell, the bandwidth of the KV-cache write as a constant that
is fitted, the point at which an L2 that is in one piece begins to miss, the loop of NATTEN on Ampere, the blocks of
FlexAttention's masks, the rate at which tensor memory is written (a measured one, where it had been that of reading), the
launch of one CTA a clock, the correction role of wide heads on Blackwell, the calls that a benchmark makes around those that
it times, the clock of the FlashAttention-3 paper, cuDNN's loops since their source was published, the masks of
FlashAttention-2's windows, where contention acts, the forms of SageAttention2 on Hopper, of MagiAttention's cuDNN calls and of
TileLang's baseline, where CTAs side by side take turns (and that they do not where nothing is fetched ahead), and, of
decoding, the tiles of FlashAttention-3, its parts in captured graphs, its search through the batch, the mask of its first
visit, and the copies around FlashAttention-2.
"""


def scoreboard_page(board: Board) -> str:
    """The page, in Markdown."""
    parts = [HEADER, "## The bars\n", _bars(reached(board.rows))]
    parts += [class_section(part, board) for part in PARTS if any(row.part == part for row in board.rows)]
    parts += ["## Noise floor of the tables\n", _floors(board.floors), "## Bands\n", _bands(board.rows)]
    return "\n".join(parts)


def _bars(found: Iterable[Reached]) -> str:
    lines = ["| class | rows | bar | reached | |", "|---|---|---:|---|---|"]
    for r in found:
        bar, values = r.bar, r.values
        words = bar.rows if bar.part in "CD" else f"{bar.rows}, {'other head dims' if bar.head_dims == 'other' else 'D128'}"
        words += f", {bar.size}" if bar.size else ""
        words += f", another GPU of the {bar.step}" if bar.step == "architecture" else ", another generation" if bar.step else ""
        words += ", power-limited" if bar.power_limited else ""
        statistic = {"mape": "MAPE", "median": "median", "bias": "bias", "speedup": "error of the speedup"}[bar.statistic]
        each = ", ".join(f"{name} {_percent(value)}" for name, value in sorted(values.items()))
        lines.append(f"| {bar.part} | {words}: {statistic} | {bar.limit:g} | {each} | {r.met} of {len(values)} |")
    return "\n".join(lines) + "\n"


def class_section(part: str, board: Board) -> str:
    """The section of a class, in Markdown."""
    rows = [row for row in board.rows if row.part == part]
    done = [row for row in rows if row.error is not None]
    skipped = Counter(row.skipped for row in rows if row.skipped)
    ours = [score for name, score in board.scores if name == part]
    sections = [
        f"## {part}: {PARTS[part]}\n",
        f"{len(done)} of {len(rows)} rows were simulated.\n",
        _known(part),
        _groups(ours, board),
    ]
    if done:
        sections += ["### The ten worst rows\n", _worst(sorted(done, key=lambda row: -abs(row.error or 0))[:10])]
    if part == "C":
        sections += ["### NATTEN, row by row\n", _row_table([row for row in done if row.kernel.startswith("natten")])]
    if skipped:
        counted = [f"| {n} | {why} |" for why, n in skipped.most_common()]
        sections += ["### Not simulated\n", "\n".join(["| rows | why |", "|---:|---|", *counted]) + "\n"]
    return "\n".join(section for section in sections if section)


def _known(part: str) -> str:
    """Of class A: what was known."""
    if part != "A":
        return ""
    lines = ["| target | constants of | step |", "|---|---|---|"]
    lines += [f"| {s.table} | {', '.join(s.knows)} | {s.step} |" for s in protocol().unseen]
    return "\n".join(lines) + "\n"


def _groups(scores: Iterable[GroupScore], board: Board) -> str:
    # Decode tables have no floor, and share GPU and kernel with those of prefill.
    known = {key: floor for key, floor in board.floors.items() if floor.windows_n + floor.batches_n}
    floors = {(table.split("/")[1], kernel): floor for (table, kernel), floor in known.items()}
    lines = [
        "| GPU | kernel | rows | n | MAPE (95 %) | median | p90 | max | bias | speedup | tau | band "
        "| FLOP | tile | roofline | floor |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for g in scores:
        s, (gpu, kernel, pattern, size) = g.simulated, g.group
        around = f" ({_percent(g.interval.low)} to {_percent(g.interval.high)})" if g.interval else ""
        floor = floors.get((gpu, kernel))
        least = (floor.windows if pattern.startswith("window") else floor.batches) if floor and "decode" not in pattern else None
        cells = [
            gpu,
            kernel,
            pattern if size == "all" else f"{pattern}, {size}",
            str(g.n),
            _percent(s.mape) + around,
            *(_percent(x) for x in (s.median, s.p90, s.max)),
            f"{100 * s.bias:+.1f}",
            _score(g.speedup),
            "" if g.tau is None else f"{g.tau:.2f}",
            "" if g.inside is None else f"{100 * g.inside:.0f} %",
            _score(g.flop_bound),
            _score(g.tile_bound),
            _score(g.roofline),
            "" if least is None else _percent(least),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _worst(rows: Iterable[Row]) -> str:
    lines = ["| run | measured ms | predicted ms | error | why |", "|---|---:|---:|---:|---|"]
    for r in rows:
        numbers = f"{r.measured_ms or 0:.4g} | {r.predicted_ms or 0:.4g} | {100 * (r.error or 0):+.1f}"
        lines.append(f"| {r.id} | {numbers} | {cause_of(r)} |")
    return "\n".join(lines) + "\n"


def _row_table(rows: Iterable[Row]) -> str:
    lines = [
        "| run | GPU | measured ms | predicted ms | error | speedup's error "
        "| FLOP bound ms | mean-tile bound ms | worst-tile bound ms |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        numbers = " | ".join(f"{x:.4g}" for x in (r.measured_ms or 0, r.predicted_ms or 0))
        bounds = " | ".join(f"{x:.4g}" for x in (r.flop_bound_ms or 0, r.tile_bound_ms or 0, r.worst_tile_ms or 0))
        speedup = "" if r.speedup_error is None else f"{100 * r.speedup_error:+.1f}"
        lines.append(f"| {r.id} | {r.gpu} | {numbers} | {100 * (r.error or 0):+.1f} | {speedup} | {bounds} |")
    return "\n".join(lines) + "\n"


def _floors(floors: dict[tuple[str, str], Floor]) -> str:
    words = (
        "Medians. Windows: B sequences of N tokens against B/2 of 2N, the same work. Batches: dense calls at batch 2B against "
        "the line through B and 4B. Sibling: the same calls in another version of the framework, less the median change.\n"
    )
    lines = ["| table | kernel | windows | n | batches | n | sibling | n |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    for (table, kernel), f in sorted((key, f) for key, f in floors.items() if f.windows_n + f.batches_n):
        cells = [
            f"{'' if value is None else _percent(value)} | {n}"
            for value, n in ((f.windows, f.windows_n), (f.batches, f.batches_n), (f.sibling, f.sibling_n))
        ]
        lines.append(f"| {table} | {kernel} | {' | '.join(cells)} |")
    return "\n".join([words, *lines]) + "\n"


def _bands(rows: Iterable[Row]) -> str:
    words = (
        f"Each is to hold {100 * PROMISE:.0f} % of the measured times. Bands are made from one half of the scored rows, by a "
        "hash, and counted on the other: of B by the kernel's calibration, of A by all rows of its step, of C by all published "
        "runs. Those of D are of whatever the prediction rests on; no row of D made any.\n"
    )
    counted: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        if row.error is not None and not makes_bands(row.id):
            for kind in ("all", "dense" if is_dense(row) else "sparse"):
                counted.setdefault((row.part, kind), []).append(row.inside)
    lines = ["| class | rows | n | within the band |", "|---|---|---:|---:|"]
    lines += [f"| {part} | {kind} | {len(c)} | {100 * sum(c) / len(c):.1f} % |" for (part, kind), c in sorted(counted.items())]
    return "\n".join([words, *lines]) + "\n"


def _score(s: Score | None) -> str:
    return "" if s is None else _percent(s.mape)


def _percent(x: float) -> str:
    return f"{100 * x:.1f}"
