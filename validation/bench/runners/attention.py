"""Attention calls: the bundled kernels, and peers on the same inputs and masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ....workloads import Kind, TileSchedule, schedule
from ....workloads.families import Band
from ..case import Case
from ..check import Checked, attention_rows
from ..machine import Machine
from ..masks import schedule_of
from ..work import Work, copies_of, generator, normal

Attend = Callable[[Any, Any, Any], Any]
"""(q, k, v) to o, in the layout of the kernel."""


class Kernel(NamedTuple):
    """A kernel made ready for a case."""

    attend: Attend
    tokens_first: bool = False
    """[batch, tokens, heads, d] instead of [batch, heads, tokens, d]."""
    fields: Mapping[str, Any] = MappingProxyType({})


def prepare(case: Case, machine: Machine) -> Work:
    """Inputs, calls and check of an attention case."""
    batch, q_heads, kv_heads, seq_q, seq_kv, head_dim = case.shape
    work = work_of(case, machine)
    if case.kernel == "bundled":
        kernel = _bundled(case, machine, work)
    else:
        from .peers import peer

        kernel = peer(case, machine, work)
    sizes = [(q_heads, seq_q), (kv_heads, seq_kv), (kv_heads, seq_kv)]
    if kernel.tokens_first:
        sizes = [(tokens, heads) for heads, tokens in sizes]
    bytes_each = round(case.gib * 2**30)
    inputs = []
    for copy in range(copies_of(bytes_each, machine, case)):
        source = generator(case, machine, copy)
        inputs.append([normal((batch, *size, head_dim), case, machine, source) for size in sizes])

    def check() -> Checked:
        q, k, v = inputs[-1]
        o = kernel.attend(q, k, v)
        if kernel.tokens_first:
            o, q, k, v = (x.transpose(1, 2) for x in (o, q, k, v))
        return attention_rows(o, q, k, v, seen_by(case, work, machine.device), case.dtype)

    calls = [partial(kernel.attend, *given) for given in inputs]
    counts = {"visited": work.visited, "max_visited": work.max_visited, "tiles": [work.q_tile, work.kv_tile]} if work else {}
    return Work(calls, check, bytes_each, fields={**kernel.fields, **counts})


def work_of(case: Case, machine: Machine) -> TileSchedule | None:
    """The tiles that a case visits; None where the kernel needs no list."""
    tile = window_tile(case, machine) if case.pattern == "sliding_window" else (0, 0)
    params = msgspec.json.encode(case.params, order="sorted")
    return _schedule(case.pattern or "dense", params, int(case.seq_q or 0), int(case.seq_kv or 0), tile)


@lru_cache(maxsize=4)
def _schedule(pattern: str, params: bytes, seq_q: int, seq_kv: int, tile: tuple[int, int]) -> TileSchedule | None:
    """The same mask runs through several kernels, one after another."""
    given = msgspec.json.decode(params)
    if pattern == "sliding_window":
        return schedule(pattern, seq_q=seq_q, seq_kv=seq_kv, q_tile=tile[0], kv_tile=tile[1], **given)
    return schedule_of(pattern, given, seq_q, seq_kv)


def window_tile(case: Case, machine: Machine) -> tuple[int, int]:
    """Tile of a windowed call: that of the kernel, since the pattern has no blocks of its own."""
    if machine.interpreted:
        return 64, 64
    from ....kernels.triton.configs import find

    config = find("sparse", machine.spec.arch, int(case.head_dim or 0))
    return config.block_m, config.block_n


def _bundled(case: Case, machine: Machine, work: TileSchedule | None) -> Kernel:
    """The kernels of this package, with index lists that are made and moved to the GPU beforehand."""
    from ....kernels.triton.configs import find
    from ....kernels.triton.forward import attention
    from ....kernels.triton.lists import csr

    fields: dict[str, Any] = {}
    if not machine.interpreted:
        block = (work.q_tile, work.kv_tile) if work else None
        config = find("sparse" if work else "dense", machine.spec.arch, int(case.head_dim or 0), block)
        fields["kernel_config"] = msgspec.to_builtins(config)
    if work is None:
        causal = case.pattern == "causal"
        return Kernel(lambda q, k, v: attention(q, k, v, causal=causal)[0], fields=fields)
    lists = csr(*_masked(case, work))
    return Kernel(lambda q, k, v: attention(q, k, v, lists)[0], fields=fields)


def _masked(case: Case, work: TileSchedule) -> tuple[TileSchedule, Any]:
    """The schedule and its element mask; where a case prices masks, every tile gets one that hides nothing."""
    if case.pattern == "sliding_window":
        return work, Band(**{"causal": True, **case.params})
    how = case.how.get("mask", "none")
    if how == "none":
        return work, None
    runs = work.runs
    masked = replace(work, runs=type(runs)(runs.row, runs.start, runs.length, np.full_like(runs.kind, Kind.PARTIAL), runs.rows))
    everything = int(case.seq_q or 0) + int(case.seq_kv or 0)
    return masked, Band(window=(everything, everything)) if how == "window" else _all_seen


def _all_seen(q: Any, k: Any) -> Any:
    """Element mask, one bit an element, in which every bit is set."""
    return (q >= 0) & (k >= 0)


def seen_by(case: Case, work: TileSchedule | None, device: str) -> Callable[[int], Any]:
    """Which keys a query row sees, as a bool tensor on the device, or None for all: from the definition, not from the lists."""
    import torch

    seq_q, seq_kv = int(case.seq_q or 0), int(case.seq_kv or 0)
    if case.pattern == "dense":
        return lambda row: None
    if case.pattern in ("causal", "sliding_window"):
        window = int(case.params.get("window", seq_kv))

        def band(row: int) -> Any:
            behind = row + seq_kv - seq_q - torch.arange(seq_kv, device=device)
            return (behind >= 0) & (behind < window)

        return band
    assert work is not None
    indptr, indices = work.to_bsr()
    tiles = work

    def blocks(row: int) -> Any:
        tile = row // tiles.q_tile
        mask = np.zeros(tiles.kv_tiles, bool)
        mask[indices[indptr[tile] : indptr[tile + 1]]] = True
        return torch.from_numpy(np.repeat(mask, tiles.kv_tile)[:seq_kv]).to(device)

    return blocks
