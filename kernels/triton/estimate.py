# ruff: noqa: N803
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Kernels that look at the whole sequence cheaply: the vertical-slash estimate of MInference and a linear attention branch.

vertical_slash    how much the last queries look at each key, and at each distance
linear_attention  attention with a softmax feature map, linear in the tokens

Shapes as in `side`: tokens before heads, contiguous fp16 or bf16.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .decode import LOG2_E, interprets_bf16

BLOCK_N = 64
ESTIMATE_SPLITS = 16
LINEAR_KEYS = 64
"""Keys of a step of the state."""
LINEAR_QUERIES = 128
"""Queries of a program, each of which reads the whole state."""
LINEAR_WARPS = 8
LINEAR_CHUNK = 4096
"""Keys that one program sums into its part of the state."""


@triton.jit
def _last_queries(q_ptr, ROWS: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr):
    """Queries [BLOCK_M, D] of head program_id(1) of item program_id(2), zeros beyond ROWS."""
    row = tl.arange(0, BLOCK_M)
    index = (tl.program_id(2) * ROWS + row) * tl.num_programs(1) + tl.program_id(1)
    pointers = q_ptr + tl.cast(index, tl.int64)[:, None] * D + tl.arange(0, D)[None, :]
    return tl.load(pointers, mask=(row < ROWS)[:, None], other=0.0)


@triton.jit
def _scores(q, k_ptr, key, n, qk_scale, GROUP: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr):
    """Causal scores, base 2, of the last ROWS of n queries on keys key [BLOCK_N]; -inf where a query does not see the key."""
    index = (tl.cast(tl.program_id(2), tl.int64) * n + key) * (tl.num_programs(1) // GROUP) + tl.program_id(1) // GROUP
    k = tl.load(k_ptr + index[:, None] * D + tl.arange(0, D)[None, :], mask=(key < n)[:, None], other=0.0)
    if UPCAST:
        q = q.to(tl.float32)
        k = k.to(tl.float32)
    position = n - ROWS + tl.arange(0, q.shape[0])
    # The rows that pad ROWS lie beyond n and would see keys that are not there.
    visible = (key[None, :] <= position[:, None]) & (key < n)[None, :]
    return tl.where(visible, tl.dot(q, tl.trans(k)) * qk_scale, float("-inf"))


@triton.jit
def vertical_slash_lse_kernel(
    q_ptr, k_ptr, lse_ptr, n, chunk, qk_scale,
    GROUP: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """LSE, base 2, over one chunk of keys, to [batch, q_heads, splits, BLOCK_M]; grid (splits, q_heads, batch)."""
    q = _last_queries(q_ptr, ROWS, BLOCK_M, D)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    first = tl.program_id(0) * chunk
    for start in range(first, tl.minimum(first + chunk, n), BLOCK_N):
        s = _scores(q, k_ptr, start + tl.arange(0, BLOCK_N), n, qk_scale, GROUP, ROWS, D, UPCAST)
        m_new = tl.maximum(m, tl.max(s, 1))
        m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
        total = total * tl.math.exp2(m - m_safe) + tl.sum(tl.math.exp2(s - m_safe[:, None]), 1)
        m = m_new
    lse = m + tl.math.log2(tl.where(total == 0.0, 1.0, total))
    head = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    tl.store(lse_ptr + (head * tl.num_programs(0) + tl.program_id(0)) * BLOCK_M + tl.arange(0, BLOCK_M), lse)


@triton.jit
def vertical_kernel(
    q_ptr, k_ptr, lse_ptr, p_ptr, vertical_ptr, n, splits, qk_scale,
    GROUP: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Probabilities [ROWS, n] of a tile of keys and their sums over the rows; grid (key tiles, q_heads, batch)."""
    row = tl.arange(0, BLOCK_M)
    key = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    head = tl.cast(tl.program_id(2) * tl.num_programs(1) + tl.program_id(1), tl.int64)
    # Every row sees key 0, so that the first split is never empty and m is finite from the start.
    m = tl.load(lse_ptr + head * splits * BLOCK_M + row)
    total = tl.full([BLOCK_M], 1.0, tl.float32)
    for split in range(1, splits):
        lse = tl.load(lse_ptr + (head * splits + split) * BLOCK_M + row)
        m_new = tl.maximum(m, lse)
        total = total * tl.math.exp2(m - m_new) + tl.math.exp2(lse - m_new)
        m = m_new
    q = _last_queries(q_ptr, ROWS, BLOCK_M, D)
    s = _scores(q, k_ptr, key, n, qk_scale, GROUP, ROWS, D, UPCAST)
    p = tl.math.exp2(s - m[:, None]) / total[:, None]
    p = tl.where((row < ROWS)[:, None], p, 0.0)
    tl.store(p_ptr + (head * ROWS + row[:, None]) * n + key[None, :], p, mask=(row < ROWS)[:, None] & (key < n)[None, :])
    tl.store(vertical_ptr + head * n + key, tl.sum(p, 0), mask=key < n)


@triton.jit
def slash_kernel(p_ptr, slash_ptr, n, ROWS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Sums of p [ROWS, n] along diagonals, by distance of the key before its query; grid (distance tiles, heads).

    Each program owns its distances and reads p askew: no atomics, and so the same bits in every run.
    """
    head = tl.cast(tl.program_id(1), tl.int64)
    distance = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, BLOCK_M)
    key = n - ROWS + row[:, None] - distance[None, :]
    p = tl.load(p_ptr + (head * ROWS + row[:, None]) * n + key, mask=(row < ROWS)[:, None] & (key >= 0), other=0.0)
    tl.store(slash_ptr + head * n + distance, tl.sum(p, 0), mask=distance < n)


@triton.jit
def _features(x, live):
    """Softmax over the head dim, the feature map; zeros in dead rows."""
    x = x.to(tl.float32) * LOG2_E
    e = tl.math.exp2(x - tl.max(x, 1)[:, None])
    return tl.where(live[:, None], e / tl.sum(e, 1)[:, None], 0.0)


@triton.jit
def linear_state_kernel(
    k_ptr, v_ptr, state_ptr, norm_ptr, n, chunk,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_N: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk of keys of phi(k) v^T [D, DV] and phi(k) [D]; grid (chunks, kv_heads, batch)."""
    heads = tl.num_programs(1)
    batch = tl.cast(tl.program_id(2), tl.int64)
    d = tl.arange(0, D)
    dv = tl.arange(0, DV)
    state = tl.zeros([D, DV], tl.float32)
    norm = tl.zeros([D], tl.float32)
    first = tl.program_id(0) * chunk
    stop = tl.minimum(first + chunk, n)
    for start in range(first, stop, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        index = (batch * n + key) * heads + tl.program_id(1)
        k = tl.load(k_ptr + index[:, None] * D + d[None, :], mask=(key < stop)[:, None], other=0.0)
        v = tl.load(v_ptr + index[:, None] * DV + dv[None, :], mask=(key < stop)[:, None], other=0.0)
        phi = _features(k, key < stop)
        norm += tl.sum(phi, 0)
        phi = phi.to(v.dtype)
        if UPCAST:
            phi = phi.to(tl.float32)
            v = v.to(tl.float32)
        state = tl.dot(tl.trans(phi), v, state)
    part = (tl.program_id(0) * tl.num_programs(2) + batch) * heads + tl.program_id(1)
    tl.store(state_ptr + part * D * DV + d[:, None] * DV + dv[None, :], state)
    tl.store(norm_ptr + part * D + d, norm)


@triton.jit
def linear_out_kernel(
    q_ptr, state_ptr, norm_ptr, out_ptr, n,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_M: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """phi(q) state / (phi(q) norm) of a tile of queries; grid (query tiles, q_heads, batch)."""
    heads = tl.num_programs(1)
    batch = tl.cast(tl.program_id(2), tl.int64)
    query = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, D)
    dv = tl.arange(0, DV)
    index = (batch * n + query) * heads + tl.program_id(1)
    q = tl.load(q_ptr + index[:, None] * D + d[None, :], mask=(query < n)[:, None], other=0.0)
    part = batch * (heads // GROUP) + tl.program_id(1) // GROUP
    norm = tl.load(norm_ptr + part * D + d)
    state = tl.load(state_ptr + part * D * DV + d[:, None] * DV + dv[None, :])
    # The state grows with the keys and would overflow fp16; divided by the norm it is a mean of values, and the weights sum to 1.
    weight = _features(q, query < n) * norm[None, :]
    total = tl.sum(weight, 1)
    weight = (weight / tl.where(total == 0.0, 1.0, total)[:, None]).to(q.dtype)
    mean = (state / tl.where(norm == 0.0, 1.0, norm)[:, None]).to(q.dtype)
    if UPCAST:
        weight = weight.to(tl.float32)
        mean = mean.to(tl.float32)
    out = tl.dot(weight, mean)
    tl.store(out_ptr + index[:, None] * DV + dv[None, :], out.to(out_ptr.dtype.element_ty), mask=(query < n)[:, None])


def vertical_slash(q: Any, k: Any, *, scale: float | None = None) -> tuple[Any, Any]:
    """How much probability the last queries of a causal sequence give to each key and to each distance.

    Parameters
    ----------
    q : Tensor [batch, rows, q_heads, d]
        The last `rows` queries (MInference: 64), at most 128.
    k : Tensor [batch, tokens, kv_heads, d]
        All keys; at least `rows`.
    scale : float, optional
        Of the scores, d ** -0.5 by default.

    Returns
    -------
    tuple of Tensor [batch, q_heads, tokens], fp32
        Sums of the probabilities over the rows by key, and by distance of the key before its query (0: itself).
    """
    batch, rows, q_heads, d = q.shape
    _, n, kv_heads, _ = k.shape
    if not 1 <= rows <= min(n, 128):
        raise ValueError(f"q must hold the last 1 to {min(n, 128)} queries, got {rows}")
    _require_contiguous(q=q, k=k)
    shape = (batch, q_heads)
    splits = min(ESTIMATE_SPLITS, triton.cdiv(n, BLOCK_N))
    chunk = triton.cdiv(triton.cdiv(n, splits), BLOCK_N) * BLOCK_N
    block_m = max(triton.next_power_of_2(rows), 16)
    lse = torch.empty((*shape, splits, block_m), dtype=torch.float32, device=q.device)
    p = torch.empty((*shape, rows, n), dtype=torch.float32, device=q.device)
    vertical = torch.empty((*shape, n), dtype=torch.float32, device=q.device)
    slash = torch.empty_like(vertical)
    qk_scale = (d**-0.5 if scale is None else scale) * LOG2_E.value
    sizes = {"ROWS": rows, "BLOCK_M": block_m, "BLOCK_N": BLOCK_N}
    tensor = {"GROUP": q_heads // kv_heads, "D": d, "UPCAST": interprets_bf16(vertical_kernel, q.dtype), **sizes}
    tiles = triton.cdiv(n, BLOCK_N)
    vertical_slash_lse_kernel[(splits, q_heads, batch)](q, k, lse, n, chunk, qk_scale, **tensor)
    vertical_kernel[(tiles, q_heads, batch)](q, k, lse, p, vertical, n, splits, qk_scale, **tensor)
    slash_kernel[(tiles, batch * q_heads)](p, slash, n, **sizes)
    return vertical, slash


def linear_warps(d: int, dv: int) -> int:
    """Warps of a program that holds a state [d, dv] in registers."""
    return LINEAR_WARPS if d * dv > 64 * 64 else 4


def linear_attention(q: Any, k: Any, v: Any) -> Any:
    """Attention with phi(x) = softmax(x) over the head dim: phi(q) (phi(K)^T V) / (phi(q) sum phi(k)), not causal.

    q [batch, tokens, q_heads, d], k [batch, keys, kv_heads, d], v [batch, keys, kv_heads, dv]; the output is like q with dv
    columns.
    """
    batch, tokens, q_heads, d = q.shape
    _, n, kv_heads, dv = v.shape
    _require_contiguous(q=q, k=k, v=v)
    chunks = triton.cdiv(n, LINEAR_CHUNK)
    state = torch.empty((chunks, batch, kv_heads, d, dv), dtype=torch.float32, device=q.device)
    norm = torch.empty((chunks, batch, kv_heads, d), dtype=torch.float32, device=q.device)
    out = torch.empty((*q.shape[:3], dv), dtype=q.dtype, device=q.device)
    upcast = interprets_bf16(linear_out_kernel, q.dtype)
    sizes = {"D": d, "DV": dv, "UPCAST": upcast}
    grid = (chunks, kv_heads, batch)
    linear_state_kernel[grid](k, v, state, norm, n, LINEAR_CHUNK, BLOCK_N=LINEAR_KEYS, num_warps=linear_warps(d, dv), **sizes)
    # The parts are few and small; adding them up atomically would save the pass but not give the same bits in every run.
    state, norm = state.sum(0), norm.sum(0)
    grid = (triton.cdiv(tokens, LINEAR_QUERIES), q_heads, batch)
    linear_out_kernel[grid](
        q, state, norm, out, tokens, GROUP=q_heads // kv_heads, BLOCK_M=LINEAR_QUERIES, num_warps=LINEAR_WARPS, **sizes
    )
    return out


def _require_contiguous(**tensors: Any) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
