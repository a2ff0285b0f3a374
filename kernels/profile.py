"""KernelProfile: how a published attention kernel does its work, as data.

A profile says which tiles a kernel uses, how its units overlap, when it masks, in which order it launches its CTAs and what
it spends outside the loop. It says nothing about the GPU. Every value has its origin in `[meta]`.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..facts import Provenance, Shelf, UserError
from ..hwspecs import GpuSpec
from ..workloads import Tiling

Size = Annotated[int, Meta(ge=1, le=2**20)]
Cycles = Annotated[float, Meta(ge=0, le=1e7)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[float, Meta(ge=0, le=64)]
"""Operations of one element."""
MaskClass = Literal["dense", "window", "varlen", "box", "blocks", "element"]


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a profile."""


class Tile(_Table, frozen=True):
    """A tile shape and what a CTA of it occupies; a profile lists its shapes in order of preference.

    The first entry that fits head width, architecture, mask class and number of tile axes is used.
    """

    q: tuple[Size, ...]
    kv: tuple[Size, ...]
    head_dim: Size
    """Widest head that it serves."""
    threads: Size
    regs: Annotated[int, Meta(ge=16, le=255)]
    """Registers of a thread (the mean over warp roles)."""
    stages: Annotated[int, Meta(ge=1, le=8)]
    """Copies of K and of V in shared memory."""
    multicast: Size = 1
    """CTAs of a cluster that receive each K and V tile from one read of L2."""
    program: str = ""
    """Loop program, where it is not the profile's."""
    archs: tuple[str, ...] = ()
    """Architectures on which it is used; empty for all of the profile."""
    masks: tuple[MaskClass | Literal["causal"], ...] = ()
    """Mask classes for which it is used (`causal` for dense causal calls); empty for all."""


class Timing(_Table, frozen=True):
    """What the loop program cannot say, in cycles: few and physical, found by `simattn calibrate` where measured runs exist."""

    prologue_cycles: Cycles
    """From the start of a CTA until its loads can be issued, and what its end costs beside the bytes of its output.

    Of a persistent kernel: what the warps with the output take to hand it over."""
    contention: Fraction = 0.0
    """Tensor cycles lost for each cycle of softmax of other warps: both need the register file where accumulators lie in it."""
    lag_cycles: Cycles = 0.0
    """By which the first of several warpgroups in step is ahead of the others."""
    handoff_cycles: Cycles = 0.0
    """From one role's signal to another one's wake-up."""
    iteration_cycles: dict[str, Cycles] = {}
    """Barriers, load waits and drains of one iteration of warps that run in step, by architecture (`other`: the rest)."""
    rows_bytes_per_clk: Annotated[float, Meta(ge=0, le=1024)] = 0.0
    """Bytes a clock at which a CTA gathers Q (but see `tma_packs`) and scatters O; 0 where they move as fast as K and V."""


class Softmax(_Table, frozen=True):
    """Operations of one score."""

    max: Count = 1.0
    """Row maximum."""
    exp: Count = 1.0
    """Exponentials, and what else the unit for them does."""
    scale: Count = 1.0
    """Scale and subtract, on the FMA pipe."""
    sum: Count = 1.0
    """Row sum, on the FMA pipe."""
    convert: Count = 0.5
    """Conversion to the type of V, on the ALU pipe."""
    rescale: Fraction = 1.0
    """Share of the tiles at which the output is rescaled."""
    exp_on_fma: dict[str, Fraction] = {}
    """Share of the exponentials that a polynomial on the FMA pipe computes, by architecture."""
    polynomial_fma: Annotated[float, Meta(ge=0, le=64)] = 8
    """Operations of one such polynomial."""
    dequantize: Count = 0.0
    """Operations that bring one element of the keys to the type of the product, on the ALU pipe."""


class Mask(_Table, frozen=True):
    """When an element mask runs, and what it costs."""

    policy: Literal["partial", "all", "unless_mask_free"]
    """On PARTIAL tiles; on all tiles; on all tiles unless the whole call needs none (NATTEN)."""
    alu: tuple[Count, ...]
    """ALU operations of one score, for masks on one axis, two axes and so on; the last entry serves all further ones."""

    def operations(self, axes: int) -> float:
        """ALU operations of one score, for a mask on so many axes."""
        return self.alu[min(axes, len(self.alu)) - 1] if axes else 0.0


class Launch(_Table, frozen=True):
    """How CTAs get to SMs."""

    order: Literal["ascending", "longest_first"]
    """Within a head: by query position, or (causal) from the last, longest tile."""
    persistent: bool = False
    """A CTA goes on to the next tile by itself: loads run ahead into it, and its output is left to be stored."""
    section_mib: Annotated[float, Meta(ge=0, le=1024)] = 0
    """Heads are launched side by side, tile by tile, a power of two of them whose K and V take at most so many MiB together; 0:
    one head after the other."""
    section_within: Literal["item", "call"] = "item"
    """Whether a section may hold heads of several items of the batch."""
    packs_gqa: Literal["never", "always", "if_fuller"] = "never"
    """Whether the query heads of one K/V head share a tile; `if_fuller`: where tiles are less than 0.9 as full without."""
    tma_packs: tuple[Size, ...] = ()
    """Query heads of a K/V head with which a packed tile of Q is fetched as K and V are; with others it is gathered."""
    split_below: Fraction = 0
    """KV is split over several CTAs when the CTAs fill less than this share of the SMs."""
    split_min_tiles: Size = 4
    """Visits below which KV is never split."""
    split_slack: Annotated[float, Meta(ge=0, le=8)] = 0
    """A part is at least so many times as long as if all visits were spread evenly over the SMs; 0 for no such limit."""


class KernelProfile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel on one family of architectures. Read one with `kernels.load`.

    Examples
    --------
    >>> from simattn.kernels import kernels
    >>> kernels.load("fa3").program
    'wgmma_pingpong'
    """

    name: str
    title: str
    archs: tuple[str, ...]
    masks: tuple[MaskClass, ...]
    """Mask classes that it can run."""
    preference: Annotated[int, Meta(ge=0, le=100)]
    """Among the kernels that can run a mask class on an architecture, the lowest number is the default."""
    dtypes: tuple[Literal["bf16", "fp16", "fp8"], ...]
    tensor_path: Literal["native", "mma_sync"]
    """`mma_sync`: the instruction of older architectures, which reaches only part of the peak of newer ones."""
    tiles: tuple[Tile, ...]
    program: str
    """Loop program: which roles it has, and what they do for a tile."""
    timing: Timing
    softmax: Softmax = Softmax()
    mask: Mask
    launch: Launch
    borrows: bool = True
    """Without a calibration of its own, it takes that of a relative; not where its timing is known from elsewhere."""
    skip: Literal["range", "index_list", "block_mask"]
    """How it finds the tiles to visit."""
    dynamic_kv: bool = False
    """KV tiles start at the first key that a q tile needs."""
    permute_gbps: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Rate of its token-permutation kernels, where it needs them."""
    meta: dict[str, Provenance]

    def tile_for(self, spec: GpuSpec, head_dim: int, mask_class: str, axes: int = 1, *, causal: bool = False) -> Tile:
        """The tile that the kernel uses for a head width and mask class.

        Raises
        ------
        UserError
            No tile of the profile fits.
        """
        dense_causal = causal and mask_class in ("dense", "varlen")
        fitting = [
            tile
            for tile in self._fitting(spec, head_dim)
            if not tile.masks or mask_class in tile.masks or (dense_causal and "causal" in tile.masks)
        ]
        exact = [tile for tile in fitting if len(tile.q) == axes]
        flat = [tile for tile in fitting if len(tile.q) == 1]
        if not exact and not flat:
            widest = max(tile.head_dim for tile in self.tiles)
            raise UserError(f"kernel {self.name} has no tile for head_dim {head_dim} on {spec.arch} (widest: {widest})")
        return (exact or flat)[0]

    def _fitting(self, spec: GpuSpec, head_dim: int) -> list[Tile]:
        """Tiles that serve a head width on a GPU, whatever the mask."""
        return [t for t in self.tiles if head_dim <= t.head_dim and (not t.archs or spec.arch in t.archs)]

    def serves(self, spec: GpuSpec, mask_class: str, dtype: str, head_dim: int) -> bool:
        """Whether the kernel can run such a call on a GPU at all."""
        able = spec.arch in self.archs and mask_class in self.masks and dtype in self.dtypes
        return able and bool(self._fitting(spec, head_dim))

    def tiling(self, tile: Tile, gqa_group: int, queries: int) -> Tiling:
        """The tiling of a tile, with the heads of a GQA group packed if the kernel does so."""
        rows = prod(tile.q)
        fill, packed_fill = (n / (-(-n // rows) * rows) for n in (queries, queries * gqa_group))
        packs = self.launch.packs_gqa == "always" or (self.launch.packs_gqa == "if_fuller" and fill < 0.9 * packed_fill)
        return Tiling(q=tile.q, kv=tile.kv, pack=gqa_group if packs else 1, dynamic_kv=self.dynamic_kv)

    def smem_kib(self, tile: Tile, head_dim: int, head_dim_v: int, element_bytes: int) -> float:
        """Shared memory of a CTA: Q, and `stages` tiles of K and of V."""
        keys = prod(tile.kv) * tile.stages * (head_dim + head_dim_v)
        return (prod(tile.q) * head_dim + keys) * element_bytes / 1024

    def ctas_per_sm(self, spec: GpuSpec, tile: Tile, head_dim: int, head_dim_v: int, element_bytes: int) -> int:
        """CTAs that fit on an SM together, by shared memory, registers and threads.

        Raises
        ------
        UserError
            Not even one fits.
        """
        smem = self.smem_kib(tile, head_dim, head_dim_v, element_bytes)
        if smem > spec.sm.smem_cta_max_kib:
            raise UserError(
                f"kernel {self.name} needs {smem:g} KiB of shared memory for tiles of {prod(tile.q)} x {prod(tile.kv)} with "
                f"head_dim {head_dim}, and a CTA on {spec.name} gets {spec.sm.smem_cta_max_kib:g}"
            )
        limits = (
            spec.sm.smem_kib / (smem + spec.sm.smem_reserved_kib),
            spec.sm.regs / (tile.regs * tile.threads),
            spec.sm.max_threads / tile.threads,
            spec.sm.max_ctas,
        )
        return max(1, int(min(limits)))


kernels: Shelf[KernelProfile] = Shelf(Path(__file__).parent / "profiles", "kernel", KernelProfile)
"""Every kernel profile that ships with the package."""


def candidates(spec: GpuSpec, mask_class: str, dtype: str = "bf16", head_dim: int = 128) -> list[KernelProfile]:
    """Kernels that can run a mask class on a GPU, the default one first.

    Raises
    ------
    UserError
        No profiled kernel can.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> [k.name for k in candidates(gpus.load("h100"), "box")][0]
    'natten_hopper'
    """
    profiles = (kernels.load(name) for name in kernels.names())
    able = [p for p in profiles if p.serves(spec, mask_class, dtype, head_dim)]
    if not able:
        raise UserError(
            f"no profiled kernel runs {mask_class} masks in {dtype} with head_dim {head_dim} on {spec.name} ({spec.arch})"
        )
    return sorted(able, key=lambda p: (p.preference, p.name))
