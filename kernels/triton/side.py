# ruff: noqa: N803
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What a sparse method runs beside attention: moving tokens, pooling and scoring blocks, and choosing among them.

permute, unpermute   rows by an index list; `box_order` makes the list that turns a grid into box tiles
append               new keys and values into a paged cache
mean_pool            means of blocks of tokens
block_score          scores of pooled queries on pooled keys
top_k                the k best of every row of scores

Tensors are contiguous fp16 or bf16 (float32 too where nothing is multiplied) unless said otherwise; lists are int32, and -1 in a
list means no token. Scores are fp32. Head dims are powers of two from 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl

from .decode import interprets_bf16
from .tokens import boxes

PERMUTE_ELEMENTS = 4096
POOL_TOKENS = 32
SCORE_BLOCK = 64
TOP_K_BLOCK = 4096
INT_MIN = tl.constexpr(-(2**31))


@triton.jit
def permute_kernel(
    x_ptr, index_ptr, out_ptr, entries, width, x_stride, out_stride, index_stride,
    SCATTER: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Rows by an index: out[i] = x[index[i]], or with SCATTER out[index[i]] = x[i]; grid (entries, width, outer)."""
    outer = tl.program_id(2)
    entry = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    live = entry < entries
    token = tl.load(index_ptr + tl.cast(outer, tl.int64) * index_stride + entry, mask=live, other=-1)
    source, target = (entry, token) if SCATTER else (token, entry)
    there = (live & (token >= 0))[:, None] & (column < width)[None, :]
    x = x_ptr + tl.cast(outer, tl.int64) * x_stride + tl.cast(source, tl.int64)[:, None] * width + column[None, :]
    out = out_ptr + tl.cast(outer, tl.int64) * out_stride + tl.cast(target, tl.int64)[:, None] * width + column[None, :]
    # A gather writes zeros where there is no token: attention may load a padded row, and stale nan would spread from it.
    written = there if SCATTER else live[:, None] & (column < width)[None, :]
    tl.store(out, tl.load(x, mask=there, other=0.0), mask=written)


@triton.jit
def append_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, table_ptr, lengths_ptr, tokens, columns,
    k_page, v_page, K_TOKEN: tl.constexpr, K_HEAD: tl.constexpr, V_TOKEN: tl.constexpr, V_HEAD: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, PAGE: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Write token t of a sequence at its position length + t in the cache, all heads at once; grid (tokens, batch)."""
    token = tl.program_id(0)
    batch = tl.program_id(1)
    position = tl.load(lengths_ptr + batch) + token
    column = position // PAGE
    # Beyond its table a sequence has no page; the write is dropped rather than made to another's memory.
    fits = column < columns
    page = tl.cast(tl.load(table_ptr + batch * columns + column, mask=fits, other=0), tl.int64)
    slot = position % PAGE
    head = tl.arange(0, BLOCK_H)
    # Not `& fits`: the interpreter's scalar-by-tensor `&` is no mask.
    keep = (head < tl.where(fits, HEADS, 0))[:, None]
    source = (tl.cast(batch, tl.int64) * tokens + token) * HEADS + head
    d = tl.arange(0, D)
    k = tl.load(k_ptr + source[:, None] * D + d[None, :], mask=keep)
    tl.store(k_cache_ptr + page * k_page + slot * K_TOKEN + head[:, None] * K_HEAD + d[None, :], k, mask=keep)
    dv = tl.arange(0, DV)
    v = tl.load(v_ptr + source[:, None] * DV + dv[None, :], mask=keep)
    tl.store(v_cache_ptr + page * v_page + slot * V_TOKEN + head[:, None] * V_HEAD + dv[None, :], v, mask=keep)


@triton.jit
def mean_pool_kernel(
    x_ptr, out_ptr, tokens,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Mean of the live tokens of one block; grid (blocks, heads, batch)."""
    block = tl.program_id(0)
    head = tl.program_id(1)
    batch = tl.program_id(2)
    first = block * BLOCK
    stop = tl.minimum(first + BLOCK, tokens)
    d = tl.arange(0, D)
    total = tl.zeros([BLOCK_T, D], tl.float32)
    for start in range(first, stop, BLOCK_T):
        token = start + tl.arange(0, BLOCK_T)
        row = (tl.cast(batch, tl.int64) * tokens + token) * HEADS + head
        x = tl.load(x_ptr + row[:, None] * D + d[None, :], mask=(token < stop)[:, None], other=0.0)
        total += x.to(tl.float32)
    mean = tl.sum(total, 0) / (stop - first)
    row = (tl.cast(batch, tl.int64) * tl.num_programs(0) + block) * HEADS + head
    tl.store(out_ptr + row * D + d, mean.to(out_ptr.dtype.element_ty))


@triton.jit
def block_score_kernel(
    q_ptr, k_ptr, out_ptr, q_blocks, k_blocks, scale, offset,
    Q_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, Q_BLOCK: tl.constexpr, K_BLOCK: tl.constexpr,
    CAUSAL: tl.constexpr, BLOCK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """A tile [BLOCK, BLOCK] of pooled scores; grid (k tiles, q tiles, batch x q_heads)."""
    head = tl.program_id(2) % Q_HEADS
    batch = tl.cast(tl.program_id(2) // Q_HEADS, tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    q_row = (batch * q_blocks + i) * Q_HEADS + head
    k_row = (batch * k_blocks + j) * (Q_HEADS // GROUP) + head // GROUP
    q = tl.load(q_ptr + q_row[:, None] * D + d[None, :], mask=(i < q_blocks)[:, None], other=0.0)
    k = tl.load(k_ptr + k_row[:, None] * D + d[None, :], mask=(j < k_blocks)[:, None], other=0.0)
    if UPCAST:
        q = q.to(tl.float32)
        k = k.to(tl.float32)
    score = tl.dot(q, tl.trans(k)) * scale
    if CAUSAL:
        # A block of queries may look at a block of keys as soon as its last query sees the first key.
        last = i * Q_BLOCK + Q_BLOCK - 1 + offset
        score = tl.where(j[None, :] * K_BLOCK <= last[:, None], score, float("-inf"))
    out = (tl.cast(tl.program_id(2), tl.int64) * q_blocks + i[:, None]) * k_blocks + j[None, :]
    tl.store(out_ptr + out, score, mask=(i < q_blocks)[:, None] & (j < k_blocks)[None, :])


@triton.jit
def _ordered(score, live):
    """Integers in the order of the scores; INT_MIN for what cannot be chosen, which no other score maps to."""
    score = tl.where(score == 0.0, 0.0, score)  # -0.0 is 0.0
    bits = score.to(tl.int32, bitcast=True)
    # Negative floats order backwards as integers: flip all but their sign.
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return tl.where(live & (score > float("-inf")), bits, INT_MIN)


@triton.jit
def _at_least(score_ptr, keys, threshold, n, BLOCK: tl.constexpr, ONE: tl.constexpr):
    """How many of a row's n scores are at or above the threshold; keys holds them where one block holds all."""
    if ONE:
        return tl.sum((keys >= threshold).to(tl.int32), 0)
    count = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n, BLOCK):
        column = start + tl.arange(0, BLOCK)
        score = tl.load(score_ptr + column, mask=column < n, other=float("-inf"))
        count += (_ordered(score, column < n) >= threshold).to(tl.int32)
    return tl.sum(count, 0)


@triton.jit
def top_k_kernel(score_ptr, index_ptr, counts_ptr, n, k, BLOCK: tl.constexpr, ONE: tl.constexpr):
    """The k best of row program_id(0), by a bitwise search for the k-th best score; indices ascend.

    32 counts whatever k and n are, where sorting needs the row in registers and taking maxima needs k passes. Ascending lists are
    what a gathering kernel wants: neighbours stay neighbours.
    """
    row = tl.program_id(0)
    score_ptr += tl.cast(row, tl.int64) * n
    index_ptr += tl.cast(row, tl.int64) * k
    column = tl.arange(0, BLOCK)
    keys = _ordered(tl.load(score_ptr + column, mask=column < n, other=float("-inf")), column < n)
    # The greatest threshold that at least k scores reach; INT_MIN where fewer than k can be chosen.
    threshold = tl.where(_at_least(score_ptr, keys, 0, n, BLOCK, ONE) >= k, 0, INT_MIN)
    for step in range(31):
        trial = threshold + (1 << (30 - step))
        threshold = tl.where(_at_least(score_ptr, keys, trial, n, BLOCK, ONE) >= k, trial, threshold)
    # Scores equal to the threshold fill up what is left, first come first served.
    ties = k - _at_least(score_ptr, keys, threshold + 1, n, BLOCK, ONE)
    ties = tl.where(threshold == INT_MIN, 0, ties)
    chosen = 0
    equal = 0
    for start in range(0, n, BLOCK):
        column = start + tl.arange(0, BLOCK)
        keys = _ordered(tl.load(score_ptr + column, mask=column < n, other=float("-inf")), column < n)
        tie = (keys == threshold).to(tl.int32)
        take = ((keys > threshold) | ((tie > 0) & (equal + tl.cumsum(tie, 0) <= ties))).to(tl.int32)
        tl.store(index_ptr + chosen + tl.cumsum(take, 0) - 1, column, mask=take > 0)
        chosen += tl.sum(take, 0)
        equal += tl.sum(tie, 0)
    for start in range(0, k, BLOCK):
        place = start + tl.arange(0, BLOCK)
        tl.store(index_ptr + place, tl.full([BLOCK], -1, tl.int32), mask=(place >= chosen) & (place < k))
    tl.store(counts_ptr + row, chosen)


def box_order(grid: Sequence[int], tile: Sequence[int], text: int = 0) -> Any:
    """Index list that puts a row-major grid into box tiles, then `text` tokens; tiles are padded with -1 where they stick out.

    Tiles and the tokens in a tile are row-major too (`tokens.boxes`).

    Examples
    --------
    >>> box_order((2, 3), (2, 2), text=1).tolist()
    [0, 1, 3, 4, 2, -1, 5, -1, 6]
    """
    if len(grid) != len(tile):
        raise ValueError(f"a tile has a size per axis of the grid {tuple(grid)}, got {tuple(tile)}")
    tokens = prod(grid)
    return torch.cat([torch.from_numpy(boxes(tuple(grid), tuple(tile))), torch.arange(tokens, tokens + text)]).to(torch.int32)


def permute_width(width: int) -> int:
    """Columns of a program that moves rows of `width`."""
    return int(min(triton.next_power_of_2(width), 1024))


def permute(x: Any, index: Any) -> Any:
    """Rows of x [outer, tokens, width] by `index` [entries] or [outer, entries]: [outer, entries, width], zeros where it is -1.

    [batch, tokens, heads, d] is such a tensor with heads x d columns, [batch, heads, tokens, d] one with batch x heads outer
    items: the second can have an order for each head.
    """
    out = torch.empty((x.shape[0], index.shape[-1], x.shape[2]), dtype=x.dtype, device=x.device)
    _permute(x, index, out, scatter=False)
    return out


def unpermute(x: Any, index: Any, tokens: int) -> Any:
    """Undo `permute`: row i of x [outer, entries, width] goes to row index[i] of [outer, tokens, width], or nowhere at -1.

    Rows that no entry names are left uninitialised.
    """
    out = torch.empty((x.shape[0], tokens, x.shape[2]), dtype=x.dtype, device=x.device)
    _permute(x, index, out, scatter=True)
    return out


def _permute(x: Any, index: Any, out: Any, *, scatter: bool) -> None:
    entries = index.shape[-1]
    outer, _, width = x.shape
    if index.dim() == 2 and index.shape[0] != outer:
        raise ValueError(f"index must be [entries] or [{outer}, entries], got {tuple(index.shape)}")
    _require_contiguous(x=x, index=index)
    block_w = permute_width(width)
    block_t = max(PERMUTE_ELEMENTS // block_w, 1)
    if out.numel() and entries:
        permute_kernel[(triton.cdiv(entries, block_t), triton.cdiv(width, block_w), outer)](
            *(x, index, out, entries, width, x.stride(0), out.stride(0), entries if index.dim() == 2 else 0),
            **{"SCATTER": scatter, "BLOCK_T": block_t, "BLOCK_W": block_w},
        )


def append(k: Any, v: Any, k_cache: Any, v_cache: Any, page_table: Any, lengths: Any) -> None:
    """Write new tokens into a paged cache, in place.

    k [batch, tokens, kv_heads, d] and v [..., dv] go to positions lengths + 0, 1, ... of their sequences, where `lengths` [batch]
    int32 are those before the call; caches and page_table are those of `decode`. What lies beyond a sequence's table is dropped.
    """
    batch, tokens, heads, d = k.shape
    _require_contiguous(k=k, v=v, page_table=page_table, lengths=lengths)
    if k_cache.stride(3) != 1 or v_cache.stride(3) != 1:
        raise ValueError("the last stride of the caches must be 1")
    if k.numel():
        append_kernel[(tokens, batch)](
            *(k, v, k_cache, v_cache, page_table, lengths, tokens, page_table.shape[1], k_cache.stride(0), v_cache.stride(0)),
            K_TOKEN=k_cache.stride(1),
            K_HEAD=k_cache.stride(2),
            V_TOKEN=v_cache.stride(1),
            V_HEAD=v_cache.stride(2),
            HEADS=heads,
            D=d,
            DV=v.shape[3],
            PAGE=k_cache.shape[1],
            BLOCK_H=triton.next_power_of_2(heads),
        )


def mean_pool(x: Any, block: int) -> Any:
    """Mean of every `block` tokens of x [batch, tokens, heads, d]: [batch, blocks, heads, d]; the last block may be shorter."""
    batch, tokens, heads, d = x.shape
    _require_contiguous(x=x)
    blocks = triton.cdiv(tokens, block)
    out = torch.empty((batch, blocks, heads, d), dtype=x.dtype, device=x.device)
    if out.numel():
        block_t = min(triton.next_power_of_2(block), POOL_TOKENS)
        mean_pool_kernel[(blocks, heads, batch)](x, out, tokens, HEADS=heads, D=d, BLOCK=block, BLOCK_T=block_t)
    return out


def block_score(
    q: Any,
    k: Any,
    *,
    scale: float | None = None,
    causal: bool = False,
    q_block: int = 1,
    k_block: int = 1,
    offset: int = 0,
) -> Any:
    """Scores [batch, q_heads, q_blocks, k_blocks] fp32 of pooled queries [batch, q_blocks, q_heads, d] on pooled keys.

    Keys are [batch, k_blocks, kv_heads, d]. With `causal`, key blocks that no query of the block sees are -inf: a block of
    `q_block` queries starts at position offset + i * q_block (offset = seq_kv - seq_q), one of `k_block` keys at j * k_block.
    """
    batch, q_blocks, q_heads, d = q.shape
    _, k_blocks, kv_heads, _ = k.shape
    _require_contiguous(q=q, k=k)
    out = torch.empty((batch, q_heads, q_blocks, k_blocks), dtype=torch.float32, device=q.device)
    if out.numel():
        block_score_kernel[(triton.cdiv(k_blocks, SCORE_BLOCK), triton.cdiv(q_blocks, SCORE_BLOCK), batch * q_heads)](
            *(q, k, out, q_blocks, k_blocks, d**-0.5 if scale is None else scale, offset),
            Q_HEADS=q_heads,
            GROUP=q_heads // kv_heads,
            D=d,
            Q_BLOCK=q_block,
            K_BLOCK=k_block,
            CAUSAL=causal,
            BLOCK=SCORE_BLOCK,
            UPCAST=interprets_bf16(block_score_kernel, q.dtype),
        )
    return out


def top_k_warps(block: int) -> int:
    """Warps of a program that holds `block` scores."""
    return 8 if block > 2048 else 4


def top_k(scores: Any, k: int) -> tuple[Any, Any]:
    """Columns of the k highest of each row of scores [..., n] fp32: indices [..., k] int32 ascending, and counts [...] int32.

    Of equal scores the first win. -inf is never chosen: such rows have fewer than k indices, and -1 after them.
    """
    *rows, n = scores.shape
    if scores.dtype != torch.float32:
        raise ValueError(f"scores must be float32, got {scores.dtype}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    _require_contiguous(scores=scores)
    if not scores.numel():
        empty = torch.full((*rows, k), -1, dtype=torch.int32, device=scores.device)
        return empty, torch.zeros(rows, dtype=torch.int32, device=scores.device)
    index = torch.empty((*rows, k), dtype=torch.int32, device=scores.device)
    counts = torch.empty(rows, dtype=torch.int32, device=scores.device)
    block = min(max(triton.next_power_of_2(n), 16), TOP_K_BLOCK)
    top_k_kernel[(counts.numel(),)](scores, index, counts, n, k, BLOCK=block, ONE=n <= block, num_warps=top_k_warps(block))
    return index, counts


def _require_contiguous(**tensors: Any) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
