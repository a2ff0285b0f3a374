"""What runs beside the attention kernels: products, data movement, sorts, and work of the host."""

from __future__ import annotations

from math import ceil, prod

from ..facts import UserError
from ..hwspecs import Clock, GpuSpec
from ..workloads import Gemm, Host, Memory, Sort
from ..workloads import SideOp as Op
from .clock import settled_hz
from .memory import memory_op_seconds
from .prediction import SideOp

TILE = (128, 256)
"""Rows and columns of the result that one SM computes at a time: the usual large tile of cuBLAS and CUTLASS with mma.sync or
wgmma, and an SM's half of a pair's 256 x 256 with tcgen05."""

FILL_BYTES = 256
"""Bytes of depth (of a row of a factor) whose work passes before the first product of a tile: four stages of 64 bytes."""

INT4 = ("sm80", "sm86", "sm89")
"""Architectures whose tensor cores have int4."""

BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "tf32": 4.0, "fp32": 4.0}


def side_op(spec: GpuSpec, op: Op, permute_gbps: float | None, clock: Clock) -> SideOp:
    """One op beside the attention as it appears in an answer; parameters as in `side_seconds`."""
    seconds = side_seconds(spec, op, permute_gbps, clock)
    if isinstance(op, Host):
        return SideOp(op=op.name, latency_ms=seconds * 1e3, launches=0)
    moved = op.bytes * (op.passes if isinstance(op, Sort) else 1.0) / op.every
    flops = op.flops / op.every if isinstance(op, Gemm) else 0.0
    return SideOp(op=op.name, latency_ms=seconds * 1e3, bytes=moved, flops=flops, launches=op.launches)


def side_seconds(spec: GpuSpec, op: Op, permute_gbps: float | None, clock: Clock) -> float:
    """Time of one op beside the attention, launches included, in seconds of one call.

    Parameters
    ----------
    permute_gbps : float or None
        Rate of the attention kernel's own permutation kernels, where its profile gives one.
    clock : str
        Clock regime.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> h100 = gpus.load("h100")
    >>> pool = Memory("mean pool", 2**30, 1)
    >>> round(side_seconds(h100, pool, None, "burst") * 1e3, 2)
    0.36
    """
    if isinstance(op, Gemm):
        seconds = gemm_seconds(spec, op, clock)
    elif isinstance(op, Sort):
        seconds = memory_op_seconds(spec, Memory(op.name, round(op.bytes * op.passes), op.launches), None)
    elif isinstance(op, Host):
        seconds = op.seconds
    else:
        seconds = memory_op_seconds(spec, op, permute_gbps)
    return seconds / op.every


def gemm_seconds(spec: GpuSpec, op: Gemm, clock: Clock) -> float:
    """Time of products on the tensor cores, launches included, in seconds.

    Notes
    -----
    Tiles of the result come in waves over the SMs, so the last wave may be part empty; where the shape is not known it counts as
    full. A tile's result is stored when its product is done, which nothing of the same SM hides. The clock is the one to which
    tensor load settles: a call is one of many, layer after layer.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> cube = Gemm("cube", 2.0 * 8192**3, 2 * 8192**2, 1, "fp16", (8192, 8192, 8192))
    >>> round(gemm_seconds(gpus.load("h800"), cube, "sustained") * 1e3, 1)
    1.4
    """
    rate = flops_per_clk(spec, op.dtype) * spec.eff.tensor
    cycles = op.flops / rate / spec.chip.sm_count
    if op.shape is not None:
        rows, columns, depth = op.shape
        products = op.flops / max(2.0 * rows * columns * depth, 1.0)
        # Few rows are computed in tiles of few rows, sixteen at least.
        tile = (min(TILE[0], 16 * ceil(rows / 16)), TILE[1])
        tiles = ceil(rows / tile[0]) * ceil(columns / tile[1]) * products
        of_tile = 2.0 * prod(tile) * (depth + FILL_BYTES / BYTES[op.dtype]) / rate
        cycles = of_tile * ceil(tiles / op.launches / spec.chip.sm_count) * op.launches
    hz = settled_hz(spec, 1.0) if clock == "sustained" else spec.clock_hz(clock)
    return cycles / hz + memory_op_seconds(spec, Memory(op.name, op.bytes, op.launches), None)


def flops_per_clk(spec: GpuSpec, dtype: str) -> float:
    """Dense FLOP (or integer operations) per clock and SM.

    int8 runs at twice the rate of 16-bit types with 16-bit accumulators on mma.sync, int4 at twice that; newer tensor cores have
    no int4, and take it as int8. fp32 runs on the FMA lanes.

    Raises
    ------
    UserError
        The GPU has no such rate.
    """
    tensor = spec.tensor
    int8 = 2 * (tensor.fp16_f16 or tensor.bf16_f32)
    rates = {
        "bf16": tensor.bf16_f32,
        "fp16": tensor.fp16_f32,
        "fp8": tensor.fp8_f32 or tensor.bf16_f32,
        "int8": int8,
        "int4": 2 * int8 if spec.arch in INT4 else int8,
        "tf32": tensor.tf32_f32,
        "fp32": 2 * spec.units.fma_lanes,
    }
    rate = rates[dtype]
    if not rate:
        raise UserError(f"GPU {spec.name} has no {dtype} rate")
    return float(rate)
