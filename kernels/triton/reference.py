"""Attention in float64, straight from its definition."""

from __future__ import annotations

from math import sqrt
from typing import Any


def attention(q: Any, k: Any, v: Any, seen: Any = None, *, scale: float | None = None) -> tuple[Any, Any]:
    """Softmax attention with every score written out.

    Parameters
    ----------
    q : torch tensor [batch, q_heads, seq_q, head_dim]
    k, v : torch tensor [batch, kv_heads, seq_kv, head_dim]
    seen : bool tensor or array, broadcastable to [batch, q_heads, seq_q, seq_kv], optional
        Which query sees which key.
    scale : float, optional
        Factor of the scores; 1 / sqrt(head_dim) by default.

    Returns
    -------
    o : float64 tensor [batch, q_heads, seq_q, head_dim]
        Zero in rows that see no key.
    lse : float64 tensor [batch, q_heads, seq_q]
        Natural logarithm of the sum of exponentials; -inf in rows that see no key.
    """
    import torch

    shared = q.shape[1] // k.shape[1]
    keys, values = (x.double().repeat_interleave(shared, dim=1) for x in (k, v))
    scores = q.double() @ keys.transpose(-1, -2) * (1 / sqrt(q.shape[-1]) if scale is None else scale)
    if seen is not None:
        scores = scores.masked_fill(~torch.as_tensor(seen, device=q.device), float("-inf"))
    lse = torch.logsumexp(scores, dim=-1)
    # Where nothing is seen, -inf minus any finite number still gives weights of zero.
    weights = torch.exp(scores - lse.masked_fill(lse == float("-inf"), 0.0)[..., None])
    return weights @ values, lse
