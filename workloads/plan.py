"""Plan: what one attention call really runs, as a tuple of ops in stream order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from ..facts import UserError
from .backward import backward_schedule, postprocess_bytes, preprocess_bytes
from .families import Band, Box, Family
from .kv_major import by_keys
from .layout import Tiling, TokenLayout
from .problem import AttentionProblem
from .schedule import Kind, TileSchedule

TilingOf = Callable[[str], Tiling]
"""The tiling of the kernel that will run a mask class."""

Style = Literal["one_kernel", "split_text", "tile_permuted"]
"""How a system runs its pattern.

`one_kernel`: one attention kernel. `split_text`: text columns and rows by dense kernels, merged into the video part.
`tile_permuted`: tokens are reordered into tiles before the kernel and back after it; text queries by a dense kernel.
"""


@dataclass(frozen=True)
class Attention:
    """One attention kernel over a schedule that counts all heads and items."""

    name: str
    schedule: TileSchedule
    mask_class: str
    """Which kind of kernel it needs."""


@dataclass(frozen=True)
class Memory:
    """A kernel that only moves data.

    Attributes
    ----------
    access : str
        How it reaches memory: `stream` (contiguous) or `permute` (rows of one token, scattered).
    ctas, threads : int
        CTAs that do one thing after the other, each waiting for memory, and threads of each; 0 where only bytes count.
    """

    name: str
    bytes: int
    launches: int
    access: Literal["stream", "permute"] = "stream"
    ctas: int = 0
    threads: int = 0


Op = Attention | Memory
Plan = tuple[Op, ...]


def build_plan(family: Family, style: Style, problem: AttentionProblem, layout: TokenLayout, tiling_of: TilingOf) -> Plan:
    """The ops of one call.

    Parameters
    ----------
    family : Family
        The pattern with its parameters.
    style : str
        How the system runs it.
    tiling_of : callable
        Tiling of the kernel that runs a mask class ("dense" or the family's own).

    Examples
    --------
    >>> from simattn.workloads.families import FrameBand
    >>> problem = AttentionProblem(q_heads=24, seq_q=115456, head_dim=128)
    >>> layout = TokenLayout(grid=(30, 48, 80), text=256)
    >>> tiling = Tiling(q=(128,), kv=(128,))
    >>> plan = build_plan(FrameBand(decay=0.95), "split_text", problem, layout, lambda mask_class: tiling)
    >>> [op.name for op in plan], sum(op.schedule.visited for op in plan if isinstance(op, Attention)) // 24
    (['video-video', 'video-text', 'merge', 'text-all'], 226056)
    """
    tiling = tiling_of(family.mask_class())
    if problem.phase == "backward":
        return _backward(family, problem, layout, tiling)
    if tiling.major == "kv":
        return kv_major_plan(_with_heads(family.schedule(layout, tiling), problem, tiling), problem, family.mask_class())
    if style == "split_text" and layout.text:
        return _split_text(family, problem, layout, tiling, tiling_of("dense"))
    main = Attention("attention", _with_heads(family.schedule(layout, tiling), problem, tiling), family.mask_class())
    ops: list[Op] = [main]
    if isinstance(family, Box):
        if family.needs_permutation(layout, tiling):
            ops.insert(0, _permutation(family, problem, layout, tiling))
        if layout.text:
            text = TokenLayout(grid=(layout.tokens,), queries=layout.text)
            ops.append(Attention("text-all", _dense(text, problem, tiling_of("dense")), "dense"))
    return tuple(ops)


def kv_major_plan(schedule: TileSchedule, problem: AttentionProblem, mask_class: str) -> Plan:
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
    turned = by_keys(schedule)
    scores_only = replace(turned, runs=replace(turned.runs, kind=np.full_like(turned.runs.kind, Kind.QK_ONLY)))
    written = schedule.visited * schedule.q_tile * problem.head_dim_v * problem.element_bytes
    summed = problem.batch * problem.q_heads * problem.seq_q * problem.head_dim_v * problem.element_bytes
    return (
        Attention("statistics", scores_only, mask_class),
        Attention("by keys", turned, mask_class),
        Memory("reduction", written + summed, launches=1),
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


def _split_text(family: Family, problem: AttentionProblem, layout: TokenLayout, tiling: Tiling, dense: Tiling) -> Plan:
    video, text, tokens = prod(layout.grid), layout.text, layout.tokens
    grid_only = TokenLayout(grid=layout.grid)
    columns = _dense(TokenLayout(grid=(video,)), problem, dense, keys=text)
    rows = _dense(TokenLayout(grid=(tokens,), queries=text), problem, dense)
    # Two partial results with their log-sum-exps become one: read both, write one.
    merged = 3 * problem.batch * problem.q_heads * video * problem.head_dim_v * problem.element_bytes
    return (
        Attention("video-video", _with_heads(family.schedule(grid_only, tiling), problem, tiling), family.mask_class()),
        Attention("video-text", columns, "dense"),
        Memory("merge", merged, launches=1),
        Attention("text-all", rows, "dense"),
    )


def _dense(layout: TokenLayout, problem: AttentionProblem, tiling: Tiling, keys: int = 0) -> TileSchedule:
    """A dense schedule over all heads; `keys` where they are fewer than the queries."""
    schedule = Band().schedule(layout, tiling)
    if keys:
        schedule = schedule.slice((0, schedule.seq_q), (0, keys))
    return _with_heads(schedule, problem, tiling)


def _with_heads(schedule: TileSchedule, problem: AttentionProblem, tiling: Tiling) -> TileSchedule:
    if problem.q_heads % tiling.pack:
        raise UserError(f"packed heads must divide q_heads, got pack={tiling.pack} and q_heads={problem.q_heads}")
    return schedule.with_copies(problem.batch * problem.q_heads // tiling.pack)


def _permutation(family: Box, problem: AttentionProblem, layout: TokenLayout, tiling: Tiling) -> Memory:
    """Q, K and V into tiles, O back: each is read and written once."""
    padded_q, padded_kv = family.permuted(layout, tiling)
    tokens, d, dv = prod(layout.grid), problem.head_dim, problem.head_dim_v
    per_q = (tokens + padded_q) * (d + dv) * problem.q_heads
    per_kv = (tokens + padded_kv) * (d + dv) * problem.kv_heads
    return Memory("permute", problem.batch * problem.element_bytes * (per_q + per_kv), launches=4, access="permute")
