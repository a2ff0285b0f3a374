"""Tensor instructions: how often one can start, and how long its result takes, by instruction family."""

from __future__ import annotations

from math import ceil
from typing import Literal, NamedTuple

from ..hwspecs import GpuSpec

Operand = Literal["smem", "registers", "tmem"]
"""Where the left factor of a matrix product lies; the right one always lies in shared memory."""


class Matmul(NamedTuple):
    """A chain of tensor instructions that compute one product.

    Attributes
    ----------
    tensor : float
        Cycles that the tensor core is taken.
    smem : float
        Cycles that shared memory is read.
    latency : float
        Cycles from the end of both until the result can be read.
    """

    tensor: float
    smem: float
    latency: float


def instruction_interval(spec: GpuSpec, rows: int, columns: int, left: Operand = "smem", pair: bool = False) -> float:
    """Cycles between two tensor instructions of full depth on one SM.

    Parameters
    ----------
    rows, columns : int
        Rows and columns of the result; of both CTAs together where `pair`.
    left : str
        Where the left factor lies.
    pair : bool
        Two CTAs on two SMs compute one result; each reads its rows of the left factor and half of the right one.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> b200 = gpus.load("b200")
    >>> instruction_interval(b200, 128, 64), instruction_interval(b200, 256, 256, pair=True)
    (48.0, 128.0)
    """
    share = 2 if pair else 1
    depth = spec.mma.k_bytes
    # The depth in elements times their size is the same for every type, and so is the work of an instruction in bf16 terms.
    math = 2.0 * max(rows / share, spec.mma.m) * columns * (depth / 2) / spec.tensor.bf16_f32
    read = depth * (columns / share + (rows / share if left == "smem" else 0))
    return max(math, read / spec.units.smem_bytes)


def instruction_latency(spec: GpuSpec, columns: int, left: Operand = "smem", pair: bool = False) -> float:
    """Cycles from the start of one tensor instruction until its result can be read.

    >>> from simattn.hwspecs import gpus
    >>> [instruction_latency(gpus.load("b200"), 128, left) for left in ("smem", "tmem")]
    [200.0, 168.0]
    >>> instruction_latency(gpus.load("h100"), 256)
    128.0
    """
    mma = spec.mma
    if mma.latency is not None:
        return mma.latency
    base = mma.latency_base or 0.0
    if left == "tmem" and mma.latency_base_a_tmem is not None:
        base = mma.latency_base_a_tmem
    return base + min(columns, mma.n_max) / 2 + (mma.latency_pair or 0.0 if pair else 0.0)


LEGACY_LATENCY = 24.0
"""Cycles of one mma.sync on every GPU that has another tensor instruction: 24.1 on H800 [luo24], 20.8 on B300 [b300cat]."""


def matmul(
    spec: GpuSpec,
    rows: int,
    columns: int,
    depth_bytes: float,
    left: Operand,
    rate: float,
    depth: int,
    readers: int = 1,
    legacy: bool = False,
) -> Matmul:
    """A product of [rows, depth] and [depth, columns].

    Parameters
    ----------
    depth_bytes : float
        Bytes of one row of the left factor.
    rate : float
        FLOP per clock and SM that the kernel's tensor instruction reaches.
    depth : int
        Elements of one row of the left factor.
    readers : int
        Warps that each read the whole right factor from shared memory (`mma.sync`); instructions that read it themselves
        do so once for their rows.
    legacy : bool
        By `mma.sync`, whatever else the GPU has.
    """
    fixed = spec.mma.family in ("wgmma", "tcgen05") and not legacy
    tensor = 2.0 * (max(rows, spec.mma.m) if fixed else rows) * columns * depth / rate
    # Each instruction reads its own factors: the right one once for its rows, the left one once for its columns.
    times = (ceil(rows / spec.mma.m), ceil(columns / spec.mma.n_max)) if fixed else (readers, 1)
    read = depth_bytes * (columns * times[0] + (rows * times[1] if left == "smem" else 0))
    if legacy:
        return Matmul(tensor, read / spec.units.smem_bytes, spec.mma.latency or LEGACY_LATENCY)
    own = 2.0 * max(rows, spec.mma.m) * min(columns, spec.mma.n_max) * (spec.mma.k_bytes / 2) / spec.tensor.bf16_f32
    latency = instruction_latency(spec, columns, left)
    tail = latency if spec.mma.latency is not None else max(latency - own, 0.0)
    return Matmul(tensor, read / spec.units.smem_bytes, tail)
