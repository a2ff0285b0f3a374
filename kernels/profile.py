"""KernelProfile: how a published attention kernel does its work, as data.

A profile says which tiles a kernel uses, how its units overlap, when it masks, in which order it launches its CTAs and what
it spends outside the loop. It says nothing about the GPU. Every value has its origin in `[meta]`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from ..facts import Provenance, Same, Shelf, UserError
from ..hwspecs import GpuSpec
from ..workloads import AttentionProblem, Tiling
from ..workloads.problem import BYTES

Size = Annotated[int, Meta(ge=1, le=2**20)]
Cycles = Annotated[float, Meta(ge=0, le=1e7)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[float, Meta(ge=0, le=64)]
"""Operations of one element."""
MaskClass = Literal[
    "dense", "window", "varlen", "box", "blocks", "element",
    "gather", "token_gather", "tokens", "kv_major", "pages", "qk_only", "linear", "linear_chain", "small", "unstructured",
]  # fmt: skip
Shape = tuple[tuple[Size, ...], tuple[Size, ...]]
"""Shapes of a q tile and of a kv tile."""
Phase = Literal["prefill", "decode", "diffusion", "backward"]
FORWARD = ("prefill", "diffusion")
"""Phases that one and the same kernel serves: whole sequences of queries."""


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
    rows: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """Most rows of one K/V head (queries times heads that share it) for which it is used; 0 for any number."""
    columns: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Columns of the output that a CTA computes, of kernels that share them out; 0 for all."""
    smem_kib: Annotated[float, Meta(ge=0, le=1024)] = 0
    """Shared memory of a CTA where it is not Q and `stages` tiles of K and of V; 0 where it is."""
    shapes: tuple[Shape, ...] = ()
    """Boxes of as many queries and keys that can be asked for in its place."""

    @property
    def offered(self) -> tuple[Shape, ...]:
        """Every shape of this tile, its own first."""
        return ((self.q, self.kv), *self.shapes)


class Timing(_Table, frozen=True):
    """What the loop program cannot say, in cycles: few and physical, found by `simattn calibrate` where measured runs exist."""

    prologue_cycles: Cycles
    """From the start of a CTA until its loads can be issued, and what its end costs beside the bytes of its output.

    Of a persistent kernel: what the warps with the output take to hand it over."""
    contention: Fraction = 0.0
    """Tensor cycles lost for each cycle of softmax of other warps: both need the register file where accumulators lie in it.

    On tensor cores slower than the first with the instruction, which move as many registers in more time, a share of it."""
    lag_cycles: Cycles = 0.0
    """By which the first of several warpgroups in step is ahead of the others."""
    handoff_cycles: Cycles = 0.0
    """From one role's signal to another one's wake-up."""
    iteration_cycles: dict[str, Cycles] = {}
    """Barriers, load waits and drains of one iteration of warps that run in step, by architecture (`other`: the rest)."""
    page_cycles: Cycles = 0.0
    """Of an iteration over paged keys: warps look up where these lie."""
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
    every: dict[MaskClass, Count] = {}
    """Mask classes of which every tile is masked, whatever the policy, with the ALU operations of one score."""
    last_visit: bool = False
    """Where the policy is "partial": also on the visit with a CTA's last keys, whole or not."""

    def operations(self, axes: int) -> float:
        """ALU operations of one score, for a mask on so many axes."""
        return self.alu[min(axes, len(self.alu)) - 1] if axes else 0.0


class Launch(_Table, frozen=True):
    """How CTAs get to SMs."""

    order: Literal["ascending", "longest_first", "by_visits"]
    """Within a head: by query position, or (causal) from the last, longest tile. `by_visits`: over all heads that have a schedule
    in common, the most visits first, as a kernel would whose CTAs come from a sorted list."""
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
    search_items: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """Items of a batch that a CTA looks at together to find the one that its next tile belongs to, on from the last one; 0: it
    need not look."""
    search_cycles: Cycles = 0.0
    """Of one such look, beside the wait for L2. The first look of a tile is part of its prologue."""
    packs_by_copy: bool = False
    """Q is copied so that these heads lie side by side, and O back; with one sequence or one K/V head O alone is copied."""


class Split(_Table, frozen=True):
    """How the keys of a row are divided among CTAs, and their results put together."""

    rule: Literal["fill", "floor", "even"]
    """`fill` (FlashAttention): the fewest parts whose last wave is filled to 85 % of the best. `floor` (trtllm-gen): as many as
    fit on the SMs beside each other. `even` (FlashMLA): all tiles of all rows are dealt to the SMs in equal shares, and rows are
    cut where a share ends."""
    below: Fraction = 1.0
    """`fill`: nothing is divided where CTAs fill this share of the SMs without."""
    slots: Size = 1
    """CTAs of an SM that the rule reckons with."""
    min_tiles: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """`fill`: visits up to which a row is never divided."""
    part_tiles: Size = 1
    """Fewest visits of a part."""
    slack: Annotated[float, Meta(ge=0, le=8)] = 0
    """`fill`: a part is at least so many times as long as if all visits were spread evenly over the SMs; 0 for no such limit."""
    per_item: bool = False
    """`fill`: the CTAs of one item of the batch are counted, not those of all (`slack` then bounds the parts)."""
    packed_only: bool = False
    """Only where heads share a tile."""
    only_shorter: bool = False
    """`fill`: numbers of parts that make them no shorter than one part fewer does are passed over."""
    captured_parts: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """`fill`: most parts of a row in a call that is captured in a graph. Room for them is set aside beforehand, so their number
    does not follow from the CTAs, and the merging kernel runs even if nothing is divided; 0: such calls are as others."""
    captured_tokens: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """Most new tokens of a batch whose call is captured like that."""
    overhead_tiles: Annotated[int, Meta(ge=0, le=64)] = 0
    """`even`: visits that starting on a row counts as."""
    merge: Literal["kernel", "last_cta"] = "kernel"
    """Partial results are merged by a kernel of its own, or by the CTA of a row that is done last."""
    merge_search_items: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """Items of a batch that a CTA of the merging kernel looks at together to find its own, from the first on; 0: it knows it."""
    merge_ahead: Size = 1
    """Parts of a row that the merging kernel has on their way at a time: it waits for memory once for so many."""


class Look(_Table, frozen=True):
    """What it costs a kernel to look at a tile that it then passes over."""

    cycles: Cycles = 0.0
    """That the warps which wait for it spend."""
    mask_bytes: Annotated[float, Meta(ge=0, le=8)] = 0.0
    """Bytes of a mask that are read for each score of the tile, of tiles that are computed too."""


SCANNING = ("byte_mask", "bitmap", "dense_mask")
"""Mechanisms by which every tile is looked at."""


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
    tensor_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the 16-bit tensor rate that its products have, where they are of a wider type (0.5 of tf32)."""
    tiles: tuple[Tile, ...]
    program: str
    """Loop program: which roles it has, and what they do for a tile."""
    wide_program: str = ""
    """That of tiles with fewer keys than the output has columns, where it is another one."""
    timing: Timing
    softmax: Softmax = Softmax()
    mask: Mask
    launch: Launch
    split: Split | None = None
    """None where the keys of a row are never divided."""
    phases: tuple[Phase, ...] = ("prefill", "diffusion")
    """What it is used for."""
    variants: dict[str, str] = {}
    """The profiles that stand in for it: by phase (`decode`, `backward`), by phase and mask class (`decode_window`), or `fp8`."""
    major: Literal["q", "kv"] = "q"
    """Axis of the tiles that its CTAs own."""
    chained: bool = False
    """A CTA goes through the sequence, and a visit brings queries and takes outputs as well as keys."""
    latent: bool = False
    """V is a part of K (multi-head latent attention): what is fetched as K serves for both."""
    borrows: bool = True
    """Without a calibration of its own, it takes that of a relative; not where its timing is known from elsewhere."""
    skip: Literal["range", "index_list", "byte_mask", "bitmap", "dense_mask"]
    """How it finds the tiles to visit: loop bounds and index lists lead from one to the next, masks are read for every tile."""
    look: Look = Look()
    mask_block: Annotated[int, Meta(ge=0, le=2**20)] = 0
    """Tokens along each side of the blocks that its list names, where these are not its tiles."""
    products: Literal["bf16", "fp16"] | None = None
    """Type of the products, where keys are kept in another and converted."""
    scores: Literal["int8"] | None = None
    """Type in which Q and K are multiplied, where it is not that of P and V."""
    dynamic_kv: bool = False
    """KV tiles start at the first key that a q tile needs."""
    permute_gbps: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Rate of its token-permutation kernels, where it needs them."""
    meta: dict[str, Provenance]

    def tile_for(
        self, spec: GpuSpec, head_dim: int, mask_class: str, axes: int = 1, *, causal: bool = False, rows: int = 0
    ) -> Tile:
        """The tile that the kernel uses for a head width, a mask class and `rows` of one K/V head (0: very many).

        Raises
        ------
        UserError
            No tile of the profile fits.
        """
        dense_causal = causal and mask_class in ("dense", "varlen")
        fitting = [
            tile
            for tile in self._fitting(spec, head_dim)
            if (not tile.masks or mask_class in tile.masks or (dense_causal and "causal" in tile.masks))
            and (not tile.rows or 0 < rows <= tile.rows)
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

    def shapes(self, spec: GpuSpec, head_dim: int, axes: int) -> list[Shape]:
        """Shapes that can be asked for on a GPU, of tiles made for the narrowest heads that hold `head_dim`.

        Where a kernel has no tiles of so many axes, these are its flat ones.

        >>> from simattn.hwspecs import gpus
        >>> kernels.load("natten_blackwell").shapes(gpus.load("b200"), 128, axes=2)[:2]
        [((16, 16), (16, 8)), ((16, 16), (8, 16))]
        """
        fitting = self._fitting(spec, head_dim)
        exact = [t for t in fitting if len(t.q) == axes] or [t for t in fitting if len(t.q) == 1]
        narrowest = min((t.head_dim for t in exact), default=0)
        return list(dict.fromkeys(shape for t in exact if t.head_dim == narrowest for shape in t.offered))

    def tile_of(self, spec: GpuSpec, head_dim: int, shape: Shape) -> Tile | None:
        """The tile that has a shape among its own, or None."""
        return next((tile for tile in self._fitting(spec, head_dim) if shape in tile.offered), None)

    def serves(self, spec: GpuSpec, mask_class: str, dtype: str, head_dim: int, phase: str = "prefill") -> bool:
        """Whether the kernel can run such a call on a GPU at all."""
        able = spec.arch in self.archs and mask_class in self.masks and dtype in self.dtypes and phase in self.phases
        fitting = self._fitting(spec, head_dim)
        return able and bool(fitting) and (not self.latent or head_dim == fitting[0].head_dim)

    def variant(self, phase: str, mask_class: str, dtype: str) -> KernelProfile:
        """The profile that stands in for this one in a phase, for a mask class and type; itself where none does.

        >>> kernels.load("fa3").variant("decode", "dense", "bf16").name
        'fa3_decode'
        """
        wanted = [] if phase in self.phases else [f"{phase}_{mask_class}", phase]
        wanted += [] if dtype in self.dtypes else [f"{phase}_{dtype}", *([dtype] if phase in FORWARD else [])]
        found = next((self.variants[name] for name in wanted if name in self.variants), None)
        return self if found is None else kernels.load(found).variant(phase, mask_class, dtype)

    def under(self, mask_class: str) -> KernelProfile:
        """The profile with its masks as they are under a mask class.

        >>> fa2 = kernels.load("fa2")
        >>> [fa2.under(masks).mask.policy for masks in ("dense", "window")]
        ['partial', 'all']
        """
        return _under(Same(self), mask_class)

    def program_of(self, tile: Tile, head_dim_v: int) -> str:
        """Loop program of a tile.

        >>> ampere = kernels.load("natten_ampere")
        >>> [ampere.program_of(tile, 128) for tile in ampere.tiles if len(tile.q) == 1]
        ['mma_sync_sums', 'mma_sync_cold', 'mma_sync_cold']
        """
        wide = self.wide_program if prod(tile.kv) < head_dim_v else ""
        return tile.program or wide or self.program

    def tiling(self, tile: Tile, gqa_group: int, queries: int) -> Tiling:
        """The tiling of a tile, with the heads of a GQA group packed if the kernel does so."""
        rows = prod(tile.q)
        fill, packed_fill = (n / (-(-n // rows) * rows) for n in (queries, queries * gqa_group))
        packs = self.launch.packs_gqa == "always" or (self.launch.packs_gqa == "if_fuller" and fill < 0.9 * packed_fill)
        return Tiling(
            q=tile.q,
            kv=tile.kv,
            pack=gqa_group if packs else 1,
            dynamic_kv=self.dynamic_kv,
            major=self.major,
            block=self.mask_block,
        )

    def element_bytes(self, problem: AttentionProblem) -> int:
        """Bytes of one element as it is multiplied."""
        return BYTES[self.products or problem.dtype]

    def token_bytes(self, problem: AttentionProblem) -> int:
        """Bytes that visits bring of one token and K/V head, as they are kept; of FlashMLA's fp8 cache with its scales."""
        d, dv, element = problem.head_dim, problem.head_dim_v, self.element_bytes(problem)
        if not self.latent:
            return (d + dv) * element * (2 if self.chained else 1)
        return dv + dv // 128 * 4 + (d - dv) * element if self.softmax.dequantize else d * element

    def smem_kib(self, tile: Tile, head_dim: int, head_dim_v: int, element_bytes: int) -> float:
        """Shared memory of a CTA: Q, and `stages` tiles of K and of V, where the tile does not say otherwise."""
        if tile.smem_kib:
            return tile.smem_kib
        keys = prod(tile.kv) * tile.stages * (head_dim + (0 if self.latent else head_dim_v))
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


@lru_cache(maxsize=256)
def _under(of: Same[KernelProfile], mask_class: str) -> KernelProfile:
    profile = of.value
    alu = tuple(operations for name, operations in profile.mask.every.items() if name == mask_class)
    return structs.replace(profile, mask=Mask(policy="all", alu=alu)) if alu else profile


kernels: Shelf[KernelProfile] = Shelf(Path(__file__).parent / "profiles", "kernel", KernelProfile)
"""Every kernel profile that ships with the package."""


def candidates(
    spec: GpuSpec, mask_class: str, dtype: str = "bf16", head_dim: int = 128, phase: str = "prefill"
) -> list[KernelProfile]:
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
    able = _able(Same(spec), mask_class, dtype, head_dim, phase)
    if not able:
        wanted = f"{mask_class} masks{'' if phase in FORWARD else f' of phase {phase}'} in {dtype} with head_dim {head_dim}"
        raise UserError(f"no profiled kernel runs {wanted} on {spec.name} ({spec.arch})")
    return list(able)


@lru_cache(maxsize=1024)
def _able(spec: Same[GpuSpec], mask_class: str, dtype: str, head_dim: int, phase: str) -> tuple[KernelProfile, ...]:
    """The shipped kernels that can run such a call, the default one first."""
    profiles = (kernels.load(name) for name in kernels.names())
    able = (p for p in profiles if p.serves(spec.value, mask_class, dtype, head_dim, phase))
    return tuple(sorted(able, key=lambda p: (p.preference, p.name)))
