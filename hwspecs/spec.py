"""The description of a GPU: what a spec file may say, in which unit, and what follows from it.

A spec holds physical peaks and limits only. How much of a peak a kernel gets is either an efficiency (`[eff]`, found by a
micro-benchmark) or the business of the simulator. Every leaf has a unit; shipped files also give the
origin of every leaf in `[meta]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ..facts import Provenance, Same, UserError

Clock = Literal["boost", "burst", "sustained"]
Dtype = Literal["bf16", "fp16", "fp8"]


def quantity(unit: str, what: str, *, ge: float | None = None, le: float = 10**12) -> Meta:
    """The unit, meaning and range of one number of a spec; above zero unless `ge` says otherwise."""
    if ge is None:
        return Meta(gt=0, le=le, description=what, extra={"unit": unit})
    return Meta(ge=ge, le=le, description=what, extra={"unit": unit})


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a spec file."""


class Chip(_Table, frozen=True):
    """The whole die (or dies)."""

    sm_count: Annotated[int, quantity("SM", "streaming multiprocessors (compute units on AMD)", le=4096)]
    clock_boost_mhz: Annotated[float, quantity("MHz", "clock behind the stated peak rates", le=10_000)]
    clock_max_mhz: Annotated[float, quantity("MHz", "highest clock: what a short kernel runs at", le=10_000)]
    clock_settle_ms: Annotated[
        float, quantity("ms", "time under load after which the clock falls from the highest one to that which power allows")
    ]
    clock_sustained_mhz: (
        Annotated[
            float,
            quantity("MHz", "tensor-busy clock of long runs: a bf16 GEMM, where known", le=10_000),
        ]
        | None
    ) = None
    dies: Annotated[int, quantity("dies", "compute dies with an L2 of their own", le=16)] = 1


class Sm(_Table, frozen=True):
    """What one SM can hold."""

    schedulers: Annotated[int, quantity("schedulers", "warp schedulers", le=64)]
    regs: Annotated[int, quantity("registers", "32-bit registers")]
    max_threads: Annotated[int, quantity("threads", "resident threads")]
    max_ctas: Annotated[int, quantity("CTAs", "resident CTAs")]
    smem_kib: Annotated[float, quantity("KiB", "shared memory")]
    smem_cta_max_kib: Annotated[float, quantity("KiB", "shared memory that one CTA may ask for")]
    smem_reserved_kib: Annotated[float, quantity("KiB", "shared memory taken by the system for each CTA", ge=0)] = 0
    tmem_kib: Annotated[float, quantity("KiB", "tensor memory", ge=0)] = 0


class Units(_Table, frozen=True):
    """Throughput of the units beside the tensor cores, per clock and SM."""

    fma_lanes: Annotated[float, quantity("FMA/clk/SM", "fp32 fused multiply-adds")]
    alu_lanes: Annotated[float, quantity("op/clk/SM", "min, max, convert, integer and compare operations")]
    ex2: Annotated[float, quantity("op/clk/SM", "exponentials (base 2)")]
    max_lanes: (
        Annotated[float, quantity("op/clk/SM", "values that join a maximum; alu_lanes where an instruction takes one")] | None
    ) = None
    mufu_other: Annotated[float, quantity("op/clk/SM", "other special functions")] | None = None
    cvt_pack: Annotated[float, quantity("inst/clk/SM", "packing of two fp32 to bf16")] | None = None
    smem_bytes: Annotated[float, quantity("B/clk/SM", "shared-memory bandwidth")] = 128
    tmem_read_bytes: Annotated[float, quantity("B/clk/SM", "tensor-memory read bandwidth")] | None = None
    tmem_write_bytes: Annotated[float, quantity("B/clk/SM", "the same, written")] | None = None


class Tensor(_Table, frozen=True):
    """Dense tensor rates (never with structured sparsity), by input and accumulator type."""

    bf16_f32: Annotated[float, quantity("FLOP/clk/SM", "bf16 in, fp32 accumulate")]
    fp16_f32: Annotated[float, quantity("FLOP/clk/SM", "fp16 in, fp32 accumulate")]
    fp16_f16: Annotated[float, quantity("FLOP/clk/SM", "fp16 in, fp16 accumulate")] | None = None
    fp8_f32: Annotated[float, quantity("FLOP/clk/SM", "fp8 in, fp32 accumulate")] | None = None
    tf32_f32: Annotated[float, quantity("FLOP/clk/SM", "tf32 in, fp32 accumulate")] | None = None


class Mma(_Table, frozen=True):
    """The tensor instruction of the architecture."""

    family: Literal["mma_sync", "wgmma", "tcgen05", "mfma"]
    m: Annotated[int, quantity("rows", "rows of one instruction")]
    n_max: Annotated[int, quantity("columns", "columns of one instruction, at most")]
    k_bytes: Annotated[int, quantity("B", "depth of one instruction")]
    latency_base: Annotated[float, quantity("clk", "latency beside the N/2 of the instruction itself", ge=0)] | None = None
    latency_base_a_tmem: Annotated[float, quantity("clk", "the same with the left factor in tensor memory", ge=0)] | None = None
    latency_pair: Annotated[float, quantity("clk", "further latency of an instruction that two CTAs share", ge=0)] | None = None
    latency: Annotated[float, quantity("clk", "latency of one instruction, where it does not depend on N")] | None = None
    depth: Annotated[int, quantity("instructions", "instructions in flight that saturate the unit")] | None = None
    legacy_fraction: Annotated[float, quantity("fraction", "share of the peak that mma.sync reaches", le=1)] = 1.0


class L1(_Table, frozen=True):
    latency: Annotated[float, quantity("clk", "load that hits")]


class Smem(_Table, frozen=True):
    latency: Annotated[float, quantity("clk", "load")]


class L2(_Table, frozen=True):
    """The cache that all SMs of a die share."""

    mib: Annotated[float, quantity("MiB", "size over all dies")]
    bytes_per_clk: Annotated[float, quantity("B/clk", "read bandwidth over all dies, at the SM clock")]
    sm_bytes_per_clk: Annotated[float, quantity("B/clk", "most that one SM reads")]
    partitions: Annotated[int, quantity("partitions", "halves with unequal distance to an SM")] = 1
    latency_near: Annotated[float, quantity("clk", "load that hits the near partition")] | None = None
    latency_far: Annotated[float, quantity("clk", "load that hits the far partition")] | None = None


class Dram(_Table, frozen=True):
    gbps: Annotated[float, quantity("GB/s", "peak bandwidth")]
    latency_ns: Annotated[float, quantity("ns", "load that misses every cache")] | None = None
    capacity_gib: Annotated[float, quantity("GiB", "size, as the vendor names it")] | None = None


class Tma(_Table, frozen=True):
    """The bulk copy engine of an SM."""

    extra_latency: Annotated[float, quantity("clk", "latency beyond that of a plain load", ge=0)] | None = None
    issue_cycles: Annotated[float, quantity("clk", "least distance of two copies of one SM", ge=0)] | None = None
    sm_gbps_max: Annotated[float, quantity("GB/s", "most that one SM draws")] | None = None


class Mem(_Table, frozen=True):
    l2: L2
    dram: Dram
    l1: L1 | None = None
    smem: Smem | None = None
    tma: Tma | None = None


class Launch(_Table, frozen=True):
    """Cost of starting work."""

    kernel_us: Annotated[float, quantity("us", "one kernel after another on a stream")]
    token_cta_us: Annotated[
        float, quantity("us", "a CTA of 512 threads that looks up where a token goes and copies it there, all in L2", le=1e3)
    ]
    graph_node_us: Annotated[float, quantity("us", "one kernel after another in a CUDA graph")] | None = None
    grid_sync_us: Annotated[float, quantity("us", "synchronisation of a whole grid")] | None = None
    atomic_rt_ns: Annotated[float, quantity("ns", "atomic to L2 and back")] | None = None


class HostLink(_Table, frozen=True):
    kind: str
    gbps: Annotated[float, quantity("GB/s", "peak, each way")]
    eff: Annotated[float, quantity("fraction", "share of the peak that a large pinned copy gets", le=1)] | None = None
    latency_us: Annotated[float, quantity("us", "least time of a copy")] | None = None


class PeerLink(_Table, frozen=True):
    kind: str
    gbps: Annotated[float, quantity("GB/s", "peak, each way")]
    eff: Annotated[float, quantity("fraction", "share of the peak that a large copy gets", le=1)] | None = None


class Link(_Table, frozen=True):
    host: HostLink | None = None
    peer: PeerLink | None = None


class Eff(_Table, frozen=True):
    """Achieved share of a peak, as micro-benchmarks found it."""

    dram_read: Annotated[float, quantity("fraction", "streaming read of DRAM", le=1)]
    dram_copy: Annotated[float, quantity("fraction", "streaming read and write of DRAM", le=1)]
    l2: Annotated[float, quantity("fraction", "L2 reads; 1 where its bandwidth is an achieved one", le=1)]
    tensor: Annotated[float, quantity("fraction", "tensor pipe at the clock in use", le=1)] = 1.0


class Power(_Table, frozen=True):
    tdp_w: Annotated[float, quantity("W", "power limit")]
    clock_zeros_mhz: Annotated[float, quantity("MHz", "tensor-busy clock of a GEMM on zeros")] | None = None


class Check(_Table, frozen=True):
    """Stated peaks, to hold the rest of the file against; dense, at the boost clock."""

    bf16_tflops: Annotated[float, quantity("TFLOP/s", "stated dense bf16 peak")] | None = None
    fp8_tflops: Annotated[float, quantity("TFLOP/s", "stated dense fp8 peak")] | None = None
    fp32_tflops: Annotated[float, quantity("TFLOP/s", "stated fp32 peak")] | None = None


class GpuSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU. Read one with `simattn.load_gpu`.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> h100 = gpus.load("h100")
    >>> h100.chip.sm_count, round(h100.tensor_tflops("bf16"))
    (132, 989)
    """

    name: str
    title: str
    vendor: Literal["nvidia", "amd", "research"]
    arch: str
    chip: Chip
    sm: Sm
    units: Units
    tensor: Tensor
    mma: Mma
    mem: Mem
    launch: Launch
    eff: Eff
    link: Link = Link()
    power: Power | None = None
    check: Check = Check()
    meta: dict[str, Provenance] = {}

    def __post_init__(self) -> None:
        for lower, upper in (
            ("chip.clock_boost_mhz", "chip.clock_max_mhz"),
            ("chip.clock_sustained_mhz", "chip.clock_max_mhz"),
            ("sm.smem_cta_max_kib", "sm.smem_kib"),
        ):
            below, above = (getattr(getattr(self, path.split(".")[0]), path.split(".")[1]) for path in (lower, upper))
            if below is not None and below > above:
                raise UserError(f"{lower} ({below:g}) is above {upper} ({above:g})")

    def clock_hz(self, clock: Clock) -> float:
        """Clock in Hz of a regime; `sustained` falls back to the boost clock where no figure is known."""
        chip = self.chip
        mhz = {
            "boost": chip.clock_boost_mhz,
            "burst": chip.clock_max_mhz,
            "sustained": chip.clock_sustained_mhz or chip.clock_boost_mhz,
        }[clock]
        return mhz * 1e6

    def tensor_flops_per_clk(self, dtype: Dtype) -> float:
        """Dense FLOP per clock and SM, fp32 accumulate.

        Raises
        ------
        UserError
            The file gives no rate for `dtype`.
        """
        rate = {"bf16": self.tensor.bf16_f32, "fp16": self.tensor.fp16_f32, "fp8": self.tensor.fp8_f32}[dtype]
        if rate is None:
            raise UserError(f"GPU {self.name} has no {dtype} tensor rate")
        return rate

    def tensor_tflops(self, dtype: Dtype) -> float:
        """Dense peak in TFLOP/s at the boost clock."""
        return self.chip.sm_count * self.tensor_flops_per_clk(dtype) * self.clock_hz("boost") / 1e12

    def dram_bytes_per_s(self) -> float:
        """DRAM bandwidth that a streaming read gets, in B/s."""
        return self.mem.dram.gbps * 1e9 * self.eff.dram_read

    def spec_hash(self) -> str:
        """Twelve hex digits that change with any number of the spec, but not with the wording of its sources."""
        return _hash_of(Same(self))

    def leaves(self) -> Iterator[tuple[str, Any, str]]:
        """(dotted path, value, unit) of every number and word of the spec that is set."""
        for table in ("chip", "sm", "units", "tensor", "mma", "mem", "launch", "link", "eff", "power", "check"):
            yield from _leaves(getattr(self, table), table)


@lru_cache(maxsize=256)
def _hash_of(of: Same[GpuSpec]) -> str:
    numbers = {**msgspec.to_builtins(of.value), "meta": None}
    return sha256(msgspec.json.encode(numbers, order="sorted")).hexdigest()[:12]


def _leaves(table: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    if table is None:
        return
    for field in msgspec.structs.fields(type(table)):
        value, where = getattr(table, field.name), f"{path}.{field.name}"
        if isinstance(value, Struct):
            yield from _leaves(value, where)
        elif value is not None:
            yield where, value, _unit(field.type)


def _unit(annotation: Any) -> str:
    """The unit in an annotation, with or without `| None` around it."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        for meta in getattr(candidate, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.extra:
                return str(meta.extra["unit"])
    return ""
