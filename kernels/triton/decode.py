# ruff: noqa: N803
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Decode attention over a paged cache: split-KV, its merge, and lists of selected tokens, blocks or pages.

One program owns one kv head of one sequence and one split of its keys. The query heads that share the kv head (and the query
tokens, where there are a few) are its rows, padded to the 16 that a tensor instruction needs.

Shapes: q [batch, q_heads, d] or [batch, tokens, q_heads, d]; caches [pages, page_size, kv_heads, d or dv] in any strides whose
last is 1; page_table [batch, pages of a sequence]; lengths [batch]. Query token t of T is at position length - T + t and sees
itself and what is before it. q, caches and outputs are fp16 or bf16, lists and lengths int32, LSE (natural log) and partial
outputs fp32. A row that sees no key has O = 0 and LSE = -inf.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

BLOCK_N = 64
WARPS = 4
STAGES = 3
MOST_ROWS = 64
"""Rows of a program; more query tokens than fit are further programs."""
MOST_SPLITS = 128
FEWEST_KEYS = 256
"""Keys of a split below which its prologue and the merge cost more than the split saves."""


@triton.jit
def _softmax_step(q, k, v, m, total, acc, keep, qk_scale, MASKED: tl.constexpr, UPCAST: tl.constexpr):
    """Online softmax over one tile of keys, base 2; keep [rows, keys] is read only where MASKED."""
    if UPCAST:
        k = k.to(tl.float32)
    s = tl.dot(q, tl.trans(k)) * qk_scale
    if MASKED:
        s = tl.where(keep, s, float("-inf"))
    m_new = tl.maximum(m, tl.max(s, 1))
    # A row that has seen no key yet has m = -inf, and -inf - -inf is nan. Rows of an unmasked tile always see one.
    m_safe = m_new
    if MASKED:
        m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
    p = tl.math.exp2(s - m_safe[:, None])
    alpha = tl.math.exp2(m - m_safe)
    total = total * alpha + tl.sum(p, 1)
    p = p.to(v.dtype)
    if UPCAST:
        p = p.to(tl.float32)
        v = v.to(tl.float32)
    acc = tl.dot(p, v, acc * alpha[:, None])
    return m_new, total, acc


@triton.jit
def _load_queries(q_ptr, batch, kv_head, tile, D: tl.constexpr, GROUP: tl.constexpr, TOKENS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Rows of a tile: their queries, their index in [batch, tokens, q_heads], query token, and whether they exist."""
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    live = row < TOKENS * GROUP
    token = row // GROUP
    q_heads = tl.num_programs(1) * GROUP
    index = (batch * TOKENS + token) * q_heads + kv_head * GROUP + row % GROUP
    q = tl.load(q_ptr + tl.cast(index, tl.int64)[:, None] * D + tl.arange(0, D)[None, :], mask=live[:, None], other=0.0)
    return q, index, token, live


@triton.jit
def _store_rows(o_ptr, lse_ptr, index, live, split, m, total, acc, DV: tl.constexpr, GROUP: tl.constexpr, TOKENS: tl.constexpr):
    """Write normalised rows of split `split`: o [splits, rows, DV] and lse [splits, rows]."""
    rows = tl.num_programs(2) * TOKENS * tl.num_programs(1) * GROUP
    out = tl.cast(split, tl.int64) * rows + index
    # A row without keys has total = 0 and m = -inf: dividing by 1 instead makes O = 0 and LSE = -inf of it.
    total = tl.where(total == 0.0, 1.0, total)
    acc = acc / total[:, None]
    lse = (m + tl.math.log2(total)) / LOG2_E
    pointers = o_ptr + out[:, None] * DV + tl.arange(0, DV)[None, :]
    tl.store(pointers, acc.to(o_ptr.dtype.element_ty), mask=live[:, None])
    tl.store(lse_ptr + out, lse, mask=live)


@triton.jit
def _cache_tile(
    k_ptr, v_ptr, page, slot, keep, k_page, v_page,
    K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Keys and values of a tile. page is one id or one a token: pages of a cache lie anywhere, so offsets are 64 bits wide."""
    page = tl.cast(page, tl.int64)
    k = k_ptr + (page * k_page + slot * K_TOKEN)[:, None] + tl.arange(0, D)[None, :]
    v = v_ptr + (page * v_page + slot * V_TOKEN)[:, None] + tl.arange(0, DV)[None, :]
    if MASKED:
        return tl.load(k, mask=keep[:, None], other=0.0), tl.load(v, mask=keep[:, None], other=0.0)
    return tl.load(k), tl.load(v)


@triton.jit
def _visible(keep, position, limit, TOKENS: tl.constexpr):
    """Mask [rows, keys]: a single query token sees all that is kept; of several each has its own limit."""
    if TOKENS == 1:
        return keep[None, :]
    else:
        return keep[None, :] & (position[None, :] < limit[:, None])


@triton.jit
def _paged_step(
    q, m, total, acc, k_ptr, v_ptr, table, start, stop, limit, qk_scale, k_page, v_page,
    K_TOKEN: tl.constexpr, V_TOKEN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, PAGE: tl.constexpr,
    TOKENS: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Tile of keys [start, start + BLOCK_N) of the sequence."""
    position = start + tl.arange(0, BLOCK_N)
    keep = position < stop
    # A tile inside one page needs one page id, not one for each token.
    if PAGE % BLOCK_N == 0:
        page = tl.load(table + start // PAGE)
        slot = start % PAGE + tl.arange(0, BLOCK_N)
    else:
        page = tl.load(table + position // PAGE, mask=keep, other=0) if MASKED else tl.load(table + position // PAGE)
        slot = position % PAGE
    k, v = _cache_tile(k_ptr, v_ptr, page, slot, keep, k_page, v_page, K_TOKEN, V_TOKEN, D, DV, MASKED)
    visible = _visible(keep, position, limit, TOKENS)
    return _softmax_step(q, k, v, m, total, acc, visible, qk_scale, MASKED, UPCAST)


@triton.jit(do_not_specialize=["splits", "table_stride"])
def paged_decode_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, o_ptr, lse_ptr, qk_scale, splits, table_stride,
    k_page, v_page,
    K_TOKEN: tl.constexpr, K_HEAD: tl.constexpr, V_TOKEN: tl.constexpr, V_HEAD: tl.constexpr, D: tl.constexpr,
    DV: tl.constexpr, PAGE: tl.constexpr, GROUP: tl.constexpr, TOKENS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """All keys of the sequences; grid (row tiles x splits, kv_heads, batch), qk_scale includes log2(e)."""
    split = tl.program_id(0) % splits
    tile = tl.program_id(0) // splits
    kv_head = tl.program_id(1)
    batch = tl.program_id(2)
    length = tl.load(lengths_ptr + batch)
    q, index, token, live = _load_queries(q_ptr, batch, kv_head, tile, D, GROUP, TOKENS, BLOCK_M)
    if UPCAST:
        q = q.to(tl.float32)
    limit = length - TOKENS + token + 1
    # Each sequence is split by its own length, in whole tiles: a short one then leaves splits empty rather than ragged.
    chunk = tl.cdiv(tl.cdiv(length, splits), BLOCK_N) * BLOCK_N
    start = split * chunk
    stop = tl.minimum(start + chunk, length)
    # Up to here the first query token sees whole tiles, and all others see no less.
    full = start + tl.maximum(tl.minimum(stop, length - TOKENS + 1) - start, 0) // BLOCK_N * BLOCK_N
    k_ptr += kv_head * K_HEAD
    v_ptr += kv_head * V_HEAD
    table = table_ptr + batch * table_stride
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, DV], tl.float32)
    for n in range(start, full, BLOCK_N):
        m, total, acc = _paged_step(
            *(q, m, total, acc, k_ptr, v_ptr, table, n, stop, limit, qk_scale),
            *(k_page, v_page, K_TOKEN, V_TOKEN, D, DV, PAGE, TOKENS, BLOCK_N, False, UPCAST),
        )
    for n in range(full, stop, BLOCK_N):
        m, total, acc = _paged_step(
            *(q, m, total, acc, k_ptr, v_ptr, table, n, stop, limit, qk_scale),
            *(k_page, v_page, K_TOKEN, V_TOKEN, D, DV, PAGE, TOKENS, BLOCK_N, True, UPCAST),
        )
    _store_rows(o_ptr, lse_ptr, index, live, split, m, total, acc, DV, GROUP, TOKENS)


@triton.jit(do_not_specialize=["splits", "table_stride", "list_stride"])
def gather_decode_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, list_ptr, counts_ptr, o_ptr, lse_ptr, qk_scale, splits, table_stride,
    list_stride, k_page, v_page,
    K_TOKEN: tl.constexpr, K_HEAD: tl.constexpr, V_TOKEN: tl.constexpr, V_HEAD: tl.constexpr, D: tl.constexpr,
    DV: tl.constexpr, PAGE: tl.constexpr, GRAIN: tl.constexpr, GROUP: tl.constexpr, TOKENS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Selected blocks of GRAIN tokens (1: tokens, PAGE: pages); grid as paged_decode_kernel.

    One masked loop: an entry may be dead (negative) or cut by the length anywhere in the list, and on 16 rows a mask is cheap
    beside the loads.
    """
    split = tl.program_id(0) % splits
    tile = tl.program_id(0) // splits
    kv_head = tl.program_id(1)
    batch = tl.program_id(2)
    length = tl.load(lengths_ptr + batch)
    owner = batch * tl.num_programs(1) + kv_head
    tokens = tl.load(counts_ptr + owner) * GRAIN
    q, index, token, live = _load_queries(q_ptr, batch, kv_head, tile, D, GROUP, TOKENS, BLOCK_M)
    if UPCAST:
        q = q.to(tl.float32)
    limit = length - TOKENS + token + 1
    chunk = tl.cdiv(tl.cdiv(tokens, splits), BLOCK_N) * BLOCK_N
    start = split * chunk
    stop = tl.minimum(start + chunk, tokens)
    k_ptr += kv_head * K_HEAD
    v_ptr += kv_head * V_HEAD
    table = table_ptr + batch * table_stride
    selected = list_ptr + tl.cast(owner, tl.int64) * list_stride
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, DV], tl.float32)
    for n in range(start, stop, BLOCK_N):
        entry = n + tl.arange(0, BLOCK_N)
        block = tl.load(selected + entry // GRAIN, mask=entry < stop, other=-1)
        position = block * GRAIN + entry % GRAIN
        keep = (block >= 0) & (position < length)
        page = tl.load(table + position // PAGE, mask=keep, other=0)
        slot = position % PAGE
        k, v = _cache_tile(k_ptr, v_ptr, page, slot, keep, k_page, v_page, K_TOKEN, V_TOKEN, D, DV, True)
        visible = _visible(keep, position, limit, TOKENS)
        m, total, acc = _softmax_step(q, k, v, m, total, acc, visible, qk_scale, True, UPCAST)
    _store_rows(o_ptr, lse_ptr, index, live, split, m, total, acc, DV, GROUP, TOKENS)


@triton.jit(do_not_specialize=["splits"])
def merge_kernel(
    o_part_ptr, lse_part_ptr, o_ptr, lse_ptr, splits, DV: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """One row from its splits: parts [splits, rows, DV] and [splits, rows] to [rows, DV] and [rows]; grid (rows,)."""
    row = tl.cast(tl.program_id(0), tl.int64)
    rows = tl.num_programs(0)
    m = float("-inf")
    total = 0.0
    acc = tl.zeros([DV], tl.float32)
    for first in range(0, splits, BLOCK_S):
        split = first + tl.arange(0, BLOCK_S)
        live = split < splits
        part = tl.cast(split, tl.int64) * rows + row
        lse = tl.load(lse_part_ptr + part, mask=live, other=float("-inf")) * LOG2_E
        o = tl.load(o_part_ptr + part[:, None] * DV + tl.arange(0, DV)[None, :], mask=live[:, None], other=0.0)
        m_new = tl.maximum(m, tl.max(lse, 0))
        m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
        weight = tl.math.exp2(lse - m_safe)
        alpha = tl.math.exp2(m - m_safe)
        acc = acc * alpha + tl.sum(weight[:, None] * o, 0)
        total = total * alpha + tl.sum(weight, 0)
        m = m_new
    total = tl.where(total == 0.0, 1.0, total)
    acc = acc / total
    lse = (m + tl.math.log2(total)) / LOG2_E
    tl.store(o_ptr + row * DV + tl.arange(0, DV), acc.to(o_ptr.dtype.element_ty))
    tl.store(lse_ptr + row, lse)


def interprets_bf16(kernel: Any, dtype: Any) -> bool:
    """Whether `kernel` runs in Triton's interpreter on bf16, whose dot would multiply raw bit patterns: UPCAST then."""
    return dtype == torch.bfloat16 and not isinstance(kernel, triton.runtime.JITFunction)


def row_block(rows: int) -> int:
    """Rows of a program for `rows` packed rows: a power of two from 16, what a tensor instruction takes, to `MOST_ROWS`."""
    return int(min(max(triton.next_power_of_2(rows), 16), MOST_ROWS))


def split_count(programs: int, keys: int, processors: int) -> int:
    """Splits that give every SM a program, none of fewer than `FEWEST_KEYS` keys."""
    return max(1, min(-(-processors // max(programs, 1)), keys // FEWEST_KEYS, MOST_SPLITS))


def decode(
    q: Any, k_cache: Any, v_cache: Any, page_table: Any, lengths: Any, *, splits: int | None = None, scale: float | None = None
) -> tuple[Any, Any]:
    """Attention of the last token (or tokens) of each sequence to all of its keys.

    Parameters
    ----------
    q : Tensor [batch, q_heads, d] or [batch, tokens, q_heads, d]
        Queries, fp16 or bf16, contiguous; they are the last of their sequence.
    k_cache, v_cache : Tensor [pages, page_size, kv_heads, d | dv]
        Paged keys and values of the dtype of q, last stride 1.
    page_table : Tensor [batch, pages of a sequence], int32
        Page of each page_size tokens of a sequence; entries beyond its length are not read.
    lengths : Tensor [batch], int32
        Keys of each sequence, the query tokens included; may be 0.
    splits : int, optional
        Programs that share the keys of a sequence; by default as many as fill the GPU.
    scale : float, optional
        Of the scores, d ** -0.5 by default.

    Returns
    -------
    tuple of Tensor
        Output like q with dv columns, and its LSE, fp32, without that axis.
    """
    keys = page_table.shape[1] * k_cache.shape[1]
    return _launch(paged_decode_kernel, q, k_cache, v_cache, page_table, lengths, keys, splits, scale)


def decode_tokens(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    lengths: Any,
    tokens: Any,
    counts: Any,
    *,
    splits: int | None = None,
    scale: float | None = None,
) -> tuple[Any, Any]:
    """Attention to selected tokens: `tokens` [batch, kv_heads, n] positions in the sequence, int32, the first `counts`.

    A negative position is skipped, and so is one that is not before the length or comes after the query. Otherwise as `decode`.
    """
    return _gather(q, k_cache, v_cache, page_table, lengths, tokens, counts, 1, splits, scale)


def decode_pages(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    lengths: Any,
    pages: Any,
    counts: Any,
    *,
    grain: int | None = None,
    splits: int | None = None,
    scale: float | None = None,
) -> tuple[Any, Any]:
    """Attention to selected pages: `pages` [batch, kv_heads, n] columns of the page table, int32, the first `counts`.

    With `grain`, entries are blocks of that many tokens of the sequence, whatever the page size. Otherwise as `decode_tokens`.
    """
    return _gather(q, k_cache, v_cache, page_table, lengths, pages, counts, grain or k_cache.shape[1], splits, scale)


def merge(o_parts: Any, lse_parts: Any, dtype: Any) -> tuple[Any, Any]:
    """Merge normalised partial outputs [splits, ..., dv] by their natural LSE [splits, ...], all fp32, into `dtype` and fp32."""
    splits, *rows = lse_parts.shape
    out = torch.empty((*rows, o_parts.shape[-1]), dtype=dtype, device=o_parts.device)
    lse = torch.empty(rows, dtype=torch.float32, device=o_parts.device)
    block = min(triton.next_power_of_2(splits), 16)
    if lse.numel():
        merge_kernel[(lse.numel(),)](o_parts, lse_parts, out, lse, splits, DV=out.shape[-1], BLOCK_S=block, num_warps=WARPS)
    return out, lse


def _gather(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    lengths: Any,
    selected: Any,
    counts: Any,
    grain: int,
    splits: int | None,
    scale: float | None,
) -> tuple[Any, Any]:
    owners = (q.shape[0], k_cache.shape[2])
    if tuple(selected.shape[:2]) != owners or tuple(counts.shape) != owners:
        raise ValueError(f"lists and counts must be a row per (batch, kv head) {owners}, got {selected.shape} and {counts.shape}")
    _require_int32(selected=selected, counts=counts)
    lists = (selected, counts, grain)
    keys = selected.shape[2] * grain
    return _launch(gather_decode_kernel, q, k_cache, v_cache, page_table, lengths, keys, splits, scale, lists)


def _launch(
    kernel: Any,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    lengths: Any,
    keys: int,
    splits: int | None,
    scale: float | None,
    lists: tuple[Any, Any, int] | None = None,
) -> tuple[Any, Any]:
    """Run a decode kernel over `splits` parts of at most `keys` keys a sequence, and merge them where there are several."""
    _require(q, k_cache, v_cache, page_table, lengths)
    batch, *tokens, q_heads, d = q.shape
    _, page_size, kv_heads, dv = v_cache.shape
    query_tokens = tokens[0] if tokens else 1
    group = q_heads // kv_heads
    block_m = row_block(query_tokens * group)
    tiles = triton.cdiv(query_tokens * group, block_m)
    if splits is None:
        processors = torch.cuda.get_device_properties(q.device).multi_processor_count if q.is_cuda else 1
        splits = split_count(batch * kv_heads * tiles, keys, processors)
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    # One split writes the answer itself, in its dtype; several write fp32 parts for the merge.
    out = torch.empty((splits, *q.shape[:-1], dv), dtype=torch.float32 if splits > 1 else q.dtype, device=q.device)
    lse = torch.empty(out.shape[:-1], dtype=torch.float32, device=q.device)
    constants = {
        "K_TOKEN": k_cache.stride(1),
        "K_HEAD": k_cache.stride(2),
        "V_TOKEN": v_cache.stride(1),
        "V_HEAD": v_cache.stride(2),
        "D": d,
        "DV": dv,
        "PAGE": page_size,
        "GROUP": group,
        "TOKENS": query_tokens,
        "BLOCK_M": block_m,
        "BLOCK_N": BLOCK_N,
        "UPCAST": interprets_bf16(kernel, q.dtype),
    }
    qk_scale = (d**-0.5 if scale is None else scale) * LOG2_E.value
    strides: tuple[int, ...] = (page_table.stride(0),)
    given: tuple[Any, ...] = (q, k_cache, v_cache, page_table, lengths)
    if lists is not None:
        given += lists[:2]
        strides += (lists[0].stride(1),)
        constants["GRAIN"] = lists[2]
    strides += (k_cache.stride(0), v_cache.stride(0))
    if batch:
        grid = (tiles * splits, kv_heads, batch)
        kernel[grid](*given, out, lse, qk_scale, splits, *strides, **constants, num_warps=WARPS, num_stages=STAGES)
    return (out[0], lse[0]) if splits == 1 else merge(out, lse, q.dtype)


def _require(q: Any, k_cache: Any, v_cache: Any, page_table: Any, lengths: Any) -> None:
    """Refuse what the kernels would read wrongly."""
    if q.dtype not in (torch.float16, torch.bfloat16) or k_cache.dtype != q.dtype or v_cache.dtype != q.dtype:
        raise ValueError(f"q and caches must be all fp16 or all bf16, got {q.dtype}, {k_cache.dtype} and {v_cache.dtype}")
    if q.dim() not in (3, 4) or not q.is_contiguous():
        raise ValueError(f"q must be contiguous [batch, q_heads, d] or [batch, tokens, q_heads, d], got {tuple(q.shape)}")
    if k_cache.dim() != 4 or k_cache.shape[:3] != v_cache.shape[:3] or k_cache.shape[3] != q.shape[-1]:
        raise ValueError(f"caches must be [pages, page_size, kv_heads, d], got {tuple(k_cache.shape)} and {tuple(v_cache.shape)}")
    if k_cache.stride(3) != 1 or v_cache.stride(3) != 1:
        raise ValueError("the last stride of the caches must be 1")
    for name, size in (("head_dim", q.shape[-1]), ("head_dim of v", v_cache.shape[3])):
        if size < 16 or size & (size - 1):
            raise ValueError(f"{name} must be a power of two of at least 16, got {size}")
    if q.shape[-2] % k_cache.shape[2]:
        raise ValueError(f"q_heads must be a multiple of kv_heads, got {q.shape[-2]} and {k_cache.shape[2]}")
    if page_table.dim() != 2 or page_table.shape[0] != q.shape[0] or tuple(lengths.shape) != (q.shape[0],):
        raise ValueError(f"page_table and lengths must have a row per sequence, got {page_table.shape} and {lengths.shape}")
    _require_int32(page_table=page_table, lengths=lengths)


def _require_int32(**tensors: Any) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int32 or not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous int32, got {tensor.dtype}")
