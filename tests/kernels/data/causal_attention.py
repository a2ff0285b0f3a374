# ruff: noqa: N803
"""A causal attention kernel in another style: a helper for both loops, K laid out for the product, natural exponentials."""

import triton
import triton.language as tl


@triton.jit
def _visit(
    acc, norm, peak, q, k_at, v_at, stride, first, last, at, offs, BM: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr
):
    for n in tl.range(first, last, BN):
        kt = tl.load(k_at + n * stride)
        scores = tl.dot(q, kt)
        if MASKED:
            scores = tl.where(at[:, None] >= n + offs[None, :], scores, -1.0e6)
        m = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp(scores - m[:, None])
        decay = tl.exp(peak - m)
        norm = norm * decay + tl.sum(weights, axis=1)
        acc *= decay[:, None]
        acc += tl.dot(weights.to(tl.bfloat16), tl.load(v_at + n * stride))
        peak = m
    return acc, norm, peak


@triton.jit
def causal_attention(Q, K, V, Out, stride, softmax_scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    """Whole tiles before the diagonal, then those on it with a mask; all tensors share one token stride."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    base = tl.program_id(1).to(tl.int64) * D
    at = block * BM + tl.arange(0, BM)
    offs = tl.arange(0, BN)
    d = tl.arange(0, D)
    q = tl.load(Q + base + at[:, None] * stride + d[None, :])
    q = (q * softmax_scale).to(tl.bfloat16)
    k_at = K + base + offs[None, :] * stride + d[:, None]
    v_at = V + base + offs[:, None] * stride + d[None, :]
    acc = tl.zeros([BM, D], tl.float32)
    norm = tl.zeros([BM], tl.float32)
    peak = tl.full([BM], -1.0e6, tl.float32)
    acc, norm, peak = _visit(acc, norm, peak, q, k_at, v_at, stride, 0, block * BM, at, offs, BM, BN, False)
    acc, norm, peak = _visit(acc, norm, peak, q, k_at, v_at, stride, block * BM, (block + 1) * BM, at, offs, BM, BN, True)
    tl.store(Out + base + at[:, None] * stride + d[None, :], (acc / norm[:, None]).to(tl.bfloat16))
