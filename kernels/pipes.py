"""Which unit of an SM an instruction keeps busy, and for how long on a given GPU.

The table is data (`disassembly.toml`); rates are those of the GPU's spec.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..hwspecs import GpuSpec

WARP = 32
"""Threads of a warp."""


class Pipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Instructions that keep the same unit busy alike.

    Attributes
    ----------
    lanes : str or float
        Results a clock and SM: a number, or the field of the GPU's `[units]` that gives it.
    values : float
        Results that a thread gets from one instruction.
    bytes : float
        Bytes that a thread moves with the narrowest instruction.
    """

    unit: str
    ops: tuple[str, ...]
    lanes: str | float = ""
    values: float = 1.0
    bytes: float = 0.0
    note: str = ""


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: str
    pipes: tuple[Pipe, ...]


@cache
def pipes() -> dict[str, Pipe]:
    """Pipe by name of an instruction without modifiers."""
    text = (Path(__file__).parent / "disassembly.toml").read_text(encoding="utf-8")
    return {op: pipe for pipe in msgspec.convert(tomllib.loads(text), _Table).pipes for op in pipe.ops}


def unit_of(opcode: str) -> str:
    """Unit of an instruction; `uniform` for those of the scalar pipe, `other` for what only takes a turn to issue.

    >>> [unit_of(op) for op in ("HGMMA.64x128x16.F32.BF16", "MUFU.EX2", "LDSM.16.M88.4", "UIADD3", "NOP")]
    ['tensor', 'ex2', 'smem', 'uniform', 'other']
    """
    base = opcode.partition(".")[0]
    pipe = pipes().get(base)
    if pipe:
        return pipe.unit
    return "uniform" if base.startswith("U") and base[1:] and base not in ("UNDEF",) else "other"


def counts(instructions: Mapping[str, float]) -> dict[str, float]:
    """Instructions of each unit.

    >>> counts({"FFMA": 34, "FMUL": 66, "NOP": 3})
    {'fma': 100, 'other': 3}
    """
    total: Counter[str] = Counter()
    for opcode, number in instructions.items():
        total[unit_of(opcode)] += number  # type: ignore[assignment]
    return dict(sorted(total.items()))


def cycles(instructions: Mapping[str, float], spec: GpuSpec) -> dict[str, float]:
    """Cycles that warp instructions of one SM keep each of its units; `issue` for the schedulers.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> cycles({"HMMA.16816.F32.BF16": 1024, "MUFU.EX2": 272}, gpus.load("a100"))
    {'ex2': 544.0, 'issue': 324.0, 'tensor': 2048.0}
    """
    total: Counter[str] = Counter()
    for opcode, number in instructions.items():
        total["issue"] += number / spec.sm.schedulers  # type: ignore[assignment]
        taken = cycles_of(opcode, spec)
        if taken:
            total[unit_of(opcode)] += number * taken  # type: ignore[assignment]
    return {unit: round(float(taken), 3) for unit, taken in sorted(total.items())}


def cycles_of(opcode: str, spec: GpuSpec) -> float:
    """Cycles that one warp instruction keeps its unit, as if the SM had one such unit; 0 where the spec has no rate for it."""
    pipe = pipes().get(opcode.partition(".")[0])
    if pipe is None:
        return 0.0
    if pipe.unit == "tensor":
        flop, dtype = tensor_flop(opcode)
        return flop / _tensor_rate(opcode, dtype, spec)
    if pipe.unit == "smem":
        return pipe.bytes * WARP * _width(opcode) / spec.units.smem_bytes
    if pipe.unit == "tmem":
        units = spec.units
        rate = (units.tmem_write_bytes if opcode.startswith("STTM") else None) or units.tmem_read_bytes
        return pipe.bytes * WARP * _tmem_words(opcode) / rate if rate else 0.0
    if pipe.lanes == "ex2" and not opcode.startswith("MUFU.EX2"):
        return WARP / (spec.units.mufu_other or spec.units.ex2)
    if isinstance(pipe.lanes, str) and not pipe.lanes:
        return 0.0
    lanes = getattr(spec.units, pipe.lanes) if isinstance(pipe.lanes, str) else pipe.lanes
    return WARP * pipe.values / float(lanes)


_MMA_SYNC = {"16816": (16, 8, 16), "1688": (16, 8, 8), "16832": (16, 8, 32), "1684": (16, 8, 4)}
"""Rows, columns and depth of the shapes of mma.sync."""


def tensor_flop(opcode: str) -> tuple[float, str]:
    """FLOP of one warp's instruction, and the type of its factors.

    A warpgroup's instruction counts a quarter for each of its warps; one of tcgen05 is issued by one thread for the CTA.

    >>> tensor_flop("HGMMA.64x128x16.F32.BF16"), tensor_flop("UTCHMMA.128x64x16")
    ((65536.0, 'bf16'), (262144.0, 'bf16'))
    """
    base, *modifiers = opcode.split(".")
    shape = next((tuple(map(int, m.split("x"))) for m in modifiers if re.fullmatch(r"\d+x\d+x\d+", m)), None)
    shape = shape or next((_MMA_SYNC[m] for m in modifiers if m in _MMA_SYNC), None)
    if shape is None:
        raise UserError(f"the shape of {opcode} is neither in its name nor found beside it")
    eight_bit = base in ("QMMA", "QGMMA", "UTCQMMA") or {"E4M3", "E5M2"} & set(modifiers)
    dtype = "fp8" if eight_bit else "tf32" if "TF32" in modifiers else "bf16"
    rows, columns, depth = shape
    # A tcgen05 product of 64 rows leaves half of the tensor core idle, and takes as long as one of 128.
    flop = 2.0 * (max(rows, 128) if base.startswith("UTC") else rows) * columns * depth
    return (flop / 4 if base in ("HGMMA", "QGMMA") else flop), dtype


def _tensor_rate(opcode: str, dtype: str, spec: GpuSpec) -> float:
    """FLOP per clock and SM of a tensor instruction."""
    rate = getattr(spec.tensor, f"{dtype}_f32")
    if rate is None:
        raise UserError(f"GPU {spec.name} has no {dtype} tensor rate, and the code has {opcode}")
    old = opcode.startswith(("HMMA", "QMMA")) and spec.mma.family != "mma_sync"
    return float(rate) * (spec.mma.legacy_fraction if old else 1.0)


def _width(opcode: str) -> int:
    """Words of four bytes that a thread moves to or from shared memory."""
    base, *modifiers = opcode.split(".")
    if base in ("LDSM", "STSM"):
        return next((int(m) for m in reversed(modifiers) if m in ("2", "4")), 1)
    return next((int(m) // 32 for m in modifiers if m in ("64", "128")), 1)


def _tmem_words(opcode: str) -> float:
    """Words that a thread moves to or from tensor memory: LDTM.x32 moves 32, of half of the threads where it names those."""
    times = re.search(r"\.x(\d+)", opcode)
    words = float(times.group(1)) if times else 1.0
    bits = re.search(r"dp(\d+)bit", opcode)
    if "_t0_" in opcode or "_t16_" in opcode:
        return words / 2
    return words * max(1.0, int(bits.group(1)) / 64) if bits else words
