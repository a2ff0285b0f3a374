"""What one attention call computes, whatever its pattern."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from ..facts import UserError

Dtype = Literal["bf16", "fp16", "fp8"]
Phase = Literal["prefill", "decode", "diffusion", "backward"]

BYTES: dict[str, int] = {"bf16": 2, "fp16": 2, "fp8": 1}
"""Bytes of one element of Q, K and V."""

Count = Annotated[int, Meta(ge=1, le=2**40)]


class AttentionProblem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shapes and types of one attention call.

    Parameters
    ----------
    batch, q_heads, kv_heads : int
        `kv_heads` must divide `q_heads` (GQA); equal by default.
    seq_q, seq_kv : int
        Tokens of one batch item; `seq_kv` equals `seq_q` by default.
    head_dim, head_dim_v : int
        Width of Q and K, and of V and O (equal by default).
    causal : bool
        The dense call that this one is compared with is causal.

    Examples
    --------
    >>> AttentionProblem(q_heads=32, kv_heads=8, seq_q=4096, head_dim=128).gqa_group
    4
    """

    q_heads: Count
    seq_q: Count
    head_dim: Annotated[int, Meta(ge=8, le=1024)]
    kv_heads: Annotated[int, Meta(ge=0)] = 0
    seq_kv: Annotated[int, Meta(ge=0)] = 0
    head_dim_v: Annotated[int, Meta(ge=0, le=1024)] = 0
    batch: Count = 1
    dtype: Dtype = "bf16"
    phase: Phase = "prefill"
    causal: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "kv_heads", self.kv_heads or self.q_heads)
        force_setattr(self, "seq_kv", self.seq_kv or self.seq_q)
        force_setattr(self, "head_dim_v", self.head_dim_v or self.head_dim)
        if self.q_heads % self.kv_heads:
            raise UserError(f"kv_heads must divide q_heads, got kv_heads={self.kv_heads} and q_heads={self.q_heads}")
        if self.causal and self.seq_q > self.seq_kv:
            raise UserError(f"a causal call needs seq_kv >= seq_q, got seq_q={self.seq_q} and seq_kv={self.seq_kv}")

    @property
    def gqa_group(self) -> int:
        """Query heads that share one head of K and V."""
        return self.q_heads // self.kv_heads

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return BYTES[self.dtype]

    def flops(self, pairs: float) -> float:
        """FLOPs over a number of (query, key) pairs, counted over all heads and items.

        Those of QK and PV; of a backward pass those of QK again, dV and dP, and dQ and dK.

        >>> forward = AttentionProblem(q_heads=1, seq_q=128, head_dim=64)
        >>> backward = AttentionProblem(q_heads=1, seq_q=128, head_dim=64, phase="backward")
        >>> backward.flops(1) / forward.flops(1)
        2.5
        """
        products = (3, 2) if self.phase == "backward" else (1, 1)
        return 2.0 * pairs * (products[0] * self.head_dim + products[1] * self.head_dim_v)
