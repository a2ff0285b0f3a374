"""Answers for people: tables and bars in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .fitting import print_fitting, print_wrapped

if TYPE_CHECKING:
    from .comparison import Comparison
    from .explain import Explanation, Measured
    from .hwspecs import GpuSpec
    from .simulator.prediction import KernelRun, Prediction

STAGE_WORDS = {
    "ideal": "live pairs at the peak tensor rate",
    "tiles": "whole tiles are computed",
    "padding": "rows and keys that fill up tiles",
    "pipeline": "softmax, masks and stalls that tensor work does not hide",
    "memory": "L2 and DRAM bandwidth",
    "schedule": "start and end of CTAs, waves, imbalance, tail",
    "clock": "the clock falls under load",
    "launch": "kernel launches",
    "side": "kernels beside the attention",
}
"""What each stage of the waterfall adds, in words."""

LIMITER_WORDS = {
    "tensor": "the live work itself, at the peak of the tensor cores",
    "l2": "the bandwidth of L2",
    "dram": "the bandwidth of DRAM",
} | STAGE_WORDS

WIDEST = 600
"""Columns where lines hold whole sentences."""

ROOMY = 120
"""Columns of a terminal from which the waterfall has room for words."""


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], spare: Sequence[str] | None = None) -> None:
    """Print a plain table to stdout, numbers to the right.

    Where it is too wide even with broken lines it goes without `spare` columns, first to last; by default these are the ones with
    words, but for the first of them, from the last on.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    for title, right in zip(header, numeric, strict=True):
        table.add_column(Text(title), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_number(cell)) for cell in row))
    if spare is None:
        spare = [title for title, right in zip(header, numeric, strict=True) if not right][:0:-1]
    print_wrapped(_console(), table, spare, "--json")


def print_comparison(c: Comparison) -> None:
    """Print ranked rows, and below them why others have no answer."""
    console = _console()
    answered = [row for row in c.rows if row.error is None]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "",
        "pattern",
        "GPU",
        "kernel",
        "latency",
        "band",
        "speedup",
        "by FLOPs",
        "by tiles",
        "kept",
        "beside",
        "limiter",
    ):
        words = title in ("pattern", "GPU", "kernel", "limiter")
        table.add_column(Text(title), justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for rank, row in enumerate(answered, 1):
        table.add_row(
            str(rank),
            Text(row.pattern + ("" if row.exactness == "exact" else "~")),
            Text(row.gpu),
            Text(f"{row.kernel}{'' if row.calibrated else '*'}"),
            _ms(row.latency_ms or 0.0),
            f"{_ms(row.latency_ms_low or 0.0)} to {_ms(row.latency_ms_high or 0.0)}",
            f"{row.speedup:.2f} x",
            f"{row.bound_flop:.2f} x",
            f"{row.bound_tiles:.2f} x",
            f"{100 * (row.density or 0):.1f} %",
            f"{100 * (row.side_ms or 0) / (row.latency_ms or 1):.0f} %",
            Text(row.limiter or ""),
        )
    print_fitting(console, table, ("band", "by FLOPs", "by tiles", "kept", "beside"), "--csv")
    console.print(
        Text(
            "speedup: over the fastest dense kernel on the same GPU; bounds by live FLOPs, by tiles; kept: live pairs over those "
            "of the dense call; beside: share of the time in kernels beside the attention\n"
            "* not calibrated on this GPU: a wide band; ~ an approximation of what was published (simattn patterns show NAME)",
            "dim",
        )
    )
    for row in c.rows:
        if row.error is not None:
            console.print(Text(f"{row.pattern} on {row.gpu}: {row.error}"))


def print_prediction(p: Prediction, spec: GpuSpec) -> None:
    """Print a prediction so that a person understands it at first sight."""
    console, problem = _console(), p.problem

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style))

    grid = " x ".join(str(n) for n in problem["grid"])
    same = problem["q_heads"] == problem["kv_heads"]
    heads = f"{problem['q_heads']} heads" if same else f"{problem['q_heads']} query and {problem['kv_heads']} K/V heads"
    text = f" + {problem['text']} text tokens" if problem["text"] else " tokens"
    queries = f", {problem['seq_q']:,} queries" if problem["seq_q"] != problem["seq_kv"] else ""
    shown = [f"{key}={_value(value)}" for key, value in p.pattern_params.items() if value not in (None, "")]
    say(f"{p.pattern} on {spec.title}", "bold")
    say(f"kernel {p.kernel}, tiles of {_value(p.q_tile)} queries by {_value(p.kv_tile)} keys")
    say(f"batch {problem['batch']}, {heads} of {problem['head_dim']}, {problem['dtype']}; grid {grid}{text}{queries}")
    say(f"{'  '.join(shown)}\n", "dim")

    b, t, dense = p.bounds, p.tiles, "causal dense" if problem["causal"] else "dense"
    answer = Table.grid(padding=(0, 2))
    answer.add_row(
        "latency", Text(_ms(p.latency_ms), "bold"), f"band {_ms(p.latency_ms_low)} to {_ms(p.latency_ms_high)}; {_trust(p)}"
    )
    answer.add_row(
        "speedup",
        Text(f"{p.speedup:.2f} x", "bold"),
        f"over {dense} on the same GPU: {p.dense.kernel}, {_ms(p.dense.latency_ms)}",
    )
    answer.add_row("rate", f"{p.tflops:,.0f} TFLOP/s", "of live work")
    answer.add_row(
        "bounds", f"{b.flop:.2f} x", f"by live FLOPs; {b.tile_mean:.2f} x by tiles; worst tile (no bound) {b.tile_worst:.2f} x"
    )
    if p.blocks:
        kept = p.blocks.active / p.blocks.total
        answer.add_row(
            "blocks", f"{100 * kept:.1f} %", f"{p.blocks.active:,} of {p.blocks.total:,} blocks of {p.blocks.size} a head"
        )
    answer.add_row(
        "tiles",
        f"{100 * p.density.tiles:.1f} %",
        f"{t.visited:,} visited ({t.partial:,} partial) of {t.dense:,} {dense}, all heads",
    )
    console.print(answer, highlight=False)

    say("\nWhere the time goes (ms)", "bold")
    console.print(_waterfall(p, console.width), highlight=False)
    if len(p.attention) > 1 or p.attention[0].launches > 1:
        say(f"attention: {'; '.join(map(_kernel_run, p.attention))}")
    if p.side:
        say(f"beside the attention: {'; '.join(f'{op.op}, {_ms(op.latency_ms)}' for op in p.side)}")
    share = 100 * limiter_cost(p, p.limiter) / p.latency_ms
    say(f"\nlimited by {LIMITER_WORDS[p.limiter]}: {share:.0f} % of the time")
    say(f"units busy: {', '.join(f'{unit} {100 * part:.0f} %' for unit, part in p.utilization.items())}", "dim")
    needed = _bytes_needed(p)
    if spec.mem.dram.capacity_gib and needed > spec.mem.dram.capacity_gib * 2**30:
        say(f"Q, K, V and O take {needed / 2**30:,.0f} GiB, and the GPU has {spec.mem.dram.capacity_gib:g}", "bold")
    say(assumed(p), "dim")


def print_explanation(e: Explanation, spec: GpuSpec) -> None:
    """Print both waterfalls side by side, the verdict, and what was asked besides."""
    console, p = _console(WIDEST), e.prediction

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style))

    dense = "causal dense" if p.problem["causal"] else "dense"
    say(f"{p.pattern} on {spec.title}", "bold")
    say(f"sparse: kernel {p.kernel}, tiles of {_value(p.q_tile)} queries by {_value(p.kv_tile)} keys; {dense}: {p.dense.kernel}")
    say(
        f"{_ms(p.latency_ms)} against {_ms(p.dense.latency_ms)}: {p.speedup:.2f} x (band {_ms(p.latency_ms_low)} to "
        f"{_ms(p.latency_ms_high)}; {_trust(p)})\n"
    )
    say(e.verdict)
    if e.measured:
        say(f"\nmeasured {_ms(e.measured.latency_ms)}", "bold")
        say(e.measured.words)

    roomy = console.width >= ROOMY
    say("\nWhere the speedup goes", "bold")
    table = _columns("stage", "sparse ms", "dense ms", "speedup", "factor", *["why"] * roomy)
    for s in e.stages:
        table.add_row(
            s.stage,
            _digits(s.latency_ms, p.latency_ms),
            _digits(s.dense_latency_ms, p.dense.latency_ms),
            f"{s.speedup:.2f} x",
            f"{s.factor:.2f}" if s.stage == "ideal" else f"x {s.factor:.3f}",
            *[Text(s.cause, "dim")] * roomy,
        )
    console.print(table, highlight=False)
    for s in e.stages if not roomy else ():
        say(f"{s.stage}: {s.cause}", "dim")
    say("each line: machines with this limit and all above; the factors multiply to the speedup", "dim")
    if e.measured is None:
        say("--measured-ms says whether a run of your own is at this limit or a bug", "dim")
    else:
        _print_circumstances(console, e.measured, p)
    if e.what_if:
        say("\nWhat if", "bold")
        table = _columns("change", "ms", "time", "dense ms", "speedup")
        rows = [("unchanged", p.latency_ms, 1.0, p.dense.latency_ms, p.speedup)]
        rows += [(w.name, w.latency_ms, w.change, w.dense_latency_ms, w.speedup) for w in e.what_if]
        for name, latency, change, reference, speedup in rows:
            shown = "" if abs(change - 1) < 5e-4 else f"{100 * (change - 1):+.1f} %"
            whole = p.latency_ms, p.dense.latency_ms
            table.add_row(name, _digits(latency, whole[0]), shown, _digits(reference, whole[1]), f"{speedup:.2f} x")
        console.print(table, highlight=False)


def _print_circumstances(console: Console, measured: Measured, p: Prediction) -> None:
    """What else was simulated to judge a measured time; what makes no difference, in one line."""
    differing = [c for c in measured.circumstances if abs(c.latency_ms_high / p.latency_ms - 1) > 0.01]
    if not differing:
        return
    console.print(Text("\nWhat else could be behind the measured time", "bold"))
    table = _columns("", "ms", "measured is", "if")
    for c in differing:
        shown = _digits(c.latency_ms, p.latency_ms)
        upper = f" to {_digits(c.latency_ms_high, p.latency_ms)}" if c.latency_ms_high > c.latency_ms else ""
        table.add_row("fits" if c.fits else "", f"{shown}{upper}", f"{measured.latency_ms / c.latency_ms:.2f} x", c.words)
    console.print(table, highlight=False)
    same = [c.words for c in measured.circumstances if c not in differing]
    if same:
        console.print(Text(f"without effect here: {'; '.join(same)}", "dim"))


def _columns(*titles: str) -> Table:
    """A plain table whose first and last columns are words, if the last is `why` or `if`, and all others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, title in enumerate(titles):
        words = at == 0 or title in ("why", "if")
        table.add_column(Text(title), justify="left" if words else "right", no_wrap=not words or at == 0, overflow="fold")
    return table


def _bytes_needed(p: Prediction) -> float:
    """Bytes of Q, K, V and O."""
    from .workloads.problem import BYTES

    q, width = p.problem, p.problem["head_dim"] + p.problem["head_dim_v"]
    tokens = q["q_heads"] * q["seq_q"] + q["kv_heads"] * q["seq_kv"]
    return float(q["batch"] * tokens * width * BYTES[q["dtype"]])


def limiter_cost(p: Prediction, limiter: str) -> float:
    """Milliseconds behind a limiter: those of its stage."""
    stage = {"tensor": "ideal", "l2": "memory", "dram": "memory"}.get(limiter, limiter)
    before = 0.0
    for step in p.waterfall:
        if step.stage == stage:
            return step.latency_ms - before
        before = step.latency_ms
    raise KeyError(limiter)


def assumed(p: Prediction) -> str:
    """What the answer takes for granted."""
    clock = {
        "sustained": "the clock falls with load and run time",
        "burst": "the highest clock throughout",
        "boost": "the clock of the data sheet throughout",
    }[p.clock]
    before = "as much of Q, K and V in L2 as fits" if p.warm else "nothing in L2"
    lines = [f"assumed: {before} before the call; keys shared by the CTAs that run together; {clock}"]
    if not p.provenance.calibrated_on:
        constants = f"taken from {p.provenance.borrowed_from}" if p.provenance.borrowed_from else "those of its profile"
        lines.append(
            f"uncalibrated: kernel {p.kernel} was not fitted on this GPU; its constants are {constants}, and the band is wide"
        )
    else:
        lines.append(f"the band is to hold nine in ten measured times: {p.provenance.why}")
    if p.provenance.exactness != "exact":
        lines.append(f"an approximation of what was published: {p.provenance.exactness}")
    low, high = p.provenance.seed_spread or (1.0, 1.0)
    if low < high:
        lines.append(f"which keys are read is drawn at random; other seeds give {low:.3f} to {high:.3f} times the work")
    if p.provenance.recalled:
        lines.append(f"from memory, without a source: {', '.join(p.provenance.recalled)}")
    corrected = f", corrected by {p.correction:.3f} after every tile of some heads" if p.correction != 1 else ""
    lines.append(f"fidelity {p.fidelity}{corrected}, spec {p.provenance.spec_hash}, seed {p.provenance.seed}")
    return "\n".join(lines)


def _kernel_run(run: KernelRun) -> str:
    launches = f" in {run.launches} launches" if run.launches > 1 else ""
    return f"{run.op} by {run.kernel}{launches}, {_ms(run.latency_ms)}"


def _waterfall(p: Prediction, width: int) -> Table:
    """The stages as rows: what each adds, its bar from the stage before to its own time, and what it means."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    scale, before = min(36, max(width - 40, 8)) / p.latency_ms, 0.0
    for stage in p.waterfall:
        start, end = round(before * scale), round(stage.latency_ms * scale)
        added = stage.latency_ms - before
        bar = Text(" " * start + ("█" * (end - start) if end > start else ("▏" if added > 0 else "")))
        shown = _digits(added, p.latency_ms)
        sign = "" if stage.stage == "ideal" else "+"
        words = [Text(STAGE_WORDS[stage.stage], "dim")] if width >= ROOMY else []
        table.add_row(stage.stage, f"{sign}{shown}", f"{100 * added / p.latency_ms:.0f} %", bar, *words)
        before = stage.latency_ms
    return table


def _trust(p: Prediction) -> str:
    calibrated = p.provenance.calibrated_on
    return f"calibrated on {calibrated}" if calibrated else "uncalibrated"


def _ms(value: float) -> str:
    return f"{value * 1e3:.1f} us" if value < 1 else f"{value:,.2f} ms" if value < 100 else f"{value:,.1f} ms"


def _digits(value: float, whole: float) -> str:
    """A part of a whole, with as many decimals as the whole needs."""
    return f"{value:.4f}" if whole < 1 else f"{value:.3f}" if whole < 10 else f"{value:.2f}" if whole < 100 else f"{value:,.1f}"


def _value(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _is_number(cell: Any) -> bool:
    """Whether a cell is a number, written out or not, or empty."""
    return isinstance(cell, (int, float)) or re.fullmatch(r"[\d,.]*", str(cell)) is not None


def _number(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 100 else f"{cell:,.1f}".removesuffix(".0")
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _console(width: int = 160) -> Console:
    """A console on stdout; wide where nobody watches, so that piped tables keep their lines."""
    console = Console()
    return console if console.is_terminal else Console(width=width)
