"""A mask of the user's own, as a Python function with the meaning of FlexAttention's `mask_mod`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from ...facts import UserError
from ..bsr import from_bsr
from ..heads import stack_heads
from ..layout import Tiling, TokenLayout
from ..schedule import Kind, TileSchedule
from .band import Band

CHUNK = 1 << 22
"""Pairs that are evaluated at a time: bounds the memory."""

Watcher = Callable[[float], None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` from time to time which share of a mask has been evaluated."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class MaskFunction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pairs for which a function is true: `function(b, h, q_idx, kv_idx)` on integer arrays, as of FlexAttention.

    It gets 0 for the item of the batch, the number of the head, queries [rows, 1] and keys [1, columns] as numpy arrays, and
    gives what broadcasts to a bool array [rows, columns]. Every pair is evaluated, a chunk at a time: time grows with N squared,
    memory does not. A function that never reads `h` is evaluated once for all heads.

    Parameters
    ----------
    function : str
        `FILE.py:NAME`.
    causal : bool
        The dense call that it is compared with is causal.
    """

    function: Annotated[str, Meta(pattern=r"^.+\.py:[A-Za-z_]\w*$")]
    causal: bool = False

    def mask_class(self) -> str:
        return "blocks"

    def without_pattern(self) -> Band:
        return Band(causal=self.causal)

    def schedule(self, layout: TokenLayout, tiling: Tiling) -> TileSchedule:
        return self.schedule_heads(layout, tiling, 1)

    def schedule_heads(self, layout: TokenLayout, tiling: Tiling, heads: int) -> TileSchedule:
        tiling.require_flat("a mask function")
        file = self.function.rpartition(":")[0]
        if not Path(file).is_file():
            raise UserError(f"no such file: {file}")
        return _evaluated(self.function, Path(file).stat().st_mtime_ns, layout, tiling.q_rows, tiling.kv_rows, heads)

    def visible(self, q: Any, k: Any, layout: TokenLayout) -> Any:
        """Whether query q of head 0 sees key k."""
        return _load(self.function)(0, 0, q, k)


@lru_cache(maxsize=4)
def _evaluated(function: str, mtime_ns: int, layout: TokenLayout, q_tile: int, kv_tile: int, heads: int) -> TileSchedule:
    mask = _load(function)
    if _reads(mask, 0):
        raise UserError(f"{function} depends on the item of the batch: give one function for each item")
    distinct = heads if _reads(mask, 1) else 1
    parts = []
    for head in range(distinct):
        schedule = _one_head(mask, function, head, layout, q_tile, kv_tile, (head, distinct))
        parts.append((schedule, heads // distinct))
    return stack_heads(parts)


def _load(function: str) -> Callable[..., Any]:
    from runpy import run_path

    file, _, name = function.rpartition(":")
    try:
        found = run_path(file).get(name)
    except Exception as error:  # whatever the user's file does
        raise UserError(
            f"cannot run {file}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    if not callable(found):
        raise UserError(f"{file} has no function {name}")
    return found  # type: ignore[no-any-return]


def _reads(function: Callable[..., Any], argument: int) -> bool:
    """Whether a function can depend on one of its arguments: always, unless its code never reads it."""
    from dis import get_instructions

    code = getattr(function, "__code__", None)
    if code is None or argument >= code.co_argcount:
        return True
    name = code.co_varnames[argument]
    return name in code.co_cellvars or any(
        name in (i.argval if isinstance(i.argval, tuple) else (i.argval,)) and "STORE" not in i.opname
        for i in get_instructions(code)
    )


def _one_head(
    mask: Callable[..., Any], name: str, head: int, layout: TokenLayout, q_tile: int, kv_tile: int, turn: tuple[int, int]
) -> TileSchedule:
    """Evaluate all pairs of a head and count them by tile."""
    seq_q, seq_kv = layout.query_tokens, layout.tokens
    width = max(CHUNK // q_tile // kv_tile, 1) * kv_tile
    watcher, rows = _watcher.get(), -(-seq_q // q_tile)
    counts: list[int] = []
    indices: list[Any] = []
    kinds: list[Any] = []
    pairs = 0
    for row in range(rows):
        if watcher is not None:
            watcher((turn[0] + row / rows) / turn[1])
        tiles = 0
        q = np.arange(row * q_tile, min((row + 1) * q_tile, seq_q))[:, None]
        for first in range(0, seq_kv, width):
            k = np.arange(first, min(first + width, seq_kv))[None, :]
            seen = _call(mask, name, head, q, k)
            live = np.add.reduceat(np.count_nonzero(seen, axis=0), np.arange(0, k.size, kv_tile))
            touched = np.flatnonzero(live)
            keys = np.minimum(kv_tile, seq_kv - (first + touched * kv_tile))
            indices.append(first // kv_tile + touched)
            kinds.append(np.where(live[touched] == keys * len(q), Kind.FULL, Kind.PARTIAL))
            pairs += int(live.sum())
            tiles += len(touched)
        counts.append(tiles)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    column, kind = np.concatenate(indices).astype(np.int64), np.concatenate(kinds).astype(np.int64)
    if not len(column):
        raise UserError(f"{name} is true nowhere")
    listed = from_bsr(indptr, column, q_tile=q_tile, kv_tile=kv_tile, seq_q=seq_q, seq_kv=seq_kv, kinds=kind)
    return replace(listed, pairs_per_copy=(pairs,))


def _call(mask: Callable[..., Any], name: str, head: int, q: Any, k: Any) -> Any:
    """The mask of a chunk of pairs, as a bool array."""
    shape = (q.shape[0], k.shape[1])
    try:
        seen = np.asarray(mask(0, head, q, k))
        if seen.dtype != bool:
            raise TypeError(f"gives {seen.dtype}, and not bool")
        return np.broadcast_to(seen, shape)
    except Exception as error:  # whatever the user's function does
        raise UserError(f"{name}(b, h, q_idx, kv_idx): {_named(error)}") from None


def _named(error: Exception) -> str:
    """An error in one line."""
    return " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
