# ruff: noqa: N803, N806
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Neighborhood attention (GNA) without lists: each program computes from the rule which kv tiles its q tile visits.

Tokens lie in box-shaped tiles (see `tokens`), so that the visits of a q tile are a box of kv tiles: an interval along each
axis. As NATTEN's kernels do, it masks every tile, or none where the rule needs no mask anywhere.
"""

import math
from typing import Any

import triton
import triton.language as tl

from ...facts import UserError
from ...workloads.families import Box
from ...workloads.layout import Tiling, TokenLayout
from . import forward
from .configs import Config
from .steps import product, rows_of, store, visit


@triton.jit
def window_of(i, length, WINDOW: tl.constexpr, STRIDE: tl.constexpr, CAUSAL: tl.constexpr):
    """Window [start, end) of query i of a line of `length` tokens, as `workloads.families.axis` has it."""
    if CAUSAL:
        leader = tl.minimum(i // STRIDE * STRIDE + (STRIDE - 1), length - 1)
        return tl.maximum(leader - (WINDOW - 1), 0), tl.minimum(i + 1, length)
    else:
        leader = tl.minimum(i // STRIDE * STRIDE + STRIDE // 2, length - 1)
        start = tl.minimum(tl.maximum(leader - WINDOW // 2, 0), length - WINDOW)
        return start, start + WINDOW


@triton.jit
def tiles_of(tile, length, Q: tl.constexpr, KV: tl.constexpr, WINDOW: tl.constexpr, STRIDE: tl.constexpr, CAUSAL: tl.constexpr):
    """First kv tile that a q tile visits along one axis, and how many."""
    first, _ = window_of(tile * Q, length, WINDOW, STRIDE, CAUSAL)
    _, end = window_of(tile * Q + (Q - 1), length, WINDOW, STRIDE, CAUSAL)
    return first // KV, (end + (KV - 1)) // KV - first // KV


@triton.jit(do_not_specialize=["seq_q", "seq_kv"])
def neighborhood_kernel(
    q, k, v, o, lse, scale, seq_q, seq_kv, q_batch, q_head, k_batch, k_head, v_batch, v_head,
    Q_TOKEN: tl.constexpr, K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, HEADS: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LENGTH0: tl.constexpr, LENGTH1: tl.constexpr, LENGTH2: tl.constexpr,
    WINDOW0: tl.constexpr, WINDOW1: tl.constexpr, WINDOW2: tl.constexpr,
    STRIDE0: tl.constexpr, STRIDE1: tl.constexpr, STRIDE2: tl.constexpr,
    DILATION0: tl.constexpr, DILATION1: tl.constexpr, DILATION2: tl.constexpr,
    CAUSAL0: tl.constexpr, CAUSAL1: tl.constexpr, CAUSAL2: tl.constexpr,
    Q0: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, KV0: tl.constexpr, KV1: tl.constexpr, KV2: tl.constexpr,
    TEXT: tl.constexpr, MASKED: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """One q tile of a head of a batch item: program (q tile, copy). Axes 0 to 2, slowest first; missing ones have length 1."""
    Q_TILES0: tl.constexpr = (LENGTH0 + Q0 * DILATION0 - 1) // (Q0 * DILATION0)
    Q_TILES1: tl.constexpr = (LENGTH1 + Q1 * DILATION1 - 1) // (Q1 * DILATION1)
    Q_TILES2: tl.constexpr = (LENGTH2 + Q2 * DILATION2 - 1) // (Q2 * DILATION2)
    TILES0: tl.constexpr = (LENGTH0 + KV0 * DILATION0 - 1) // (KV0 * DILATION0)
    TILES1: tl.constexpr = (LENGTH1 + KV1 * DILATION1 - 1) // (KV1 * DILATION1)
    TILES2: tl.constexpr = (LENGTH2 + KV2 * DILATION2 - 1) // (KV2 * DILATION2)
    tile = tl.program_id(0)
    copy = tl.program_id(1)
    batch = copy // HEADS
    head = copy % HEADS
    first = tile * BLOCK_M
    q_of_head = q + tl.cast(batch, tl.int64) * q_batch + tl.cast(head, tl.int64) * q_head
    queries = rows_of(q_of_head, batch, head, first, seq_q, Q_TOKEN, BLOCK_M, D, True, False)
    if not TMA:
        k += tl.cast(batch, tl.int64) * k_batch + tl.cast(head // SHARED, tl.int64) * k_head
        v += tl.cast(batch, tl.int64) * v_batch + tl.cast(head // SHARED, tl.int64) * v_head

    group = tile // (Q_TILES0 * Q_TILES1 * Q_TILES2)
    length0 = (LENGTH0 - group // (DILATION1 * DILATION2) + DILATION0 - 1) // DILATION0
    length1 = (LENGTH1 - group // DILATION2 % DILATION1 + DILATION1 - 1) // DILATION1
    length2 = (LENGTH2 - group % DILATION2 + DILATION2 - 1) // DILATION2
    tile0 = tile // (Q_TILES1 * Q_TILES2) % Q_TILES0
    tile1 = tile // Q_TILES2 % Q_TILES1
    tile2 = tile % Q_TILES2
    first0, count0 = tiles_of(tile0, length0, Q0, KV0, WINDOW0, STRIDE0, CAUSAL0)
    first1, count1 = tiles_of(tile1, length1, Q1, KV1, WINDOW1, STRIDE1, CAUSAL1)
    first2, count2 = tiles_of(tile2, length2, Q2, KV2, WINDOW2, STRIDE2, CAUSAL2)
    # Windows of each row; columns are compared with them below.
    row = tl.arange(0, BLOCK_M)[:, None]
    column = tl.arange(0, BLOCK_N)[None, :]
    start0, end0 = window_of(tile0 * Q0 + row // (Q1 * Q2), length0, WINDOW0, STRIDE0, CAUSAL0)
    start1, end1 = window_of(tile1 * Q1 + row // Q2 % Q1, length1, WINDOW1, STRIDE1, CAUSAL1)
    start2, end2 = window_of(tile2 * Q2 + row % Q2, length2, WINDOW2, STRIDE2, CAUSAL2)

    acc = tl.zeros([BLOCK_M, D], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for index in tl.range(0, count0 * count1 * count2):
        at0 = first0 + index // (count1 * count2)
        at1 = first1 + index // count2 % count1
        at2 = first2 + index % count2
        key = (((group * TILES0 + at0) * TILES1 + at1) * TILES2 + at2) * BLOCK_N
        keys = rows_of(k, batch, head // SHARED, key, seq_kv, K_TOKEN, BLOCK_N, D, False, TMA)
        values = rows_of(v, batch, head // SHARED, key, seq_kv, V_TOKEN, BLOCK_N, D, False, TMA)
        scores = product(queries, keys, UPCAST)
        if MASKED:
            key0 = at0 * KV0 + column // (KV1 * KV2)
            key1 = at1 * KV1 + column // KV2 % KV1
            key2 = at2 * KV2 + column % KV2
            seen = (key2 >= start2) & (key2 < end2)
            if LENGTH1 > 1:
                seen = seen & (key1 >= start1) & (key1 < end1)
            if LENGTH0 > 1:
                seen = seen & (key0 >= start0) & (key0 < end0)
            scores = tl.where(seen, scores, float("-inf"))
        acc, top, total = visit(acc, top, total, scores, values, scale, MASKED, UPCAST)
    if TEXT:
        for key in tl.range(seq_kv - TEXT, seq_kv, BLOCK_N):
            keys = rows_of(k, batch, head // SHARED, key, seq_kv, K_TOKEN, BLOCK_N, D, True, TMA)
            values = rows_of(v, batch, head // SHARED, key, seq_kv, V_TOKEN, BLOCK_N, D, True, TMA)
            scores = tl.where(key + column < seq_kv, product(queries, keys, UPCAST), float("-inf"))
            acc, top, total = visit(acc, top, total, scores, values, scale, True, UPCAST)
    store(o, lse, acc, top, total, copy, first, seq_q, BLOCK_M, D)


def rule(family: Box, layout: TokenLayout, tiling: Tiling) -> dict[str, Any]:
    """The compile-time constants of a pattern on a grid under tiles, and whether any tile needs a mask.

    Raises
    ------
    UserError
        The tiles do not have one number an axis, or no power of two of tokens.
    """
    axes = family.axes(layout)
    if len(tiling.q) != len(axes) or len(tiling.kv) != len(axes) or tiling.pack != 1 or tiling.dynamic_kv:
        raise UserError(f"tiles must have one number per axis of the grid ({len(axes)}), got {tiling.q} and {tiling.kv}")
    if family.border == "cut":
        raise UserError("this kernel pushes windows back at the border, got border=cut")
    for name, tokens in (("q_tile", tiling.q_rows), ("kv_tile", tiling.kv_rows)):
        if tokens & (tokens - 1) or tokens < 16:
            raise UserError(f"{name} must hold a power of two of at least 16 tokens, got {tokens}")
    masked = False
    for axis, q, kv in zip(axes, tiling.q, tiling.kv, strict=True):
        for group in range(axis.dilation):
            cut = axis.cut(group, q, kv)
            masked |= bool((cut.first != cut.full_first).any() or (cut.last != cut.full_last).any())
    constants: dict[str, Any] = {"TEXT": layout.text, "MASKED": masked, "BLOCK_M": tiling.q_rows, "BLOCK_N": tiling.kv_rows}
    for place in range(3):
        i = place - (3 - len(axes))
        length, window, stride, dilation, causal = axes[i][:5] if i >= 0 else (1, 1, 1, 1, False)
        constants |= {
            f"LENGTH{place}": length, f"WINDOW{place}": window, f"STRIDE{place}": stride, f"DILATION{place}": dilation,
            f"CAUSAL{place}": causal, f"Q{place}": tiling.q[i] if i >= 0 else 1, f"KV{place}": tiling.kv[i] if i >= 0 else 1,
        }  # fmt: skip
    return constants


def neighborhood(
    q: Any,
    k: Any,
    v: Any,
    family: Box,
    layout: TokenLayout,
    tiling: Tiling,
    *,
    scale: float | None = None,
    config: Config | None = None,
) -> tuple[Any, Any]:
    """Neighborhood attention over tokens that lie in tiles already.

    Parameters
    ----------
    q : torch tensor [batch, q_heads, places, head_dim]
        In the order of `tokens.boxes(layout.grid, tiling.q, dilation)`.
    k, v : torch tensor [batch, kv_heads, places + text, head_dim]
        In the order of `tokens.boxes(layout.grid, tiling.kv, dilation)`, then the text tokens.
    family, layout, tiling : Box, TokenLayout, Tiling
        The pattern, its grid, and tiles of one number per axis.
    scale, config
        As for `forward.attention`; the blocks of a config must hold the tiles.

    Returns
    -------
    o, lse : torch tensors
        As of `forward.attention`, in the order of q; rows of padding are meaningless.
    """
    import torch

    forward.check(q, k, v)
    constants = rule(family, layout, tiling)
    expected = family.permuted(layout, tiling)
    if (q.shape[2], k.shape[2]) != (expected[0], expected[1] + layout.text):
        raise UserError(
            f"q and k must have {expected[0]} and {expected[1] + layout.text} tokens in tiles, got {q.shape[2]} and {k.shape[2]}"
        )
    block = (tiling.q_rows, tiling.kv_rows)
    config = config or forward.default_config("neighborhood", q, block)
    if (config.block_m, config.block_n) != block:
        raise UserError(f"the tiles are of {block[0]} x {block[1]}, the config of {config.block_m} x {config.block_n}")
    scale = q.shape[3] ** -0.5 if scale is None else scale
    o, lse = forward.outputs(q)
    keys, values, tma = forward.sources(k, v, config)
    neighborhood_kernel[(q.shape[2] // block[0], q.shape[0] * q.shape[1])](
        q, keys, values, o, lse, scale / math.log(2), q.shape[2], k.shape[2], *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        Q_TOKEN=q.stride(2), K_TOKEN=k.stride(2), V_TOKEN=v.stride(2), HEADS=q.shape[1], SHARED=q.shape[1] // k.shape[1],
        D=q.shape[3], TMA=tma, UPCAST=forward.INTERPRETED and q.dtype == torch.bfloat16, **constants,
        num_warps=config.warps, num_stages=config.stages, enable_fp_fusion=True,
    )  # fmt: skip
    return o, lse
