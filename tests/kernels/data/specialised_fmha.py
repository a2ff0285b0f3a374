# ruff: noqa: N803
"""A dense attention kernel whose warps take roles: tiles through descriptors, and a loop that the compiler may part."""

import triton
import triton.language as tl


@triton.jit
def specialised_fmha(q_d, k_d, v_d, o_d, seq_len, scale, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HEAD_DIM: tl.constexpr):
    """One block of queries against all keys of one head."""
    row = tl.program_id(0) * BLOCK_M
    q = q_d.load([row, 0])
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    out = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    for n in tl.range(0, seq_len, BLOCK_N, warp_specialize=True):
        k = k_d.load([n, 0])
        s = tl.dot(q, tl.trans(k))
        new_top = tl.maximum(top, tl.max(s, 1) * scale)
        p = tl.math.exp2(s * scale - new_top[:, None])
        keep = tl.math.exp2(top - new_top)
        total = total * keep + tl.sum(p, 1)
        out = out * keep[:, None]
        v = v_d.load([n, 0])
        out = tl.dot(p.to(v.dtype), v, out)
        top = new_top
    out = out / total[:, None]
    o_d.store([row, 0], out.to(tl.bfloat16))
