"""Work: a case made ready on a machine, its inputs in as many copies as it takes to outgrow L2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32

from .case import Case
from .check import Checked
from .machine import Machine
from .timer import Call

MOST_COPIES = 16
"""Copies of the inputs at most; where they do not fill L2 twice, a buffer is overwritten between calls instead."""


class UnavailableError(Exception):
    """What the case needs is not here: a package, a kernel for the architecture, a GPU. Not stored, so tried again."""


class Work(NamedTuple):
    """A case that is ready to run."""

    calls: Sequence[Call]
    """The call on each copy of the inputs."""
    check: Callable[[], Checked | None]
    """Holds a result against float64; None where there is no result to hold."""
    bytes_each: int = 0
    """Bytes of one copy of what a call reads and writes."""
    ops: int = 1
    """Operations on the device that a call queues."""
    per: int = 1
    """How often what is asked for happens in a call: its time is divided by this."""
    fields: Mapping[str, Any] = MappingProxyType({})
    """Further fields of the row."""


def copies_of(bytes_each: int, machine: Machine, case: Case) -> int:
    """Copies of the inputs so that together they outgrow L2 twice, as far as `MOST_COPIES`; one where L2 shall be warm."""
    if case.l2 == "warm" or machine.interpreted:
        return 1
    # Two at least: with one, the end of a large input is still in L2 when the call begins anew.
    return min(max(2, -(-2 * machine.l2_bytes // max(bytes_each, 1))), MOST_COPIES)


def needs_flush(work: Work, machine: Machine, case: Case) -> bool:
    """Whether L2 has to be overwritten between calls, because the copies do not do it."""
    return case.l2 == "flushed" and not machine.interpreted and len(work.calls) * work.bytes_each < 2 * machine.l2_bytes


def generator(case: Case, machine: Machine, copy: int) -> Any:
    """Random numbers that depend on the case and the copy alone."""
    import torch

    return torch.Generator(machine.device).manual_seed(crc32(case.key.encode()) + copy)


def dtype_of(case: Case) -> Any:
    """The torch type of a case."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[case.dtype]


def normal(shape: Sequence[int], case: Case, machine: Machine, source: Any) -> Any:
    """Normally distributed values: zeros would draw less power and so run at a higher clock."""
    import torch

    return torch.randn(tuple(shape), generator=source, device=machine.device, dtype=dtype_of(case))
