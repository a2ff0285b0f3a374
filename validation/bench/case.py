"""Case: one call to be timed, with a name that says everything about it but where and when."""

from __future__ import annotations

from typing import Any, Literal, cast

from msgspec import Struct

SUITES = ("ceilings", "core", "sparse", "micro", "decode", "aux", "blind")
"""Every suite, in the order in which they are worth running."""

L2 = Literal["flushed", "warm"]


class Case(Struct, frozen=True, kw_only=True):
    """One call to be timed.

    Attributes
    ----------
    suite, runner, kernel : str
        Suite that it belongs to, module that runs it, and label of the kernel.
    phase, dtype, batch, q_heads, kv_heads, seq_q, seq_kv, head_dim, pattern, params
        As in a Measurement; `params` becomes `pattern_params`.
    how : dict
        What only the runner needs to know.
    l2 : str
        `flushed`: nothing of the inputs is in L2 when a call starts. `warm`: the same call has just run.
    what : str
        Which cost a case of the micro suite isolates.
    """

    suite: str
    runner: str
    kernel: str
    phase: str = "prefill"
    dtype: str = "bf16"
    batch: int = 1
    q_heads: int | None = None
    kv_heads: int | None = None
    seq_q: int | None = None
    seq_kv: int | None = None
    head_dim: int | None = None
    pattern: str | None = None
    params: dict[str, Any] = {}
    how: dict[str, Any] = {}
    l2: L2 = "flushed"
    what: str = ""

    @property
    def key(self) -> str:
        """Name within a GPU's table: holds suite, kernel, shape and parameters, neither time nor position.

        >>> Case(suite="core", runner="attention", kernel="fa2", pattern="causal", q_heads=8, kv_heads=2, seq_q=64, seq_kv=64).key
        'core/fa2/causal-bf16-b1-h8-kv2-q64-k64'
        """
        shape = {"b": self.batch, "h": self.q_heads, "kv": self.kv_heads, "q": self.seq_q, "k": self.seq_kv, "d": self.head_dim}
        parts = [self.pattern or self.phase, self.dtype, *(f"{n}{v}" for n, v in shape.items() if v is not None)]
        parts += [f"{name}={_plain(value)}" for name, value in sorted({**self.params, **self.how}.items())]
        parts += [self.what] if self.what else []
        parts += ["warm"] if self.l2 == "warm" else []
        return f"{self.suite}/{self.kernel}/{'-'.join(parts)}"

    @property
    def shape(self) -> tuple[int, int, int, int, int, int]:
        """Batch, q_heads, kv_heads, seq_q, seq_kv, head_dim of a case that has them all."""
        found = (self.batch, self.q_heads, self.kv_heads, self.seq_q, self.seq_kv, self.head_dim)
        if None in found:
            raise ValueError(f"case {self.key} lacks a part of its shape: {found}")
        return cast(tuple[int, int, int, int, int, int], found)

    @property
    def tflop(self) -> float:
        """10^12 FLOP of the dense call of this shape; half of it where causal. Nothing without a shape."""
        if not (self.seq_q and self.seq_kv and self.q_heads and self.head_dim):
            return 0.0
        whole = 4e-12 * self.batch * self.q_heads * self.seq_q * self.seq_kv * self.head_dim
        return whole / 2 if self.pattern == "causal" else whole

    @property
    def gib(self) -> float:
        """GiB of Q, K, V and O at two bytes a value."""
        if not (self.seq_q and self.seq_kv and self.q_heads and self.kv_heads and self.head_dim):
            return 0.0
        rows = 2 * self.q_heads * self.seq_q + 2 * self.kv_heads * self.seq_kv
        return 2 * self.batch * rows * self.head_dim / 2**30


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
