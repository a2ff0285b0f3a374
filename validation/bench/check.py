"""Is the result right? Some rows of an attention call against float64, before the call is timed."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, NamedTuple

LARGEST = {"bf16": 0.02, "fp16": 0.004, "fp32": 1e-4}
"""Largest error of the sampled rows, root mean square over root mean square. Rounding P and O to bf16 gives some 0.003 to 0.006;
one block too few out of a thousand gives 0.03."""

ROWS, HEADS = 8, 4
"""Rows and heads that are sampled: the first and last row, and some between."""


class WrongError(Exception):
    """The result differs from the reference by more than rounding can explain."""


class Checked(NamedTuple):
    """How far the sampled rows are from float64, as a fraction of their root mean square."""

    error: float
    rows: int


def require(error: float, dtype: str, rows: int) -> Checked:
    """The error as a result, or WrongError."""
    if not error <= LARGEST[dtype]:  # nan is wrong as well
        raise WrongError(f"wrong result: relative error {error:.3g} over {rows} rows against float64, at most {LARGEST[dtype]:g}")
    return Checked(error, rows)


def relative_error(got: Any, want: Any) -> float:
    """Root mean square of the difference over that of `want`, in float64."""
    difference = (got.double() - want.double()).square().mean().sqrt()
    return float(difference / want.double().square().mean().sqrt().clamp_min(1e-30))


def sampled(tokens: int, count: int = ROWS) -> list[int]:
    """Rows spread over a sequence, both ends included.

    >>> sampled(100, 4), sampled(2)
    ([0, 33, 66, 99], [0, 1])
    """
    if tokens <= count:
        return list(range(tokens))
    return [round(place * (tokens - 1) / (count - 1)) for place in range(count)]


def attention_rows(o: Any, q: Any, k: Any, v: Any, seen: Callable[[int], Any], dtype: str) -> Checked:
    """Hold rows of O against float64.

    Parameters
    ----------
    o, q, k, v : torch tensor [batch, heads, tokens, head_dim]
        Result and inputs; K and V may have fewer heads.
    seen : callable
        Bool tensor [keys] or None (all) of the keys that a query row sees.
    dtype : str
        Type of the inputs, which decides how near is near enough.

    Raises
    ------
    WrongError
        The rows differ.
    """
    import torch

    shared = q.shape[1] // k.shape[1]
    rows = sampled(q.shape[2])
    heads = sampled(q.shape[1], HEADS)
    got, want = [], []
    for batch in {0, q.shape[0] - 1}:
        for head in heads:
            keys, values = (x[batch, head // shared].double() for x in (k, v))
            for row in rows:
                scores = keys @ q[batch, head, row].double() / sqrt(q.shape[-1])
                mask = seen(row)
                if mask is not None:
                    scores = scores.masked_fill(~mask, float("-inf"))
                weights = torch.softmax(scores, 0).nan_to_num(0.0)  # a row that sees no key is zero
                want.append(weights @ values)
                got.append(o[batch, head, row])
    return require(relative_error(torch.stack(got), torch.stack(want)), dtype, len(want))
