"""Plan: what one attention call really runs, as a tuple of ops in stream order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import msgspec
import numpy as np

from ..facts import UserError
from .backward import backward_schedule, postprocess_bytes, preprocess_bytes
from .expressions import Formula, value
from .families import Band, Box, Family, Listed
from .kv_major import by_keys
from .layout import Tiling, TokenLayout
from .ops import Attention, Gemm, Host, Memory, Op, Plan, SideOp, Sort
from .problem import AttentionProblem
from .remembered import remembered
from .schedule import Kind, TileSchedule
from .system import Side, System

TilingOf = Callable[[str, str | None], Tiling]
"""The tiling of the kernel that will run a mask class, given the one that the system's own code uses."""


def build_plan(
    system: System, families: Sequence[Family], problem: AttentionProblem, layout: TokenLayout, tiling_of: TilingOf
) -> Plan:
    """The ops of one call.

    Parameters
    ----------
    system : System
        How the pattern is run.
    families : sequence of Family
        That of the main attention and those of its further parts, with their parameters.
    tiling_of : callable
        Tiling of the kernel that runs a mask class ("dense" or a family's own).

    Raises
    ------
    UserError
        A formula of the system has no value on this problem.

    Examples
    --------
    >>> from simattn.workloads import Pattern
    >>> problem = AttentionProblem(q_heads=24, seq_q=115456, head_dim=128)
    >>> layout = TokenLayout(grid=(30, 48, 80), text=256)
    >>> tiling = Tiling(q=(128,), kv=(128,))
    >>> plan = Pattern("radial").plan(problem, layout, lambda mask_class, kernel: tiling)
    >>> [op.name for op in plan], sum(op.schedule.visited for op in plan if isinstance(op, Attention)) // 24
    (['video-video', 'video-text', 'merge', 'text-all'], 226056)
    """
    if problem.phase == "backward":
        if system.parts:
            raise UserError(f"the backward pass of {system.name} is not known: it is made of several attention kernels")
        return _backward(families[0], problem, layout, tiling_of(families[0].mask_class(), system.kernel))
    names = _numbers(system, families, problem, layout)
    ops = [*_main(system, families[0], problem, layout, tiling_of, _whole(system.launches, names))]
    for part, family in zip(system.parts, families[1:], strict=True):
        tiling = tiling_of(family.mask_class(), part.kernel)
        schedule = _all_heads(family, layout, problem, tiling)
        ops.append(Attention(part.name, schedule, family.mask_class(), part.kernel, _whole(part.launches, names)))
    if not system.side:
        return tuple(ops)
    schedule = next(op.schedule for op in ops if isinstance(op, Attention))
    names |= {"visited": schedule.visited, "pairs": schedule.pairs, "rows": schedule.work_rows}
    names |= {"q_tile": schedule.q_tile, "kv_tile": schedule.kv_tile}
    before = [_side(side, names) for side in system.side if side.when == "before"]
    after = [_side(side, names) for side in system.side if side.when == "after"]
    return (*before, *ops, *after)


def selection(system: System, family: Family, problem: AttentionProblem, layout: TokenLayout) -> tuple[SideOp, ...]:
    """What a selecting layer of a decode step runs beside full attention.

    Examples
    --------
    >>> from simattn.workloads import Pattern
    >>> tidal = Pattern("tidal", published=True)
    >>> problem = AttentionProblem(q_heads=32, seq_q=1, seq_kv=10240, head_dim=128, phase="decode")
    >>> [op.name for op in selection(tidal.system, tidal.family, problem, TokenLayout(grid=(10240,), queries=1))]
    ['scores of all keys', 'top keys']
    """
    return tuple(_side(side, _numbers(system, (family,), problem, layout)) for side in system.select)


def _numbers(system: System, families: Sequence[Family], problem: AttentionProblem, layout: TokenLayout) -> dict[str, float]:
    """What the formulas of a system may name: parameters that are numbers (shapes: their tokens), and the problem."""
    names: dict[str, float] = {}
    for prefix, family in zip(("", *(f"{part.name}_" for part in system.parts)), families, strict=True):
        for field in family.__struct_fields__:
            number = getattr(family, field)
            if isinstance(number, tuple) and all(isinstance(n, int) for n in number):
                number = prod(number)
            if isinstance(number, int | float):
                names[prefix + field] = number
    p, axes = problem, (*layout.grid, 1, 1)
    return names | {
        "B": p.batch,
        "N": p.seq_q,
        "M": p.seq_kv,
        "d": p.head_dim,
        "dv": p.head_dim_v,
        "Hq": p.q_heads,
        "Hk": p.kv_heads,
        "G": p.gqa_group,
        "e": p.element_bytes,
        "text": layout.text,
        "frames": axes[0],
        "axis0": axes[0],
        "axis1": axes[1],
        "axis2": axes[2],
    }


def _whole(formula: Formula, names: dict[str, float]) -> int:
    return max(1, round(value(formula, names)))


def _side(side: Side, names: dict[str, float]) -> SideOp:
    """A kernel beside the attention, with the numbers of this call."""
    of: dict[str, Any] = {field: value(formula, names) for field, formula in side.formulas().items()}
    if side.kind == "host":
        return Host(side.name, of["seconds"], every=side.every)
    moved, launches = round(of["bytes"]), round(of["launches"])
    if side.kind == "sort":
        return Sort(side.name, moved, launches, passes=of["passes"], every=side.every)
    if side.kind != "gemm":
        return Memory(side.name, moved, launches, access=side.kind, every=side.every)
    if side.shape is None:
        return Gemm(side.name, of["flops"], moved, launches, side.dtype, every=side.every)
    shape = round(of["m"]), round(of["n"]), round(of["k"])
    return Gemm(side.name, 2.0 * prod(shape) * of["copies"], moved, launches, side.dtype, shape, every=side.every)


def _main(
    system: System, family: Family, problem: AttentionProblem, layout: TokenLayout, tiling_of: TilingOf, launches: int
) -> Plan:
    """The main attention, in the style of the system."""
    tiling = tiling_of(family.mask_class(), system.kernel)
    if system.style == "split_text" and layout.text:
        return _split_text(system, family, problem, layout, tiling, tiling_of("dense", None), launches)
    schedule = _all_heads(family, layout, problem, tiling)
    if tiling.major == "kv":
        return kv_major_plan(schedule, problem, family.mask_class(), system.kernel, launches)
    ops: list[Op] = [Attention("attention", schedule, family.mask_class(), system.kernel, launches)]
    if isinstance(family, Box | Listed) and family.needs_permutation(layout, tiling):
        ops.insert(0, _permutation(family, problem, layout, tiling))
    if layout.text and schedule.seq_q == prod(layout.grid):
        # The pattern is one of the queries of the grid: those of the text have a kernel of their own.
        text = TokenLayout(grid=(layout.tokens,), queries=layout.text)
        ops.append(Attention("text-all", dense_part(text, problem, tiling_of("dense", None)), "dense"))
    return tuple(ops)


def kv_major_plan(
    schedule: TileSchedule, problem: AttentionProblem, mask_class: str, kernel: str | None = None, launches: int = 1
) -> Plan:
    """The ops of a kernel whose CTAs own keys: what it has to know beforehand of each query, its visits, and their sum.

    Maxima and sums of the scores of every query come first, by a kernel that only multiplies Q and K. Each visit then leaves a
    partial output, and the last kernel adds these up.

    References
    ----------
    Relaxed-System-Lab/Flash-Sparse-Attention: statistics, main and reduction kernels.

    Examples
    --------
    >>> from simattn.workloads import schedule
    >>> problem = AttentionProblem(q_heads=4, seq_q=4096, head_dim=128)
    >>> [op.name for op in kv_major_plan(schedule("causal", seq_q=4096).with_copies(4), problem, "blocks")]
    ['statistics', 'by keys', 'reduction']
    """
    turned = schedule if schedule.major == "kv" else by_keys(schedule)
    # Its pairs are those of the main kernel, whose scores it computes a first time.
    kind = np.full_like(turned.runs.kind, Kind.QK_ONLY)
    scores_only = replace(turned, runs=replace(turned.runs, kind=kind), pairs_per_copy=(0,) * len(turned.groups))
    written = turned.visited * turned.kv_tile * problem.head_dim_v * problem.element_bytes
    summed = problem.batch * problem.q_heads * problem.seq_q * problem.head_dim_v * problem.element_bytes
    return (
        Attention("statistics", scores_only, mask_class, kernel, launches),
        Attention("by keys", turned, mask_class, kernel, launches),
        Memory("reduction", written + summed, launches=launches),
    )


def _backward(family: Family, problem: AttentionProblem, layout: TokenLayout, tiling: Tiling) -> Plan:
    main = Attention("backward", backward_schedule(family.schedule(layout, tiling), problem), family.mask_class())
    before, *behind = backward_side(problem)
    return (before, main, *behind)


def backward_side(problem: AttentionProblem) -> tuple[Memory, ...]:
    """The kernels before and behind the main one of a backward pass: row sums of dO O, then the fp32 sums in the type of Q."""
    names = ("convert dQ", "convert dK", "convert dV")
    behind = (Memory(name, n, launches=1) for name, n in zip(names, postprocess_bytes(problem), strict=False))
    return (Memory("row sums of dO O", preprocess_bytes(problem), launches=1), *behind)


def kv_cache_write(problem: AttentionProblem) -> Memory:
    """The kernel that serving frameworks run first: K and V of every token into a paged cache, one CTA a token.

    References
    ----------
    vLLM, `reshape_and_cache_flash`: min(kv_heads * head_dim, 512) threads copy one token.

    Examples
    --------
    >>> kv_cache_write(AttentionProblem(q_heads=32, kv_heads=8, seq_q=4096, head_dim=128)).ctas
    4096
    """
    written = problem.seq_q if problem.phase == "decode" else problem.seq_kv
    tokens, width = problem.batch * written, problem.head_dim + problem.head_dim_v
    moved = 2 * tokens * problem.kv_heads * width * problem.element_bytes
    return Memory("KV-cache write", moved, launches=0, ctas=tokens, threads=min(problem.kv_heads * problem.head_dim, 512))


def cleared_output(problem: AttentionProblem) -> Memory:
    """What Transformer Engine runs before cuDNN where sequences are packed: results set to zero, lengths and offsets found.

    References
    ----------
    NVIDIA/TransformerEngine, `fused_attn_fwd` and `fused_attn_bwd` of transformer_engine/pytorch/csrc/extensions/attention.cpp:
    O, or each of dQ, dK and dV; `fused_attn_arbitrary_seqlen_*` of transformer_engine/common: two kernels of a thread a sequence.

    Examples
    --------
    >>> cleared_output(AttentionProblem(q_heads=64, kv_heads=8, seq_q=32768, head_dim=128)).bytes / 2**20
    512.0
    """
    q, kv = problem.seq_q * problem.q_heads, problem.seq_kv * problem.kv_heads
    if problem.phase == "backward":
        values, fills = q * problem.head_dim + kv * (problem.head_dim + problem.head_dim_v), 3
    else:
        values, fills = q * problem.head_dim_v, 1
    return Memory("output set to zero", problem.batch * values * problem.element_bytes, launches=fills + 2)


def _split_text(
    system: System,
    family: Family,
    problem: AttentionProblem,
    layout: TokenLayout,
    tiling: Tiling,
    dense: Tiling,
    launches: int,
) -> Plan:
    video, text, tokens = prod(layout.grid), layout.text, layout.tokens
    grid_only = TokenLayout(grid=layout.grid)
    columns = dense_part(TokenLayout(grid=(video,)), problem, dense, keys=text)
    rows = dense_part(TokenLayout(grid=(tokens,), queries=text), problem, dense)
    # Two partial results with their log-sum-exps become one: read both, write one.
    merged = 3 * problem.batch * problem.q_heads * video * problem.head_dim_v * problem.element_bytes
    video_part = _all_heads(family, grid_only, problem, tiling)
    return (
        Attention("video-video", video_part, family.mask_class(), system.kernel, launches),
        Attention("video-text", columns, "dense"),
        Memory("merge", merged, launches=1),
        Attention("text-all", rows, "dense"),
    )


def dense_part(layout: TokenLayout, problem: AttentionProblem, tiling: Tiling, keys: int = 0) -> TileSchedule:
    """A dense schedule over all heads; `keys` where they are fewer than the queries."""
    schedule = Band().schedule(layout, tiling)
    if keys:
        schedule = schedule.slice((0, schedule.seq_q), (0, keys))
    return _with_heads(schedule, problem, tiling)


def _all_heads(family: Family, layout: TokenLayout, problem: AttentionProblem, tiling: Tiling) -> TileSchedule:
    """The schedule of a family over all heads and items, each head with its own table where the family has them."""
    if tiling.block and len(tiling.q) == len(tiling.kv) == 1 and family.mask_class() != "dense":
        q, kv = max(tiling.q_rows, tiling.block), max(tiling.kv_rows, tiling.block)
        blocks = msgspec.structs.replace(tiling, q=(q,), kv=(kv,), block=0)
        return _all_heads(family, layout, problem, blocks).retile(tiling.q_rows, tiling.kv_rows)
    heads, by_heads = _head_tiles(problem, tiling), getattr(family, "schedule_heads", None)
    if by_heads is None:
        one = remembered((family, layout, tiling), lambda: family.schedule(layout, tiling))
        return one.with_copies(problem.batch * heads)
    item = remembered((family, layout, tiling, heads), lambda: by_heads(layout, tiling, heads))
    return item.with_copies(problem.batch)


def _with_heads(schedule: TileSchedule, problem: AttentionProblem, tiling: Tiling) -> TileSchedule:
    return schedule.with_copies(problem.batch * _head_tiles(problem, tiling))


def _head_tiles(problem: AttentionProblem, tiling: Tiling) -> int:
    """Heads, counted in tiles that may hold several of them."""
    if problem.q_heads % tiling.pack:
        raise UserError(f"packed heads must divide q_heads, got pack={tiling.pack} and q_heads={problem.q_heads}")
    return problem.q_heads // tiling.pack


def _permutation(family: Box | Listed, problem: AttentionProblem, layout: TokenLayout, tiling: Tiling) -> Memory:
    """Q, K and V into another order, O back: each is read and written once."""
    padded_q, padded_kv = family.permuted(layout, tiling)
    tokens, d, dv = prod(layout.grid), problem.head_dim, problem.head_dim_v
    per_q = (tokens + padded_q) * (d + dv) * problem.q_heads
    per_kv = (tokens + padded_kv) * (d + dv) * problem.kv_heads
    return Memory("permute", problem.batch * problem.element_bytes * (per_q + per_kv), launches=4, access="permute")
