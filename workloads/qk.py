"""Real queries and keys from a file, for patterns that depend on what they hold."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError

Floats = NDArray[np.floating[Any]]


class QueriesAndKeys(NamedTuple):
    """Q and K of one item, rotary embedding and all.

    Attributes
    ----------
    q : float array [q_heads, queries, head_dim]
    k : float array [kv_heads, keys, head_dim]
    """

    q: Floats
    k: Floats

    def each_head(self, heads: int, tokens: int) -> tuple[Floats, Floats]:
        """Q and K of every query head, [heads, tokens, head_dim] each, in float64; the call's heads share them evenly.

        Raises
        ------
        UserError
            They are not of such a call.
        """
        q_heads, queries, _ = self.q.shape
        if heads % q_heads or not queries == self.k.shape[1] == tokens:
            raise UserError(
                f"q and k hold {q_heads} heads of {queries} x {self.k.shape[1]} tokens, the call has {heads} of {tokens}"
            )
        return self.q.astype(np.float64), np.repeat(self.k, q_heads // len(self.k), axis=0).astype(np.float64)

    def sizes(self) -> dict[str, int]:
        """The numbers of a problem that they fix."""
        (q_heads, queries, width), (kv_heads, keys, _) = self.q.shape, self.k.shape
        return {"q_heads": q_heads, "kv_heads": kv_heads, "head_dim": width, "seq_q": queries, "seq_kv": keys}


def load_qk(file: str) -> QueriesAndKeys:
    """Q and K of a `.npz` file with arrays `q` [heads, tokens, d] and `k` [K/V heads, tokens, d].

    Raises
    ------
    UserError
        The file cannot be read, or its arrays do not fit each other.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no such file of Q and K: {file}")
    return _load(file, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _load(file: str, mtime_ns: int) -> QueriesAndKeys:
    try:
        content = dict(np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError, BadZipFile):
        raise UserError(f"cannot read {file}: not a .npz file of arrays") from None
    if not {"q", "k"} <= content.keys():
        raise UserError(f"{file} must hold arrays q and k, got {', '.join(sorted(content)) or 'none'}")
    q, k = content["q"], content["k"]
    for name, array in (("q", q), ("k", k)):
        if array.ndim != 3 or not array.size or not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{file}: {name} must be a float array [heads, tokens, head_dim], got {array.dtype} {array.shape}")
        if not np.isfinite(array).all():
            raise UserError(f"{file}: {name} holds numbers that are not finite")
    if q.shape[2] != k.shape[2] or q.shape[0] % k.shape[0] or q.shape[1] > k.shape[1]:
        raise UserError(f"{file}: q {q.shape} and k {k.shape} do not fit each other")
    return QueriesAndKeys(q, k)
