# ruff: noqa: N803, SIM108
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Steps that the forward kernels share: load a tile, score it, add it to the output so far, and write the output.

Softmax runs on base 2, with the scale folded into the exponent.
"""

import triton
import triton.language as tl

LOG2 = tl.constexpr(0.6931471805599453)
"""Natural logarithm of 2. Triton reads a global only if it says that it is constant."""


@triton.jit
def rows_of(x, batch, head, first, stop, stride, COUNT: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, TMA: tl.constexpr):
    """Rows [first, first + COUNT) of one head as [COUNT, D]; where MASKED, those from `stop` on are not read, and zero.

    `x` is a pointer to the head, or (TMA) a descriptor of the whole tensor, in which rows behind its end read as zero.
    """
    if TMA:
        return x.load([batch, head, first, 0]).reshape(COUNT, D)
    else:
        # Only the first row needs 64 bits: 2**31 elements are a million tokens of a layout with heads innermost.
        row = tl.arange(0, COUNT)
        pointers = x + tl.cast(first, tl.int64) * stride + row[:, None] * stride + tl.arange(0, D)[None, :]
        if MASKED:
            return tl.load(pointers, mask=(first + row < stop)[:, None], other=0.0)
        else:
            return tl.load(pointers)


@triton.jit
def product(q, k, UPCAST: tl.constexpr):
    """Scores of one tile."""
    if UPCAST:  # The interpreter keeps bf16 as integers, and multiplies those.
        return tl.dot(q.to(tl.float32), tl.trans(k.to(tl.float32)))
    else:
        return tl.dot(q, tl.trans(k))


@triton.jit
def visit(acc, top, total, scores, v, scale, MASKED: tl.constexpr, UPCAST: tl.constexpr):
    """One tile of keys: softmax so far, output so far; `top` and `scale` are in base 2. Where MASKED, scores may be -inf."""
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)
    if MASKED:  # A row may have seen nothing yet, and -inf - -inf is no number.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
    else:
        base = new_top
    weights = tl.math.exp2(scores * scale - base[:, None])
    shrink = tl.math.exp2(top - base)
    total = total * shrink + tl.sum(weights, 1)
    acc = acc * shrink[:, None]
    rounded = weights.to(v.dtype)
    if UPCAST:
        acc = tl.dot(rounded.to(tl.float32), v.to(tl.float32), acc)
    else:
        acc = tl.dot(rounded, v, acc)
    return acc, new_top, total


@triton.jit
def store(o, lse, acc, top, total, copy, first, seq_q, BLOCK_M: tl.constexpr, D: tl.constexpr):
    """Divide by the sum and write the rows of one q tile; rows that saw no key become 0 and -inf."""
    row = first + tl.arange(0, BLOCK_M)
    live = row < seq_q
    empty = total == 0.0
    divisor = tl.where(empty, 1.0, total)
    at = tl.cast(copy, tl.int64) * seq_q
    pointers = o + (at + first) * D + tl.arange(0, BLOCK_M)[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(pointers, (acc / divisor[:, None]).to(o.dtype.element_ty), mask=live[:, None])
    tl.store(lse + at + row, tl.where(empty, float("-inf"), (top + tl.math.log2(divisor)) * LOG2), mask=live)
