"""Everything about one prediction as a page that needs no network. It needs the extra `viz`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import Any

from .explain import Explanation
from .explain.words import ms, percent
from .facts import Provenance, UserError
from .hwspecs import GpuSpec, sources
from .kernels import kernels
from .plots import as_page
from .plots.blocks import blocks_figure
from .plots.roofline import roofline_figure
from .plots.waterfall import both_waterfalls_figure
from .report import LIMITER_WORDS, STAGE_WORDS, assumed, limiter_cost
from .roofline import below_roofs
from .simulator import Prediction
from .workloads import System, TileSchedule


def report_page(e: Explanation, spec: GpuSpec, system: System, schedule: TileSchedule) -> str:
    """A page about one explained prediction.

    Parameters
    ----------
    spec : GpuSpec
        The GPU that it was predicted on.
    system : System
        The published method, or baseline, behind the pattern.
    schedule : TileSchedule
        The tiles of one head.
    """
    p = e.prediction
    title = f"{system.title} on {spec.title}"
    parts: list[Any] = [
        f"<h1>{escape(title)}</h1>",
        _answer(p),
        f"<p>{escape(e.verdict)}</p>",
        *_measured(e),
        "<h2>What is computed</h2>",
        f"<p>{escape(' '.join((system.summary, system.formula)))}</p>",
        _facts(p),
        *_blocks(schedule, system.title),
        "<h2>Where the time goes, and the speedup</h2>",
        both_waterfalls_figure(e),
        _stages(e),
        _ops(p),
        "<h2>Below the roofs</h2>",
        roofline_figure(below_roofs(spec, [p], clock=p.clock)),  # type: ignore[arg-type]
        "<p>How busy each unit is over the whole time:</p>",
        _table(("unit", "busy#"), [(unit, percent(share)) for unit, share in p.utilization.items()]),
        "<h2>What it rests on</h2>",
        "".join(f"<p>{escape(line[0].upper() + line[1:])}.</p>" for line in assumed(p).splitlines()),
        *_sources(p, spec, system),
    ]
    return as_page(title, parts)


def _answer(p: Prediction) -> str:
    trust = f"calibrated on {p.provenance.calibrated_on}" if p.provenance.calibrated_on else "uncalibrated"
    share = percent(limiter_cost(p, p.limiter) / p.latency_ms)
    return (
        f"<p><b>{ms(p.latency_ms)}</b>, {ms(p.latency_ms_low)} to {ms(p.latency_ms_high)} ({escape(trust)}): "
        f"<b>{p.speedup:.2f} times</b> as fast as the dense call by {escape(p.dense.kernel)} ({ms(p.dense.latency_ms)}). "
        f"Limited by {LIMITER_WORDS[p.limiter]}: {share} of the time.</p>"
    )


def _measured(e: Explanation) -> Iterable[str]:
    if e.measured is None:
        return
    yield f"<p>Measured <b>{ms(e.measured.latency_ms)}</b>. {escape(e.measured.words)}</p>"
    rows = [
        ("fits" if c.fits else "", ms(c.latency_ms), f"{e.measured.latency_ms / c.latency_ms:.2f} x", c.words)
        for c in e.measured.circumstances
    ]
    yield _table(("", "time#", "measured is#", "if"), rows)


def _facts(p: Prediction) -> str:
    problem, b, t = p.problem, p.bounds, p.tiles
    grid = " x ".join(str(n) for n in problem["grid"])
    tokens = f"{problem['seq_q']:,} queries, {problem['seq_kv']:,} keys; grid {grid}, {problem['text']} text tokens"
    heads = f"batch {problem['batch']}, {problem['q_heads']} query and {problem['kv_heads']} K/V heads of {problem['head_dim']}"
    rows = [
        ("tokens", tokens),
        ("call", f"{heads}, {problem['dtype']}, {problem['phase']}{', causal' if problem['causal'] else ''}"),
        ("pattern", ", ".join(f"{name}={_word(v)}" for name, v in p.pattern_params.items() if v not in (None, ""))),
        ("kernel", f"{p.kernel}, tiles of {_word(p.q_tile)} queries by {_word(p.kv_tile)} keys"),
        ("live pairs", f"{percent(p.density.pairs)} of the dense call's; {p.tflops:,.0f} live TFLOP/s"),
        ("tiles", f"{percent(p.density.tiles)}: {t.visited:,} visited, {t.partial:,} with a mask, {t.dense:,} dense, all heads"),
        ("bounds", f"{b.flop:.2f} x by live FLOPs, {b.tile_mean:.2f} x by tiles; worst tile (no bound) {b.tile_worst:.2f} x"),
        ("traffic", f"{p.traffic.l2_bytes / 1e9:,.3g} GB through L2, {p.traffic.dram_bytes / 1e9:,.3g} GB from DRAM"),
    ]
    if p.blocks:
        kept = f"{p.blocks.active:,} of {p.blocks.total:,} blocks of {p.blocks.size} a head"
        rows.insert(5, ("blocks", f"{percent(p.blocks.active / p.blocks.total)}: {kept}"))
    return _table((), rows)


def _blocks(schedule: TileSchedule, title: str) -> Iterable[Any]:
    try:
        yield blocks_figure(schedule, title)
    except UserError as error:
        yield f"<p class='faint'>No picture: {escape(str(error))}.</p>"


def _stages(e: Explanation) -> str:
    rows = [
        (
            s.stage,
            ms(s.latency_ms),
            ms(s.dense_latency_ms),
            f"{s.speedup:.2f} x",
            f"{s.factor:.2f}" if s.stage == "ideal" else f"x {s.factor:.3f}",
            STAGE_WORDS[s.stage],
            s.cause,
        )
        for s in e.stages
    ]
    words = "Each line is a machine with this limit and all above; the factors multiply to the speedup."
    return f"<p>{words}</p>" + _table(("stage", "sparse#", "dense#", "speedup#", "factor#", "what", "why here"), rows)


def _ops(p: Prediction) -> str:
    rows = [(op.op, f"kernel {op.kernel}", f"{op.launches}", ms(op.latency_ms)) for op in p.attention]
    for op in p.side:
        amounts = ", ".join(f"{n / 1e9:,.3g} {unit}" for n, unit in ((op.flops, "GFLOP"), (op.bytes, "GB")) if n)
        rows.append((op.op, amounts, f"{op.launches}", ms(op.latency_ms)))
    return "<p>The attention kernels of the call, and what runs beside them:</p>" + _table(("op", "", "launches#", "time#"), rows)


def _sources(p: Prediction, spec: GpuSpec, system: System) -> Iterable[str]:
    """Where every number comes from: of the GPU, of each kernel, and of the system."""
    values = [(path, f"{value:g}" if isinstance(value, float) else f"{value}", unit) for path, value, unit in spec.leaves()]
    rows = [(path, value, unit, *_origin(spec.meta.get(path))) for path, value, unit in values]
    yield _folded(
        f"The GPU: {spec.title} ({spec.name}), spec {p.provenance.spec_hash}", ("value", "#", "unit", "origin", "source"), rows
    )
    for name in dict.fromkeys((*(run.kernel for run in p.attention), p.dense.kernel)):
        with suppress(UserError):  # a profile of one's own is on no shelf
            profile = kernels.load(name)
            meta = [(path, *_origin(origin)) for path, origin in profile.meta.items()]
            yield _folded(f"Kernel {name}: {profile.title}", ("value", "origin", "source"), meta)
    meta = [(path, *_origin(origin)) for path, origin in system.meta.items()]
    about = f"Pattern {system.name}{', ' + system.paper if system.paper else ''}"
    yield _folded(about, ("value", "origin", "source"), meta)
    if system.claims:
        claims = [(c.metric, f"{c.value:g}", c.setting, c.source) for c in system.claims]
        yield _folded("What its authors and others claim", ("claim", "value#", "setting", "source"), claims)
    used = {key.strip() for origin in spec.meta.values() for key in origin.source.split(";")}
    legend = [(key, reference) for key, reference in sources().items() if key in used]
    yield _folded("Short names of sources", ("source", ""), legend)


def _origin(origin: Provenance | None) -> tuple[str, str]:
    if origin is None:
        return "none given", ""
    return origin.kind, origin.source + (f": {origin.note}" if origin.note else "")


def _folded(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<details><summary>{escape(title)}</summary>{_table(header, rows)}</details>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; numbers, to the right, are columns whose title ends in `#`."""
    numbers = [title.endswith("#") for title in header] or [False] * (len(rows[0]) if rows else 0)
    titles = [title.removesuffix("#") for title in header]

    def cells(row: Sequence[str], tag: str) -> str:
        styled = zip(row, [" class=number" if number else "" for number in numbers], strict=True)
        return "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell, style in styled)

    top = f"<thead><tr>{cells(titles, 'th')}</tr></thead>" if header else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<div class=wide><table>{top}<tbody>{body}</tbody></table></div>"


def _word(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
