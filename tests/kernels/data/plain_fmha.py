# ruff: noqa: N803
"""A dense attention kernel as one would write it: pointers, one loop, exp2."""

import triton
import triton.language as tl


@triton.jit
def plain_fmha(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,
    q_row,
    k_row,
    v_row,
    o_row,
    seq_len,
    scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    """One block of queries of one head against all keys; rows of every tensor are heads x HEAD_DIM wide."""
    head = tl.program_id(1) * HEAD_DIM
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    keys = tl.arange(0, BLOCK_N)
    width = tl.arange(0, HEAD_DIM)
    q = tl.load(q_ptr + head + rows[:, None] * q_row + width[None, :])
    k_tile = k_ptr + head + keys[:, None] * k_row + width[None, :]
    v_tile = v_ptr + head + keys[:, None] * v_row + width[None, :]
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    out = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    for _ in range(0, seq_len, BLOCK_N):
        k = tl.load(k_tile)
        s = tl.dot(q, tl.trans(k))
        new_top = tl.maximum(top, tl.max(s, 1) * scale)
        p = tl.math.exp2(s * scale - new_top[:, None])
        keep = tl.math.exp2(top - new_top)
        total = total * keep + tl.sum(p, 1)
        out = out * keep[:, None]
        v = tl.load(v_tile)
        out = tl.dot(p.to(v.dtype), v, out)
        top = new_top
        k_tile += BLOCK_N * k_row
        v_tile += BLOCK_N * v_row
    out = out / total[:, None]
    tl.store(o_ptr + head + rows[:, None] * o_row + width[None, :], out.to(o_ptr.dtype.element_ty))
